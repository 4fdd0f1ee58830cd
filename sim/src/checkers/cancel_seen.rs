//! `cancel_seen`: what a handler is told of its end is so, and it hears of a cancel within the regular
//! look at the store even if no message tells of it. One that is dropped was told before, and one that
//! listens and had time to end is never dropped: where real handlers run, for those of the machines' own
//! world listen as they please.

use std::collections::BTreeMap;

use flowkit_core::id::TaskId;
use flowkit_core::message::CancelReason;
use flowkit_core::record::TaskState;

use super::cancel_final::reads_what_failed;
use super::{Judge, View};
use crate::history::{Change, Life, Place, Run, Step, What};
use crate::plan::{Fault, Plan};

const NAME: &str = "cancel_seen";
/// Time to end that is enough for whoever listens.
const TIME_US: u64 = 100_000;
/// What goes on at one moment is noted in some order.
const MOMENT_US: u64 = 50_000;

#[derive(Debug, Default)]
pub(super) struct CancelSeen {
    runs: BTreeMap<(Place, u64), Told>,
    /// When a host was frozen or went on last.
    paused: BTreeMap<u32, u64>,
    /// Handlers dropped without a word, which may be on its way, or their process may be ending.
    untold: Vec<(u64, Place, u64, String)>,
    looks: Looks,
}

/// Cancels that only the regular look at the store tells of.
#[derive(Debug, Default)]
struct Looks {
    /// How long one may take, in microseconds; no look is judged where more than that goes wrong.
    within_us: Option<u64>,
    runs: BTreeMap<(Place, u64), TaskId>,
    /// Runs of tasks that were cancelled, and until when they must have been told.
    due: Vec<(u64, Place, u64, TaskId)>,
}

#[derive(Debug, Default)]
struct Told {
    at: Option<u64>,
    /// Checkpoints that it waits for.
    saving: u32,
    /// It said itself how it ends; what is left of it after a panic is dropped.
    failed: bool,
}

impl CancelSeen {
    pub(super) fn new(plan: &Plan) -> Self {
        let looks = Looks {
            within_us: look_us(plan),
            ..Looks::default()
        };
        Self {
            looks,
            ..Self::default()
        }
    }
}

/// How long a worker may take to find a cancel in the store, where nothing but its coordinators fails.
fn look_us(plan: &Plan) -> Option<u64> {
    let world = &plan.world;
    let dies =
        |fault: &Fault| matches!(fault, Fault::Crash { host, .. } if *host < world.coordinators);
    let fails = world.embedded || world.slow_permille > 0 || !plan.rates.is_quiet();
    if fails || !plan.faults.iter().all(dies) {
        return None;
    }
    // Until the look, the look and that at the task, each there and back.
    let ways_us = 10 * world.latency_us_max;
    Some(world.db_cancel_poll_ms * 1_010 + ways_us + 5 * world.slack_us() + MOMENT_US)
}

impl Looks {
    fn event(&mut self, view: &mut View<'_>) {
        let Some(within) = self.within_us else {
            return;
        };
        let at = view.event.at;
        while let Some((until, ..)) = self.due.first()
            && at > *until
        {
            let (_, _, run, task) = self.due.remove(0);
            let what = format!("{task}: run {run} was not told of the cancel that is in the store");
            view.broken(NAME, what);
        }
        match &view.event.what {
            What::Committed { changes, .. } => {
                let cancelled = changes.iter().filter_map(|change| match change {
                    Change::Task { task, new, .. } if new.state == TaskState::Cancelling => {
                        Some(task)
                    }
                    _ => None,
                });
                for task in cancelled {
                    let runs = self.runs.iter().filter(|(_, of)| *of == task);
                    let due =
                        runs.map(|((place, run), _)| (at + within, *place, *run, task.clone()));
                    self.due.extend(due);
                }
            }
            What::Handler { run, step } => {
                let key = (run.place, run.run_id);
                match step {
                    Step::Begin => {
                        self.runs.insert(key, run.task.clone());
                    }
                    Step::Cancel { .. }
                    | Step::Abort
                    | Step::Failed { .. }
                    | Step::Finalized
                    | Step::CleansUp
                    | Step::Closed
                    | Step::Lost => {
                        self.runs.remove(&key);
                        self.due.retain(|(_, place, run, _)| (*place, *run) != key);
                    }
                    _ => {}
                }
            }
            _ => {}
        }
    }
}

/// What is wrong with the reason that a handler is told.
fn untrue(view: &View<'_>, run: &Run, reason: CancelReason) -> Option<String> {
    // What real processes say of themselves comes at another moment than what the store shows.
    if view.plan.world.slack_ms >= 1_000 {
        return None;
    }
    let state = view.ledger.tasks.get(&run.task)?.fact.as_ref()?.state;
    let fact = view.ledger.fact(&run.task, &run.node)?;
    let over = state.is_terminal() || state == TaskState::Cancelling;
    let fits = match reason {
        CancelReason::UserRequest => over && state != TaskState::Failed,
        CancelReason::TaskFailed => state == TaskState::Failed,
        CancelReason::UpstreamFailed => {
            state == TaskState::Failed && reads_what_failed(view, &run.task, &run.node)
        }
        // Its grant may be over meanwhile.
        CancelReason::Yield => {
            let held = fact.token == run.token && fact.holder.is_some();
            !held || fact.told_to_end.is_some()
        }
        _ => true,
    };
    let name = format!("{}/{}: token {}", run.task, run.node, run.token);
    (!fits).then(|| format!("{name} is told {reason:?}, and its task is {state:?}"))
}

impl Judge for CancelSeen {
    fn event(&mut self, view: &mut View<'_>) {
        let at = view.event.at;
        let slack = view.plan.world.slack_us();
        self.looks.event(view);
        if let What::Handler {
            run,
            step: Step::Cancel { reason, .. },
        } = &view.event.what
            && let Some(what) = untrue(view, run, *reason)
        {
            view.broken(NAME, what);
        }
        if slack == 0 {
            return;
        }
        while let Some((since, ..)) = self.untold.first()
            && at > since + MOMENT_US + slack
        {
            let (_, _, _, what) = self.untold.remove(0);
            view.broken(NAME, what);
        }
        match &view.event.what {
            What::Process { place, what } => match what {
                Life::Crashed | Life::Stopped => {
                    self.runs.retain(|(at, _), _| at.host != place.host);
                    self.untold.retain(|(_, at, ..)| at.host != place.host);
                }
                Life::Stalled | Life::Resumed => {
                    self.paused.insert(place.host, at);
                }
                Life::Started | Life::Asked { .. } => {}
            },
            What::Handler { run, step } => {
                let key = (run.place, run.run_id);
                let told = self.runs.entry(key).or_default();
                match step {
                    Step::Cancel { .. } => {
                        told.at.get_or_insert(at);
                        self.untold.retain(|(_, place, id, _)| (*place, *id) != key);
                    }
                    Step::Checkpoint { .. } => told.saving += 1,
                    Step::CheckpointSaved { .. } => told.saving = told.saving.saturating_sub(1),
                    Step::Failed { .. } => told.failed = true,
                    Step::Abort if told.failed => {}
                    Step::Abort => {
                        let name = format!("{}/{}: token {}", run.task, run.node, run.token);
                        let Some(since) = told.at else {
                            let what = format!("{name} was dropped, and had not been told to end");
                            self.untold.push((at, run.place, run.run_id, what));
                            return;
                        };
                        let listens = view
                            .node(run.task.as_str(), run.node.as_str())
                            .is_some_and(|node| !node.script.ignores_cancel);
                        let paused = self.paused.get(&run.place.host).copied();
                        let paused = paused.is_some_and(|paused| paused + TIME_US + slack > since);
                        if listens && told.saving == 0 && !paused && at > since + TIME_US + slack {
                            let what = format!(
                                "{name} was dropped {} ms after it was told to end, and listens",
                                (at - since) / 1_000
                            );
                            view.broken(NAME, what);
                        }
                    }
                    Step::Closed | Step::Lost => {
                        self.runs.remove(&key);
                    }
                    _ => {}
                }
            }
            _ => {}
        }
    }
}
