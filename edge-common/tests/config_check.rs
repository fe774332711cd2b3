//! What the check does with a file as a whole: everything at once, in order, and never a panic.

use edge_common::config::{Checked, Finding, Place, check, check_file, rule, schema};
use proptest::prelude::*;

const SINGLE: &str = include_str!("../../deploy/examples/single.toml");
const SCALED: &str = include_str!("../../deploy/examples/scaled.toml");
const FEDERATION: &str = include_str!("../../deploy/examples/federation-only.toml");

fn ids(checked: &Checked) -> Vec<rule::RuleId> {
    checked.findings.iter().map(|finding| finding.id).collect()
}

#[test]
fn everything_wrong_is_told_in_one_go_and_in_the_order_of_the_file() {
    let text = SINGLE
        .replace("topology = \"single\"", "topology = \"double\"")
        .replace("id = 0", "id = 0\ncolour = \"red\"")
        .replace("interface = \"int\"", "interface = \"ext\"")
        .replace("fqdn = \"webconf.contoso.test\"\n", "")
        .replace("\"certs/av-auth.key\"", "\"certs/internal.key\"")
        .replace("tcp = [22]", "tcp = [\"ssh\"]");
    let checked = check(&text, None);
    assert_eq!(checked.config, None);
    assert_eq!(
        ids(&checked),
        [
            rule::UNKNOWN_VALUE,
            rule::UNKNOWN_KEY,
            rule::SAME_INTERFACE,
            rule::MISSING_KEY,
            rule::AUTH_KEY_SHARED,
            rule::WRONG_TYPE,
            rule::LAB,
        ]
    );
    assert!(checked.findings.is_sorted_by_key(|finding| finding.place));
}

#[test]
fn an_empty_file_says_what_is_missing() {
    let checked = check("", None);
    let keys: Vec<&str> = checked
        .findings
        .iter()
        .map(|finding| finding.message.as_str())
        .collect();
    for key in ["organization", "members", "external", "internal", "array"] {
        assert!(
            keys.iter()
                .any(|message| message.starts_with(&format!("`{key}`"))),
            "{key}: {keys:?}"
        );
    }
    assert!(ids(&checked).contains(&rule::NO_SERVICE));
}

#[test]
fn a_file_without_a_service_has_nothing_to_do() {
    let services = FEDERATION.find("[access]").expect("a table")
        ..FEDERATION.find("[firewall]").expect("a table");
    let mut text = FEDERATION.to_owned();
    text.replace_range(services, "");
    assert_eq!(ids(&check(&text, None)), [rule::NO_SERVICE, rule::LAB]);
}

#[test]
fn the_node_is_one_of_the_members() {
    assert_eq!(ids(&check(SCALED, None)), [rule::LAB, rule::NODE_NEEDED]);
    assert_eq!(
        ids(&check(SCALED, Some("edge3"))),
        [rule::LAB, rule::NODE_UNKNOWN]
    );
    assert_eq!(ids(&check(SCALED, Some("edge2"))), [rule::LAB]);
    let first = check_file(SCALED)
        .config
        .expect("a file is right or wrong for everyone");
    assert_eq!(first.local().name, "edge1");
    assert_eq!(ids(&check(SINGLE, Some("edge1"))), [rule::LAB]);
    assert_eq!(
        ids(&check(SINGLE, Some("edge2"))),
        [rule::LAB, rule::NODE_UNKNOWN]
    );
}

#[test]
fn a_file_that_is_none_is_not_read_at_all() {
    let checked = check(&"#".repeat((1 << 20) + 1), None);
    assert_eq!(ids(&checked), [rule::FILE_TOO_LARGE]);
}

#[test]
fn many_warnings_do_not_hide_an_error() {
    let many = "\"evil.test\", ".repeat(2000);
    let text = FEDERATION.replace(
        "revocation = \"hard\"",
        &format!("revocation = \"hard\"\nblocked = [{many}]"),
    );
    assert!(check(&text, None).config.is_some());
    let checked = check(
        &text.replace(
            "partners = [",
            "partners = [{ domain = \"contoso.test\" }, ",
        ),
        None,
    );
    assert!(checked.config.is_none());
    assert!(checked.findings.iter().any(Finding::is_error));
    assert!(checked.findings.len() <= 502, "{}", checked.findings.len());
}

#[test]
fn a_list_is_looked_at_as_far_as_it_may_go() {
    let agents = |count: usize| {
        let list: Vec<String> = (0..count)
            .map(|n| format!("\"mcu_{n}.contoso.internal\""))
            .collect();
        SINGLE.replace(
            "agents = [\"mcu1.contoso.internal\"]",
            &format!("agents = [{}]", list.join(", ")),
        )
    };
    let checked = check(&agents(1000), None);
    assert!(checked.config.is_some());

    let text = agents(1001);
    let checked = check(&text, None);
    let errors: Vec<_> = checked
        .findings
        .iter()
        .filter(|finding| finding.is_error())
        .collect();
    let [long] = errors[..] else {
        panic!("{errors:?}")
    };
    let last = text.find("\"mcu_1000.").expect("the entry beyond");
    assert_eq!(
        (long.id, long.place),
        (rule::LIST_TOO_LONG, Some(Place::of(&text, last)))
    );
}

#[test]
fn an_entry_that_was_refused_does_not_shift_the_others() {
    let text = FEDERATION.replace(
        "partners = [{ domain = \"fabrikam.test\" }, { domain = \"northwind.test\" }]",
        "partners = [{ domain = \"no name\" },\n { domain = \"northwind.test\" },\n { domain = \"contoso.test\" }]",
    );
    let checked = check(&text, None);
    let [bad, ours, _] = &checked.findings[..] else {
        panic!("{:?}", checked.findings)
    };
    assert_eq!((bad.id, ours.id), (rule::BAD_NAME, rule::PARTNER_OURS));
    let line = text
        .lines()
        .position(|line| line.contains("{ domain = \"contoso.test\" }]"))
        .expect("a line")
        + 1;
    assert_eq!(ours.place.map(|place| place.line), Some(line));
}

#[test]
fn the_nearest_key_is_named() {
    let text = SINGLE.replace("trusted_servers =", "trusted_server =");
    let unknown = check(&text, None)
        .findings
        .into_iter()
        .find(|finding| finding.id == rule::UNKNOWN_KEY);
    let finding = unknown.expect("an unknown key");
    assert_eq!(finding.help, "did you mean `trusted_servers`?");
    assert_eq!(finding.key, "internal.trusted_server");
}

#[test]
fn the_schema_knows_every_table_with_a_description() {
    let schema = schema();
    let tables = schema["properties"].as_object().expect("properties");
    for table in [
        "organization",
        "members",
        "external",
        "internal",
        "array",
        "access",
        "webconf",
        "av",
        "lab",
    ] {
        assert!(tables[table]["description"].is_string(), "{table}");
    }
    assert_eq!(
        schema["properties"]["access"]["properties"]["client_port"]["default"],
        443
    );
    assert_eq!(
        schema["properties"]["access"]["additionalProperties"],
        false
    );
    let text = schema.to_string();
    assert!(!text.contains("x-"), "a mark of ours is left");
    assert!(!text.contains("null"), "TOML has no null");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_checked(text in any::<String>()) {
        prop_assert!(check(&text, None).config.is_none());
    }

    #[test]
    fn any_text_that_looks_like_toml_is_checked(text in "([\\[\\]{}=,.\"'#a-z0-9: \n-]|\\[\\[|members|access|av|\u{e4}){0,200}") {
        let checked = check(&text, Some("edge1"));
        prop_assert_eq!(checked.config.is_none(), checked.findings.iter().any(Finding::is_error));
    }

    /// A lawful file with a hole and something else in it: what an editor leaves behind.
    #[test]
    fn any_damage_is_told(from in 0..SINGLE.len(), len in 0usize..60, with in "[\\[\\]{}=,.\"#a-z0-9/ \n-]{0,8}") {
        let bytes = [&SINGLE.as_bytes()[..from], with.as_bytes(), &SINGLE.as_bytes()[(from + len).min(SINGLE.len())..]].concat();
        let text = String::from_utf8_lossy(&bytes);
        let checked = check(&text, None);
        prop_assert_eq!(checked.config.is_none(), checked.findings.iter().any(Finding::is_error));
        for finding in &checked.findings {
            prop_assert!(finding.id != rule::NOT_TAKEN, "the shape let through what the types do not take: {}", finding);
            prop_assert!(!finding.render("edge.toml", &text).is_empty());
        }
    }

    /// Each value of a lawful file replaced by each kind of value: the shape and the types agree on what is lawful.
    #[test]
    fn any_value_is_taken_or_told(
        line in any::<prop::sample::Index>(),
        value in prop::sample::select(vec![
            "0", "-1", "65536", "9223372036854775807", "99999999999999999999", "1.5", "inf", "true", "1979-05-27", "\"\"",
            "\"x\"", "\"5 s\"", "\"64 KiB\"", "\"10.0.0.0/8\"", "\"::1\"", "\"1.2.3.4/24\"", "\"a.b:1\"", "\"*.a\"",
            "\"1-2\"", "[]", "[[]]", "[{}]", "[\"x\"]", "[1]", "{}", "{ a = 1 }", "{ current = \"a\" }", "'\u{0}'",
        ]),
    ) {
        let keys: Vec<usize> = SCALED.lines().enumerate().filter(|(_, line)| line.contains(" = ")).map(|(at, _)| at).collect();
        let chosen = *line.get(&keys);
        let text: String = SCALED
            .lines()
            .enumerate()
            .map(|(at, line)| match line.split_once(" = ") {
                Some((key, _)) if at == chosen => format!("{key} = {value}\n"),
                _ => format!("{line}\n"),
            })
            .collect();
        let checked = check(&text, Some("edge1"));
        prop_assert_eq!(checked.config.is_none(), checked.findings.iter().any(Finding::is_error));
        prop_assert!(ids(&checked).iter().all(|id| *id != rule::NOT_TAKEN), "{:?}", checked.findings);
    }
}
