//! The certificates and trust of the Access Edge, replaced as a whole when the configuration is read again.

use std::sync::Arc;

use anyhow::Context;
use arc_swap::ArcSwap;
use edge_common::cert::role::{Role, Wanted};
use edge_common::cert::tls::{
    ArrayTickets, CrlStore, PeerVerifier, Store, VerifyTally, client_listener, dialer,
    mutual_listener, system_clock,
};
use edge_common::config::{Access, Config};
use edge_common::observe::metrics::Metrics;
use edge_common::secret::Secrets;
use edge_common::time::Now;
use rustls::{ClientConfig, ServerConfig};

/// What listeners and dialers take at each new connection. Clones share it.
#[derive(Clone, Debug)]
pub struct Tls {
    /// For remote users: they show nothing, and may come back by ticket.
    pub client: Arc<ArcSwap<ServerConfig>>,
    /// For partners who connect to us.
    pub federation: Arc<ArcSwap<ServerConfig>>,
    /// Whom that let in, to be asked whether they are to be called back.
    pub partners: Arc<ArcSwap<PeerVerifier>>,
    /// For servers inside who connect to us.
    pub internal: Arc<ArcSwap<ServerConfig>>,
    /// For connections to partners.
    pub partner: Arc<ArcSwap<ClientConfig>>,
    /// For connections to the next hop.
    pub next_hop: Arc<ArcSwap<ClientConfig>>,
    /// What was let pass at their doors.
    tallies: Tallies,
}

/// Peers whose revocation state was not certain, over all configurations that were read.
#[derive(Clone, Debug, Default)]
struct Tallies {
    partners: Arc<VerifyTally>,
    inside: Arc<VerifyTally>,
    /// What was fetched from partners' authorities.
    crls: Crls,
}

/// Lists outlive the configurations under which they were fetched.
#[derive(Clone, Debug)]
struct Crls(Arc<CrlStore>);

impl Default for Crls {
    fn default() -> Self {
        Self(CrlStore::empty())
    }
}

struct Made {
    client: Arc<ServerConfig>,
    federation: Arc<ServerConfig>,
    partners: Arc<PeerVerifier>,
    internal: Arc<ServerConfig>,
    partner: Arc<ClientConfig>,
    next_hop: Arc<ClientConfig>,
}

impl Tls {
    /// Loads everything that the configuration names.
    pub fn load(
        now: Now,
        config: &Config,
        access: &Access,
        secrets: &Secrets,
    ) -> anyhow::Result<Self> {
        let tallies = Tallies::default();
        let made = make(now, config, access, secrets, &tallies)?;
        Ok(Self {
            client: Arc::new(ArcSwap::new(made.client)),
            federation: Arc::new(ArcSwap::new(made.federation)),
            partners: Arc::new(ArcSwap::new(made.partners)),
            internal: Arc::new(ArcSwap::new(made.internal)),
            partner: Arc::new(ArcSwap::new(made.partner)),
            next_hop: Arc::new(ArcSwap::new(made.next_hop)),
            tallies,
        })
    }

    /// The lists of partners' authorities, for whoever fetches them.
    #[must_use]
    pub fn partner_crls(&self) -> Arc<CrlStore> {
        Arc::clone(&self.tallies.crls.0)
    }

    /// Shows what was let pass.
    pub fn show_in(&self, metrics: &Metrics) {
        self.tallies.partners.show_in("partners", metrics);
        self.tallies.inside.show_in("inside", metrics);
    }

    /// Loads everything anew for the connections to come. On an error all of it stays as it was.
    pub fn reload(
        &self,
        now: Now,
        config: &Config,
        access: &Access,
        secrets: &Secrets,
    ) -> anyhow::Result<()> {
        let made = make(now, config, access, secrets, &self.tallies)?;
        self.client.store(made.client);
        self.federation.store(made.federation);
        self.partners.store(made.partners);
        self.internal.store(made.internal);
        self.partner.store(made.partner);
        self.next_hop.store(made.next_hop);
        Ok(())
    }
}

fn make(
    now: Now,
    config: &Config,
    access: &Access,
    secrets: &Secrets,
    tallies: &Tallies,
) -> anyhow::Result<Made> {
    let load = |files, role| {
        let wanted = Wanted::of(config, role).unwrap_or_else(Wanted::nothing);
        let (store, problems) = Store::load(files, wanted, now.unix)?;
        for problem in problems {
            tracing::warn!(?role, %problem, "certificate");
        }
        anyhow::Ok(store)
    };
    let external =
        load(&access.certificates, Role::AccessExternal).context("access.certificates")?;
    let internal =
        load(&config.internal.certificates, Role::Internal).context("internal.certificates")?;
    let inside = PeerVerifier::inside(&config.internal)
        .context("internal.ca")?
        .counted_in(&tallies.inside);
    let crls = Arc::clone(&tallies.crls.0);
    let partners = PeerVerifier::federation(&access.federation, crls)
        .context("access.federation.trust_roots")?
        .counted_in(&tallies.partners);
    let tickets = ArrayTickets::new(secrets, system_clock());
    Ok(Made {
        client: client_listener(Arc::clone(&external), tickets),
        federation: mutual_listener(Arc::clone(&external), Arc::clone(&partners), NO_ALPN),
        internal: mutual_listener(Arc::clone(&internal), Arc::clone(&inside), NO_ALPN),
        partner: dialer(external, Arc::clone(&partners), NO_ALPN),
        partners,
        next_hop: dialer(internal, inside, NO_ALPN),
    })
}

/// SIP over TLS negotiates no protocol.
const NO_ALPN: &[&[u8]] = &[];
