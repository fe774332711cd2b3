//! Would the Access Edge federate with that domain, and if not, where does it end?
//!
//! ```text
//!   list ─► SRV ─► naming ─► addresses ─► connection ─► TLS ─► certificate ─► verdicts: from us, to us
//! ```
//!
//! Every step asks what `edge-access` asks: [`FederationRules`], [`SipResolver`], [`partner_proof`], [`PeerVerifier`]. The
//! connection is opened as the edge does it, from its address and with its certificate; not one byte of SIP is sent.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use edge_common::cert::identity::ProvenNames;
use edge_common::cert::tls::{self, PeerVerifier, Store};
use edge_common::config::{Config, SrvOrder};
use edge_common::dns::{DnsFault, SipResolver};
use edge_common::domain_rule::{DomainRule, FederationRules};
use edge_common::host_name::{HostName, HostPort};
use edge_common::net::bind::Bind;
use edge_common::partner_proof::{self, Rules, Verdict};
use edge_common::srv::{SIP_FEDERATION_TLS, SrvAnswer};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::server::danger::ClientCertVerifier as _;
use rustls::{
    AlertDescription, CertificateError, ClientConnection, DigitallySignedStruct, ProtocolVersion,
    SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use serde::Serialize;

use crate::calendar;
use crate::certificate_facts::Facts;

/// What the test needs of this host.
pub struct Tester {
    /// The configuration of the edge.
    pub config: Config,
    /// DNS outside, as the daemon asks it.
    pub dns: SipResolver,
    /// Our certificate outside.
    pub certificate: Arc<Store>,
    /// What the daemon verifies partners with.
    pub verifier: Arc<PeerVerifier>,
    /// For connection and handshake each.
    pub within: Duration,
}

/// What was found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The domain in question.
    pub domain: String,
    /// The list of the configuration that it stands on.
    pub list: &'static str,
    /// Whether messages would pass in both directions.
    pub pass: bool,
    /// The steps in their order.
    pub steps: Vec<Step>,
    /// All records, in the order in which they are tried.
    pub records: Vec<Record>,
    /// The host that was tried last.
    pub target: Option<String>,
    /// The certificates that it showed, its own first.
    pub certificates: Vec<Facts>,
}

/// One SRV record.
#[derive(Clone, Debug, Serialize)]
pub struct Record {
    /// Lower goes first.
    pub priority: u16,
    /// Among equals, higher goes first or more often.
    pub weight: u16,
    /// Host and port.
    pub target: String,
    /// The naming rule lets it speak for the domain.
    pub lawful: bool,
    /// The edge tries it first.
    pub chosen: bool,
}

/// One step.
#[derive(Clone, Debug, Serialize)]
pub struct Step {
    /// What was looked at.
    pub step: &'static str,
    /// How it went.
    pub result: Outcome,
    /// What was seen, or why it failed.
    pub seen: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<&'static str>,
}

/// How a step went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Well.
    Pass,
    /// The edge would refuse.
    Fail,
    /// Nothing to look at here.
    Skip,
}

impl Tester {
    /// Goes through all steps, as far as they can be gone.
    pub async fn run(&self, domain: &HostName) -> Report {
        let mut report = Report {
            domain: domain.to_string(),
            list: "none",
            pass: false,
            steps: Vec::new(),
            records: Vec::new(),
            target: None,
            certificates: Vec::new(),
        };
        self.walk(domain, &mut report).await;
        report.pass = report.steps.iter().all(|step| step.result != Outcome::Fail);
        let verdict = match report.failed() {
            None => (
                "edge-access would exchange messages with this domain".to_owned(),
                Outcome::Pass,
            ),
            Some(step) => (
                format!("edge-access would refuse, by step `{}`", step.step),
                Outcome::Fail,
            ),
        };
        report.add("verdict", verdict.1, verdict.0, None);
        report
    }

    async fn walk(&self, domain: &HostName, report: &mut Report) -> Option<()> {
        let rule = self.list(domain, report)?;
        let answer = self.srv(domain, &rule, report).await?;
        let targets = naming(domain, &rule, answer.as_ref(), report)?;
        let (target, address) = self.reach(&targets, report).await?;
        let shown = self.handshake(&target, address, report).await?;
        certificate(&target, &shown, report);
        self.chain(&shown, report);
        inbound(domain, &rule, answer.as_ref(), &shown, report);
        Some(())
    }

    fn list(&self, domain: &HostName, report: &mut Report) -> Option<DomainRule> {
        let rules = FederationRules::of(&self.config)?;
        if self
            .config
            .organization
            .sip_domains
            .iter()
            .any(|own| own.domain == *domain)
        {
            let seen = format!("{domain} is a domain of this organisation");
            report.fail("list", seen, "Name a partner's domain.");
            return None;
        }
        if !rules.enabled {
            let seen = "federation is switched off on this edge".to_owned();
            report.fail(
                "list",
                seen,
                "Set organization.federation_here and access.federation.enabled.",
            );
        }
        let rule = rules.of_domain(domain);
        report.list = rule.list();
        let (seen, remedy) = match &rule {
            DomainRule::Blocked => (
                format!("{domain} is blocked; nothing else is looked at"),
                Some("Take it out of access.federation.blocked."),
            ),
            DomainRule::Unlisted => (
                format!("{domain} is not among the partners, and discovery is off"),
                Some("List it in access.federation.partners, or set access.federation.discovery."),
            ),
            DomainRule::Direct(edge) => (format!("direct partner, its edge is {edge}"), None),
            DomainRule::Provider(edge) => (format!("with a provider, whose edge is {edge}"), None),
            DomainRule::DefaultRoute(edge) => (format!("by the default route, {edge}"), None),
            DomainRule::InPublicCloud => (
                "nobody listed it: DNS has to name a public provider".to_owned(),
                None,
            ),
            DomainRule::Automatic => ("allowed partner, DNS names its edge".to_owned(), None),
            DomainRule::Discovered => (
                "discovered partner: nobody listed it, limits for discovered partners hold"
                    .to_owned(),
                None,
            ),
        };
        match remedy {
            Some(remedy) => report.fail("list", seen, remedy),
            None => report.pass("list", seen),
        }
        // The edge asks no DNS for whom it has blocked.
        (rule != DomainRule::Blocked).then_some(rule)
    }

    /// The record of the domain; `Some(None)` of a direct partner, for whom none is asked.
    async fn srv(
        &self,
        domain: &HostName,
        rule: &DomainRule,
        report: &mut Report,
    ) -> Option<Option<SrvAnswer>> {
        if let DomainRule::Direct(_) | DomainRule::Provider(_) | DomainRule::DefaultRoute(_) = rule
        {
            report.add(
                "srv",
                Outcome::Skip,
                "the edge is configured by name: no record is asked",
                None,
            );
            return Some(None);
        }
        let owner = format!("{SIP_FEDERATION_TLS}.{domain}");
        let found = match self.dns.srv(SIP_FEDERATION_TLS, domain).await {
            Ok(found) => found.value,
            Err(fault) => {
                let seen = format!("{owner}: {fault}");
                report.fail(
                    "srv",
                    seen,
                    "See that the servers in dns.external answer from this host.",
                );
                return None;
            }
        };
        let seen = match &found {
            SrvAnswer::Missing => {
                report.fail(
                    "srv",
                    format!("there is no record {owner}"),
                    "The partner has to publish it, or be listed with the name of its edge (partners, fqdn).",
                );
                return None;
            }
            SrvAnswer::NotOffered => {
                report.fail(
                    "srv",
                    format!("{owner} points to `.`: the domain says that it does not federate"),
                    "Ask the partner.",
                );
                return None;
            }
            SrvAnswer::Records(records) => records
                .iter()
                .map(|record| format!("{} {} {}", record.priority, record.weight, record.target))
                .collect::<Vec<_>>()
                .join(", "),
        };
        let order = match self.config.access.as_ref()?.federation.srv_order {
            SrvOrder::Ocs => "ocs",
            SrvOrder::Rfc2782 => "rfc2782, by chance among equals",
        };
        report.pass("srv", format!("{owner}: {seen} (order {order})"));
        Some(Some(found))
    }

    /// The first target, in order, that takes a connection.
    async fn reach(
        &self,
        targets: &[HostPort],
        report: &mut Report,
    ) -> Option<(HostPort, SocketAddr)> {
        let mut complaints = Vec::new();
        let mut resolved = Vec::new();
        for target in targets {
            match self.dns.addresses(&target.host).await {
                Ok(found) => {
                    let addresses = found
                        .value
                        .iter()
                        .map(|ip| SocketAddr::new(*ip, target.port));
                    resolved.extend(addresses.map(|address| (target.clone(), address)));
                }
                Err(fault) => complaints.push((format!("{}: {fault}", target.host), fault)),
            }
        }
        let all = |complaints: &[(String, DnsFault)]| {
            complaints
                .iter()
                .map(|(text, _)| text.clone())
                .collect::<Vec<_>>()
                .join("; ")
        };
        if resolved.is_empty() {
            let guarded = complaints
                .iter()
                .any(|(_, fault)| matches!(fault, DnsFault::Refused { .. }));
            let remedy = if guarded {
                "The edge dials public addresses only, and none of its own: the partner's DNS has to name its public address."
            } else {
                "The partner has to publish an address for the host."
            };
            report.fail("addresses", all(&complaints), remedy);
            return None;
        }
        let listed: Vec<_> = resolved
            .iter()
            .map(|(target, address)| format!("{} {}", target.host, address.ip()))
            .collect();
        let mut seen = format!("{}, all of which may be dialled", listed.join(", "));
        if !complaints.is_empty() {
            seen = format!("{seen}; not {}", all(&complaints));
        }
        report.pass("addresses", seen);
        self.connect_first(resolved, report).await
    }

    async fn connect_first(
        &self,
        resolved: Vec<(HostPort, SocketAddr)>,
        report: &mut Report,
    ) -> Option<(HostPort, SocketAddr)> {
        let mut failed = Vec::new();
        for (target, address) in resolved {
            let began = Instant::now();
            match self.connect(address).await {
                Ok(_) => {
                    let took = began.elapsed().as_millis();
                    let before = failed
                        .iter()
                        .map(|text| format!("; not {text}"))
                        .collect::<String>();
                    report.target = Some(target.to_string());
                    report.pass(
                        "connection",
                        format!("{target} at {address} in {took} ms{before}"),
                    );
                    return Some((target, address));
                }
                Err(error) => failed.push(format!("{address}: {error}")),
            }
        }
        report.fail(
            "connection",
            failed.join("; "),
            "See that this host's firewall is applied, and that the partner's lets our address in.",
        );
        None
    }

    async fn connect(&self, to: SocketAddr) -> io::Result<tokio::net::TcpStream> {
        let own = &self.config.local().external.access;
        let from = own
            .iter()
            .find(|own| own.is_ipv4() == to.is_ipv4())
            .copied()
            .ok_or_else(|| io::Error::other("the edge has no address of that family outside"))?;
        self.connect_from(from, to).await
    }

    async fn connect_from(
        &self,
        from: IpAddr,
        to: SocketAddr,
    ) -> io::Result<tokio::net::TcpStream> {
        let bind = Bind::on(
            SocketAddr::new(from, 0),
            self.config.external.interface.as_str(),
        );
        let socket = bind.dial_socket().map_err(io::Error::other)?;
        let socket = tokio::net::TcpSocket::from_std_stream(socket.into());
        match tokio::time::timeout(self.within, socket.connect(to)).await {
            Ok(connected) => connected,
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    async fn handshake(
        &self,
        target: &HostPort,
        address: SocketAddr,
        report: &mut Report,
    ) -> Option<Shown> {
        let tcp = match self.connect(address).await {
            Ok(tcp) => tcp,
            Err(error) => {
                report.fail("tls", error.to_string(), "Try again.");
                return None;
            }
        };
        let looker = Arc::new(Looker {
            verifier: Arc::clone(&self.verifier),
            shown: Mutex::default(),
        });
        let (within, host, certificate) = (
            self.within,
            target.host.clone(),
            Arc::clone(&self.certificate),
        );
        let watched = Arc::clone(&looker);
        // TLS is driven by blocking calls, with time-outs: there is nothing else to do meanwhile.
        let spoken = tokio::task::spawn_blocking(move || {
            let config = tls::watched_dialer(certificate, watched);
            speak(tcp.into_std()?, config, &host, within)
        });
        let spoken = match spoken.await {
            Ok(spoken) => spoken,
            Err(error) => Err(io::Error::other(error)),
        };
        let seen = looker
            .shown
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(seen) = &seen {
            let facts = seen.chain.iter().filter_map(|der| Facts::of(der).ok());
            report.certificates = facts.collect();
        }
        match spoken {
            Ok(Spoken {
                version,
                alert: None,
            }) => report.pass("tls", version),
            Ok(Spoken {
                version,
                alert: Some(alert),
            }) => {
                report.pass("tls", version);
                report.fail(
                    "our certificate",
                    format!("the partner refused it: {alert:?}"),
                    "The partner has to trust our authority, and to take a serverAuth certificate from a client; `edgectl federation card` tells it what we show.",
                );
            }
            Err(error) => {
                report.fail(
                    "tls",
                    error.to_string(),
                    "The partner has to offer TLS 1.2 or 1.3, and to take our certificate.",
                );
            }
        }
        if seen.is_none() {
            report.add("certificate", Outcome::Fail, "none was shown", None);
        }
        seen
    }

    /// Chain, usage and revocation: what the daemon's verifier says in both directions.
    fn chain(&self, shown: &Shown, report: &mut Report) {
        let stage = shown.as_server.as_ref().err().map(stage_of);
        let authority = report
            .certificates
            .last()
            .map_or_else(String::new, |last| last.issuer.clone());
        for step in ["chain", "usage", "revocation", "pin"] {
            match (&shown.as_server, stage) {
                (Err(error), Some((failed, remedy))) if failed == step => {
                    report.fail(step, error.to_string(), remedy);
                    return;
                }
                // These are looked at before any signature.
                (Err(_), Some(("usage" | "pin", _))) if step == "chain" => {
                    report.add("chain", Outcome::Skip, "not looked at", None);
                }
                // A pin is looked at in silence unless it fails.
                (_, _) if step == "pin" => {}
                (_, _) => {
                    let seen = match step {
                        "chain" => format!("{} certificates, up to {authority}", shown.chain.len()),
                        "usage" => report.certificates.first().map_or_else(String::new, |own| {
                            if own.usage.is_empty() {
                                "any".to_owned()
                            } else {
                                own.usage.join(", ")
                            }
                        }),
                        _ => format!("by the rule {:?}", self.revocation()).to_lowercase(),
                    };
                    report.pass(step, seen);
                }
            }
        }
        if let Err(error) = &shown.as_client {
            let (_, remedy) = stage_of(error);
            report.fail("as a client", error.to_string(), remedy);
        } else if shown.as_server.is_ok() {
            report.pass(
                "as a client",
                "the same certificate is taken when the partner connects to us",
            );
        }
    }

    fn revocation(&self) -> edge_common::config::Revocation {
        let access = self.config.access.as_ref();
        access.map_or_else(Default::default, |access| access.federation.revocation)
    }
}

/// The hosts that may be dialled.
fn naming(
    domain: &HostName,
    rule: &DomainRule,
    answer: Option<&SrvAnswer>,
    report: &mut Report,
) -> Option<Vec<HostPort>> {
    if let DomainRule::Direct(edge) | DomainRule::Provider(edge) | DomainRule::DefaultRoute(edge) =
        rule
    {
        report.add("naming", Outcome::Skip, "the name is configured", None);
        return Some(vec![edge.clone()]);
    }
    let answer = answer?;
    let lawful = partner_proof::lawful_targets(domain, answer, Rules::default());
    let first = lawful
        .as_ref()
        .ok()
        .and_then(|targets| targets.first().copied());
    report.records = answer
        .records()
        .iter()
        .map(|record| Record {
            priority: record.priority,
            weight: record.weight,
            target: record.target.to_string(),
            lawful: lawful
                .as_ref()
                .is_ok_and(|targets| targets.contains(&&record.target)),
            chosen: first == Some(&record.target),
        })
        .collect();
    match lawful {
        Ok(targets) => {
            let targets: Vec<HostPort> = targets.into_iter().take(TARGETS_MAX).cloned().collect();
            let names: Vec<_> = targets
                .iter()
                .map(|target| target.host.to_string())
                .collect();
            report.pass("naming", format!("{} within {domain}", names.join(", ")));
            Some(targets)
        }
        Err(refusal) => {
            report.fail(
                "naming",
                format!("{refusal} ({})", refusal.diagnostics()),
                "The partner's record has to name a host within its domain; a host elsewhere can be listed with partners, fqdn.",
            );
            None
        }
    }
}

/// Does the certificate name the host that was dialled?
fn certificate(target: &HostPort, shown: &Shown, report: &mut Report) {
    let Some(own) = report.certificates.first() else {
        report.add("certificate", Outcome::Fail, "it cannot be read", None);
        return;
    };
    let seen = format!(
        "{} for {}, until {}, serial {} of {}",
        own.subject,
        own.names.join(", "),
        calendar::date(own.expires()),
        own.serial,
        own.issuer
    );
    match &shown.names {
        Some(names) if names.proves_host(&target.host) => report.pass("certificate", seen),
        Some(_) | None => report.fail(
            "certificate",
            format!("it does not name {}: {seen}", target.host),
            "The partner's certificate has to hold the SRV target as dNSName; wildcards prove nothing.",
        ),
    }
}

/// Would the same certificate prove the domain when the partner connects to us?
fn inbound(
    domain: &HostName,
    rule: &DomainRule,
    answer: Option<&SrvAnswer>,
    shown: &Shown,
    report: &mut Report,
) {
    let Some(names) = &shown.names else { return };
    let verdict = match (rule, answer) {
        (
            DomainRule::Direct(edge) | DomainRule::Provider(edge) | DomainRule::DefaultRoute(edge),
            _,
        ) => partner_proof::prove_listed(&edge.host, names),
        (_, Some(answer)) => partner_proof::prove(domain, answer, names, Rules::default()),
        (_, None) => return,
    };
    match verdict {
        Verdict::Proven(proof) => {
            let by = match proof {
                partner_proof::Proof::Listed(name) => format!("the configured name {name}"),
                partner_proof::Proof::Srv(name) => format!("the SRV target {name}"),
                partner_proof::Proof::Domain => "the domain itself".to_owned(),
            };
            report.pass(
                "proof",
                format!("the certificate speaks for {domain}, by {by}"),
            );
        }
        Verdict::Refused(refusal) => report.fail(
            "proof",
            format!("{refusal} ({})", refusal.diagnostics()),
            "The certificate has to name a host that the domain's record names.",
        ),
    }
}

impl Report {
    /// The first step that failed.
    #[must_use]
    pub fn failed(&self) -> Option<&Step> {
        self.steps.iter().find(|step| step.result == Outcome::Fail)
    }

    fn pass(&mut self, step: &'static str, seen: impl Into<String>) {
        self.add(step, Outcome::Pass, seen, None);
    }

    fn fail(&mut self, step: &'static str, seen: impl Into<String>, remedy: &'static str) {
        self.add(step, Outcome::Fail, seen, Some(remedy));
    }

    fn add(
        &mut self,
        step: &'static str,
        result: Outcome,
        seen: impl Into<String>,
        remedy: Option<&'static str>,
    ) {
        self.steps.push(Step {
            step,
            result,
            seen: seen.into(),
            remedy,
        });
    }
}

/// What a far end showed, and what our verifier said to it.
#[derive(Debug)]
struct Shown {
    chain: Vec<CertificateDer<'static>>,
    names: Option<ProvenNames>,
    as_server: Result<(), rustls::Error>,
    as_client: Result<(), rustls::Error>,
}

/// Asks the daemon's verifier, keeps what it says, and lets the handshake go on, so that the rest can be seen too.
#[derive(Debug)]
struct Looker {
    verifier: Arc<PeerVerifier>,
    shown: Mutex<Option<Shown>>,
}

impl ServerCertVerifier for Looker {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let as_server = self
            .verifier
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
            .map(drop);
        let as_client = self
            .verifier
            .verify_client_cert(end_entity, intermediates, now)
            .map(drop);
        let chain = std::iter::once(end_entity).chain(intermediates);
        let shown = Shown {
            chain: chain.map(|der| der.clone().into_owned()).collect(),
            names: ProvenNames::from_certificate(end_entity).ok(),
            as_server,
            as_client,
        };
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = Some(shown);
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        ServerCertVerifier::verify_tls12_signature(&*self.verifier, message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        ServerCertVerifier::verify_tls13_signature(&*self.verifier, message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ServerCertVerifier::supported_verify_schemes(&*self.verifier)
    }
}

/// A handshake that was done.
struct Spoken {
    version: String,
    /// What the far end said to our certificate, when it did not like it.
    alert: Option<AlertDescription>,
}

fn speak(
    mut tcp: std::net::TcpStream,
    config: Arc<rustls::ClientConfig>,
    host: &HostName,
    within: Duration,
) -> io::Result<Spoken> {
    tcp.set_nonblocking(false)?;
    tcp.set_write_timeout(Some(within))?;
    tcp.set_read_timeout(Some(within))?;
    let name = ServerName::try_from(host.to_string()).map_err(io::Error::other)?;
    let mut tls = ClientConnection::new(config, name).map_err(io::Error::other)?;
    while tls.is_handshaking() {
        tls.complete_io(&mut tcp)?;
    }
    let version = match tls.protocol_version() {
        Some(ProtocolVersion::TLSv1_2) => "TLS 1.2",
        Some(ProtocolVersion::TLSv1_3) => "TLS 1.3",
        Some(_) | None => "TLS",
    };
    let suite = tls.negotiated_cipher_suite();
    let suite = suite.map_or_else(String::new, |suite| format!(", {:?}", suite.suite()));
    // With TLS 1.3 the far end looks at our certificate after we are done.
    tcp.set_read_timeout(Some(ALERT_PATIENCE))?;
    let alert = tls
        .complete_io(&mut tcp)
        .err()
        .and_then(|error| alert_of(&error));
    tls.send_close_notify();
    // The far end may have closed already.
    drop(tls.write_tls(&mut tcp));
    Ok(Spoken {
        version: format!("{version}{suite}"),
        alert,
    })
}

fn alert_of(error: &io::Error) -> Option<AlertDescription> {
    let inner = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    if let rustls::Error::AlertReceived(alert) = inner {
        return Some(*alert);
    }
    None
}

/// The step that an error of the verifier belongs to, and what to do.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the enums are rustls'; all else is a matter of the chain"
)]
const fn stage_of(error: &rustls::Error) -> (&'static str, &'static str) {
    let rustls::Error::InvalidCertificate(error) = error else {
        return ("chain", "Look at the partner's certificate.");
    };
    match error {
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => (
            "usage",
            "The partner's certificate needs serverAuth, or set access.federation.client_eku for what it shows as a client.",
        ),
        CertificateError::Revoked => (
            "revocation",
            "The certificate was revoked: the partner needs a new one.",
        ),
        CertificateError::UnknownRevocationStatus | CertificateError::ExpiredRevocationList => (
            "revocation",
            "No list in date covers it: see that lists are fetched, or set revocation = \"soft\" for the partner.",
        ),
        CertificateError::ApplicationVerificationFailure => (
            "pin",
            "The key is not the one that is pinned for this partner, or its certificate fits two partners.",
        ),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            ("chain", "The partner has to renew its certificate.")
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            ("name", "")
        }
        CertificateError::UnknownIssuer => (
            "chain",
            "The partner has to send the whole chain; for an authority of its own set ca for this partner.",
        ),
        _ => ("chain", "Look at the partner's certificate."),
    }
}

/// Prints the report for people.
#[must_use]
pub fn text(report: &Report) -> String {
    use crate::plan::line;
    let mut out = String::new();
    line(
        &mut out,
        format_args!("{} ({})", report.domain, report.list),
    );
    for step in &report.steps {
        let word = match step.result {
            Outcome::Pass => "pass",
            Outcome::Fail => "FAIL",
            Outcome::Skip => "-",
        };
        line(
            &mut out,
            format_args!("  {word:4}  {:15} {}", step.step, step.seen),
        );
        if let Some(remedy) = step.remedy {
            line(&mut out, format_args!("        {:15} → {remedy}", ""));
        }
    }
    out
}

/// As many as the edge tries.
const TARGETS_MAX: usize = 4;
/// Two round trips to anywhere.
const ALERT_PATIENCE: Duration = Duration::from_millis(700);
