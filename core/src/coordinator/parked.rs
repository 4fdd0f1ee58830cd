//! Requests that wait until the store says what it knows of their tasks: bounded, since all of them become one
//! commit.

use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::commit::COMMIT_BYTES_MAX;
use crate::id::TaskId;
use crate::message::{Body, Envelope, SenderRole};

/// Most requests that wait for one lookup; more are dropped, and clients repeat them.
pub(super) const PARKED_PER_TASK_MAX: usize = 64;
/// Requests that wait for a lookup, and their bytes, beyond which nothing more is folded: all of them become
/// one commit.
pub(super) const PARKED_MAX: usize = 2_000;
pub(super) const PARKED_BYTES_MAX: usize = COMMIT_BYTES_MAX;

/// Requests about tasks that are not in memory, until the store says what it knows.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Parked {
    pub(super) by_task: BTreeMap<TaskId, Vec<Arc<Envelope>>>,
    count: usize,
    bytes: usize,
}

impl Parked {
    /// One too many does not wait: clients repeat them.
    pub(super) fn push(&mut self, task: TaskId, message: Arc<Envelope>) {
        let parked = self.by_task.entry(task).or_default();
        if parked.len() >= PARKED_PER_TASK_MAX {
            return;
        }
        self.count += 1;
        self.bytes += weight(&message);
        parked.push(message);
    }

    pub(super) fn tasks(&self) -> usize {
        self.by_task.len()
    }

    /// Clients wait for an answer.
    pub(super) fn has_clients(&self) -> bool {
        let mut all = self.by_task.values().flatten();
        all.any(|message| message.sender.role == SenderRole::Client)
    }

    pub(super) fn contains(&self, task: &TaskId) -> bool {
        self.by_task.contains_key(task)
    }

    /// Those of a task that came first, so many of them.
    pub(super) fn take(&mut self, task: &TaskId, count: usize) -> Vec<Arc<Envelope>> {
        let mut asked = self.by_task.remove(task).unwrap_or_default();
        let since = asked.split_off(count.min(asked.len()));
        if !since.is_empty() {
            self.by_task.insert(task.clone(), since);
        }
        self.count -= asked.len();
        self.bytes -= asked.iter().map(|message| weight(message)).sum::<usize>();
        asked
    }

    pub(super) fn is_full(&self) -> bool {
        self.count >= PARKED_MAX || self.bytes >= PARKED_BYTES_MAX
    }
}

/// Bytes of a request, about.
fn weight(message: &Envelope) -> usize {
    let body = match &message.body {
        Body::Submit(submit) => submit.graph.len() + submit.vars.len(),
        _ => 0,
    };
    body + 256
}
