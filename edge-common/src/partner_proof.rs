//! Does this connection speak for that SIP domain? The question of federation, in both directions.
//!
//! ```text
//!   domain ──SRV──► target ──naming rule──► target ──certificate──► Proven
//!                     └────────── names the domain itself ───────────┘     (RFC 5922 §7.1)
//!   a partner listed with a name: certificate names exactly that ─────► Proven
//! ```
//!
//! DNS alone proves nothing: whoever forges an answer could name a host of his own and show a good certificate
//! for it. Hence the naming rule: the SRV target must lie within the domain that it is to speak for.
//! A certificate alone proves nothing either: web servers have one for the bare domain, and a domain that publishes no
//! record does not federate by discovery.
#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

use std::fmt;

use crate::cert::identity::ProvenNames;
use crate::host_name::{HostName, HostPort};
use crate::srv::SrvAnswer;

/// Which SRV targets may speak for a domain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Naming {
    /// The domain itself, or one label in front of it.
    Strict,
    /// Any name within the domain.
    #[default]
    Within,
    /// Any name: for domains whose provider is configured and answers for many.
    Anywhere,
}

impl Naming {
    fn allows(self, target: &HostName, domain: &HostName) -> bool {
        match self {
            Self::Strict => target == domain || target.parent().as_ref() == Some(domain),
            Self::Within => target.is_within(domain),
            Self::Anywhere => true,
        }
    }
}

/// What counts as proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// For SRV targets.
    pub naming: Naming,
    /// A certificate that was given to the domain itself counts in place of one for an SRV target (RFC 5922); the
    /// domain needs a record all the same.
    pub domain_certificates: bool,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            naming: Naming::default(),
            domain_certificates: true,
        }
    }
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It does.
    Proven(Proof),
    /// It does not.
    Refused(Refusal),
}

impl Verdict {
    /// Says whether it does.
    #[must_use]
    pub const fn is_proven(&self) -> bool {
        matches!(self, Self::Proven(_))
    }
}

/// What proved it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    /// The name that the partner is listed with.
    Listed(HostName),
    /// An SRV target of the domain.
    Srv(HostName),
    /// The domain has a record, and it stands itself in the certificate.
    Domain,
}

/// Why it does not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No SRV record, whatever the certificate names.
    #[error("the domain has no SRV record for federation")]
    NoSrv,
    /// The domain says that it does not federate.
    #[error("the domain's SRV record says that it does not federate")]
    NotOffered,
    /// All SRV targets lie outside of the domain.
    #[error("the SRV record points to {target}, which does not lie within the domain")]
    Conflict {
        /// The first of them.
        target: HostName,
    },
    /// The certificate names none of the hosts that it could.
    #[error("the certificate names {presented}, not {}", list(expected))]
    NotInCertificate {
        /// Hosts that would have proven it.
        expected: Vec<HostName>,
        /// What it names.
        presented: String,
    },
}

impl Refusal {
    /// The id of `ms-diagnostics` and the text that goes with it (MS-OCER 8.2).
    #[must_use]
    pub const fn diagnostics(&self) -> Diagnostics {
        match self {
            Self::NoSrv | Self::NotOffered => UNRESOLVED_SRV,
            Self::Conflict { .. } => Diagnostics {
                id: 1009,
                reason: "Conflicting SRV and host domains in DNS",
            },
            Self::NotInCertificate { .. } => Diagnostics {
                id: 1010,
                reason: "Certificate trust with next hop could not be established",
            },
        }
    }

    /// The label of its counter.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::NoSrv => "no_srv",
            Self::NotOffered => "not_offered",
            Self::Conflict { .. } => "srv_conflict",
            Self::NotInCertificate { .. } => "not_in_certificate",
        }
    }
}

/// What a peer is told in `ms-diagnostics`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Diagnostics {
    /// Its number.
    pub id: u16,
    /// Its text, without quotes.
    pub reason: &'static str,
}

impl fmt::Display for Diagnostics {
    /// As the header's value begins.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{};reason=\"{}\"", self.id, self.reason)
    }
}

/// The SRV record of a domain cannot be had, whether it is not there or DNS does not answer.
pub const UNRESOLVED_SRV: Diagnostics = Diagnostics {
    id: 1008,
    reason: "Unable to resolve DNS SRV record",
};
/// A host of the domain has no address.
pub const UNRESOLVED_HOST: Diagnostics = Diagnostics {
    id: 1014,
    reason: "Unable to resolve DNS A record",
};
/// It may work later.
pub const CANNOT_ROUTE_NOW: Diagnostics = Diagnostics {
    id: 1007,
    reason: "Temporarily cannot route",
};

/// A partner that is listed with the name of its edge: that name decides, no DNS.
#[must_use]
pub fn prove_listed(fqdn: &HostName, names: &ProvenNames) -> Verdict {
    if names.proves_host(fqdn) {
        return Verdict::Proven(Proof::Listed(fqdn.clone()));
    }
    Verdict::Refused(mismatch([fqdn.clone()], names))
}

/// A partner that is listed by its domain only, or found by discovery.
#[must_use]
pub fn prove(domain: &HostName, answer: &SrvAnswer, names: &ProvenNames, rules: Rules) -> Verdict {
    // Where its record points does not matter then: nobody but the domain gets such a certificate.
    let has_record = !answer.records().is_empty();
    if rules.domain_certificates && has_record && names.proves_domain(domain) {
        return Verdict::Proven(Proof::Domain);
    }
    // Whoever says that it does not federate, or says nothing, is believed, whatever its certificate.
    let targets = match lawful_targets(domain, answer, rules) {
        Ok(targets) => targets,
        Err(refusal) => return Verdict::Refused(refusal),
    };
    // Any target will do: an array's members connect to us one by one.
    match targets
        .iter()
        .find(|target| names.proves_host(&target.host))
    {
        Some(target) => Verdict::Proven(Proof::Srv(target.host.clone())),
        None => Verdict::Refused(mismatch(
            targets.iter().map(|target| target.host.clone()),
            names,
        )),
    }
}

/// The hosts that may be dialled for a domain, in the order of the answer; never an empty list.
pub fn lawful_targets<'a>(
    domain: &HostName,
    answer: &'a SrvAnswer,
    rules: Rules,
) -> Result<Vec<&'a HostPort>, Refusal> {
    let records = match answer {
        SrvAnswer::Records(records) => records,
        SrvAnswer::NotOffered => return Err(Refusal::NotOffered),
        SrvAnswer::Missing => return Err(Refusal::NoSrv),
    };
    let lawful: Vec<_> = records
        .iter()
        .map(|record| &record.target)
        .filter(|target| rules.naming.allows(&target.host, domain))
        .collect();
    match (lawful.is_empty(), records.first()) {
        (false, _) => Ok(lawful),
        (true, Some(first)) => Err(Refusal::Conflict {
            target: first.target.host.clone(),
        }),
        (true, None) => Err(Refusal::NoSrv),
    }
}

fn mismatch(expected: impl IntoIterator<Item = HostName>, names: &ProvenNames) -> Refusal {
    Refusal::NotInCertificate {
        expected: expected.into_iter().collect(),
        presented: names.to_string(),
    }
}

fn list(names: &[HostName]) -> String {
    names
        .iter()
        .map(HostName::as_str)
        .collect::<Vec<_>>()
        .join(" or ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::srv::SrvRecord;

    fn name(text: &str) -> HostName {
        text.parse().unwrap()
    }

    fn srv(targets: &[&str]) -> SrvAnswer {
        let record = |target: &&str| SrvRecord {
            priority: 0,
            weight: 0,
            target: HostPort {
                host: name(target),
                port: 5061,
            },
        };
        SrvAnswer::Records(targets.iter().map(record).collect())
    }

    fn certificate(dns: &[&str]) -> ProvenNames {
        ProvenNames {
            dns: dns.iter().map(|text| name(text)).collect(),
            ..ProvenNames::default()
        }
    }

    fn ask(answer: &SrvAnswer, names: &ProvenNames) -> Verdict {
        prove(&name("fabrikam.test"), answer, names, Rules::default())
    }

    fn refused(verdict: Verdict) -> Refusal {
        match verdict {
            Verdict::Refused(refusal) => refusal,
            Verdict::Proven(proof) => panic!("proven by {proof:?}"),
        }
    }

    #[test]
    fn an_srv_target_within_the_domain_and_in_the_certificate_proves_it() {
        let proven = ask(
            &srv(&["sip.fabrikam.test"]),
            &certificate(&["sip.fabrikam.test"]),
        );
        assert_eq!(
            proven,
            Verdict::Proven(Proof::Srv(name("sip.fabrikam.test")))
        );
        let second = ask(
            &srv(&["a.fabrikam.test", "b.fabrikam.test"]),
            &certificate(&["b.fabrikam.test"]),
        );
        assert_eq!(second, Verdict::Proven(Proof::Srv(name("b.fabrikam.test"))));
    }

    #[test]
    fn a_forged_record_that_points_elsewhere_proves_nothing() {
        let verdict = refused(ask(
            &srv(&["sip.evil.test"]),
            &certificate(&["sip.evil.test"]),
        ));
        assert_eq!(
            verdict,
            Refusal::Conflict {
                target: name("sip.evil.test")
            }
        );
        assert_eq!(verdict.diagnostics().id, 1009);
        let suffix = refused(ask(
            &srv(&["sip.evilfabrikam.test"]),
            &certificate(&["sip.evilfabrikam.test"]),
        ));
        assert_eq!(suffix.diagnostics().id, 1009, "a suffix ends at a label");
        // One lawful target among others does not lend them its right.
        let mixed = refused(ask(
            &srv(&["sip.evil.test", "sip.fabrikam.test"]),
            &certificate(&["sip.evil.test"]),
        ));
        assert_eq!(mixed.diagnostics().id, 1010);
    }

    #[test]
    fn a_certificate_for_another_host_proves_nothing() {
        let verdict = refused(ask(
            &srv(&["sip.fabrikam.test"]),
            &certificate(&["www.fabrikam.test"]),
        ));
        assert_eq!(
            verdict.to_string(),
            "the certificate names www.fabrikam.test, not sip.fabrikam.test"
        );
        assert_eq!(
            verdict.diagnostics().to_string(),
            "1010;reason=\"Certificate trust with next hop could not be established\""
        );
    }

    #[test]
    fn a_domain_without_records_is_not_proven_by_any_certificate() {
        for dns in ["sip.fabrikam.test", "fabrikam.test"] {
            for answer in [SrvAnswer::Missing, srv(&[])] {
                let refusal = refused(ask(&answer, &certificate(&[dns])));
                assert_eq!(refusal, Refusal::NoSrv, "{dns}");
            }
        }
    }

    #[test]
    fn a_certificate_for_the_domain_counts_in_place_of_the_targets_name() {
        let own = certificate(&["fabrikam.test"]);
        let strict = Rules {
            domain_certificates: false,
            ..Rules::default()
        };
        for target in ["sip.fabrikam.test", "sip.provider.test"] {
            let answer = srv(&[target]);
            assert_eq!(ask(&answer, &own), Verdict::Proven(Proof::Domain));
            assert!(!prove(&name("fabrikam.test"), &answer, &own, strict).is_proven());
        }
    }

    #[test]
    fn a_domain_that_does_not_federate_is_believed() {
        let verdict = refused(ask(
            &SrvAnswer::NotOffered,
            &certificate(&["fabrikam.test"]),
        ));
        assert_eq!(
            (verdict.label(), verdict.diagnostics().id),
            ("not_offered", 1008)
        );
    }

    #[test]
    fn a_certificate_of_a_parent_or_child_domain_proves_nothing() {
        for other in ["test", "mail.fabrikam.test"] {
            assert!(
                !ask(&srv(&["sip.fabrikam.test"]), &certificate(&[other])).is_proven(),
                "{other}"
            );
        }
    }

    #[test]
    fn the_naming_rule_has_three_widths() {
        let allows = |naming: Naming, target| naming.allows(&name(target), &name("fabrikam.test"));
        let table = [
            ("fabrikam.test", [true, true, true]),
            ("sip.fabrikam.test", [true, true, true]),
            ("sip.eu.fabrikam.test", [false, true, true]),
            ("sip.provider.test", [false, false, true]),
        ];
        for (target, expected) in table {
            assert_eq!(
                [Naming::Strict, Naming::Within, Naming::Anywhere].map(|rule| allows(rule, target)),
                expected,
                "{target}"
            );
        }
    }

    #[test]
    fn a_listed_name_must_be_in_the_certificate_exactly() {
        let fqdn = name("edge.provider.test");
        assert_eq!(
            prove_listed(&fqdn, &certificate(&["edge.provider.test"])),
            Verdict::Proven(Proof::Listed(fqdn.clone()))
        );
        assert!(!prove_listed(&fqdn, &certificate(&["provider.test"])).is_proven());
        let uri = ProvenNames {
            sip_domains: vec![fqdn.clone()],
            ..ProvenNames::default()
        };
        assert!(
            !prove_listed(&fqdn, &uri).is_proven(),
            "a SIP domain is not a host"
        );
    }
}
