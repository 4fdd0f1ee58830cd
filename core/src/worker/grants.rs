//! Reads of grants: the check of new STARTs, and the regular look at everything held or ended.
//! One read is under way at a time; STARTs that arrive meanwhile wait for the next.

use super::calls::For;
use super::cancel::CANCEL_GRACE_MS;
use super::io::{Effect, RunId};
use super::presence::Phase;
use super::run::{NodeKey, Work};
use super::timers::Timer;
use serde::Serialize;
use std::collections::BTreeSet;

use super::Worker;
use crate::id::{TaskId, Token};
use crate::message::{CancelReason, RefusalReason};
use crate::planted::{Bug, is_planted};
use crate::port::{PortError, StoreReply, StoreRequest};
use crate::record::TaskState;
use crate::time::Now;

/// Ended tokens asked about with each START that is checked.
const ENDED_PER_START: usize = 2;
/// Ended tokens asked about with each regular look.
const ENDED_PAGE: usize = 1_000;

/// What one read asks for.
#[derive(Clone, Debug, Serialize)]
pub(super) struct GrantRead {
    nodes: Vec<(NodeKey, Token)>,
    /// Runs whose START it checks.
    checks: Vec<RunId>,
}

/// What is to be read next.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Grants {
    /// STARTs to be checked.
    waiting: Vec<RunId>,
    /// The regular look at everything held or ended is due.
    poll_due: bool,
    /// Ask even if nothing is held: for the own incarnation, and whether the store answers.
    probe_due: bool,
    in_flight: bool,
    /// A read failed; the next one waits for a timer.
    held_back: bool,
    failures: u32,
}

impl Grants {
    pub(super) fn check(&mut self, run: RunId) {
        self.waiting.push(run);
    }

    pub(super) fn poll_due(&mut self) {
        self.poll_due = true;
    }

    pub(super) fn probe(&mut self) {
        self.probe_due = true;
    }

    pub(super) fn retry(&mut self) {
        self.held_back = false;
    }

    pub(super) fn waiting(&self) -> &[RunId] {
        &self.waiting
    }

    fn forget(&mut self, run: RunId) {
        self.waiting.retain(|other| *other != run);
    }
}

impl Worker {
    /// Issues the next read if there is a reason to. Called after every input.
    pub(super) fn read_grants(&mut self, now: Now, out: &mut Vec<Effect>) {
        if self.phase != Phase::Running {
            return;
        }
        if self.grants.in_flight || self.grants.held_back {
            return;
        }
        let checks = std::mem::take(&mut self.grants.waiting);
        let held = !self.by_node.is_empty() || !self.ended.is_empty();
        let probe = std::mem::take(&mut self.grants.probe_due);
        let poll = std::mem::take(&mut self.grants.poll_due) && held || probe;
        if checks.is_empty() && !poll {
            if held && self.timers.at(Timer::GrantPoll).is_none() {
                let every_ms = self.config.db_cancel_poll_ms;
                self.timers.set(Timer::GrantPoll, now.mono.after(every_ms));
            }
            return;
        }
        let nodes = if poll {
            self.timers.cancel(Timer::GrantPoll);
            let runs = &self.runs;
            let mut nodes: Vec<_> = self
                .by_node
                .iter()
                .map(|(node, run)| (node.clone(), runs[run].token))
                .collect();
            nodes.extend(self.ended.next_to_ask(ENDED_PAGE));
            nodes
        } else {
            let runs = checks.iter().map(|run| &self.runs[run]);
            let mut nodes: Vec<_> = runs.map(|run| (run.node(), run.token)).collect();
            // More than one ended token per START, so that their memory shrinks at any rate.
            nodes.extend(self.ended.next_to_ask(ENDED_PER_START * checks.len()));
            nodes
        };
        let request = StoreRequest::ReadGrants {
            worker_id: self.config.worker_id.clone(),
            nodes: nodes.iter().map(|(node, _)| node.clone()).collect(),
        };
        self.grants.in_flight = true;
        self.call(For::Grants(GrantRead { nodes, checks }), request, now, out);
        if held {
            let every_ms = self.config.db_cancel_poll_ms;
            let at = now.mono.after(every_ms);
            self.timers.set_earlier(Timer::GrantPoll, at);
        }
    }

    /// A read had no outcome: what it asked for is asked again, with what has come since.
    pub(super) fn grants_failed(&mut self, read: GrantRead, wait_ms: u64, now: Now) {
        self.grants.in_flight = false;
        self.grants.failures += 1;
        let wait_ms = wait_ms.max(self.backoff_ms(self.grants.failures));
        self.grants.held_back = true;
        self.grants.probe_due = true;
        self.timers.set(Timer::GrantRetry, now.mono.after(wait_ms));
        let still = read.checks.into_iter().filter(|run| {
            let run = self.runs.get(run);
            run.is_some_and(|run| matches!(run.work, Work::Checking))
        });
        let mut waiting: Vec<_> = still.collect();
        waiting.append(&mut self.grants.waiting);
        self.grants.waiting = waiting;
    }

    pub(super) fn grants_read(
        &mut self,
        read: GrantRead,
        result: Result<StoreReply, PortError>,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        let (incarnation, grants) = match result {
            Ok(StoreReply::Grants {
                incarnation,
                grants,
            }) if grants.len() == read.nodes.len() => (incarnation, grants),
            _ => {
                self.grants_failed(read, self.config.retry_backoff_ms, now);
                return;
            }
        };
        self.grants.in_flight = false;
        self.grants.failures = 0;
        if incarnation > self.incarnation && !is_planted(Bug::AnyIncarnation) {
            self.superseded(incarnation, now, out);
            return;
        }
        let mut accepted = Vec::new();
        let mut cancelled_tasks = BTreeSet::new();
        for ((node, token), grant) in read.nodes.into_iter().zip(grants) {
            let current = grant.as_ref().is_some_and(|g| g.token == Some(token));
            // What cannot be read may show the token as current again.
            let readable = grant.as_ref().is_none_or(|g| !g.unreadable);
            let cancelled = grant.is_some_and(|g| g.cancelled);
            if !current && readable {
                self.ended.forget(&node, token);
            }
            let Some(id) = self.by_node.get(&node).copied() else {
                continue;
            };
            let run = &self.runs[&id];
            if run.token != token {
                continue;
            }
            if matches!(run.work, Work::Checking) {
                if !read.checks.contains(&id) {
                    continue;
                }
                let current = current || is_planted(Bug::GrantUnchecked);
                let cancelled = cancelled && !is_planted(Bug::CancelUnchecked);
                if current && !cancelled {
                    accepted.push(id);
                } else {
                    self.drop_unchecked(id);
                    self.refuse(&node, token, RefusalReason::NotCurrent, now, out);
                    self.offer_slot(now, out);
                }
            } else if !current {
                // One whose end is on its way is not forgotten either while that may still be.
                if readable || !run.outgoing.has_terminal() {
                    self.supersede(id, now, out);
                }
            } else if cancelled
                && run.ending.is_none_or(|e| e.waits_for_batch())
                && !is_planted(Bug::LookIgnored)
            {
                // The flag does not say why, nor within what time: the records do. The signal that
                // says both is on its way as well, and usually faster.
                cancelled_tasks.insert(node.0);
            }
        }
        for task_id in cancelled_tasks {
            let request = StoreRequest::ReadTask {
                task_id: task_id.clone(),
            };
            self.call(For::CancelReason(task_id), request, now, out);
        }
        self.accept(accepted, now, out);
    }

    /// The records of a task with cancelled grants: ends this worker's runs of it accordingly.
    pub(super) fn cancel_reason(
        &mut self,
        task: &TaskId,
        result: Result<StoreReply, PortError>,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        // Without an answer the next regular look asks again.
        let Ok(StoreReply::Task(Some(found))) = result else {
            return;
        };
        let of_task = match found.task.state {
            TaskState::Failed => Some(CancelReason::TaskFailed),
            state if state.is_terminal() || state == TaskState::Cancelling => {
                Some(CancelReason::UserRequest)
            }
            _ => None,
        };
        for record in &found.nodes {
            let node = (task.clone(), record.node_id.clone());
            let Some(id) = self.by_node.get(&node).copied() else {
                continue;
            };
            if self.runs[&id].token != record.lease_no {
                continue;
            }
            let told = record.grant.as_ref().and_then(|grant| grant.cancel);
            let (reason, grace_ms) = match (told, of_task) {
                (Some(cancel), _) if is_planted(Bug::LookMisreads) => {
                    (CancelReason::TaskFailed, cancel.grace_ms)
                }
                (Some(cancel), _) => (cancel.reason, cancel.grace_ms),
                (None, Some(reason)) => {
                    let grace_ms = found.task.cancel_grace_ms;
                    (reason, grace_ms.unwrap_or(CANCEL_GRACE_MS))
                }
                (None, None) => continue,
            };
            if self.runs[&id].ending.is_none_or(|e| e.reason != reason) {
                self.end_run(id, reason, now.mono.after(grace_ms), now, out);
            }
        }
    }

    /// The store is away: STARTs whose grant cannot be checked go back.
    pub(super) fn refuse_unchecked(&mut self, now: Now, out: &mut Vec<Effect>) {
        let unchecked: Vec<_> = self
            .slots
            .taken()
            .iter()
            .copied()
            .filter(|run| matches!(self.runs[run].work, Work::Checking))
            .collect();
        for id in unchecked {
            let run = &self.runs[&id];
            let (node, token) = (run.node(), run.token);
            self.drop_unchecked(id);
            self.refuse(&node, token, RefusalReason::StoreUnreachable, now, out);
        }
    }

    /// Forgets a run whose START was never accepted; the caller answers it.
    pub(super) fn drop_unchecked(&mut self, id: RunId) {
        self.grants.forget(id);
        self.slots.give_back(id);
        self.timers.cancel_run(id);
        if let Some(run) = self.runs.remove(&id) {
            assert!(matches!(run.work, Work::Checking));
            self.by_node.remove(&run.node());
        }
    }
}
