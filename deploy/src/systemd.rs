//! Units for the daemons, the agent and the firewall.
//!
//! All daemons share one list of restrictions; what differs is what a daemon may bind and which keys it has no
//! business to read. The texts for the default configuration stand in `systemd/` and are packaged.
#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use edge_common::config::{CertificateFiles, Config};
use edge_common::ports::{self, Direction, Purpose, Service};

use crate::plan::line;

/// Where things are on the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    /// The directory of the daemons and of edgectl.
    pub binaries: PathBuf,
    /// The configuration.
    pub config: PathBuf,
    /// The agent's own configuration, on a host inside.
    pub agent_config: PathBuf,
}

impl Default for Paths {
    fn default() -> Self {
        Self {
            binaries: "/usr/bin".into(),
            config: "/etc/edge/edge.toml".into(),
            agent_config: "/etc/edge/agent.toml".into(),
        }
    }
}

/// One unit file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    /// Its file name.
    pub name: String,
    /// Its text.
    pub text: String,
}

/// The agent's name: of its unit, its user and its binary.
pub const AGENT: &str = "edge-webconf-agent";

/// The units of every service that is configured, the firewall's, and the agent's, which is for other hosts.
#[must_use]
pub fn units(config: &Config, paths: &Paths) -> Vec<Unit> {
    let mut units: Vec<Unit> = Service::ALL
        .into_iter()
        .filter(|service| is_configured(*service, config))
        .map(|service| daemon(service, config, paths))
        .collect();
    if config.webconf.is_some() {
        units.push(agent(paths));
    }
    units.push(firewall(paths));
    units
}

/// The users that the units name and the group that they share, for sysusers.d.
#[must_use]
pub fn users(config: &Config) -> String {
    let mut text = String::from("# Made by `edgectl render systemd`.\ng edge -\n");
    let services = Service::ALL
        .into_iter()
        .filter(|service| is_configured(*service, config));
    let mut names: Vec<&str> = services.map(Service::daemon).collect();
    if config.webconf.is_some() {
        names.push(AGENT);
    }
    for name in names {
        push(
            &mut text,
            &[
                format!("u {name} - \"Edge Server\" / -"),
                format!("m {name} edge"),
            ],
        );
    }
    text
}

fn daemon(service: Service, config: &Config, paths: &Paths) -> Unit {
    let name = service.daemon();
    let program = paths.binaries.join(name);
    let arguments = format!("--config {}", paths.config.display());
    let mut text = head(description(service), &["edge-firewall.service"]);
    push(
        &mut text,
        &[
            "[Service]".to_owned(),
            "Type=notify".to_owned(),
            format!("User={name}"),
            "Group=edge".to_owned(),
            format!("ExecStart={} {arguments}", program.display()),
            // A file that does not pass never reaches the daemon, and `systemctl reload` says why.
            format!("ExecReload={} {arguments} --check", program.display()),
            "ExecReload=/bin/kill -HUP $MAINPID".to_owned(),
            "WatchdogSec=30".to_owned(),
        ],
    );
    push(&mut text, &directories(name, config));
    let foreign = foreign_keys(service, config, paths);
    if !foreign.is_empty() {
        text.push_str("# Keys of the other services\n");
        for key in &foreign {
            push(
                &mut text,
                &[format!("InaccessiblePaths=-{}", key.display())],
            );
        }
    }
    text.push_str(&restrictions(&Sandbox {
        binds_low_ports: binds_low_ports(service, config),
        descriptors: descriptors(service),
        stop: stop(service),
        confines_itself: service == Service::Webconf,
    }));
    text.push_str(INSTALL);
    Unit {
        name: format!("{name}.service"),
        text,
    }
}

/// systemd makes the daemon's two directories where they are in the usual place; elsewhere the operator has made
/// them, and the unit only lets the daemon write there.
fn directories(name: &str, config: &Config) -> Vec<String> {
    let mut lines = Vec::new();
    if config.admin.directory == Path::new("/run") {
        lines.push(format!("RuntimeDirectory={name}"));
        lines.push("RuntimeDirectoryMode=0750".to_owned());
    } else {
        lines.push(format!(
            "ReadWritePaths={}",
            config.admin.directory.join(name).display()
        ));
    }
    if config.state.directory == Path::new("/var/lib") {
        lines.push(format!("StateDirectory={name}"));
        lines.push("StateDirectoryMode=0700".to_owned());
    } else {
        lines.push(format!(
            "ReadWritePaths={}",
            config.state.directory.join(name).display()
        ));
    }
    lines
}

fn agent(paths: &Paths) -> Unit {
    let program = paths.binaries.join(AGENT);
    let arguments = format!("--config {}", paths.agent_config.display());
    let mut text = head(
        "Agent of the Web Conferencing Edge next to a conference server",
        &[],
    );
    push(
        &mut text,
        &[
            "[Service]".to_owned(),
            "Type=notify".to_owned(),
            format!("User={AGENT}"),
            "Group=edge".to_owned(),
            format!("ExecStart={} {arguments}", program.display()),
            format!("ExecReload={} {arguments} --check", program.display()),
            "ExecReload=/bin/kill -HUP $MAINPID".to_owned(),
            "WatchdogSec=30".to_owned(),
            format!("RuntimeDirectory={AGENT}"),
            "RuntimeDirectoryMode=0750".to_owned(),
            format!("StateDirectory={AGENT}"),
            "StateDirectoryMode=0700".to_owned(),
        ],
    );
    text.push_str(&restrictions(&Sandbox {
        binds_low_ports: false,
        descriptors: descriptors(Service::Webconf),
        stop: AGENT_STOP,
        confines_itself: false,
    }));
    text.push_str(INSTALL);
    Unit {
        name: format!("{AGENT}.service"),
        text,
    }
}

/// Loads the packet filter before any interface is up, and leaves it there when it is stopped: a host that
/// loses its filter by a mistyped command would stand open.
fn firewall(paths: &Paths) -> Unit {
    let program = paths.binaries.join("edgectl");
    let command = format!(
        "{} --config {} apply firewall --no-confirm",
        program.display(),
        paths.config.display()
    );
    let text = format!(
        "# Made by `edgectl render systemd`.\n\
         [Unit]\n\
         Description=Packet filter of the edge host\n\
         DefaultDependencies=no\n\
         Wants=network-pre.target\n\
         Before=network-pre.target shutdown.target\n\
         After=local-fs.target systemd-sysctl.service\n\
         Conflicts=shutdown.target\n\
         \n\
         [Service]\n\
         Type=oneshot\n\
         RemainAfterExit=yes\n\
         ExecStart={command}\n\
         ExecReload={command}\n\
         RuntimeDirectory=edge-firewall\n\
         RuntimeDirectoryMode=0700\n\
         RuntimeDirectoryPreserve=yes\n\
         CapabilityBoundingSet=CAP_NET_ADMIN\n\
         RestrictAddressFamilies=AF_UNIX AF_NETLINK\n\
         SystemCallFilter=@system-service\n\
         SystemCallFilter=~@privileged @resources\n\
         {COMMON}\
         \n\
         [Install]\n\
         WantedBy=sysinit.target\n"
    );
    Unit {
        name: "edge-firewall.service".to_owned(),
        text,
    }
}

fn head(description: &str, after: &[&str]) -> String {
    let mut after_units = vec!["network-online.target"];
    after_units.extend(after);
    let requires = if after.is_empty() {
        String::new()
    } else {
        format!("Requires={}\n", after.join(" "))
    };
    format!(
        "# Made by `edgectl render systemd`.\n[Unit]\nDescription={description}\n\
         Wants=network-online.target\nAfter={}\n{requires}\
         StartLimitIntervalSec=60\nStartLimitBurst=5\n\n",
        after_units.join(" "),
    )
}

/// What differs between the daemons' restrictions.
struct Sandbox {
    binds_low_ports: bool,
    descriptors: u32,
    /// Seconds for a daemon to end; longer than it drains, or systemd cuts what it waits for.
    stop: u32,
    /// It has the kernel forbid it more, once its sockets are open.
    confines_itself: bool,
}

fn restrictions(sandbox: &Sandbox) -> String {
    let capability = if sandbox.binds_low_ports {
        "CAP_NET_BIND_SERVICE"
    } else {
        ""
    };
    let confining = if sandbox.confines_itself {
        format!("SystemCallFilter={}\n", CONFINING_SYSTEM_CALLS.join(" "))
    } else {
        String::new()
    };
    format!(
        "Restart=on-failure\n\
         # A wrong configuration does not become right by trying again\n\
         RestartPreventExitStatus=78\n\
         RestartSec=1\n\
         TimeoutStopSec={}\n\
         LimitNOFILE={}\n\
         LimitCORE=0\n\
         # What the daemon may do\n\
         AmbientCapabilities={capability}\n\
         CapabilityBoundingSet={capability}\n\
         RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX\n\
         SystemCallFilter={}\n\
         SystemCallFilter=~{}\n\
         {confining}\
         {COMMON}",
        sandbox.stop,
        sandbox.descriptors,
        ALLOWED_SYSTEM_CALLS.join(" "),
        FORBIDDEN_SYSTEM_CALLS.join(" "),
    )
}

/// Groups of system calls that a daemon may use, less [`FORBIDDEN_SYSTEM_CALLS`].
pub const ALLOWED_SYSTEM_CALLS: &[&str] = &["@system-service"];

/// Groups of system calls that no daemon needs.
pub const FORBIDDEN_SYSTEM_CALLS: &[&str] = &["@privileged", "@resources"];

/// What the Web Conferencing Edge needs besides, to give up what it has no more use for.
pub const CONFINING_SYSTEM_CALLS: &[&str] = &[
    "landlock_create_ruleset",
    "landlock_add_rule",
    "landlock_restrict_self",
    "seccomp",
];

/// The names of system calls that a daemon's unit allows.
///
/// `expand` gives the members of one group; `systemd-analyze syscall-filter GROUP` is where they come from (see
/// [`crate::apply::system_call_group`]). Members may be groups again.
///
/// # Errors
/// Whatever `expand` answers with.
pub fn allowed_system_calls<E>(
    mut expand: impl FnMut(&str) -> Result<Vec<String>, E>,
) -> Result<BTreeSet<String>, E> {
    let mut allowed = members(ALLOWED_SYSTEM_CALLS, &mut expand)?;
    for call in members(FORBIDDEN_SYSTEM_CALLS, &mut expand)? {
        allowed.remove(&call);
    }
    // systemd always adds these, so that a unit can start at all.
    allowed.extend(members(&["@default"], &mut expand)?);
    Ok(allowed)
}

fn members<E>(
    groups: &[&str],
    expand: &mut impl FnMut(&str) -> Result<Vec<String>, E>,
) -> Result<BTreeSet<String>, E> {
    let mut calls = BTreeSet::new();
    let mut seen = BTreeSet::new();
    let mut waiting: Vec<String> = groups.iter().map(|&group| group.to_owned()).collect();
    while let Some(name) = waiting.pop() {
        if !name.starts_with('@') {
            calls.insert(name);
        } else if seen.insert(name.clone()) {
            waiting.extend(expand(&name)?);
        }
    }
    Ok(calls)
}

/// Sockets: two per relayed conference stream, one per client, one per relay port.
const fn descriptors(service: Service) -> u32 {
    match service {
        Service::Access | Service::Webconf | Service::Av => 524_288,
    }
}

/// What the daemon's drain takes at most, and half a minute: transactions of SIP, calls, conference streams.
const fn stop(service: Service) -> u32 {
    match service {
        // What array.drain allows at most: its notice, and for the Access Edge its timeout.
        Service::Access => 60 + 10 * 60 + 30,
        Service::Av => 5 * 60 + 30,
        Service::Webconf => 60 + 15 * 60 + 30,
    }
}

/// The agent lets its streams run for a minute.
const AGENT_STOP: u32 = 60 + 30;

const fn description(service: Service) -> &'static str {
    match service {
        Service::Access => "Access Edge: SIP for remote users and federation",
        Service::Webconf => "Web Conferencing Edge: conference streams to agents inside",
        Service::Av => "A/V Edge: STUN, TURN and credentials for them",
    }
}

fn is_configured(service: Service, config: &Config) -> bool {
    match service {
        Service::Access => config.access.is_some(),
        Service::Webconf => config.webconf.is_some(),
        Service::Av => config.av.is_some(),
    }
}

fn binds_low_ports(service: Service, config: &Config) -> bool {
    ports::openings(config).iter().any(|open| {
        open.row.service == service
            && open.row.direction == Direction::Listen
            && open.row.purpose != Purpose::Relay
            && open.ports.first() < FIRST_FREE_PORT
    })
}

/// `net.ipv4.ip_unprivileged_port_start`.
const FIRST_FREE_PORT: u16 = 1024;

/// Private keys and secrets that other services use and this one does not.
fn foreign_keys(service: Service, config: &Config, paths: &Paths) -> BTreeSet<PathBuf> {
    let own = keys(service, config);
    let base = paths.config.parent().unwrap_or_else(|| Path::new("/"));
    Service::ALL
        .into_iter()
        .filter(|other| *other != service)
        .flat_map(|other| keys(other, config))
        .filter(|key| !own.contains(key))
        .map(|key| base.join(key))
        .collect()
}

fn keys(service: Service, config: &Config) -> BTreeSet<PathBuf> {
    let mut keys: BTreeSet<PathBuf> = config.internal.certificates.iter().map(key).collect();
    keys.extend(
        [
            Some(&config.array.secrets.current),
            config.array.secrets.next.as_ref(),
            config.array.secrets.previous.as_ref(),
        ]
        .into_iter()
        .flatten()
        .cloned(),
    );
    match service {
        Service::Access => {
            keys.extend(
                config
                    .access
                    .iter()
                    .flat_map(|access| &access.certificates)
                    .map(key),
            );
        }
        Service::Webconf => {
            keys.extend(
                config
                    .webconf
                    .iter()
                    .flat_map(|webconf| &webconf.certificates)
                    .map(key),
            );
        }
        Service::Av => {
            let Some(av) = &config.av else { return keys };
            keys.extend(av.certificates.iter().map(key));
            let pairs = &av.authentication;
            keys.extend(
                [
                    Some(&pairs.current),
                    pairs.next.as_ref(),
                    pairs.previous.as_ref(),
                ]
                .into_iter()
                .flatten()
                .map(key),
            );
            if let Some(secrets) = &av.rest_secrets {
                keys.insert(secrets.current.clone());
                keys.extend(secrets.previous.clone());
            }
        }
    }
    keys
}

fn key(files: &CertificateFiles) -> PathBuf {
    files.key.clone()
}

fn push(out: &mut String, lines: &[String]) {
    for text in lines {
        line(out, format_args!("{text}"));
    }
}

/// Restrictions of every unit.
const COMMON: &str = "\
SystemCallArchitectures=native
SystemCallErrorNumber=EPERM
NoNewPrivileges=yes
SecureBits=noroot-locked
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
PrivateDevices=yes
DevicePolicy=closed
PrivateMounts=yes
PrivateIPC=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectClock=yes
ProtectHostname=yes
ProtectProc=invisible
ProcSubset=pid
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
RemoveIPC=yes
KeyringMode=private
UMask=0077
";

const INSTALL: &str = "\n[Install]\nWantedBy=multi-user.target\n";
