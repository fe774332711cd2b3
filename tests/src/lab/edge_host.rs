//! One edge host: its certificates, its `edge.toml`, and the real daemons under what `edgectl`
//! renders for it.

use super::bounded;
use super::ca::{Authority, Pair, write_private};
use super::metrics::Page;
use super::netns::Netns;
use super::phone::Relay;
use super::plan::{
    ARRAY_AV_INSIDE, BALANCER_INSIDE, BALANCER_OUTSIDE, INTERNET_DNS, Member, NORTHWIND_DOMAIN,
    Site,
};
use super::process::Process;
use anyhow::{Context as _, Result, bail};
use edge_common::ports::Service;
use edge_deploy::apply::Nft;
use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// What an edge host is made from.
#[derive(Debug)]
pub struct Parts<'a> {
    /// Names and addresses.
    pub site: &'static Site,
    /// The other organisation.
    pub partner: &'static Site,
    /// The A/V address that the host itself holds.
    pub av_address: &'a str,
    /// Its IPv6 address for A/V, if it has one.
    pub av_ipv6: Option<&'a str>,
    /// Its IPv6 router outside.
    pub gateway_ipv6: Option<&'a str>,
    /// Who signs what the Internet sees.
    pub public_ca: &'a Authority,
    /// Who signs what the inside sees.
    pub inside_ca: &'a Authority,
}

/// What `edgectl render dns` printed, by side: zone name and records.
#[derive(Clone, Debug, Default)]
pub struct RenderedDns {
    /// For the Internet.
    pub external: Vec<(String, String)>,
    /// For the organisation's own name servers.
    pub internal: Vec<(String, String)>,
}

/// A configured edge host; its daemons run or not.
#[derive(Debug)]
pub struct EdgeHost {
    /// Names and addresses.
    pub site: &'static Site,
    /// Which of its hosts this is.
    pub member: &'static Member,
    /// Its name in logs: `contoso`, or `contoso-edge2` where there are several.
    pub name: String,
    netns: Netns,
    inside: Netns,
    config: PathBuf,
    programs: PathBuf,
    work: PathBuf,
    /// Where system calls are traced to, when they are.
    trace: Option<PathBuf>,
    daemons: BTreeMap<Service, Process>,
}

impl EdgeHost {
    /// Writes certificates, secrets and configuration and has `edgectl check` read them.
    pub fn configure(
        parts: &Parts<'_>,
        netns: &Netns,
        inside: &Netns,
        work: &Path,
    ) -> Result<Self> {
        let mut hosts = Self::configure_all(parts, &[netns], inside, work)?;
        hosts.pop().context("a site has a member")
    }

    /// The same for every member of `parts.site`, each in its own of `hosts`. All read one file, byte for byte; what
    /// each has for itself (certificate inside, `run`, `state`) stands for its programs in the place that the file names.
    pub fn configure_all(
        parts: &Parts<'_>,
        hosts: &[&Netns],
        inside: &Netns,
        work: &Path,
    ) -> Result<Vec<Self>> {
        let directory = work.join(format!("edge-{}", parts.site.name));
        for part in ["secrets", OWN[0], OWN[1]] {
            fs::create_dir_all(directory.join(part))?;
        }
        write_secret(&directory.join("secrets/array.current"))?;
        make_join_key(&directory.join("secrets"))?;
        let files = Files::issue(parts)?;
        let config = directory.join("edge.toml");
        fs::write(&config, toml_text(parts, &files, &directory))?;
        let mut made = Vec::new();
        for (member, netns) in parts.site.members.iter().zip(hosts) {
            let mut host = Self {
                site: parts.site,
                member,
                name: parts.site.name.to_owned(),
                netns: (*netns).clone(),
                inside: inside.clone(),
                config: config.clone(),
                programs: programs()?,
                work: work.to_owned(),
                trace: None,
                daemons: BTreeMap::new(),
            };
            if parts.site.members.len() > 1 {
                host.name = format!("{}-{}", parts.site.name, member.name);
                host.netns = own_places(parts, &files, member, netns, &directory)?;
            }
            host.edgectl(&["check"])?;
            made.push(host);
        }
        Ok(made)
    }

    /// Where the configuration stands, with `run` and `state` beside it.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.config.parent().unwrap_or(&self.work)
    }

    /// Runs `edgectl` on this host and returns what it printed.
    pub fn edgectl(&self, words: &[&str]) -> Result<String> {
        self.edgectl_in(&self.netns, words)
    }

    /// Runs `edgectl` on a server inside, as an administrator would.
    pub fn edgectl_inside(&self, words: &[&str]) -> Result<String> {
        self.edgectl_in(&self.inside, words)
    }

    /// Replaces `old` in the configuration by `new` and has the Access Edge read it again.
    pub fn reconfigure(&mut self, old: &str, new: &str) -> Result<()> {
        let text = fs::read_to_string(&self.config)?;
        if !text.contains(old) {
            bail!("the configuration does not say {old:?}");
        }
        fs::write(&self.config, text.replacen(old, new, 1))?;
        self.edgectl(&["check"])?;
        let in_force = |process: &Process| process.log().matches(IN_FORCE).count();
        let daemon = self.daemon(Service::Access)?;
        let before = in_force(daemon);
        daemon.signal(rustix::process::Signal::HUP)?;
        bounded::until("the new configuration in force", TOOL_LIMIT, || {
            Ok(in_force(daemon) > before)
        })
        .map(drop)
    }

    /// Applies the rendered network settings and the firewall: these and nothing else.
    pub fn apply(&self) -> Result<()> {
        let script = self.edgectl(&["render", "network", "--format", "script"])?;
        let mut shell = self.netns.command("sh");
        shell.args(["-e", "-s"]);
        bounded::run_with_input(&mut shell, script.into_bytes(), TOOL_LIMIT)?
            .success("the rendered network settings")?;
        // The lab makes no users; the daemons run as root, and one user stands for the conference daemon's.
        let user = ["--webconf-user", WEBCONF_USER.0];
        self.edgectl(&[&["apply", "firewall", "--no-confirm"][..], &user].concat())
            .map(drop)
    }

    /// Packets that a rule of the firewall has met.
    pub fn firewall_counter(&self, rule: &str) -> Result<u64> {
        let counters = self.netns.within(|| Nft::default().counters())??;
        let counter = counters.get(rule);
        counter
            .map(|counter| counter.packets)
            .with_context(|| format!("no counter {rule}"))
    }

    /// Starts all three daemons. One that does not start keeps nobody else from starting: what went
    /// wrong is returned.
    pub fn start(&mut self) -> Vec<(Service, anyhow::Error)> {
        let mut failed = Vec::new();
        for service in Service::ALL {
            if let Err(error) = self.start_one(service) {
                failed.push((service, error));
            }
        }
        failed
    }

    /// Starts one daemon and waits until it is ready.
    pub fn start_one(&mut self, service: Service) -> Result<()> {
        let name = format!("{}-{}", service.daemon(), self.name);
        let mut command = self.daemon_command(service);
        command.arg("--config").arg(&self.config);
        command.args(["--node", self.member.name]);
        let mut process = Process::start(&name, &mut command, &self.work)?;
        let what = format!("{name} alive");
        bounded::until(&what, START_LIMIT, || {
            process.still_runs()?;
            Ok(self.answers(service, "/livez"))
        })
        .with_context(|| bounded::tail(process.log().trim(), 1500).to_owned())?;
        self.daemons.insert(service, process);
        Ok(())
    }

    /// Waits until a daemon says that work may be sent to it.
    pub fn wait_ready(&self, service: Service) -> Result<()> {
        let what = format!("{} of {} ready", service.daemon(), self.name);
        bounded::until(&what, START_LIMIT, || Ok(self.answers(service, "/readyz"))).map(drop)
    }

    fn answers(&self, service: Service, path: &str) -> bool {
        let answer = super::metrics::get(&self.inside, self.health(service), path);
        answer.is_ok_and(|(status, _)| status == 200)
    }

    /// Ends one daemon in order: SIGTERM, and the drain that follows. It has to say that all is well.
    pub fn stop_one(&mut self, service: Service) -> Result<()> {
        let Some(mut process) = self.daemons.remove(&service) else {
            return Ok(());
        };
        let status = process.stop(DRAIN_PATIENCE)?;
        if !status.success() {
            bail!("{} ended with {status}", service.daemon());
        }
        Ok(())
    }

    /// Tells a daemon to end in order, and does not wait for it.
    pub fn begin_stop(&mut self, service: Service) -> Result<()> {
        self.daemon(service)?.signal(rustix::process::Signal::TERM)
    }

    /// Waits for the end of a daemon that was told to end.
    pub fn finish_stop(&mut self, service: Service) -> Result<()> {
        let name = service.daemon();
        bounded::until(&format!("{name} ends"), DRAIN_PATIENCE, || {
            Ok(self.daemon(service)?.still_runs().is_err())
        })?;
        self.daemons.remove(&service);
        Ok(())
    }

    /// Whether a daemon says that work may be sent to it.
    #[must_use]
    pub fn is_ready(&self, service: Service) -> bool {
        self.answers(service, "/readyz")
    }

    /// Ends one daemon at once, as a crash would.
    pub fn kill_one(&mut self, service: Service) {
        drop(self.daemons.remove(&service));
    }

    /// Media credentials for a user, as the Director fetches them: a SIP SERVICE over mutual TLS.
    pub fn mras_credentials(&self, user: &str) -> Result<Relay> {
        let label = if self.site.members.len() > 1 {
            "avedge"
        } else {
            "edge"
        };
        let host = self.site.inside_name(label);
        let certs = self.work.join("certs");
        let file = |name: String| certs.join(name).to_string_lossy().into_owned();
        let text = self.edgectl_inside(&[
            "probe",
            "mras",
            "--host",
            &host,
            "--user",
            &format!("sip:{user}"),
            "--certificate",
            &file(format!("director-{}.pem", self.site.name)),
            "--key",
            &file(format!("director-{}.key", self.site.name)),
            "--ca",
            &file(format!("inside-ca-{}.pem", self.site.name)),
            "--location",
            "internet",
            "--json",
        ])?;
        let answer: serde_json::Value = serde_json::from_str(&text)
            .with_context(|| format!("edgectl probe mras printed {text:?}"))?;
        let field = |path: &str| {
            let value = answer.pointer(path).and_then(serde_json::Value::as_str);
            value
                .map(str::to_owned)
                .with_context(|| format!("no {path} in {text}"))
        };
        Ok(Relay {
            host: field("/credentials/0/relays/0/host")?,
            username: field("/credentials/0/username")?,
            password: field("/credentials/0/password")?,
        })
    }

    /// The zones that the Internet and the inside have to be told, as name and records.
    pub fn render_dns(&self) -> Result<RenderedDns> {
        let directory = self.directory().join("dns");
        let place = directory.to_string_lossy().into_owned();
        self.edgectl(&["render", "dns", "--output", &place])?;
        Ok(RenderedDns {
            external: fragments(&directory, "external")?,
            internal: fragments(&directory, "internal")?,
        })
    }

    /// Packets that edge-av relayed in memory between two of its own allocations: of one core, and of
    /// two.
    pub fn hairpins(&self) -> Result<(u64, u64)> {
        let page = self.metrics(Service::Av)?;
        let count = |cores| page.count("edge_av_hairpins_total", &[("cores", cores)]);
        Ok((count("one")?, count("two")?))
    }

    /// From now on daemons start under `strace`, each with its own file in `directory`.
    pub fn trace_into(&mut self, directory: &Path) {
        self.trace = Some(directory.to_owned());
    }

    /// Where system calls are traced to, when they are.
    #[must_use]
    pub fn trace(&self) -> Option<&Path> {
        self.trace.as_deref()
    }

    /// The running daemon, if it runs.
    pub fn daemon(&mut self, service: Service) -> Result<&mut Process> {
        let name = service.daemon();
        let daemon = self.daemons.get_mut(&service);
        daemon.with_context(|| format!("{name} of {} does not run", self.name))
    }

    /// Every daemon that was started still runs.
    pub fn still_runs(&mut self) -> Result<()> {
        self.daemons.values_mut().try_for_each(Process::still_runs)
    }

    /// A daemon's metrics, scraped from the inside.
    pub fn metrics(&self, service: Service) -> Result<Page> {
        Page::scrape(&self.inside, self.health(service))
            .with_context(|| format!("metrics of {} of {}", service.daemon(), self.name))
    }

    /// Where a daemon answers `/livez`, `/readyz` and `/metrics`.
    fn health(&self, service: Service) -> SocketAddr {
        let port = match service {
            Service::Access => 9561,
            Service::Av => 9562,
            Service::Webconf => 9563,
        };
        let unspecified = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        SocketAddr::new(self.member.internal.parse().unwrap_or(unspecified), port)
    }

    fn daemon_command(&self, service: Service) -> Command {
        let program = self.programs.join(service.daemon());
        command(&self.netns, &program, self.trace.as_deref())
    }

    fn edgectl_in(&self, netns: &Netns, words: &[&str]) -> Result<String> {
        let mut command = netns.command(self.programs.join("edgectl"));
        command.arg("--config").arg(&self.config);
        command.args(["--node", self.member.name]).args(words);
        Ok(bounded::run(&mut command, TOOL_LIMIT)?
            .success(&format!("edgectl {} for {}", words.join(" "), self.name))?
            .text())
    }
}

/// `program`, to be started in `netns`; under `strace`, with a file of its own in `trace`, if that is given.
#[must_use]
pub fn command(netns: &Netns, program: &Path, trace: Option<&Path>) -> Command {
    let Some(directory) = trace else {
        return netns.command(program);
    };
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    let mut command = netns.command("strace");
    command
        // Detached, so that the process we hold is the daemon and not its tracer.
        .args(["-D", "-A", "-f", "-qq", "-y", "-s", "256", "-o"])
        .arg(directory.join(format!("{name}.strace")))
        .arg(program);
    command
}

/// The directory of the lab's own program: the daemons are built beside it.
pub fn programs() -> Result<PathBuf> {
    let own = std::env::current_exe().context("cannot find this program's own file")?;
    let mut directory = own.parent().context("a file has a directory")?.to_owned();
    // A test's program stands one deeper than the binaries that cargo builds.
    if directory.ends_with("deps") {
        directory.pop();
    }
    Ok(directory)
}

/// The zone files of one side: `DIRECTORY/SIDE/ZONE.zone`.
fn fragments(directory: &Path, side: &str) -> Result<Vec<(String, String)>> {
    let mut zones = Vec::new();
    let place = directory.join(side);
    for entry in fs::read_dir(&place).with_context(|| format!("no zones in {place:?}"))? {
        let path = entry?.path();
        let Some(name) = path.file_stem() else {
            continue;
        };
        zones.push((
            name.to_string_lossy().into_owned(),
            fs::read_to_string(&path)?,
        ));
    }
    zones.sort();
    Ok(zones)
}

/// Certificates of one edge host.
struct Files {
    internal: Pair,
    access: Pair,
    webconf: Pair,
    av: Pair,
    authentication: Pair,
}

impl Files {
    fn issue(parts: &Parts<'_>) -> Result<Self> {
        let site = parts.site;
        let label = |role: &str| format!("{}-{role}", site.name);
        let public = |role: &str| {
            let name = site.public_name(role);
            parts.public_ca.issue(&label(role), &[&name])
        };
        let first = site.members.first().context("a site has a member")?;
        Ok(Self {
            internal: internal_pair(parts, &label("internal"), first)?,
            access: public("sip")?,
            webconf: public("webconf")?,
            av: public("av")?,
            authentication: parts
                .inside_ca
                .issue(&label("av-authentication"), &[&site.inside_name("av-auth")])?,
        })
    }
}

/// What a member shows inside: the names of the services there, and its own.
fn internal_pair(parts: &Parts<'_>, label: &str, member: &Member) -> Result<Pair> {
    let site = parts.site;
    let mut names = vec![site.inside_name("edge"), site.inside_name(member.name)];
    if site.members.len() > 1 {
        names.push(site.inside_name("avedge"));
    }
    names.push(member.internal.to_owned());
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    parts.inside_ca.issue(label, &names)
}

/// The host on which `run`, `state` and the internal certificate are `member`'s own.
fn own_places(
    parts: &Parts<'_>,
    files: &Files,
    member: &Member,
    netns: &Netns,
    directory: &Path,
) -> Result<Netns> {
    let label = format!("{}-internal-{}", parts.site.name, member.name);
    let pair = internal_pair(parts, &label, member)?;
    let mut host = netns
        .clone()
        .with_own(&pair.chain, &files.internal.chain)
        .with_own(&pair.key, &files.internal.key);
    for part in OWN {
        let own = directory.join(member.name).join(part);
        fs::create_dir_all(&own)?;
        host = host.with_own(&own, &directory.join(part));
    }
    Ok(host)
}

fn write_secret(path: &Path) -> Result<()> {
    use std::fmt::Write as _;
    let mut bytes = [0; 32];
    aws_lc_rs::rand::fill(&mut bytes).context("no randomness")?;
    let mut text = String::new();
    for byte in bytes {
        // Writing to a String cannot fail.
        write!(text, "{byte:02x}").ok();
    }
    write_private(path, &(text + "\n"))
}

/// The pair that signs tokens of joins and lets them in, as an operator makes it.
fn make_join_key(directory: &Path) -> Result<()> {
    let (key, public) = (directory.join("join.key"), directory.join("join.pub"));
    let mut make = Command::new("openssl");
    make.args(["genpkey", "-algorithm", "ed25519", "-out"])
        .arg(&key);
    bounded::run(&mut make, TOOL_LIMIT)?.success("openssl genpkey")?;
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600))?;
    let mut half = Command::new("openssl");
    half.args(["pkey", "-pubout", "-in"])
        .arg(&key)
        .arg("-out")
        .arg(&public);
    bounded::run(&mut half, TOOL_LIMIT)?
        .success("openssl pkey")
        .map(drop)
}

fn toml_text(parts: &Parts<'_>, files: &Files, directory: &Path) -> String {
    let site = parts.site;
    let pair = |pair: &Pair| format!("{{ chain = {:?}, key = {:?} }}", pair.chain, pair.key);
    let public_address = if parts.av_address == site.av {
        String::new()
    } else {
        format!("public_address = \"{}\"\n", site.av)
    };
    let edge = site.inside_name("edge");
    let is_array = site.members.len() > 1;
    let members: Vec<_> = site
        .members
        .iter()
        .map(|member| member_text(parts, member))
        .collect();
    format!(
        r#"# Written by edge-lab for {domain}.
[organization]
sip_domains = [{{ domain = "{domain}", remote_users_here = true }}]
topology = "{topology}"
federation_here = true

{members}
[external]
interface = "ext"
gateway = ["{gateway}"{gateway6}]

[internal]
interface = "int"
gateway = ["{internal_gateway}"]
networks = ["{internal_network}"]
certificates = [{internal_pair}]
ca = {inside_ca:?}
trusted_servers = ["{director}"]
next_hop = "{director}:5061"

[array]
secrets = {{ current = {secret:?} }}
{balancing}
[access]
fqdn = "{sip_name}"
internal_fqdn = "{edge}"
certificates = [{access_pair}]
inside_routes = "{inside_routes}"

[access.hep]
collector = "{director_address}"

[access.federation]
enabled = true
discovery = false
revocation = "off"
trust_roots = {public_ca:?}
partners = [{{ domain = "{partner}" }}, {{ domain = "{northwind}" }}]

[webconf]
fqdn = "{webconf_name}"
certificates = [{webconf_pair}]
agents = ["{mcu}"]
preface_keys = [{join_key:?}]

[av]
fqdn = "{av_name}"
internal_fqdn = "{av_edge}"
certificates = [{av_pair}]
authentication = {{ current = {authentication} }}
{public_address}
[firewall]
management = [{{ side = "internal", from = ["{internal_network}"], tcp = [22] }}]

[dns]
external = ["{internet_dns}"]
internal = ["{internal_dns}"]

[admin]
directory = {run:?}

[state]
directory = {state:?}

[lab]
treat_as_public = ["192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32"]

[runtime]
cores = 2
"#,
        domain = site.domain,
        topology = if is_array { "scaled" } else { "single" },
        members = members.concat(),
        // The Director knows the array's name and no member's: whatever it sends may come to either.
        inside_routes = if is_array { "array" } else { "member" },
        balancing = if is_array {
            balancing(site)
        } else {
            String::new()
        },
        av_edge = if is_array {
            site.inside_name("avedge")
        } else {
            edge.clone()
        },
        gateway6 = more(parts.gateway_ipv6.map(str::to_owned)),
        gateway = site.gateway,
        internal_gateway = site.internal_gateway,
        internal_network = site.internal_network,
        internal_pair = pair(&files.internal),
        inside_ca = parts.inside_ca.file,
        director = site.inside_name("director"),
        director_address = site.director,
        secret = directory.join("secrets/array.current"),
        sip_name = site.public_name("sip"),
        access_pair = pair(&files.access),
        public_ca = parts.public_ca.file,
        partner = parts.partner.domain,
        northwind = NORTHWIND_DOMAIN,
        webconf_name = site.public_name("webconf"),
        webconf_pair = pair(&files.webconf),
        mcu = site.inside_name("mcu1"),
        join_key = directory.join("secrets/join.pub"),
        av_name = site.public_name("av"),
        av_pair = pair(&files.av),
        authentication = pair(&files.authentication),
        internet_dns = INTERNET_DNS,
        internal_dns = site.internal_dns,
        run = directory.join("run"),
        state = directory.join("state"),
    )
}

fn member_text(parts: &Parts<'_>, member: &Member) -> String {
    // Of a single edge the address that it holds itself may be another than the one that the Internet sees.
    let av = if member.av == parts.site.av {
        parts.av_address
    } else {
        member.av
    };
    format!(
        r#"[[members]]
name = "{name}"
id = {id}
external = {{ addresses = ["{access}/24", "{webconf}/24", "{av}/24"{av6_net}], access = ["{access}"], webconf = ["{webconf}"], av = ["{av}"{av6}] }}
internal = {{ addresses = ["{internal}/24"], fqdn = "{fqdn}" }}

"#,
        name = member.name,
        id = member.id,
        access = member.access,
        webconf = member.webconf,
        internal = member.internal,
        fqdn = parts.site.inside_name(member.name),
        av6_net = more(parts.av_ipv6.map(|address| format!("{address}/64"))),
        av6 = more(parts.av_ipv6.map(str::to_owned)),
    )
}

fn balancing(site: &Site) -> String {
    format!(
        r#"vips = {{ external = {{ access = ["{}"], webconf = ["{}"], av = ["{}"] }}, internal = {{ access = ["{}"], av = ["{ARRAY_AV_INSIDE}"] }} }}
balancers = {{ external = ["{BALANCER_OUTSIDE}"], internal = ["{BALANCER_INSIDE}"] }}
drain = {{ timeout = "5 s" }}
"#,
        site.access, site.webconf, site.av, site.internal,
    )
}

/// One more item of a TOML array that is not empty.
fn more(item: Option<String>) -> String {
    item.map_or_else(String::new, |item| format!(", {item:?}"))
}

/// What each member of an array has for itself: sockets and pid files, and what outlives a restart.
const OWN: [&str; 2] = ["run", "state"];
const IN_FORCE: &str = "the new configuration is in force";
const TOOL_LIMIT: Duration = Duration::from_secs(20);
const START_LIMIT: Duration = Duration::from_secs(20);
/// Longer than edge-access takes; allocations and streams may hold the others for minutes.
const DRAIN_PATIENCE: Duration = Duration::from_secs(12);

/// Stands for the user of `edge-webconf`: its name and its number.
pub const WEBCONF_USER: (&str, u32) = ("nobody", 65_534);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::plan::{ARRAY, AV_BEHIND_NAT, CONTOSO, FABRIKAM, ipv6};

    #[test]
    fn the_configurations_of_the_lab_pass_the_check() {
        let work = tempfile::tempdir().expect("directory");
        let ca = Authority::new("ca", work.path()).expect("authority");
        for (site, partner, av_address) in [
            (&CONTOSO, &FABRIKAM, CONTOSO.av),
            (&CONTOSO, &FABRIKAM, AV_BEHIND_NAT),
            (&FABRIKAM, &CONTOSO, FABRIKAM.av),
            (&ARRAY, &FABRIKAM, ARRAY.av),
        ] {
            let ipv6 = (site.access == CONTOSO.access).then_some((ipv6::AV, ipv6::GATEWAY));
            let parts = Parts {
                site,
                partner,
                av_address,
                av_ipv6: ipv6.map(|(av, _)| av),
                gateway_ipv6: ipv6.map(|(_, gateway)| gateway),
                public_ca: &ca,
                inside_ca: &ca,
            };
            let files = Files::issue(&parts).expect("certificates");
            let text = toml_text(&parts, &files, work.path());
            let checked = edge_common::config::check(&text, Some("edge1"));
            let findings: Vec<_> = checked.findings.iter().map(ToString::to_string).collect();
            assert!(
                checked.config.is_some(),
                "{}\n{}",
                text,
                findings.join("\n")
            );
        }
    }
}
