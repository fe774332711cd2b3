//! The verdicts on domains, on the core that owns them: the pure table with DNS behind it.

use std::cell::RefCell;
use std::time::Duration;

use edge_common::dns::SipResolver;
use edge_common::host_name::HostName;
use edge_common::run;
use edge_common::srv::SIP_FEDERATION_TLS;

use crate::flow::Core;
use crate::proxy::federation::{Authority, Output, Question, Resolved, Unavailable};

/// The table and the resolver that fills it.
pub struct Verdicts {
    authority: RefCell<Authority>,
    dns: SipResolver,
}

impl std::fmt::Debug for Verdicts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Verdicts").field(&self.authority).finish()
    }
}

impl Verdicts {
    /// With an empty table.
    #[must_use]
    pub const fn new(authority: Authority, dns: SipResolver) -> Self {
        Self {
            authority: RefCell::new(authority),
            dns,
        }
    }

    /// Takes a question of any core.
    pub fn ask(&self, core: &Core, question: Question) {
        let mut authority = self.authority.borrow_mut();
        authority.handle_question(run::now(), question);
        drop(authority);
        self.settle(core);
    }

    /// Forgets what was learned.
    pub fn clear(&self) {
        self.authority.borrow_mut().clear();
        self.dns.forget();
    }

    /// Takes in what DNS said.
    pub fn resolved(&self, core: &Core, domain: &HostName, resolved: Resolved) {
        let mut authority = self.authority.borrow_mut();
        authority.handle_srv(run::now(), domain, resolved);
        drop(authority);
        self.settle(core);
    }

    fn settle(&self, core: &Core) {
        self.perform(core);
        core.observer().verdicts_held(self.authority.borrow().len());
    }

    fn perform(&self, core: &Core) {
        loop {
            // The answer may lead to the next question, so the table is free while it is given.
            let output = self.authority.borrow_mut().poll_output();
            match output {
                None => return,
                Some(Output::Answer(question, answer)) => core.deliver_answer(question, answer),
                Some(Output::Resolve(domain)) => {
                    let (core, dns) = (core.clone(), self.dns.clone());
                    core.context().clone().spawn(async move {
                        let resolved = resolve(&dns, &domain).await;
                        core.srv_resolved(&domain, resolved);
                    });
                }
            }
        }
    }
}

async fn resolve(dns: &SipResolver, domain: &HostName) -> Resolved {
    match dns.srv(SIP_FEDERATION_TLS, domain).await {
        Ok(found) => Resolved {
            answer: Ok(found.value),
            ttl: found.expires.saturating_duration_since(run::now().mono),
        },
        Err(fault) => {
            tracing::info!(%domain, %fault, "federation record not resolved");
            Resolved {
                answer: Err(Unavailable),
                ttl: Duration::ZERO,
            }
        }
    }
}
