//! What administrators may ask of federation and change in it, over the admin socket.
//!
//! The answers are described in `proxy::watch`.

use edge_common::cert::identity::CertificateId;
use edge_common::host_name::HostName;
use edge_common::net::mailbox::Outbox;
use edge_common::observe::admin::{Commands, Effect};
use edge_common::time::UnixTime;
use serde_json::{Value, json};

use crate::admin::on_core;
use crate::flow::{Core, Letter, VERDICTS_CORE};
use crate::proxy::flow::{Flow, Partner, Peer, Proof};
use crate::proxy::refusal::Refusal;
use crate::proxy::watch::{Decision, Seen, Watch};
use crate::resolver::Verdicts;

/// The commands; `outbox` leads to the cores, and `listed` tells the partners that are configured.
#[must_use]
pub fn commands(outbox: &Outbox<Letter>, listed: impl Fn() -> Value + Clone + 'static) -> Commands {
    let mut commands = Commands::default();
    let to = outbox.clone();
    commands.add("federation.watch", Effect::Read, move |_| {
        let to = to.clone();
        async move {
            let listed = |core: &Core| core.verdicts().map(Verdicts::watch_list);
            on_core(&to, VERDICTS_CORE, listed)
                .await?
                .ok_or_else(nobody)
        }
    });
    let to = outbox.clone();
    commands.add("federation.watch.set", Effect::Change, move |request| {
        let to = to.clone();
        async move {
            let (certificate, decision) = decision(&request)?;
            let decide = move |core: &Core| {
                let verdicts = core.verdicts().ok_or_else(nobody)?;
                verdicts.decide(core, &certificate, decision)
            };
            on_core(&to, VERDICTS_CORE, decide).await?
        }
    });
    let to = outbox.clone();
    commands.add("federation.partners", Effect::Read, move |_| {
        let (to, listed) = (to.clone(), listed.clone());
        async move {
            let mut connections = Vec::new();
            for core in 0..to.cores() {
                connections.extend(on_core(&to, core, Core::partners).await?);
            }
            Ok(json!({ "partners": listed(), "connections": connections }))
        }
    });
    commands
}

fn nobody() -> String {
    "nobody owns the watch list".to_owned()
}

fn decision(request: &Value) -> Result<(CertificateId, Decision), String> {
    let text = |key: &str| match request.get(key).and_then(Value::as_str) {
        Some(text) if !text.is_empty() && text.len() <= TEXT_MAX => Ok(text.to_owned()),
        Some(_) => Err(format!("`{key}` is empty or too long")),
        None => Err(format!("the request has no `{key}`")),
    };
    let decision = match text("mode")?.as_str() {
        "allow" => Decision::Allow,
        "block" => Decision::Block,
        "reset" => Decision::Reset,
        other => {
            return Err(format!(
                "no mode `{other}`; there are allow, block and reset"
            ));
        }
    };
    let certificate = CertificateId {
        issuer: text("issuer")?,
        // As `openssl x509 -serial` writes it, or with colons between.
        serial: text("serial")?.replace(':', "").to_ascii_lowercase(),
    };
    Ok((certificate, decision))
}

/// The watch list as it is told.
#[must_use]
pub fn watch_list(watch: &Watch) -> Value {
    let allowance = watch.allowance();
    json!({
        "entries": watch.list().iter().map(entry).collect::<Vec<_>>(),
        "limits": {
            "rate": allowance.rate.per_second,
            "suspicious_rate": allowance.suspicious.per_second,
            "contacts": allowance.contacts,
            "entries": watch.entries_max(),
        },
    })
}

/// One entry as it is told.
#[must_use]
pub fn entry(seen: &Seen) -> Value {
    json!({
        "issuer": seen.certificate.issuer,
        "serial": seen.certificate.serial,
        "names": seen.names,
        "domains": seen.domains.iter().map(|domain| domain.as_str()).collect::<Vec<_>>(),
        "mode": seen.mode.label(),
        "state": seen.state.label(),
        "first_seen": seen.first_seen.as_secs(),
        "last_seen": seen.last_seen.as_secs(),
        "suspect_since": seen.suspect_since.map(UnixTime::as_secs),
        "connected": seen.connected,
        "requests": seen.counted.requests,
        "refused": {
            "rate": seen.counted.over_rate,
            "contacts": seen.counted.over_contacts,
            "blocked": seen.counted.blocked,
        },
        "unproven": seen.unproven,
        "contacts": seen.counted.contacts,
        "window": { "good": seen.window.0, "failed": seen.window.1 },
    })
}

/// A partner's connection as it is told; `None` for one of somebody else.
#[must_use]
pub fn connection(core: usize, flow: &Flow) -> Option<Value> {
    let Peer::Partner(partner) = &flow.peer else {
        return None;
    };
    Some(json!({
        "core": core,
        "remote": flow.remote.to_string(),
        "direction": if partner.dialled.is_some() { "out" } else { "in" },
        "target": partner.dialled.as_ref().map(ToString::to_string),
        "names": partner.names.to_string(),
        "issuer": partner.certificate.issuer,
        "serial": partner.certificate.serial,
        "domains": domains(partner),
    }))
}

fn domains(partner: &Partner) -> Vec<Value> {
    let told = |(domain, outcome): (_, &Result<_, _>)| match outcome {
        Ok(proof) => told_proof(domain, proof),
        Err(refusal) => told_refusal(domain, *refusal),
    };
    partner.verdicts().map(told).collect()
}

fn told_proof(domain: &HostName, proof: &Proof) -> Value {
    json!({
        "domain": domain.as_str(),
        "outcome": "proven",
        "kind": proof.kind.label(),
        "edge": proof.target.to_string(),
    })
}

fn told_refusal(domain: &HostName, refusal: Refusal) -> Value {
    json!({ "domain": domain.as_str(), "outcome": refusal.label() })
}

/// Longer names of issuers are none.
const TEXT_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decision_names_a_certificate_as_openssl_does() {
        let request = |serial: &str, mode: &str| json!({ "command": "federation.watch.set", "issuer": "CN=CA", "serial": serial, "mode": mode });
        let (certificate, taken) = decision(&request("04:A1:FF", "block")).expect("lawful");
        assert_eq!(
            (certificate.serial.as_str(), taken),
            ("04a1ff", Decision::Block)
        );
        assert_eq!(
            decision(&request("1", "forget")),
            Err("no mode `forget`; there are allow, block and reset".to_owned())
        );
        assert_eq!(
            decision(&json!({ "mode": "allow" })),
            Err("the request has no `issuer`".to_owned())
        );
    }
}
