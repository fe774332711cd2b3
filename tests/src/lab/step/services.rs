//! Services whose protocol cannot carry a number, behind the Web Conferencing Edge: HTTPS, SSH and VNC by `edge-join`,
//! with other people's servers and clients; and that the edge itself opens no connection.

use crate::lab::bounded::{self, Finished};
use crate::lab::ca::write_private;
use crate::lab::conference::{self, random_file, sha256};
use crate::lab::edge_host::{WEBCONF_USER, programs};
use crate::lab::plan::{CONTOSO, STRANGER};
use crate::lab::process::Process;
use crate::lab::report::{Report, Seen};
use crate::lab::world::World;
use anyhow::{Context as _, Result, bail, ensure};
use edge_common::ports::Service;
use edge_deploy::systemd::AGENT;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Shows that any TCP service can stand behind the edge.
pub fn show(world: &mut World, report: &mut Report) {
    report.check("4", "the edge may open no connection, TCP or UDP", || {
        never_dials(world)
    });
    let mut stage = match Stage::set(world) {
        Ok(stage) => stage,
        Err(error) => {
            report.check("4", "any TCP service behind the edge", || {
                Err(error.context("not run: a server or the agent did not start"))
            });
            return;
        }
    };
    report.check("4", "HTTPS: curl and nginx by edge-join", || {
        stage.https(world)
    });
    report.check(
        "4",
        "nginx learns the client's address (PROXY v2, TLS)",
        || stage.proxied(world),
    );
    report.check("4", "SSH: OpenSSH both sides by edge-join", || {
        stage.ssh(world)
    });
    report.check("4", "VNC: vncsnapshot and Xtigervnc by edge-join", || {
        stage.vnc(world)
    });
    report.check("4", "a token that was used lets nobody in", || {
        stage.again(world)
    });
    report.check("4", "edgectl lists a session and cuts it", || {
        stage.cut(world)
    });
}

/// The daemon's user is stopped by the firewall, the daemon itself by the kernel before that.
fn never_dials(world: &mut World) -> Result<Seen> {
    let pid = world.contoso.daemon(Service::Webconf)?.id();
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let has = |line: &str| {
        status
            .lines()
            .any(|one| one.split_whitespace().eq(line.split(' ')))
    };
    ensure!(has("Seccomp: 2"), "no seccomp filter on the daemon");
    ensure!(has("NoNewPrivs: 1"), "the daemon may gain privileges");
    let page = world.contoso.metrics(Service::Webconf)?;
    let landlock = page.count("edge_webconf_confined", &[("by", "landlock")])?;

    // The very same confinement in a program that then does what the daemon has no code for.
    let own = std::env::current_exe()?;
    let to = format!("{}:5061", CONTOSO.director);
    let mut confined = world.net.edge_c.command(&own);
    confined.args(["confined-dial", &to]);
    let seen = bounded::run(&mut confined, LIMIT)?
        .success("confined-dial")?
        .text();

    if has_one_user()? {
        return Ok(Seen::text(format!(
            "daemon: seccomp, landlock {landlock}; {}; no second user here to show the firewall with",
            seen.trim()
        )));
    }
    let dial = |user: u32, how: &str| -> Result<bool> {
        let mut command = world.net.edge_c.command("setpriv");
        command.args(["--reuid", &user.to_string(), "--clear-groups"]);
        command.args(["timeout", "3", "bash", "-c"]);
        command.arg(format!("exec 3<>/dev/{how} && echo x >&3"));
        Ok(bounded::run(&mut command, LIMIT)?.status.success())
    };
    let tcp = format!("tcp/{}/5061", CONTOSO.director);
    let udp = format!("udp/{}/53", CONTOSO.internal_dns);
    let before = world.contoso.firewall_counter("webconf/never-dials")?;
    ensure!(
        dial(WEBCONF_USER.1 - 1, &tcp)?,
        "nobody can dial the Director: nothing is shown"
    );
    ensure!(
        !dial(WEBCONF_USER.1, &tcp)?,
        "the daemon's user opened a TCP connection"
    );
    let after_tcp = world.contoso.firewall_counter("webconf/never-dials")?;
    ensure!(
        after_tcp > before,
        "the TCP connection of the daemon's user was not stopped by the firewall"
    );
    ensure!(
        dial(WEBCONF_USER.1 - 1, &udp)?,
        "nobody can send UDP to the DNS server inside: nothing is shown"
    );
    let before_udp = world.contoso.firewall_counter("webconf/never-dials")?;
    // A datagram that the filter drops on its way out is an error of `sendto`, so `echo` fails.
    ensure!(
        !dial(WEBCONF_USER.1, &udp)?,
        "the daemon's user sent a UDP datagram"
    );
    let after_udp = world.contoso.firewall_counter("webconf/never-dials")?;
    ensure!(
        after_udp > before_udp,
        "the firewall did not count the UDP datagram of the daemon's user"
    );
    let dropped = after_udp - before;
    Ok(Seen::text(format!(
        "daemon: seccomp, landlock {landlock}; {}; user {}: {dropped} packets dropped",
        seen.trim(),
        WEBCONF_USER.0
    )))
}

/// In a name space of a user who is not root there is only that user.
fn has_one_user() -> Result<bool> {
    let map = fs::read_to_string("/proc/self/uid_map")?;
    Ok(map.split_whitespace().nth(2) == Some("1"))
}

struct Stage {
    _servers: Vec<Process>,
    agent: Process,
    socket: PathBuf,
    directory: PathBuf,
    file: Vec<u8>,
    key: PathBuf,
    /// Of the last connection.
    token: String,
}

impl Stage {
    fn set(world: &World) -> Result<Self> {
        let directory = world.work.join("services");
        let own = conference::own_directory(&world.work);
        fs::create_dir_all(&own)?;
        fs::create_dir_all(directory.join("www"))?;
        let file = random_file(&directory.join("www/file"), FILE_LEN)?;
        let servers = vec![
            nginx(world, &directory)?,
            sshd(world, &directory)?,
            vnc_server(world, &directory)?,
        ];
        let socket = own.join("services.sock");
        let config = directory.join("agent.toml");
        fs::write(&config, agent_toml(world, &socket)?)?;
        let mut command = world.net.inside_c.command(programs()?.join(AGENT));
        command.arg("--config").arg(&config);
        let mut agent = Process::start("services-agent", &mut command, &world.work)?;
        bounded::until("the agent's socket", LIMIT, || {
            agent.still_runs()?;
            Ok(socket.exists())
        })?;
        Ok(Self {
            _servers: servers,
            agent,
            socket,
            key: directory.join("client"),
            directory,
            file,
            token: String::new(),
        })
    }

    /// A token from the agent, and `edge-join` on the stranger's host that shows it.
    fn join(&mut self, world: &World, service: &str, port: u16) -> Result<Process> {
        let request = format!(
            "{{\"registration\":\"{}\",\"ttl\":\"60 s\"}}",
            name(service)
        );
        let mut answer = Value::Null;
        let mut last = None;
        bounded::until("a token", LIMIT, || {
            self.agent.still_runs()?;
            match conference::post(&self.socket, "/token", &request) {
                Ok(said) => answer = said,
                Err(error) => last = Some(error),
            }
            Ok(answer.get("token").is_some())
        })
        .map_err(|error| last.take().unwrap_or(error))?;
        let token = answer.get("token").and_then(Value::as_str);
        self.token = token.context("no token in the answer")?.to_owned();
        self.join_with(world, port)
    }

    fn join_with(&self, world: &World, port: u16) -> Result<Process> {
        let file = self.directory.join("token");
        write_private(&file, &self.token)?;
        let mut command = world.net.stranger.command(programs()?.join("edge-join"));
        let listen = format!("127.0.0.1:{port}");
        command
            .args([
                "--edge",
                "webconf.contoso.test:443",
                "--address",
                CONTOSO.webconf,
            ])
            .args(["--listen", &listen, "--token-file"])
            .arg(&file)
            .arg("--ca")
            .arg(&world.public_ca.file);
        let mut joining = Process::start("edge-join", &mut command, &world.work)?;
        joining.wait_listening(&world.net.stranger, &[("tcp", &listen)])?;
        Ok(joining)
    }

    fn https(&mut self, world: &World) -> Result<Seen> {
        let _joining = self.join(world, "https", 7001)?;
        let got = self.directory.join("got");
        let done = self.curl(world, 7001, "/file", &got)?;
        done.success("curl")?;
        let arrived = fs::read(&got)?;
        ensure!(
            sha256(&arrived) == sha256(&self.file),
            "another file arrived"
        );
        Ok(Seen::bytes(
            format!(
                "{} bytes, the certificate is the server's own",
                arrived.len()
            ),
            arrived.len() as u64,
        ))
    }

    fn curl(&self, world: &World, port: u16, path: &str, output: &Path) -> Result<Finished> {
        let host = CONTOSO.inside_name("www");
        let mut curl = world.net.stranger.command("curl");
        curl.args([
            "--silent",
            "--show-error",
            "--fail",
            "--max-time",
            "20",
            "--cacert",
        ])
        .arg(&world.inside_ca.file)
        .args(["--resolve", &format!("{host}:{port}:127.0.0.1"), "--output"])
        .arg(output)
        .arg(format!("https://{host}:{port}{path}"));
        bounded::run(&mut curl, LIMIT)
    }

    /// The client speaks plain HTTP here, the agent TLS to nginx, with the header in front.
    fn proxied(&mut self, world: &World) -> Result<Seen> {
        let _joining = self.join(world, "proxied", 7002)?;
        let mut curl = world.net.stranger.command("curl");
        curl.args(["--silent", "--show-error", "--fail", "--max-time", "20"]);
        curl.arg("http://127.0.0.1:7002/who");
        let said = bounded::run(&mut curl, LIMIT)?.success("curl")?.text();
        ensure!(
            said.trim() == STRANGER,
            "nginx says {said:?}, the client is {STRANGER}"
        );
        Ok(Seen::text(format!("nginx: {}", said.trim())))
    }

    fn ssh(&mut self, world: &World) -> Result<Seen> {
        let _joining = self.join(world, "ssh", 7003)?;
        let mut ssh = self.ssh_command(world, 7003);
        ssh.arg("cat");
        let done = bounded::run_with_input(&mut ssh, self.file.clone(), LIMIT)?;
        let done = done.success("ssh")?;
        ensure!(
            sha256(&done.stdout) == sha256(&self.file),
            "not the same came back"
        );
        Ok(Seen::bytes(
            format!("{} bytes there and back, host key checked", self.file.len()),
            2 * self.file.len() as u64,
        ))
    }

    fn ssh_command(&self, world: &World, port: u16) -> Command {
        let mut ssh = world.net.stranger.command("ssh");
        ssh.args([
            "-F",
            "none",
            "-o",
            "BatchMode=yes",
            "-o",
            "HostKeyAlias=service",
        ])
        .args(["-o", "StrictHostKeyChecking=yes", "-o"])
        .arg(format!(
            "UserKnownHostsFile={}",
            self.directory.join("known").display()
        ))
        .arg("-i")
        .arg(&self.key)
        .args(["-p", &port.to_string(), "root@127.0.0.1"]);
        ssh
    }

    fn vnc(&mut self, world: &World) -> Result<Seen> {
        let _joining = self.join(world, "vnc", 5977)?;
        let picture = self.directory.join("screen.jpg");
        let mut snapshot = world.net.stranger.command("vncsnapshot");
        // Nothing is drawn on the screen; in other encodings the client waits for something to change.
        snapshot.args(["-quiet", "-allowblank", "-encodings", "raw", "127.0.0.1:77"]);
        snapshot.arg(&picture);
        bounded::run(&mut snapshot, LIMIT)?.success("vncsnapshot")?;
        let (width, height) = jpeg_size(&fs::read(&picture)?)?;
        ensure!((width, height) == SCREEN, "a picture of {width} × {height}");
        Ok(Seen::text(format!("a screen of {width} × {height}")))
    }

    fn again(&mut self, world: &World) -> Result<Seen> {
        let page = |world: &World| world.contoso.metrics(Service::Webconf);
        let name = "edge_webconf_clients_refused_total";
        let used = [("status", "token_used")];
        let before = page(world)?.count(name, &used).unwrap_or(0);
        let _joining = self.join_with(world, 7005)?;
        let done = self.curl(world, 7005, "/file", &self.directory.join("again"))?;
        ensure!(
            !done.status.success(),
            "the used token let a second client in"
        );
        bounded::until("the refusal in the metrics", LIMIT, || {
            Ok(page(world)?.count(name, &used).unwrap_or(0) == before + 1)
        })?;
        Ok(Seen::text(
            "curl ends without a byte; counted as token_used",
        ))
    }

    fn cut(&mut self, world: &World) -> Result<Seen> {
        let _joining = self.join(world, "ssh", 7006)?;
        let mut ssh = self.ssh_command(world, 7006);
        ssh.args(["sleep", "60"]);
        let mut session = Process::start("ssh", &mut ssh, &self.directory)?;
        let list = || -> Result<Value> {
            let text = world.contoso.edgectl(&["webconf", "sessions", "--json"])?;
            Ok(serde_json::from_str(&text)?)
        };
        let mut id = None;
        bounded::until("the session in the list", LIMIT, || {
            let listed = list()?;
            let row = listed.pointer("/rows/0");
            let is_ssh = row.and_then(|row| row["registration"].as_str()) == Some(&name("ssh"));
            id = row
                .filter(|_| is_ssh)
                .and_then(|row| row["dial_id"].as_u64());
            Ok(id.is_some())
        })?;
        let id = id.context("no id")?.to_string();
        let agents = world.contoso.edgectl(&["webconf", "agents"])?;
        ensure!(
            agents.contains(&CONTOSO.inside_name("mcu1")),
            "no agent in {agents}"
        );
        let digits: String = world
            .contoso
            .edgectl(&["webconf", "admissions", "--json"])?;
        ensure!(!digits.contains(&self.token), "the list tells the token");
        world
            .contoso
            .edgectl(&["webconf", "sessions", "--cut", &id])?;
        bounded::until("the end of ssh", LIMIT, || {
            Ok(session.still_runs().is_err())
        })?;
        ensure!(
            list()?["total"].as_u64() == Some(0),
            "the session is still listed"
        );
        Ok(Seen::text(format!("session {id} listed, cut, gone")))
    }
}

fn nginx(world: &World, directory: &Path) -> Result<Process> {
    let pair = world
        .inside_ca
        .issue("www", &[&CONTOSO.inside_name("www")])?;
    let at = CONTOSO.conference;
    let tls = format!(
        "ssl_certificate {}; ssl_certificate_key {};",
        pair.chain.display(),
        pair.key.display()
    );
    let place = directory.display();
    let config = format!(
        "daemon off; master_process off; pid {place}/nginx.pid; error_log stderr;\n\
         events {{ worker_connections 64; }}\n\
         http {{\n access_log off; client_body_temp_path {place}/b; proxy_temp_path {place}/p;\n \
         fastcgi_temp_path {place}/f; uwsgi_temp_path {place}/u; scgi_temp_path {place}/s;\n \
         server {{ listen {at}:8443 ssl; {tls} root {place}/www; }}\n \
         server {{ listen {at}:8444 ssl proxy_protocol; {tls}\n  \
         location /who {{ return 200 \"$proxy_protocol_addr\\n\"; }} }}\n}}\n"
    );
    let file = directory.join("nginx.conf");
    fs::write(&file, config)?;
    let mut command = world.net.inside_c.command("nginx");
    command.arg("-c").arg(&file).arg("-p").arg(directory);
    let mut nginx = Process::start("nginx", &mut command, directory)?;
    let (plain, proxied) = (format!("{at}:8443"), format!("{at}:8444"));
    nginx.wait_listening(&world.net.inside_c, &[("tcp", &plain), ("tcp", &proxied)])?;
    Ok(nginx)
}

fn sshd(world: &World, directory: &Path) -> Result<Process> {
    for label in ["host", "client"] {
        let mut keygen = Command::new("ssh-keygen");
        keygen
            .args(["-q", "-t", "ed25519", "-N", "", "-f"])
            .arg(directory.join(label));
        bounded::run(&mut keygen, LIMIT)?.success("ssh-keygen")?;
    }
    let host = fs::read_to_string(directory.join("host.pub"))?;
    fs::write(directory.join("known"), format!("service {host}"))?;
    // Where sshd, which starts as root, puts the half of it that speaks to strangers.
    fs::create_dir_all("/run/sshd")?;
    let place = directory.display();
    let at = CONTOSO.conference;
    let file = directory.join("sshd_config");
    fs::write(
        &file,
        format!(
            "ListenAddress {at}:2222\nHostKey {place}/host\nAuthorizedKeysFile {place}/client.pub\n\
             PermitRootLogin prohibit-password\nStrictModes no\nUsePAM no\nPidFile none\n\
             PasswordAuthentication no\nUseDNS no\n"
        ),
    )?;
    let mut command = world.net.inside_c.command("/usr/sbin/sshd");
    command.args(["-D", "-e", "-f"]).arg(&file);
    let mut sshd = Process::start("sshd", &mut command, directory)?;
    sshd.wait_listening(&world.net.inside_c, &[("tcp", &format!("{at}:2222"))])?;
    Ok(sshd)
}

fn vnc_server(world: &World, directory: &Path) -> Result<Process> {
    let (width, height) = SCREEN;
    let at = CONTOSO.conference;
    let mut command = world.net.inside_c.command("Xtigervnc");
    command
        .args([
            ":77",
            "-rfbport",
            "5977",
            "-interface",
            at,
            "-SecurityTypes",
            "None",
        ])
        .args([
            "-geometry",
            &format!("{width}x{height}"),
            "-depth",
            "24",
            "-nolisten",
            "unix",
        ])
        .env("HOME", directory);
    let mut server = Process::start("Xtigervnc", &mut command, directory)?;
    server.wait_listening(&world.net.inside_c, &[("tcp", &format!("{at}:5977"))])?;
    Ok(server)
}

fn agent_toml(world: &World, socket: &Path) -> Result<String> {
    let fqdn = CONTOSO.inside_name("mcu1");
    let pair = world.inside_ca.issue("services", &[&fqdn])?;
    let (edge, clients) = (CONTOSO.inside_name("edge1"), CONTOSO.public_name("webconf"));
    let (at, ca) = (CONTOSO.conference, &world.inside_ca.file);
    let www = CONTOSO.inside_name("www");
    let service = |label: &str, rest: String| {
        format!(
            "  {{ name = \"{}\", kind = \"tcp\", {rest} }},\n",
            name(label)
        )
    };
    let servers = [
        service("https", format!("target = \"{at}:8443\"")),
        service(
            "proxied",
            format!(
                "target = \"{at}:8444\", proxy = true, tls = {{ ca = {ca:?}, name = \"{www}\" }}"
            ),
        ),
        service("ssh", format!("target = \"{at}:2222\"")),
        service("vnc", format!("target = \"{at}:5977\"")),
    ];
    let key = world.contoso.directory().join("secrets/join.key");
    Ok(format!(
        "fqdn = \"{fqdn}\"\nedges = [{{ fqdn = \"{edge}\", port = 8057, clients = \"{clients}:443\" }}]\n\
         certificate = {{ chain = {:?}, key = {:?} }}\nca = {ca:?}\nsocket = {socket:?}\n\
         token_key = {key:?}\nservers = [\n{}]\n",
        pair.chain,
        pair.key,
        servers.concat()
    ))
}

/// The name that a service is registered under.
fn name(label: &str) -> String {
    format!("{label}.{}", CONTOSO.inside_name("mcu1"))
}

/// Width and height by the start of frame (ITU-T T.81, B.2.2).
fn jpeg_size(bytes: &[u8]) -> Result<(u16, u16)> {
    let mut at = 2;
    while let Some(&[0xff, marker, high, low]) = bytes.get(at..at + 4) {
        let field = |offset: usize| {
            let field = bytes.get(at + offset..at + offset + 2);
            field.map_or(0, |field| u16::from_be_bytes([field[0], field[1]]))
        };
        if (0xc0..=0xc2).contains(&marker) {
            return Ok((field(7), field(5)));
        }
        at += 2 + usize::from(u16::from_be_bytes([high, low]));
    }
    bail!("{} bytes that are no JPEG", bytes.len())
}

const LIMIT: Duration = Duration::from_secs(20);
const FILE_LEN: usize = 4_000_000;
const SCREEN: (u16, u16) = (320, 200);
