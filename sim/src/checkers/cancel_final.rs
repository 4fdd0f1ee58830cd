//! `cancel_final`: once a cancel is acknowledged no grant of that task is made and no START passes
//! the worker's check; running ones end, or are abandoned, within the grace period of being told.
//! A terminal state never changes.

use std::collections::BTreeMap;

use flowkit_core::id::{NodeId, TaskId, Token};
use flowkit_core::message::CancelReason;
use flowkit_core::record::TaskState;

use super::capacity::sources;
use super::{Judge, View};
use crate::history::{Ask, Change, Life, Place, Step, What};
use crate::plan::Hook;
use crate::script;

const NAME: &str = "cancel_final";
/// Time for a machine to act on its deadline.
const SLACK_US: u64 = 50_000;

#[derive(Debug, Default)]
pub(super) struct CancelFinal {
    /// When the commit that cancels a task was applied.
    cancelled: BTreeMap<TaskId, u64>,
    /// When a process read a grant, by the token that stood then.
    checks: BTreeMap<(Place, TaskId, NodeId, Token), Vec<u64>>,
    /// Runs that were told to end, and their last moment.
    told: BTreeMap<(Place, u64), u64>,
    /// Hosts that were frozen, and until when their deadlines wait.
    stalled: BTreeMap<u32, u64>,
}

fn cancels(state: TaskState) -> bool {
    matches!(state, TaskState::Cancelling | TaskState::Cancelled)
}

impl Judge for CancelFinal {
    fn event(&mut self, view: &mut View<'_>) {
        let at = view.event.at;
        match &view.event.what {
            What::Committed { changes, .. } => {
                for change in changes {
                    self.change(view, change);
                }
                for change in changes {
                    if let Change::Task { task, old, new } = change
                        && old.as_ref().is_none_or(|old| old.state != new.state)
                    {
                        told(view, task, new.state);
                    }
                }
                // One commit may hold a grant and the cancel that stood behind it in the stream.
                for change in changes {
                    if let Change::Task { task, new, .. } = change
                        && cancels(new.state)
                    {
                        self.cancelled.entry(task.clone()).or_insert(at);
                    }
                }
            }
            What::Undone { .. } => {
                let ledger = view.ledger;
                self.cancelled.retain(|task, _| {
                    let fact = ledger.tasks.get(task).and_then(|t| t.fact.as_ref());
                    fact.is_some_and(|fact| cancels(fact.state))
                });
            }
            What::GrantsRead { place, nodes } => {
                for (task, node) in nodes.iter() {
                    // What is read of another grant says nothing about this one.
                    let Some(fact) = view.ledger.fact(task, node) else {
                        continue;
                    };
                    let key = (*place, task.clone(), node.clone(), fact.token);
                    self.checks.entry(key).or_default().push(at);
                }
            }
            What::Answered {
                task,
                ask: Ask::Cancel { .. },
                reply,
                ..
            } if reply.ok => {
                let state = view.ledger.durable(task).map(|fact| fact.state);
                let swept = view.ledger.tasks.get(task).and_then(|task| task.tombstone);
                let state = state.or(swept);
                let left_out =
                    reply.state == Some(TaskState::Quarantined) && view.ledger.is_rotten(task);
                let fits = state.is_some_and(|state| cancels(state) || state.is_terminal());
                if !fits && !left_out {
                    let what = format!("{task}: cancel acknowledged while {state:?}");
                    view.broken(NAME, what);
                }
            }
            What::Handler { run, step } => {
                let key = (run.place, run.run_id);
                match step {
                    Step::Begin => {
                        let checks = (run.place, run.task.clone(), run.node.clone(), run.token);
                        let checks = self.checks.get(&checks).map_or(&[][..], Vec::as_slice);
                        if checks.is_empty() {
                            let what = format!(
                                "{}/{}: token {} began without a check of its grant",
                                run.task, run.node, run.token
                            );
                            view.broken(NAME, what);
                        } else if let Some(cancelled) = self.cancelled.get(&run.task)
                            && checks.iter().all(|check| check > cancelled)
                        {
                            let what = format!(
                                "{}/{}: token {} passed its check after the cancel",
                                run.task, run.node, run.token
                            );
                            view.broken(NAME, what);
                        }
                    }
                    Step::Cancel { grace_ms, .. } => {
                        let drift = grace_ms * view.plan.world.clock_rate_error_ppm / 1_000_000;
                        let slack = SLACK_US + view.plan.world.slack_us();
                        let node = view.node(run.task.as_str(), run.node.as_str());
                        // A cleanup has a second at least, however near the deadline.
                        let cleans_up = node.is_some_and(|node| {
                            !script::hook_troubles(node, run.epoch.0, Hook::Cleanup).is_empty()
                        });
                        let cleanup_ms = if cleans_up { 1_002 } else { 0 };
                        let grace_ms = grace_ms + 2 * drift + cleanup_ms;
                        let last = at + (grace_ms + 2) * 1_000 + slack;
                        let told = self.told.entry(key).or_insert(last);
                        // Told again: a shorter time counts, a longer one does not.
                        *told = (*told).min(last);
                    }
                    Step::Abort | Step::Closed | Step::Lost | Step::Failed { .. } => {
                        if let Some(last) = self.told.remove(&key) {
                            let resumed = self.stalled.get(&run.place.host).copied();
                            let slack = SLACK_US + view.plan.world.slack_us();
                            let last = last.max(resumed.unwrap_or(0).saturating_add(slack));
                            if at > last && !matches!(step, Step::Lost) {
                                let what = format!(
                                    "{}/{}: token {} was left to run {} ms past its grace",
                                    run.task,
                                    run.node,
                                    run.token,
                                    (at - last) / 1_000
                                );
                                view.broken(NAME, what);
                            }
                        }
                    }
                    _ => {}
                }
            }
            What::Process { place, what } => {
                // In the moment in which it thaws, what was due meanwhile may come first.
                let until = if matches!(what, Life::Stalled) {
                    u64::MAX
                } else {
                    at
                };
                if matches!(what, Life::Stalled | Life::Resumed) || self.is_frozen(place.host) {
                    self.stalled.insert(place.host, until);
                }
            }
            _ => {}
        }
    }
}

impl CancelFinal {
    fn is_frozen(&self, host: u32) -> bool {
        self.stalled.get(&host) == Some(&u64::MAX)
    }
}

/// What failed, and the task with it, is a source of this node.
pub(super) fn reads_what_failed(view: &View<'_>, task: &TaskId, node: &NodeId) -> bool {
    let fact = view.ledger.tasks.get(task).and_then(|of| of.fact.as_ref());
    let failed = fact.and_then(|fact| fact.failed_node.as_ref());
    let reader = view.node(task.as_str(), node.as_str());
    let (Some(failed), Some(reader)) = (failed, reader) else {
        return false;
    };
    sources(reader).any(|source| source == failed.as_str())
}

/// The commit that cancels a task, or lets it fail, tells every run of it to end, and why.
fn told(view: &mut View<'_>, task: &TaskId, state: TaskState) {
    if !matches!(state, TaskState::Failed | TaskState::Cancelling) {
        return;
    }
    let why = |node| match state {
        TaskState::Failed if reads_what_failed(view, task, node) => CancelReason::UpstreamFailed,
        TaskState::Failed => CancelReason::TaskFailed,
        _ => CancelReason::UserRequest,
    };
    let Some(ledger) = view.ledger.tasks.get(task) else {
        return;
    };
    let facts = ledger
        .nodes
        .iter()
        .filter_map(|(id, node)| Some((id, node.fact.as_ref()?)));
    let untold = facts
        .filter(|(id, fact)| fact.holder.is_some() && fact.told_to_end != Some(why(id)))
        .map(|(id, fact)| format!("{task}/{id}: {state:?}, and told {:?}", fact.told_to_end))
        .next();
    if let Some(what) = untold {
        view.broken(NAME, what);
    }
}

impl CancelFinal {
    fn change(&mut self, view: &mut View<'_>, change: &Change) {
        match change {
            Change::Task { task, old, new } => {
                if let Some(old) = old {
                    if old.state.is_terminal() && new.state != old.state {
                        let what = format!("{task}: {:?} became {:?}", old.state, new.state);
                        view.broken(NAME, what);
                    }
                    if old.settled && !new.settled {
                        view.broken(NAME, format!("{task}: settled, then not"));
                    }
                    let legal = matches!(
                        new.state,
                        TaskState::Cancelling | TaskState::Cancelled | TaskState::Quarantined
                    );
                    if old.state == TaskState::Cancelling && !legal {
                        let what = format!("{task}: cancelling became {:?}", new.state);
                        view.broken(NAME, what);
                    }
                }
            }
            Change::Node {
                task,
                node,
                old,
                new,
            } => {
                let old_token = old.as_ref().map_or(0, |old| old.token.0);
                if new.token.0 > old_token
                    && new.holder.is_some()
                    && self.cancelled.contains_key(task)
                {
                    let what = format!("{task}/{node}: granted after the cancel");
                    view.broken(NAME, what);
                }
                if let Some(old) = old
                    && old.told_to_end.is_some()
                    && (new.told_to_end.is_none() && new.holder.is_some())
                    && old.token == new.token
                {
                    let what = format!("{task}/{node}: that it was told to end is forgotten");
                    view.broken(NAME, what);
                }
                if let Some(old) = old
                    && old.state.is_terminal()
                    && old.state != new.state
                {
                    let what = format!("{task}/{node}: {:?} became {:?}", old.state, new.state);
                    view.broken(NAME, what);
                }
            }
            Change::Artifact { .. } | Change::Tombstone { .. } | Change::Removed { .. } => {}
        }
    }
}
