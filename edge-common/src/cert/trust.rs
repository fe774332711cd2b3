//! Who may issue certificates to our peers: one [`TrustStore`] per side, and each partner's own terms.
//!
//! A partner with its own CA is believed by that CA only, and that CA is believed for that partner only. A
//! certificate that names such a partner and somebody else is believed by nobody: whichever CA were asked, it
//! would speak for a name that is not its own.

use std::path::Path;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls_pki_types::{CertificateDer, TrustAnchor};

use super::identity::ProvenNames;
use super::store::{self, LoadError, LoadFault};
use crate::config::{Federation, Revocation, TrustRoots};
use crate::host_name::HostName;

/// Who may issue certificates to our peers on one side of the host.
#[derive(Clone, Debug, Default)]
pub struct TrustStore {
    roots: Roots,
    partners: Vec<PartnerTrust>,
}

impl TrustStore {
    /// The CAs in a PEM file, and nobody else.
    pub fn from_pem_file(file: &Path) -> Result<Self, LoadError> {
        Ok(Self {
            roots: Roots::load(file)?,
            partners: Vec::new(),
        })
    }

    /// The CAs that the operating system trusts.
    pub fn system() -> Result<Self, LoadError> {
        Ok(Self {
            roots: Roots::system()?,
            partners: Vec::new(),
        })
    }

    /// These CAs.
    pub fn of(authorities: &[CertificateDer<'_>]) -> Result<Self, LoadFault> {
        Ok(Self {
            roots: Roots::of(authorities)?,
            partners: Vec::new(),
        })
    }

    /// With rules of its own for one partner.
    #[must_use]
    pub fn with_partner(mut self, partner: PartnerTrust) -> Self {
        self.partners.push(partner);
        self
    }

    /// Those for partners: the configured roots, and each partner's own rules.
    pub fn federation(config: &Federation) -> Result<Self, LoadError> {
        let mut trust = match &config.trust_roots {
            TrustRoots::System => Self::system()?,
            TrustRoots::File(file) => Self::from_pem_file(file)?,
        };
        for partner in &config.partners {
            trust = trust.with_partner(PartnerTrust {
                domain: partner.domain.clone(),
                fqdn: partner.fqdn.clone(),
                roots: partner.ca.as_deref().map(Roots::load).transpose()?,
                pins: partner.pins.clone(),
                revocation: partner.revocation,
            });
        }
        Ok(trust)
    }

    /// How many CAs are trusted for everybody.
    #[must_use]
    pub fn len(&self) -> usize {
        self.roots.0.roots.len()
    }

    /// Says whether no CA is trusted for everybody.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What holds for a certificate with these names; `None`: nobody may issue it.
    pub(super) fn terms(&self, names: &ProvenNames, common: Revocation) -> Option<Terms<'_>> {
        let mut terms = Terms {
            roots: &self.roots,
            pins: &[],
            revocation: common,
        };
        let mut named = false;
        for partner in self
            .partners
            .iter()
            .filter(|partner| names.all().any(|name| partner.owns(name)))
        {
            terms.revocation = if named {
                stricter(terms.revocation, partner.revocation)
            } else {
                partner.revocation
            };
            named = true;
            if partner.roots.is_none() && partner.pins.is_empty() {
                continue;
            }
            if !names.all().all(|name| partner.owns(name)) {
                return None;
            }
            terms.roots = partner.roots.as_ref().unwrap_or(terms.roots);
            terms.pins = &partner.pins;
        }
        Some(terms)
    }
}

/// What one certificate is held to.
pub(super) struct Terms<'a> {
    pub(super) roots: &'a Roots,
    pub(super) pins: &'a [[u8; 32]],
    pub(super) revocation: Revocation,
}

const fn stricter(a: Revocation, b: Revocation) -> Revocation {
    match (a, b) {
        (Revocation::Hard, _) | (_, Revocation::Hard) => Revocation::Hard,
        (Revocation::Soft, _) | (_, Revocation::Soft) => Revocation::Soft,
        (Revocation::Off, Revocation::Off) => Revocation::Off,
    }
}

/// What holds for one partner instead of what holds for all.
#[derive(Clone, Debug)]
pub struct PartnerTrust {
    /// Its SIP domain; names within it are the partner's.
    pub domain: HostName,
    /// Its edge, when that lies elsewhere.
    pub fqdn: Option<HostName>,
    /// Its own CAs, which replace the common ones.
    pub roots: Option<Roots>,
    /// SHA-256 of the SubjectPublicKeyInfo of certificates that it may show; empty: any.
    pub pins: Vec<[u8; 32]>,
    /// Its own revocation rule.
    pub revocation: Revocation,
}

impl PartnerTrust {
    fn owns(&self, name: &HostName) -> bool {
        name.is_within(&self.domain) || self.fqdn.as_ref() == Some(name)
    }
}

/// CA certificates, ready for use.
#[derive(Clone, Debug)]
pub struct Roots(Arc<RootCertStore>);

impl Default for Roots {
    fn default() -> Self {
        Self(Arc::new(RootCertStore::empty()))
    }
}

impl Roots {
    /// The CAs in a PEM file of the operator's. Each must be fit for use: one left out would be missed too late.
    pub fn load(file: &Path) -> Result<Self, LoadError> {
        let authorities = store::read_chain(file).map_err(|fault| LoadError::new(file, fault))?;
        Self::of(&authorities).map_err(|fault| LoadError::new(file, fault))
    }

    /// These CAs.
    pub fn of(authorities: &[CertificateDer<'_>]) -> Result<Self, LoadFault> {
        let mut store = RootCertStore::empty();
        for (at, authority) in authorities.iter().enumerate() {
            store
                .add(authority.clone().into_owned())
                .map_err(|error| LoadFault::Authority {
                    index: at + 1,
                    reason: error.to_string(),
                })?;
        }
        Ok(Self(Arc::new(store)))
    }

    /// The CAs of the system's bundle, which always holds a few that nobody can use any more.
    fn system() -> Result<Self, LoadError> {
        let file = Path::new(SYSTEM_ROOTS);
        let fault = |fault| LoadError::new(file, fault);
        let mut store = RootCertStore::empty();
        let (usable, _) = store.add_parsable_certificates(store::read_chain(file).map_err(fault)?);
        if usable == 0 {
            return Err(fault(LoadFault::Nothing {
                wanted: "CERTIFICATE of a CA",
            }));
        }
        Ok(Self(Arc::new(store)))
    }

    pub(super) fn anchors(&self) -> &[TrustAnchor<'static>] {
        &self.0.roots
    }
}

/// Debian's bundle.
pub const SYSTEM_ROOTS: &str = "/etc/ssl/certs/ca-certificates.crt";

#[cfg(test)]
mod tests {
    use rustls::{CertificateError, Error};

    use super::*;
    use crate::cert::test_handshake::{
        EDGE, Failed, PARTNER, Party, handshake, lenient, policy, trusting,
    };
    use crate::cert::test_pki::{Authority, Issued, Wish};
    use crate::config::ClientEku;

    #[test]
    fn the_strictest_partner_in_a_certificate_decides_about_revocation() {
        let public = Authority::new("Public CA");
        let partner = |domain: &str, revocation| PartnerTrust {
            domain: domain.parse().unwrap(),
            fqdn: None,
            roots: None,
            pins: Vec::new(),
            revocation,
        };
        let trust = trusting(&public)
            .with_partner(partner("fabrikam.test", Revocation::Hard))
            .with_partner(partner("northwind.test", Revocation::Off));
        let edge = Party::new(
            &public.issue(&Wish::named(EDGE)),
            trust,
            policy(ClientEku::ClientOrServer, Revocation::Soft),
        );
        let connects = |names: &[&'static str]| {
            let mut wish = Wish::named(PARTNER);
            wish.names = names.to_vec();
            let peer = Party::new(&public.issue(&wish), trusting(&public), lenient());
            handshake(&peer.dialer(), &edge.listener(), EDGE)
                .map(drop)
                .map_err(Failed::at_server)
        };
        let unknown = Err(CertificateError::UnknownRevocationStatus.into());
        assert_eq!(connects(&["sip.northwind.test"]), Ok(()));
        assert_eq!(connects(&["sip.else.test"]), Ok(()));
        assert_eq!(connects(&[PARTNER]), unknown);
        assert_eq!(connects(&["sip.northwind.test", PARTNER]), unknown);
    }

    #[test]
    fn the_systems_bundle_is_read_where_there_is_one() {
        match TrustStore::system() {
            Ok(trust) => assert!(!trust.is_empty()),
            Err(error) => assert!(error.to_string().starts_with(SYSTEM_ROOTS), "{error}"),
        }
    }

    #[test]
    fn trust_follows_from_the_configuration() {
        let place = tempfile::TempDir::new().unwrap();
        let write = |name: &str, authority: &Authority| {
            let path = place.path().join(name);
            std::fs::write(&path, authority.pem()).unwrap();
            path
        };
        let (public, own) = (Authority::new("Public CA"), Authority::new("Northwind CA"));
        let example = include_str!("../../../deploy/examples/single.toml");
        let mut config = crate::config::check(example, None).config.unwrap();
        let federation = &mut config.access.as_mut().unwrap().federation;
        federation.trust_roots = TrustRoots::File(write("public.pem", &public));
        federation.partners[1].ca = Some(write("own.pem", &own));
        federation.partners[1].revocation = Revocation::Hard;
        let trust = TrustStore::federation(federation).unwrap();
        let terms = |name: &str| {
            let names = ProvenNames {
                dns: vec![name.parse().unwrap()],
                ..ProvenNames::default()
            };
            let terms = trust.terms(&names, Revocation::Off).unwrap();
            (terms.roots.anchors()[0].subject.to_vec(), terms.revocation)
        };
        let subject = |authority: &Authority| {
            Roots::of(&[authority.certificate()]).unwrap().anchors()[0]
                .subject
                .to_vec()
        };
        assert_eq!(
            terms("sip.northwind.test"),
            (subject(&own), Revocation::Hard)
        );
        assert_eq!(
            terms("sip.stranger.test"),
            (subject(&public), Revocation::Off)
        );
        federation.partners[1].ca = Some(place.path().join("none.pem"));
        assert!(
            TrustStore::federation(federation)
                .unwrap_err()
                .to_string()
                .contains("none.pem: cannot be read")
        );
    }

    fn partner_trust(authority: &Authority) -> PartnerTrust {
        PartnerTrust {
            domain: "fabrikam.test".parse().unwrap(),
            fqdn: None,
            roots: Some(Roots::of(&[authority.certificate()]).unwrap()),
            pins: Vec::new(),
            revocation: Revocation::Off,
        }
    }

    #[test]
    fn a_partners_own_ca_speaks_for_that_partner_only() {
        let (public, own) = (Authority::new("Public CA"), Authority::new("Fabrikam CA"));
        let trust = trusting(&public).with_partner(partner_trust(&own));
        let edge = Party::new(&public.issue(&Wish::named(EDGE)), trust, lenient());
        let connects = |ca: &Authority, names: &[&'static str]| {
            let mut wish = Wish::named(PARTNER);
            wish.names = names.to_vec();
            let peer = Party::new(&ca.issue(&wish), trusting(&public), lenient());
            handshake(&peer.dialer(), &edge.listener(), EDGE)
                .map(drop)
                .map_err(Failed::at_server)
        };
        let unknown = Err(CertificateError::UnknownIssuer.into());
        assert_eq!(connects(&own, &[PARTNER]), Ok(()));
        assert_eq!(
            connects(&public, &[PARTNER]),
            unknown,
            "its own CA replaces the public ones"
        );
        assert_eq!(connects(&own, &["sip.northwind.test"]), unknown);
        let nobody: Result<(), Error> =
            Err(CertificateError::ApplicationVerificationFailure.into());
        for ca in [&own, &public] {
            assert_eq!(connects(ca, &[PARTNER, "sip.northwind.test"]), nobody);
            assert_eq!(connects(ca, &[PARTNER, "sip:northwind.test"]), nobody);
        }
        assert_eq!(connects(&public, &["sip.northwind.test"]), Ok(()));
    }

    #[test]
    fn a_pin_holds_one_key() {
        let public = Authority::new("Public CA");
        let (pinned, other) = (
            public.issue(&Wish::named(PARTNER)),
            public.issue(&Wish::named(PARTNER)),
        );
        let facts = crate::cert::role::Facts::read(&pinned.chain[0]).unwrap();
        let mut partner = partner_trust(&public);
        partner
            .pins
            .push(crate::cert::identity::Fingerprint::of(&facts.public_key).0);
        let edge = Party::new(
            &public.issue(&Wish::named(EDGE)),
            trusting(&public).with_partner(partner),
            lenient(),
        );
        let connects = |shown: &Issued| {
            let peer = Party::new(shown, trusting(&public), lenient());
            handshake(&peer.dialer(), &edge.listener(), EDGE)
                .map(drop)
                .map_err(Failed::at_server)
        };
        assert_eq!(connects(&pinned), Ok(()));
        assert_eq!(
            connects(&other),
            Err(CertificateError::ApplicationVerificationFailure.into())
        );
    }
}
