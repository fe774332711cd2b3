//! The program as an operator runs it: a tree from nothing, and the packet filter in a kernel of its own.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot prepare itself has failed"
)]

mod namespace;

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use namespace::Namespace;
use tempfile::TempDir;

/// A tree that `edgectl init` has made, with a laboratory's certificates.
struct Host {
    directory: TempDir,
}

impl Host {
    fn new() -> Self {
        let host = Self {
            directory: TempDir::new().unwrap(),
        };
        let output = host.init(&["--lab-ca"]);
        assert!(output.status.success(), "{}", text(&output));
        host
    }

    fn empty() -> Self {
        Self {
            directory: TempDir::new().unwrap(),
        }
    }

    fn base(&self) -> PathBuf {
        self.directory.path().join("etc")
    }

    fn init(&self, more: &[&str]) -> Output {
        let base = self.base();
        let mut arguments = vec!["init", "--output", base.to_str().unwrap()];
        arguments.extend(ANSWERS);
        arguments.extend(more);
        edgectl(&arguments)
    }

    fn run(&self, arguments: &[&str]) -> Output {
        edgectl(&self.with_config(arguments))
    }

    fn with_config<'a>(&self, arguments: &[&'a str]) -> Vec<&'a str> {
        let config = self.base().join("edge.toml");
        let config: &'static str = Box::leak(config.display().to_string().into_boxed_str());
        let mut all = vec!["--config", config];
        all.extend(arguments);
        all
    }

    /// Changes the configuration by hand, as an operator does.
    fn edit(&self, from: &str, to: &str) {
        let file = self.base().join("edge.toml");
        let before = fs::read_to_string(&file).unwrap();
        assert!(before.contains(from), "{before}");
        fs::write(file, before.replace(from, to)).unwrap();
    }
}

const ANSWERS: &[&str] = &[
    "--domain",
    "contoso.test",
    "--external-interface",
    "ext",
    "--external-address",
    "198.51.100.10/24",
    "--external-address",
    "198.51.100.11/24",
    "--external-address",
    "198.51.100.12/24",
    "--external-gateway",
    "198.51.100.1",
    "--internal-interface",
    "int",
    "--internal-address",
    "10.10.0.10/24",
    "--internal-network",
    "10.10.0.0/16",
    "--internal-gateway",
    "10.10.0.1",
    "--internal-fqdn",
    "edge1.contoso.internal",
    "--next-hop",
    "director.contoso.internal:5061",
    "--next-hop-address",
    "10.10.0.50",
    "--agent",
    "mcu1.contoso.internal",
    "--external-dns",
    "192.0.2.53",
    "--internal-dns",
    "10.10.0.53",
    "--management",
    "10.10.0.0/16",
    "--lab-range",
    "198.51.100.0/24",
];

fn edgectl(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_edgectl"))
        .args(arguments)
        .output()
        .unwrap()
}

fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", text(output));
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn a_fresh_tree_passes_the_check_and_is_never_overwritten() {
    let host = Host::new();
    let output = host.run(&["check"]);
    assert!(output.status.success(), "{}", text(&output));
    assert!(text(&output).contains("0 errors"), "{}", text(&output));

    let before = fs::read(host.base().join("edge.toml")).unwrap();
    let again = host.init(&["--lab-ca"]);
    assert_eq!(again.status.code(), Some(3), "{}", text(&again));
    assert!(
        text(&again).contains("refusing to overwrite"),
        "{}",
        text(&again)
    );
    assert_eq!(fs::read(host.base().join("edge.toml")).unwrap(), before);

    fs::remove_file(host.base().join("certs/access.pem")).unwrap();
    fs::remove_file(host.base().join("certs/access.key")).unwrap();
    let missing = host.run(&["check"]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(text(&missing).contains("EDGE-C0901"), "{}", text(&missing));
    let completed = host.run(&["init", "--complete", "--lab-ca"]);
    assert!(
        stdout(&completed).contains("wrote "),
        "{}",
        text(&completed)
    );
    assert!(host.run(&["check"]).status.success());
}

#[test]
fn a_dry_run_writes_nothing_and_names_every_file() {
    let host = Host::empty();
    let output = host.init(&["--dry-run"]);
    let told = stdout(&output);
    assert!(
        told.contains("would write")
            && told.contains("access.csr")
            && told.contains("Still to be brought"),
        "{told}"
    );
    assert!(!host.base().exists());
}

#[test]
fn what_is_not_answered_is_named_when_nobody_can_be_asked() {
    let output = edgectl(&["init", "--output", "/nonexistent"]);
    assert_eq!(output.status.code(), Some(3));
    for option in ["--domain", "--external-address", "--next-hop", "--agent"] {
        assert!(
            text(&output).contains(option),
            "{option}: {}",
            text(&output)
        );
    }
}

#[test]
fn what_is_wrong_with_the_answers_is_told_with_the_option_to_change() {
    let host = Host::empty();
    let output = host.init(&["--public-address", "10.1.1.1"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output).contains("Here: --public-address."),
        "{}",
        text(&output)
    );
    assert!(!host.base().exists());
}

#[test]
fn a_certificate_for_another_name_and_a_foreign_key_are_told_with_their_rules() {
    let host = Host::new();
    host.edit("webconf.contoso.test", "meet.contoso.test");
    fs::copy(
        host.base().join("certs/av-auth.key"),
        host.base().join("certs/webconf.key.new"),
    )
    .unwrap();
    let certs = host.base().join("certs");
    fs::remove_file(certs.join("access.key")).unwrap();
    fs::copy(certs.join("webconf.key"), certs.join("access.key")).unwrap();

    let output = host.run(&["check", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let findings: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let errors: Vec<&str> = findings
        .as_array()
        .unwrap()
        .iter()
        .filter(|finding| finding["severity"] == "error")
        .map(|finding| finding["id"].as_str().unwrap())
        .collect();
    assert_eq!(errors, ["EDGE-C0907", "EDGE-C0909"], "{findings:#}");
}

#[test]
fn a_listener_that_shows_the_authentication_key_is_refused() {
    let host = Host::new();
    let certs = host.base().join("certs");
    for kind in ["pem", "key"] {
        let file = certs.join(format!("av-auth.{kind}"));
        fs::remove_file(&file).unwrap();
        fs::copy(certs.join(format!("internal.{kind}")), &file).unwrap();
    }
    let output = host.run(&["check"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output).contains("error[EDGE-C0701]"),
        "{}",
        text(&output)
    );
}

#[test]
fn every_rule_is_explained_and_unknown_ids_are_told() {
    let list = stdout(&edgectl(&["explain"]));
    for line in list.lines() {
        let id = line.split(' ').next().unwrap();
        assert!(
            stdout(&edgectl(&["explain", id])).contains("Remedy: "),
            "{id}"
        );
    }
    assert!(list.lines().count() > 40);
    assert_eq!(edgectl(&["explain", "EDGE-C9999"]).status.code(), Some(3));
}

#[test]
fn credentials_minted_twice_differ_and_open_the_same_door() {
    let host = Host::new();
    let mint = |source: &str| -> serde_json::Value {
        let output = host.run(&[
            "av",
            "credentials",
            "--user",
            "sip:alice@contoso.test",
            "--lifetime",
            "1 h",
            "--source",
            source,
            "--json",
        ]);
        serde_json::from_str(&stdout(&output)).unwrap()
    };
    let (first, second) = (mint("authentication"), mint("authentication"));
    assert_ne!(first["username"], second["username"]);
    assert_eq!(first["username"].as_str().unwrap().len(), 76);
    assert_eq!(first["realm"], "contoso.test");
    let rest = mint("rest");
    assert!(
        rest["username"]
            .as_str()
            .unwrap()
            .ends_with(":sip:alice@contoso.test"),
        "{rest}"
    );

    let long = host.run(&["av", "credentials", "--user", "a", "--lifetime", "9 h"]);
    assert_eq!(long.status.code(), Some(3));
    assert!(
        text(&long).contains("token_lifetime_max"),
        "{}",
        text(&long)
    );
}

#[test]
fn rendered_zones_network_and_units_are_files_below_the_given_directory() {
    let host = Host::new();
    let output = host.directory.path().join("out");
    for what in ["dns", "network", "systemd", "firewall"] {
        stdout(&host.run(&["render", what, "--output", output.to_str().unwrap()]));
    }
    for file in [
        "external/contoso.test.zone",
        "internal/contoso.internal.zone",
        "systemd/network/10-edge-external.network",
        "sysctl.d/60-edge.conf",
        "systemd/system/edge-access.service",
        "systemd/system/edge-firewall.service",
        "sysusers.d/edge.conf",
        "edge.nft",
    ] {
        assert!(output.join(file).is_file(), "{file}");
    }
}

#[test]
fn a_partner_is_judged_by_the_lists_before_anybody_is_asked() {
    let host = Host::new();
    host.edit(
        "enabled = true",
        "enabled = true\nblocked = [\"evil.test\"]",
    );
    for (domain, list, word) in [
        ("evil.test", "blocked", "nothing else is looked at"),
        ("contoso.test", "none", "of this organisation"),
    ] {
        let output = host.run(&["federation", "test", domain, "--json"]);
        assert_eq!(output.status.code(), Some(1), "{}", text(&output));
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(
            (&report["pass"], &report["list"]),
            (&false.into(), &list.into())
        );
        assert_eq!(report["steps"][0]["result"], "fail");
        assert!(
            report["steps"][0]["seen"].as_str().unwrap().contains(word),
            "{report}"
        );
        assert_eq!(
            report["steps"].as_array().unwrap().len(),
            2,
            "list and verdict: {report}"
        );
    }
    let output = host.run(&["federation", "test", "not a domain"]);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
}

#[test]
fn the_card_holds_the_certificate_that_is_shown() {
    let host = Host::new();
    host.edit("enabled = true", "enabled = false");
    let off = host.run(&["federation", "card"]);
    assert_eq!(off.status.code(), Some(3), "{}", text(&off));
    host.edit("enabled = false", "enabled = true");
    let page = stdout(&host.run(&["federation", "card", "--contact", "Ann"]));
    let json = stdout(&host.run(&["federation", "card", "--json"]));
    let html = stdout(&host.run(&["federation", "card", "--html"]));
    let card: serde_json::Value = serde_json::from_str(&json).unwrap();
    let own = &card["certificates"][0][0];
    assert_eq!(own["names"], serde_json::json!(["sip.contoso.test"]));
    let print = own["sha256"].as_str().unwrap();
    assert!(
        page.contains(print) && page.contains("Contact: Ann"),
        "{page}"
    );
    assert!(html.starts_with("<!doctype html>") && html.contains(print));
    assert!(page.contains("_sipfederationtls._tcp.contoso.test. SRV 0 0 5061 sip.contoso.test."));
}

#[test]
fn a_change_can_be_looked_at_before_it_is_made() {
    let host = Host::new();
    for words in [
        &["trace", "--record", "10 min", "--dry-run"][..],
        &["federation", "watch", "block", "CN=CA", "04a1", "--dry-run"],
    ] {
        let told = stdout(&host.run(words));
        assert!(told.contains("would be told {"), "{told}");
        let output = host.run(&words[..words.len() - 1]);
        assert_eq!(
            output.status.code(),
            Some(3),
            "nobody is there: {}",
            text(&output)
        );
    }
    let output = host.run(&["federation", "watch", "block", "CN=CA"]);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    let output = host.run(&["trace", "--record", "10 min", "call"]);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
}

#[test]
fn status_says_no_when_nothing_runs() {
    let Some(kernel) = Kernel::new() else { return };
    let host = Host::new();
    kernel.settle(&host);
    let output = kernel.edgectl(&host, &["status", "--json", "--timeout", "500 ms"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    let rows: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let rows = rows.as_array().unwrap();
    assert_eq!(rows.len(), 3);
    for row in rows {
        assert_eq!(
            (&row["live"], &row["ready"]),
            (&false.into(), &false.into()),
            "{row}"
        );
        assert!(row["health"].as_str().unwrap().contains("refused"), "{row}");
    }
}

/// A network namespace with the two interfaces of an edge host; `None` for anybody but root.
struct Kernel {
    namespace: Namespace,
    // The far ends of the cables.
    _far: Namespace,
}

impl Kernel {
    fn new() -> Option<Self> {
        let (namespace, far) = (Namespace::new()?, Namespace::new()?);
        namespace.cable("ext", &far, "ext");
        namespace.cable("int", &far, "int");
        Some(Self {
            namespace,
            _far: far,
        })
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Output {
        self.namespace.run(program, arguments)
    }

    fn edgectl(&self, host: &Host, arguments: &[&str]) -> Output {
        self.run(env!("CARGO_BIN_EXE_edgectl"), &host.with_config(arguments))
    }

    /// Puts the rendered network settings into force.
    fn settle(&self, host: &Host) {
        let script = host.directory.path().join("network.sh");
        let text = stdout(&host.run(&["render", "network", "--format", "script"]));
        fs::write(&script, text).unwrap();
        stdout(&self.run("sh", &[script.to_str().unwrap()]));
    }

    fn table(&self) -> String {
        let output = self.run("nft", &["-s", "list", "table", "inet", "edge"]);
        if output.status.success() {
            stdout(&output)
        } else {
            String::new()
        }
    }
}

#[test]
fn the_firewall_is_shown_loaded_and_found_equal() {
    let Some(kernel) = Kernel::new() else {
        return;
    };
    let host = Host::new();
    let dry = stdout(&kernel.edgectl(&host, &["apply", "firewall", "--dry-run"]));
    assert!(
        dry.contains(
            "+ rule access/ext/client/ip4: iifname \"ext\" ip daddr 198.51.100.10 tcp dport 443"
        ),
        "{dry}"
    );
    assert_eq!(kernel.table(), "", "a dry run changes nothing");

    let loaded = stdout(&kernel.edgectl(&host, &["apply", "firewall"]));
    assert!(loaded.contains("Loaded "), "{loaded}");
    let rendered = stdout(&host.run(&["render", "firewall"]));
    assert_eq!(
        kernel.table(),
        rendered,
        "what is reviewed is what the kernel holds"
    );
    let again = stdout(&kernel.edgectl(&host, &["apply", "firewall"]));
    assert!(again.contains("nothing to change"), "{again}");

    host.edit("tcp = [22]", "tcp = [2222]");
    let changed = stdout(&kernel.edgectl(&host, &["apply", "firewall"]));
    let lines: Vec<&str> = changed
        .lines()
        .filter(|line| line.contains("management/0"))
        .collect();
    assert!(
        matches!(lines.as_slice(), [old, new] if old.starts_with("- ") && new.starts_with("+ ")),
        "{changed}"
    );
}

#[test]
fn a_change_that_nobody_confirms_is_taken_back() {
    let Some(kernel) = Kernel::new() else {
        return;
    };
    let host = Host::new();
    stdout(&kernel.edgectl(&host, &["apply", "firewall"]));
    let before = kernel.table();
    host.edit("tcp = [22]", "tcp = [2222]");
    let run = host.directory.path().join("run");
    let run = run.to_str().unwrap();
    let tentative = stdout(&kernel.edgectl(
        &host,
        &[
            "apply",
            "firewall",
            "--confirm-within",
            "4 s",
            "--run-directory",
            run,
        ],
    ));
    assert!(tentative.contains("unless you confirm"), "{tentative}");
    assert_ne!(kernel.table(), before);
    let second = kernel.edgectl(
        &host,
        &[
            "apply",
            "firewall",
            "--confirm-within",
            "1 s",
            "--run-directory",
            run,
        ],
    );
    assert!(
        text(&second).contains("nothing to change") || text(&second).contains("still waits"),
        "{}",
        text(&second)
    );

    wait_until("the old rules are back", || kernel.table() == before);
    let late = host.run(&["apply", "firewall", "--confirm", "--run-directory", run]);
    assert_eq!(late.status.code(), Some(1), "{}", text(&late));
}

#[test]
fn a_confirmed_change_stays() {
    let Some(kernel) = Kernel::new() else {
        return;
    };
    let host = Host::new();
    let run = host.directory.path().join("run");
    let run = run.to_str().unwrap();
    stdout(&kernel.edgectl(
        &host,
        &[
            "apply",
            "firewall",
            "--confirm-within",
            "3 s",
            "--run-directory",
            run,
        ],
    ));
    let loaded = kernel.table();
    assert!(loaded.contains("access/ext/client"));
    stdout(&host.run(&["apply", "firewall", "--confirm", "--run-directory", run]));
    std::thread::sleep(Duration::from_millis(3500));
    assert_eq!(kernel.table(), loaded);
}

#[test]
fn a_first_change_that_nobody_confirms_leaves_no_table() {
    let Some(kernel) = Kernel::new() else {
        return;
    };
    let host = Host::new();
    let run = host.directory.path().join("run");
    stdout(&kernel.edgectl(
        &host,
        &[
            "apply",
            "firewall",
            "--confirm-within",
            "300 ms",
            "--run-directory",
            run.to_str().unwrap(),
        ],
    ));
    wait_until("the table is gone", || kernel.table().is_empty());
}

/// Runs `edgectl apply firewall` on a terminal of its own, as `script` makes one.
fn on_a_terminal(kernel: &Kernel, host: &Host, run: &str) -> Child {
    let words = [
        "apply",
        "firewall",
        "--confirm-within",
        "5 s",
        "--run-directory",
        run,
    ];
    let quoted: Vec<String> = std::iter::once(env!("CARGO_BIN_EXE_edgectl"))
        .chain(host.with_config(&words))
        .map(|word| format!("'{word}'"))
        .collect();
    kernel
        .namespace
        .command("script")
        .args(["-q", "-e", "-c", &quoted.join(" "), "/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn enter_on_the_terminal_confirms() {
    let Some(kernel) = Kernel::new() else { return };
    let host = Host::new();
    let run = host.directory.path().join("run");
    let mut terminal = on_a_terminal(&kernel, &host, run.to_str().unwrap());
    wait_until("the change waits", || {
        run.join("pending.json").exists() && !kernel.table().is_empty()
    });
    terminal.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    let output = terminal.wait_with_output().unwrap();
    assert!(
        text(&output).contains("Confirmed: the rules stay."),
        "{}",
        text(&output)
    );
    assert!(!run.join("pending.json").exists());
    assert!(!kernel.table().is_empty());
}

#[test]
fn a_terminal_that_is_cut_off_does_not_keep_the_old_rules_away() {
    let Some(kernel) = Kernel::new() else { return };
    let host = Host::new();
    let run = host.directory.path().join("run");
    let mut terminal = on_a_terminal(&kernel, &host, run.to_str().unwrap());
    wait_until("the change waits", || {
        run.join("pending.json").exists() && !kernel.table().is_empty()
    });
    terminal.kill().unwrap();
    terminal.wait().unwrap();
    wait_until("the table is gone", || kernel.table().is_empty());
}

#[test]
fn the_network_script_gives_each_side_its_own_way_and_may_run_again() {
    let Some(kernel) = Kernel::new() else {
        return;
    };
    let host = Host::new();
    for _ in 0..2 {
        kernel.settle(&host);
    }
    let way = |arguments: &[&str]| {
        let mut all = vec!["route", "get"];
        all.extend(arguments);
        text(&kernel.run("ip", &all))
    };
    assert!(way(&["192.0.2.7", "from", "198.51.100.11"]).contains("via 198.51.100.1 dev ext"));
    assert!(way(&["10.10.9.9", "from", "10.10.0.10"]).contains("via 10.10.0.1 dev int"));
    assert!(way(&["10.10.0.50", "from", "10.10.0.10"]).contains("dev int"));
    for wrong in [
        way(&["10.10.9.9", "from", "198.51.100.11"]),
        way(&["10.10.0.50", "from", "198.51.100.12"]),
        way(&["192.0.2.7", "from", "10.10.0.10"]),
    ] {
        assert!(
            wrong.contains("denied") || wrong.contains("prohibit"),
            "{wrong}"
        );
    }
    let rules = stdout(&kernel.run("ip", &["rule"]));
    assert_eq!(
        rules.lines().count(),
        3 + 4,
        "a second run adds no rule: {rules}"
    );
    let sysctl = |key: &str| {
        stdout(&kernel.run("sysctl", &["-n", key]))
            .trim()
            .to_owned()
    };
    assert_eq!(sysctl("net.ipv4.conf.ext.rp_filter"), "1");
    assert_eq!(sysctl("net.ipv4.conf.int.arp_ignore"), "1");
    assert_eq!(sysctl("net.ipv4.ip_forward"), "0");
    assert_eq!(
        sysctl("net.ipv4.ip_local_port_range")
            .split_whitespace()
            .collect::<Vec<_>>(),
        ["20000", "49999"]
    );
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let patience = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < patience, "not within 30 s: {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}
