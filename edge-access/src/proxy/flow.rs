//! The connections that one core owns, as the proxy sees them.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use edge_common::cert::identity::{CertificateId, Fingerprint, KeyFingerprint, ProvenNames};
use edge_common::config::Verification;
use edge_common::domain_rule::FederationRules;
use edge_common::host_name::{HostName, HostPort};

use edge_common::timer::TimerId;

use super::callback::Shown;
use super::curb::Curb;
use super::meter::Meter;
use super::refusal::Refusal;
use super::token::{FlowKey, Realm};
use super::transaction::NO_TRANSACTION;

/// One connection with its handshake done.
#[derive(Debug)]
pub struct Flow {
    /// Where the far end stands.
    pub remote: SocketAddr,
    /// Who the far end is.
    pub peer: Peer,
    /// When it opened.
    pub opened: Instant,
    /// When it last sent a byte.
    pub heard: Instant,
    /// When it last sent a message.
    pub said: Instant,
    /// Whether a whole message ever came.
    pub spoke: bool,
    /// Its messages come in frames of a WebSocket (RFC 7118).
    pub web: bool,
    /// When its last keep-alive was answered.
    pub ponged: Option<Instant>,
    /// After how much silence it promised to speak.
    pub keep_alive: Option<Duration>,
    /// Requests in a row that went in while nothing came out.
    pub(super) timeouts: u8,
    /// The first of the transactions whose requests went over it.
    pub(super) pending: u32,
    /// Its one timer.
    pub(super) timer: Option<TimerId>,
}

/// Who the far end of a connection is.
#[derive(Debug)]
pub enum Peer {
    /// A client outside, known by nothing but its connection.
    Client(Standing),
    /// A server inside that is allowed to speak.
    Inside {
        /// The name it proved.
        name: HostName,
    },
    /// Another organisation's edge.
    Partner(Partner),
}

/// Whether the inside has accepted a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Not yet: it has a small budget.
    Newcomer {
        /// Requests so far.
        requests: u16,
        /// Of these without a final answer.
        in_flight: u16,
    },
    /// A 2xx to its REGISTER (or anonymous INVITE) went back.
    Promoted,
}

/// What is known of a partner's edge.
#[derive(Clone, Debug)]
pub struct Partner {
    /// What its certificate proves.
    pub names: Arc<ProvenNames>,
    /// Its certificate.
    pub fingerprint: Fingerprint,
    /// The same, as the watch list and administrators name it.
    pub certificate: Arc<CertificateId>,
    /// What counts its requests, once it was proven by discovery.
    pub(super) meter: Option<Arc<Meter>>,
    /// What it may have us look up.
    pub(super) curb: Curb,
    /// What it showed, while it has to be called back: until then it has no names.
    pub(super) shown: Option<Arc<Shown>>,
    /// Where we dialled; `None` when they connected to us.
    pub dialled: Option<HostPort>,
    /// What the connection is for, once a domain was proven on it.
    class: Option<Class>,
    /// Domains that it spoke for and what was said of that, newest last.
    verdicts: Vec<(HostName, Result<Proof, Refusal>, Instant)>,
}

/// How a partner came to stand for a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// The edge that the certificate proves and the domain names.
    pub target: HostPort,
    /// By which rule.
    pub kind: PartnerKind,
}

/// By which rule a domain is a partner (MS-SIPRE, `ms-source-type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PartnerKind {
    /// Listed with the name of its edge.
    Direct,
    /// Listed by domain only: DNS names the edge.
    Automatic,
    /// Not listed: DNS names the edge, and limits hold.
    Discovered,
    /// A provider that everybody may be with.
    PublicProvider,
    /// A provider that hosts other organisations.
    HostingProvider,
    /// Whoever all of federation runs through.
    DefaultRoute {
        /// It is a provider of public messaging.
        public: bool,
    },
}

impl PartnerKind {
    /// The word for it in answers and logs.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Automatic => "automatic",
            Self::Discovered => "discovered",
            Self::PublicProvider => "public-provider",
            Self::HostingProvider => "hosting-provider",
            Self::DefaultRoute { .. } => "default-route",
        }
    }

    /// Of a partner whose edge was proven to be `host`, by a rule that DNS had to answer for.
    #[must_use]
    pub fn by_dns(rules: &FederationRules, host: &HostName, discovered: bool) -> Self {
        match rules.provider(host) {
            Some(provider) => Self::provider(provider.public),
            None if discovered => Self::Discovered,
            None => Self::Automatic,
        }
    }

    /// Of a partner of whom only the name of its edge is known.
    #[must_use]
    pub fn of_edge(rules: &FederationRules, host: &HostName) -> Self {
        let direct = |(_, fqdn): &(HostName, Option<HostName>)| fqdn.as_ref() == Some(host);
        if rules.partners.iter().any(direct) {
            return Self::Direct;
        }
        match &rules.default_route {
            Some(route) if route.fqdn == *host => Self::DefaultRoute {
                public: route.public,
            },
            Some(_) | None => Self::by_dns(rules, host, false),
        }
    }

    /// How senders that `host` vouches for are marked; `domain` is theirs, when it is known.
    #[must_use]
    pub fn verification(
        self,
        rules: &FederationRules,
        host: &HostName,
        domain: Option<&str>,
    ) -> Verification {
        let listed = || {
            let domain = domain?;
            let mut listed = rules.verification.iter();
            listed
                .find(|(listed, _)| listed.as_str().eq_ignore_ascii_case(domain))
                .map(|(_, verification)| *verification)
        };
        match self {
            Self::Direct | Self::Automatic => listed(),
            Self::Discovered => Some(rules.discovered_verification),
            Self::PublicProvider | Self::HostingProvider => {
                rules.provider(host).map(|provider| provider.verification)
            }
            Self::DefaultRoute { .. } => {
                rules.default_route.as_ref().map(|route| route.verification)
            }
        }
        .unwrap_or_default()
    }

    /// Of a provider.
    #[must_use]
    pub const fn provider(public: bool) -> Self {
        if public {
            Self::PublicProvider
        } else {
            Self::HostingProvider
        }
    }

    /// What one connection is for: whoever was let in as one may not speak as another on it.
    #[must_use]
    pub const fn class(self) -> Class {
        match self {
            Self::Direct => Class::Direct,
            Self::Automatic | Self::Discovered => Class::Automatic,
            Self::PublicProvider | Self::HostingProvider => Class::Provider,
            Self::DefaultRoute { .. } => Class::DefaultRoute,
        }
    }
}

/// The types of federation; a connection is of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// By a name that is listed.
    Direct,
    /// By DNS.
    Automatic,
    /// By a provider's name.
    Provider,
    /// By the name of whoever everything runs through.
    DefaultRoute,
}

impl Flow {
    /// A connection that has just opened.
    #[must_use]
    pub const fn new(now: Instant, remote: SocketAddr, peer: Peer) -> Self {
        Self {
            remote,
            peer,
            opened: now,
            heard: now,
            said: now,
            spoke: false,
            web: false,
            ponged: None,
            keep_alive: None,
            timeouts: 0,
            pending: NO_TRANSACTION,
            timer: None,
        }
    }
}

impl Partner {
    /// A partner of whom nothing but the certificate is known.
    #[must_use]
    pub fn new(
        names: Arc<ProvenNames>,
        fingerprint: Fingerprint,
        dialled: Option<HostPort>,
    ) -> Self {
        Self {
            names,
            fingerprint,
            certificate: Arc::default(),
            meter: None,
            curb: Curb::default(),
            shown: None,
            dialled,
            class: None,
            verdicts: Vec::new(),
        }
    }

    /// With the issuer and number of its certificate.
    #[must_use]
    pub fn issued(mut self, certificate: CertificateId) -> Self {
        self.certificate = Arc::new(certificate);
        self
    }

    /// As one who has to be called back: what it showed are not its names until then.
    #[must_use]
    pub fn to_call_back(mut self, key: KeyFingerprint, source: IpAddr) -> Self {
        self.shown = Some(Arc::new(Shown {
            names: std::mem::take(&mut self.names),
            key,
            source,
        }));
        self
    }

    /// It was called back: these are its names.
    pub(super) fn called_back(&mut self, names: Arc<ProvenNames>, certificate: Arc<CertificateId>) {
        self.shown = None;
        self.names = names;
        self.certificate = certificate;
    }

    /// What its certificate names, whether it is known to be its own or not.
    #[must_use]
    pub fn shown_names(&self) -> &Arc<ProvenNames> {
        self.shown
            .as_ref()
            .map_or(&self.names, |shown| &shown.names)
    }

    /// Counts how one of its requests was answered.
    pub(super) fn note(&self, found: Option<bool>) {
        if let (Some(meter), Some(found)) = (&self.meter, found) {
            meter.answered(found);
        }
    }

    /// What was said of it, domain by domain.
    pub fn verdicts(&self) -> impl Iterator<Item = (&HostName, &Result<Proof, Refusal>)> {
        self.verdicts
            .iter()
            .map(|(domain, verdict, _)| (domain, verdict))
    }

    /// What the connection is for, since a first domain was proven on it.
    #[must_use]
    pub const fn class(&self) -> Option<Class> {
        self.class
    }

    /// What was said last of it as the edge of `domain`, whether that still holds or not.
    pub(super) fn said(&self, domain: &HostName) -> Option<&Result<Proof, Refusal>> {
        let mut verdicts = self.verdicts.iter();
        verdicts
            .find(|(judged, _, _)| judged == domain)
            .map(|(_, verdict, _)| verdict)
    }

    /// Whether it was found to speak for any domain, or we dialled it because it does.
    #[must_use]
    pub fn is_proven(&self) -> bool {
        self.dialled.is_some() || self.class.is_some()
    }

    /// What was said of it as the edge of `domain`, if that still holds.
    pub(super) fn verdict(
        &self,
        domain: &HostName,
        now: Instant,
    ) -> Option<&Result<Proof, Refusal>> {
        self.verdicts
            .iter()
            .find(|(judged, _, until)| judged == domain && *until > now)
            .map(|(_, verdict, _)| verdict)
    }

    pub(super) fn remember(
        &mut self,
        domain: HostName,
        verdict: Result<Proof, Refusal>,
        until: Instant,
    ) {
        if let (None, Ok(proof)) = (self.class, &verdict) {
            self.class = Some(proof.kind.class());
        }
        self.verdicts.retain(|(judged, _, _)| *judged != domain);
        // The oldest ones go.
        let excess = (self.verdicts.len() + 1).saturating_sub(VERDICTS_MAX);
        self.verdicts.drain(..excess);
        self.verdicts.push((domain, verdict, until));
    }
}

impl Peer {
    /// The kind of far end.
    #[must_use]
    pub const fn realm(&self) -> Realm {
        match self {
            Self::Client(_) => Realm::Client,
            Self::Inside { .. } => Realm::Inside,
            Self::Partner(_) => Realm::Partner,
        }
    }
}

/// The table of one core's flows. A freed slot is used again under its next generation.
#[derive(Debug)]
pub struct Flows {
    core: u8,
    slots: Vec<Slot>,
    free: Vec<u32>,
    len_max: usize,
}

#[derive(Debug)]
struct Slot {
    generation: u32,
    flow: Option<Flow>,
}

impl Flows {
    /// An empty table of `core` for `len_max` flows.
    #[must_use]
    pub const fn new(core: u8, len_max: usize) -> Self {
        Self {
            core,
            slots: Vec::new(),
            free: Vec::new(),
            len_max,
        }
    }

    /// Takes a flow in; `None` when the table is full.
    pub fn insert(&mut self, flow: Flow) -> Option<FlowKey> {
        if self.len() >= self.len_max {
            return None;
        }
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                let slot = u32::try_from(self.slots.len()).ok()?;
                self.slots.push(Slot {
                    generation: 0,
                    flow: None,
                });
                slot
            }
        };
        let place = &mut self.slots[slot as usize];
        place.flow = Some(flow);
        Some(FlowKey {
            core: self.core,
            slot,
            generation: place.generation,
        })
    }

    /// Lets a flow go; its key never names another one.
    pub fn remove(&mut self, key: FlowKey) -> Option<Flow> {
        let place = self.place(key)?;
        let flow = place.flow.take()?;
        place.generation = place.generation.wrapping_add(1);
        self.free.push(key.slot);
        Some(flow)
    }

    /// The flow, if it is of this core and still there.
    #[must_use]
    pub fn get(&self, key: FlowKey) -> Option<&Flow> {
        let place = self.slots.get(key.slot as usize)?;
        if key.core != self.core || place.generation != key.generation {
            return None;
        }
        place.flow.as_ref()
    }

    /// The flow, to be changed.
    pub fn get_mut(&mut self, key: FlowKey) -> Option<&mut Flow> {
        self.place(key)?.flow.as_mut()
    }

    /// All that are there.
    pub fn iter(&self) -> impl Iterator<Item = &Flow> {
        self.slots.iter().filter_map(|slot| slot.flow.as_ref())
    }

    /// All that are there with their keys, in the order of their places.
    pub fn entries(&self) -> impl Iterator<Item = (FlowKey, &Flow)> {
        self.slots.iter().zip(0..).filter_map(|(place, slot)| {
            let key = FlowKey {
                core: self.core,
                slot,
                generation: place.generation,
            };
            place.flow.as_ref().map(|flow| (key, flow))
        })
    }

    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn place(&mut self, key: FlowKey) -> Option<&mut Slot> {
        if key.core != self.core {
            return None;
        }
        self.slots
            .get_mut(key.slot as usize)
            .filter(|place| place.generation == key.generation)
    }
}

/// Domains remembered per connection; a partner with more asks the owner of the verdicts again.
const VERDICTS_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn flow() -> Flow {
        Flow::new(
            Instant::now(),
            SocketAddr::from(([192, 0, 2, 1], 1)),
            Peer::Client(Standing::Promoted),
        )
    }

    #[test]
    fn a_key_names_one_flow_for_ever() {
        let mut flows = Flows::new(3, 1);
        let first = flows.insert(flow()).expect("room");
        assert!(flows.insert(flow()).is_none(), "full");
        assert!(flows.remove(first).is_some());
        let second = flows.insert(flow()).expect("room again");
        assert_eq!(first.slot, second.slot);
        assert!(flows.get(first).is_none() && flows.get(second).is_some());
        assert!(flows.remove(first).is_none());
        let elsewhere = FlowKey { core: 2, ..second };
        assert!(flows.get(elsewhere).is_none() && flows.remove(elsewhere).is_none());
        assert_eq!(flows.len(), 1);
    }
}
