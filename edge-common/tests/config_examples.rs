//! The examples that are shipped pass the check.

use edge_common::config::{Config, catalogue, check, rule};

const EXAMPLES: [(&str, &str, Option<&str>); 5] = [
    (
        "single",
        include_str!("../../deploy/examples/single.toml"),
        None,
    ),
    ("nat", include_str!("../../deploy/examples/nat.toml"), None),
    (
        "scaled, first",
        include_str!("../../deploy/examples/scaled.toml"),
        Some("edge1"),
    ),
    (
        "scaled, second",
        include_str!("../../deploy/examples/scaled.toml"),
        Some("edge2"),
    ),
    (
        "federation-only",
        include_str!("../../deploy/examples/federation-only.toml"),
        None,
    ),
];

fn load(name: &str) -> Config {
    let (_, text, node) = EXAMPLES
        .iter()
        .find(|(example, ..)| *example == name)
        .expect("an example");
    check(text, *node).config.expect("it passes")
}

#[test]
fn every_example_passes_and_only_warns_that_it_is_a_lab() {
    for (name, text, node) in EXAMPLES {
        let checked = check(text, node);
        let told: Vec<_> = checked
            .findings
            .iter()
            .map(|finding| finding.render(name, text))
            .collect();
        assert!(checked.config.is_some(), "{name}:\n{}", told.join("\n"));
        let ids: Vec<_> = checked.findings.iter().map(|finding| finding.id).collect();
        // Behind NAT the other services are reached through the same device, which public_address tells.
        assert_eq!(ids, [rule::LAB], "{name}:\n{}", told.join("\n"));
    }
    assert!(catalogue().len() > 100);
}

#[test]
fn defaults_and_members_are_in_their_place() {
    let single = load("single");
    let access = single.access.as_ref().expect("[access]");
    assert_eq!(
        (
            access.client_port,
            access.federation_port,
            access.internal_port
        ),
        (443, 5061, 5061)
    );
    assert!(access.federation.enabled, "federation_here switches it on");
    assert_eq!(single.av.as_ref().expect("[av]").realm, "contoso.test");
    assert_eq!(
        single.local().webconf_internal_fqdn.as_str(),
        "edge1.contoso.internal"
    );

    let second = load("scaled, second");
    assert_eq!(second.local().name, "edge2");
    assert_eq!(
        second
            .others()
            .map(|member| member.name.as_str())
            .collect::<Vec<_>>(),
        ["edge1"]
    );
    assert!(second.is_balanced());
    assert!(!single.is_balanced());
}

#[test]
fn listeners_come_from_the_port_table() {
    let told: Vec<String> = load("nat")
        .listeners()
        .iter()
        .map(|listener| {
            format!(
                "{} {} {} {}",
                listener.service, listener.interface, listener.transport, listener.address
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            "access ext tcp 192.168.100.10:443",
            "access ext tcp 192.168.100.10:5061",
            "access int tcp 10.10.0.10:5061",
            "access int tcp 10.10.0.10:9561",
            "webconf ext tcp 192.168.100.11:443",
            "webconf int tcp 10.10.0.10:8057",
            "webconf int tcp 10.10.0.10:9563",
            "av ext udp 192.168.100.12:3478",
            "av ext tcp 192.168.100.12:443",
            "av int udp 10.10.0.10:3478",
            "av int tcp 10.10.0.10:443",
            "av int tcp 10.10.0.10:5062",
            "av int tcp 10.10.0.10:9562",
        ]
    );
    let federation: Vec<_> = load("federation-only")
        .listeners()
        .iter()
        .map(|listener| listener.address.port())
        .collect();
    assert_eq!(
        federation,
        [5061, 5061, 9561],
        "no remote users, so nothing listens for them"
    );
}
