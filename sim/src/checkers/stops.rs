//! `stops`: a process that is told to stop begins nothing more, tells its runs at once, and ends in
//! time; where it ends with all its runs closed, it has handed them over.

use std::collections::{BTreeMap, BTreeSet};

use flowkit_core::id::{Incarnation, NodeId, Offset, TaskId, Token, WorkerId};
use flowkit_core::message::SenderRole;
use flowkit_core::port::{ErrorKind, Stream};

use super::{Judge, View};
use crate::history::{Life, Place, Step, What};

const NAME: &str = "stops";
/// Time for a machine to see that it is to stop.
const MOMENT_US: u64 = 20_000;
/// Time for runs to be told.
const SOON_US: u64 = 200_000;
/// Time of a worker on top of its grace: handlers that do not end are given up after a second, what
/// they leave is sent within one more, and so is the goodbye.
const FAREWELL_US: u64 = 3_000_000;
/// Time of a coordinator, which has no grace: it finds out what became of its last commit.
const LAST_COMMIT_US: u64 = 6_000_000;

/// A token of a node.
type Held = (TaskId, NodeId, Token);

#[derive(Debug, Default)]
pub(super) struct Stops {
    asked: BTreeMap<(u32, u32), Asked>,
    runs: BTreeMap<(Place, u64), Open>,
    /// Runs that were closed, by process.
    closed: BTreeMap<(u32, u32), Vec<Held>>,
    /// Hosts that are frozen.
    frozen: BTreeSet<u32>,
    /// Hosts whose process was frozen before.
    thawed: BTreeSet<u32>,
    /// Where the newest request of a client stands, and from where on nothing was folded and committed: a request
    /// that is for the next owner keeps all behind it. (An engine by itself has one shard.)
    asks: (Offset, Offset),
    /// Hosts whose last commit the store refused, and with it what was to be handed back. (Who stops before it has
    /// loaded the shard once more owns nothing to hand over.)
    refused: BTreeSet<u32>,
    /// Which process a worker's start is.
    registered: BTreeMap<(WorkerId, Incarnation), (u32, u32)>,
}

#[derive(Debug)]
struct Asked {
    at: u64,
    ends_by: u64,
    stalled_at: Option<u64>,
    /// It was frozen since, so nothing of it is soon.
    was_stalled: bool,
    judged: bool,
}

#[derive(Debug)]
struct Open {
    name: String,
    began: u64,
    told: bool,
}

fn process(place: Place) -> (u32, u32) {
    (place.host, place.generation)
}

impl Judge for Stops {
    fn event(&mut self, view: &mut View<'_>) {
        let at = view.event.at;
        self.due(view);
        match &view.event.what {
            What::Process { place, what } => self.life(view, *place, *what),
            What::Registered {
                place,
                worker,
                incarnation,
            } if view.plan.world.embedded => {
                let key = (worker.clone(), *incarnation);
                self.registered.insert(key, process(*place));
            }
            What::Appended {
                stream: Stream::Shard(_),
                offset,
                envelope,
            } if envelope.sender.role == SenderRole::Client => {
                self.asks.0 = *offset;
            }
            What::Committed { host, next, .. } => {
                self.asks.1 = *next;
                self.refused.remove(host);
            }
            What::Undone { .. } => self.asks.1 = Offset(0),
            What::Refused {
                host,
                kind: ErrorKind::Invalid,
                ..
            } => {
                self.refused.insert(*host);
            }
            What::Handler { run, step } => {
                let key = (run.place, run.run_id);
                match step {
                    Step::Begin => {
                        let name = format!("{}/{}: token {}", run.task, run.node, run.token);
                        let slack = view.plan.world.slack_us();
                        let asked = self.asked.get(&process(run.place));
                        if asked.is_some_and(|a| !a.was_stalled && at > a.at + MOMENT_US + slack) {
                            view.broken(NAME, format!("{name} began although told to stop"));
                        }
                        let open = Open {
                            name,
                            began: at,
                            told: false,
                        };
                        self.runs.insert(key, open);
                    }
                    Step::Closed => {
                        self.runs.remove(&key);
                        let closed = self.closed.entry(process(run.place)).or_default();
                        closed.push((run.task.clone(), run.node.clone(), run.token));
                    }
                    Step::Lost => {
                        self.runs.remove(&key);
                    }
                    Step::Cancel { .. }
                    | Step::Failed { .. }
                    | Step::Finalized
                    | Step::CleansUp
                    | Step::Abort
                    | Step::Hook { .. } => {
                        if let Some(open) = self.runs.get_mut(&key) {
                            open.told = true;
                        }
                    }
                    _ => {}
                }
            }
            _ => {}
        }
    }
}

impl Stops {
    /// What should have happened by now.
    fn due(&mut self, view: &mut View<'_>) {
        let at = view.event.at;
        let slack = view.plan.world.slack_us();
        for (process, asked) in &mut self.asked {
            if asked.stalled_at.is_some() {
                continue;
            }
            if at > asked.ends_by {
                asked.ends_by = u64::MAX;
                let what = format!(
                    "process {process:?} goes on {} ms after it was told to stop",
                    (at - asked.at) / 1_000
                );
                view.broken(NAME, what);
            }
            if at > asked.at + SOON_US + slack && !asked.judged {
                asked.judged = true;
                let mine = self.runs.iter().filter(|((place, _), open)| {
                    (place.host, place.generation) == *process && open.began <= asked.at
                });
                for (_, open) in mine.filter(|(_, open)| !open.told) {
                    if !asked.was_stalled {
                        let what = format!("{} is not told that its process stops", open.name);
                        view.broken(NAME, what);
                    }
                }
            }
        }
    }

    fn life(&mut self, view: &mut View<'_>, place: Place, what: Life) {
        let at = view.event.at;
        let world = &view.plan.world;
        match what {
            Life::Asked { grace_ms } => {
                let worker = 1_001 * grace_ms + FAREWELL_US;
                let coordinator = LAST_COMMIT_US + 12 * world.call_timeout_ms * 1_000;
                let longest = if world.embedded {
                    // On hosts the workers stop first.
                    worker + coordinator
                } else if place.host < world.coordinators {
                    coordinator
                } else {
                    worker
                };
                let ends_by = at + longest + MOMENT_US + 3 * world.slack_us();
                let frozen = self.frozen.contains(&place.host).then_some(at);
                self.asked.entry(process(place)).or_insert(Asked {
                    at,
                    ends_by,
                    stalled_at: frozen,
                    was_stalled: frozen.is_some(),
                    judged: false,
                });
            }
            Life::Stalled => {
                self.frozen.insert(place.host);
                self.thawed.insert(place.host);
                for (_, asked) in self.on(place.host) {
                    asked.stalled_at.get_or_insert(at);
                    asked.was_stalled = true;
                }
            }
            Life::Resumed => {
                self.frozen.remove(&place.host);
                for (_, asked) in self.on(place.host) {
                    if let Some(since) = asked.stalled_at.take() {
                        asked.ends_by = asked.ends_by.saturating_add(at - since);
                    }
                }
            }
            Life::Crashed | Life::Stopped => {
                let key = process(place);
                // One that was frozen wakes to all of its deadlines at once, its shard's lease among
                // them: its coordinator may own nothing that could be handed over to it.
                let was_frozen = self.thawed.remove(&place.host);
                let was_refused = self.refused.remove(&place.host);
                let asked = self.asked.contains_key(&key);
                let in_order = what == Life::Stopped && asked && !was_frozen && !was_refused;
                if in_order && world.embedded {
                    self.handed_over(view, key);
                }
                self.frozen.remove(&place.host);
                self.asked.retain(|(host, _), _| *host != place.host);
                self.closed.retain(|(host, _), _| *host != place.host);
                self.runs.retain(|(at, _), _| at.host != place.host);
            }
            Life::Started => {}
        }
    }

    fn on(&mut self, host: u32) -> impl Iterator<Item = (&(u32, u32), &mut Asked)> {
        self.asked
            .iter_mut()
            .filter(move |((at, _), _)| *at == host)
    }

    /// An engine by itself: its coordinator is the last to stop, and nothing is granted any more. (What ended, and
    /// what was never begun because its START came too late.)
    fn handed_over(&self, view: &mut View<'_>, process: (u32, u32)) {
        let (newest, next) = self.asks;
        if newest >= next {
            return;
        }
        let mut held = Vec::new();
        for (id, task) in &view.ledger.tasks {
            if view.ledger.is_set_aside(id) {
                continue;
            }
            for (node, of) in &task.nodes {
                let fact = of.fact.as_ref().filter(|fact| {
                    let holder = fact.holder.as_ref();
                    holder.and_then(|holder| self.registered.get(holder)) == Some(&process)
                });
                held.extend(fact.map(|fact| format!("{id}/{node}: token {}", fact.token)));
            }
        }
        for name in held {
            view.broken(
                NAME,
                format!("{name} is still granted, and every worker has stopped"),
            );
        }
        for (task, node, token) in self.closed.get(&process).into_iter().flatten() {
            if view.ledger.is_set_aside(task) {
                continue;
            }
            let fact = view.ledger.fact(task, node);
            if fact.is_some_and(|fact| fact.token == *token && fact.holder.is_some()) {
                let what = format!("{task}/{node}: token {token} ended, and is still granted");
                view.broken(NAME, what);
            }
        }
    }
}
