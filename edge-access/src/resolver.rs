//! The verdicts on domains, on the core that owns them: the pure table with DNS behind it.

use std::cell::RefCell;
use std::time::Duration;

use edge_common::cert::identity::CertificateId;
use edge_common::dns::SipResolver;
use edge_common::host_name::HostName;
use edge_common::run;
use edge_common::srv::SIP_FEDERATION_TLS;

use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::connector::Partners;
use crate::federation_admin;
use crate::flow::Core;
use crate::proxy::callback::{Call, Called};
use crate::proxy::federation::{Authority, Output, Question, Resolved, Unavailable};
use crate::proxy::watch::Decision;
use crate::watch_file::WatchFile;

/// The table and the resolver that fills it.
pub struct Verdicts {
    authority: RefCell<Authority>,
    dns: SipResolver,
    /// The way to partners' edges.
    partners: Partners,
    /// Where decisions on discovered partners are kept.
    file: WatchFile,
    /// Something has to be written there.
    decided: Notify,
}

impl std::fmt::Debug for Verdicts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Verdicts").field(&self.authority).finish()
    }
}

impl Verdicts {
    /// With an empty table.
    #[must_use]
    pub fn new(
        authority: Authority,
        dns: SipResolver,
        partners: Partners,
        file: WatchFile,
    ) -> Self {
        Self {
            authority: RefCell::new(authority),
            dns,
            partners,
            file,
            decided: Notify::new(),
        }
    }

    /// The watch list as it is told.
    pub fn watch_list(&self) -> Value {
        federation_admin::watch_list(self.authority.borrow().watch())
    }

    /// Does what an operator decided.
    pub fn decide(
        &self,
        core: &Core,
        certificate: &CertificateId,
        decision: Decision,
    ) -> Result<Value, String> {
        let mut authority = self.authority.borrow_mut();
        let seen = authority
            .watch_mut()
            .decide(run::now(), certificate, decision)
            .map_err(|full| full.to_string())?;
        drop(authority);
        self.tell_watch(core);
        Ok(json!({ "changed": federation_admin::entry(&seen) }))
    }

    /// Reviews the watch list, and writes down what has to outlive the process; one write at a time.
    pub async fn keep_watch(&self, core: &Core) {
        loop {
            tokio::select! {
                () = self.decided.notified() => self.write().await,
                () = tokio::time::sleep(REVIEW_INTERVAL) => {
                    self.authority.borrow_mut().watch_mut().review(run::now());
                    self.tell_watch(core);
                }
            }
        }
    }

    async fn write(&self) {
        let kept: Vec<_> = self.authority.borrow().watch().keep().collect();
        let file = self.file.clone();
        let written = tokio::task::spawn_blocking(move || file.write(&kept)).await;
        if let Ok(Err(error)) = written {
            tracing::warn!(%error, "the watch list cannot be kept");
        }
    }

    fn tell_watch(&self, core: &Core) {
        let mut authority = self.authority.borrow_mut();
        while let Some(event) = authority.watch_mut().poll_event() {
            core.observer().watched(&event);
            self.decided.notify_one();
        }
        core.observer().watch_entries(authority.watch().len());
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

    /// Takes in what a call came to.
    pub fn called_back(&self, core: &Core, call: &Call, called: &Called) {
        let outcome = called
            .as_ref()
            .map_or_else(|fault| fault.label(), |_| "proven");
        tracing::info!(target = %call.target, outcome, "partner called back");
        core.observer().called_back(outcome);
        let mut authority = self.authority.borrow_mut();
        authority.handle_called(run::now(), call, called);
        drop(authority);
        self.settle(core);
    }

    fn settle(&self, core: &Core) {
        self.perform(core);
        let authority = self.authority.borrow();
        core.observer().verdicts_held(authority.len());
        core.observer().calling_back(authority.calling());
    }

    fn perform(&self, core: &Core) {
        loop {
            // The answer may lead to the next question, so the table is free while it is given.
            let output = self.authority.borrow_mut().poll_output();
            match output {
                None => return,
                Some(Output::Answer(question, answer)) => core.deliver_answer(question, answer),
                Some(Output::NotCalled(fault)) => core.observer().called_back(fault.label()),
                Some(Output::Call(call)) => {
                    let (core, partners) = (core.clone(), self.partners.clone());
                    core.context().clone().spawn(async move {
                        let called = partners.call_back(&core, &call).await;
                        core.called_back(&call, &called);
                    });
                }
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

/// How late a limit that was reached, or suspicion, is noticed.
const REVIEW_INTERVAL: Duration = Duration::from_secs(1);
