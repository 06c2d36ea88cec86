//! Locks: set, lifted, listed.

use std::sync::Arc;

use dayfly_proto::v1;
use dayfly_verifier::invalid::Invalid;
use dayfly_verifier::time::Timestamp;
use tonic::Status;

use super::{Broker, parse, render, status};
use crate::core::command::{Caller, Command};
use crate::core::event::Lock;
use crate::core::locks::SetLock;
use crate::journal::FreeText;

/// Sets a lock, or puts its end off.
pub(super) async fn lock(
    broker: &Arc<Broker>,
    caller: Caller,
    message: v1::LockRequest,
) -> Result<v1::LockResponse, Status> {
    let v1::LockRequest { lock, reason } = message;
    let invalid = |invalid: Invalid| status::invalid(&invalid);
    let (lock, until) = read(lock).map_err(invalid)?;
    let text = parse::free_text("reason", reason).map_err(invalid)?;
    let text = text.map(|text| broker.salted(text)).transpose()?;
    let command = Command::Lock(lock, until, text.as_ref().map(FreeText::digest));
    let set = broker.sequencer.submit_with(command, caller, text).await;
    let state = set.map_err(|failure| status::failure(&failure))?;
    Ok(v1::LockResponse { head: Some(render::head(&state.head)) })
}

/// Lifts a lock.
pub(super) async fn unlock(
    broker: &Arc<Broker>,
    caller: Caller,
    message: v1::UnlockRequest,
) -> Result<v1::UnlockResponse, Status> {
    let v1::UnlockRequest { lock_id } = message;
    let id = parse::text("lock_id", &lock_id).map_err(|invalid| status::invalid(&invalid))?;
    let lifted = broker.sequencer.submit(Command::Unlock(id), caller).await;
    let state = lifted.map_err(|failure| status::failure(&failure))?;
    Ok(v1::UnlockResponse { head: Some(render::head(&state.head)) })
}

/// The locks in force, with their reasons.
pub(super) async fn list(
    broker: &Broker,
    message: v1::ListLocksRequest,
) -> Result<v1::ListLocksResponse, Status> {
    let v1::ListLocksRequest {} = message;
    let state = broker.sequencer.state();
    let mut sets: Vec<&SetLock> = state.locks(broker.now(&state)).collect();
    sets.sort_by_key(|set| (set.until, set.seq));
    let mut locks = Vec::new();
    for set in sets {
        let text = match &set.reason {
            Some(digest) => broker.store.text(digest).await,
            None => Ok(None),
        };
        let text = text.map_err(|error| status::unavailable(&error))?;
        let reason = text.map(|text| text.body().to_owned()).unwrap_or_default();
        locks.push(v1::SetLock { reason, ..write(set) });
    }
    Ok(v1::ListLocksResponse { locks })
}

fn read(message: Option<v1::Lock>) -> Result<(Lock, Timestamp), Invalid> {
    let message = message.ok_or_else(|| Invalid::new("lock", "must be there"))?;
    let v1::Lock { lock_id, workload, task, resource_prefix, person, until_ms } = message;
    let lock = Lock {
        id: parse::text("lock.lock_id", &lock_id)?,
        workload: parse::optional("lock.workload", &workload)?,
        task: parse::optional("lock.task", &task)?,
        prefix: parse::optional("lock.resource_prefix", &resource_prefix)?,
        person: parse::optional("lock.person", &person)?,
    };
    let Lock { id: _, workload, task, prefix, person } = &lock;
    if workload.is_none() && task.is_none() && prefix.is_none() && person.is_none() {
        return Err(Invalid::new("lock", "must say what it is on"));
    }
    Ok((lock, parse::time("lock.until_ms", until_ms)?))
}

fn write(set: &SetLock) -> v1::SetLock {
    let SetLock { lock, until, by, seq, reason: _ } = set;
    let Lock { id, workload, task, prefix, person } = lock;
    fn text(value: Option<&impl ToString>) -> String {
        value.map(ToString::to_string).unwrap_or_default()
    }
    let lock = v1::Lock {
        lock_id: id.to_string(),
        workload: text(workload.as_ref()),
        task: text(task.as_ref()),
        resource_prefix: text(prefix.as_ref()),
        person: text(person.as_ref()),
        until_ms: render::ms(*until),
    };
    v1::SetLock { lock: Some(lock), set_by: by.to_string(), seq: seq.0, reason: String::new() }
}
