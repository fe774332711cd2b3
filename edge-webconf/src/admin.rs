//! What an operator may ask and change over the admin socket.
//!
//! ```text
//!   {"command":"sessions","max":100}                ─► {"total":…,"rows":[{"dial_id":…,"number":"<hash>",…}]}
//!   {"command":"agents"}  {"command":"admissions"}
//!   {"command":"sessions.cut","dial_id":7}          ─► {"closed":true}
//!   {"command":"agents.drop","agent":"mcu1.contoso.internal"}
//!   {"command":"admissions.revoke","number":"<hash>","cut":true}
//! ```

use std::fmt;
use std::time::Duration;

use edge_common::host_name::HostName;
use edge_common::net::mailbox::Outbox;
use edge_common::observe::admin::{Commands, Effect};
use edge_common::time::Now;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::relay::Input;
use crate::relay::shell::BROKER_CORE;
use crate::session::Broker;
use crate::session::operator::{AdmissionRow, AgentRow, Listed, SessionRow};

/// Something to do with the broker, on its core.
pub struct Ask(Box<Question>);

type Question = dyn FnOnce(&mut Broker, Now) + Send;

impl Ask {
    /// Does it.
    pub fn run(self, broker: &mut Broker, now: Now) {
        (self.0)(broker, now);
    }
}

impl fmt::Debug for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ask(..)")
    }
}

/// The commands; `inputs` leads to the broker.
#[must_use]
pub fn commands(inputs: &Outbox<Input>) -> Commands {
    let mut commands = Commands::default();
    let mut add = |name, effect, prepare: Prepare| {
        let inputs = inputs.clone();
        commands.add(name, effect, move |request| {
            let (inputs, job) = (inputs.clone(), prepare(&request));
            async move { on_broker(&inputs, job?).await }
        });
    };
    add("sessions", Effect::Read, |request| {
        let max = max(request)?;
        Ok(Box::new(move |broker, now| {
            listed(&broker.list_sessions(now, max), session)
        }))
    });
    add("agents", Effect::Read, |request| {
        let max = max(request)?;
        Ok(Box::new(move |broker, now| {
            listed(&broker.list_agents(now, max), agent)
        }))
    });
    add("admissions", Effect::Read, |request| {
        let max = max(request)?;
        Ok(Box::new(move |broker, now| {
            listed(&broker.list_admissions(now, max), admission)
        }))
    });
    add("sessions.cut", Effect::Change, |request| {
        let id = request["dial_id"].as_u64().ok_or("no `dial_id`")?;
        Ok(Box::new(
            move |broker, now| json!({ "closed": broker.cut_session(now, id) }),
        ))
    });
    add("agents.drop", Effect::Change, |request| {
        let name = request["agent"].as_str().ok_or("no `agent`")?;
        let name: HostName = name.parse().map_err(|error| format!("{name}: {error}"))?;
        Ok(Box::new(
            move |broker, now| json!({ "dropped": broker.drop_agent(now, &name) }),
        ))
    });
    add("admissions.revoke", Effect::Change, |request| {
        let hash = request["number"].as_str().unwrap_or_default();
        let hash = u64::from_str_radix(hash, 16).map_err(|_| "`number` is no hash of a number")?;
        let cut = request["cut"].as_bool().unwrap_or(false);
        Ok(Box::new(move |broker, now| {
            let (revoked, closed) = broker.revoke_hash(now, hash, cut);
            json!({ "revoked": revoked, "closed": closed })
        }))
    });
    commands
}

type Job = Box<dyn FnOnce(&mut Broker, Now) -> Value + Send>;
type Prepare = fn(&Value) -> Result<Job, String>;

async fn on_broker(inputs: &Outbox<Input>, job: Job) -> Result<Value, String> {
    let (answer, answered) = oneshot::channel();
    let ask = Ask(Box::new(move |broker: &mut Broker, now: Now| {
        // Whoever asked may have gone.
        let _gone = answer.send(job(broker, now));
    }));
    inputs
        .send(BROKER_CORE, Input::Ask(ask))
        .map_err(|full| format!("the broker has too much to do: {full}"))?;
    answered
        .await
        .map_err(|_| "the broker has ended".to_owned())
}

fn max(request: &Value) -> Result<usize, String> {
    let Some(max) = request.get("max") else {
        return Ok(ROWS_USUAL);
    };
    max.as_u64()
        .and_then(|max| usize::try_from(max).ok())
        .filter(|max| *max <= ROWS_MAX)
        .ok_or_else(|| format!("`max` is a number up to {ROWS_MAX}"))
}

fn listed<T>(listed: &Listed<T>, row: fn(&T) -> Value) -> Value {
    let rows: Vec<Value> = listed.rows.iter().map(row).collect();
    json!({ "total": listed.total, "rows": rows })
}

fn session(row: &SessionRow) -> Value {
    json!({
        "dial_id": row.dial_id,
        "stage": row.stage,
        "client": row.client.to_string(),
        "agent": row.agent.as_str(),
        "registration": row.registration,
        "number": hash(row.number),
        "seconds": seconds(row.lasted),
    })
}

fn agent(row: &AgentRow) -> Value {
    let id: String = row
        .agent_id
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let registrations = row.registrations.iter();
    let registrations: Vec<Value> = registrations
        .map(|(name, clients)| json!({ "name": name, "clients": clients }))
        .collect();
    json!({
        "agent": row.agent.as_str(),
        "agent_id": id,
        "address": row.address.map(|address| address.to_string()),
        "seconds": seconds(row.lasted),
        "parked": row.parked,
        "waiting": row.waiting,
        "clients": row.clients,
        "admitted": row.admitted,
        "draining": row.draining,
        "registrations": registrations,
    })
}

fn admission(row: &AdmissionRow) -> Value {
    json!({
        "number": hash(row.number),
        "agent": row.agent.as_str(),
        "registration": row.registration,
        "uses_left": row.uses_left,
        "seconds_left": seconds(row.left),
    })
}

fn hash(hash: u64) -> String {
    format!("{hash:016x}")
}

fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}

const ROWS_USUAL: usize = 100;
/// What one answer holds at most.
const ROWS_MAX: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_rows_is_bounded() {
        assert_eq!(max(&json!({})), Ok(100));
        assert_eq!(max(&json!({ "max": 1000 })), Ok(1000));
        for wrong in [json!(1001), json!(-1), json!("1"), json!(1.5)] {
            assert!(max(&json!({ "max": wrong })).is_err(), "{wrong}");
        }
    }
}
