//! `capacity`: a worker never runs more than its capacity; a ready node waits at most one dispatch
//! round while a live worker of its role has a free slot.

use std::collections::BTreeMap;

use flowkit_core::id::{NodeId, TaskId, WorkerId};
use flowkit_core::record::{NodeState, TaskState};

use super::{Judge, View, worker_plan};
use crate::history::{Change, Life, Place, Step, What};
use crate::plan::{NodePlan, Plan};

const NAME: &str = "capacity";

#[derive(Debug, Default)]
pub(super) struct Capacity {
    /// Live runs of each worker process, and since when it has a free slot.
    running: BTreeMap<Place, Slots>,
    /// Grants of each worker by the records, and since when it could have one more.
    held: BTreeMap<WorkerId, (u32, Option<u64>)>,
    /// The living process of each host, by its generation.
    alive: BTreeMap<u32, u32>,
    /// Ready nodes, and since when.
    ready: BTreeMap<(TaskId, NodeId), u64>,
    /// When tasks that were paused went on.
    resumed: BTreeMap<TaskId, u64>,
    healed_at: Option<u64>,
}

#[derive(Debug)]
struct Slots {
    worker: WorkerId,
    used: u32,
    free_since: Option<u64>,
    capacity: u32,
    roles: Vec<String>,
}

impl Judge for Capacity {
    fn event(&mut self, view: &mut View<'_>) {
        let at = view.event.at;
        match &view.event.what {
            What::Healed => self.healed_at = Some(at),
            // A registration may reach the store when its process is dead already.
            What::Registered { place, worker, .. }
                if self.alive.get(&place.host) == Some(&place.generation) =>
            {
                let plan = worker_plan(view.plan, worker.as_str());
                self.running.entry(*place).or_insert(Slots {
                    worker: worker.clone(),
                    used: 0,
                    free_since: Some(at),
                    capacity: plan.map_or(0, |plan| plan.capacity),
                    roles: plan.map_or_else(Vec::new, |plan| plan.roles.clone()),
                });
            }
            What::Process { place, what } => match what {
                Life::Crashed | Life::Stopped => {
                    self.alive.remove(&place.host);
                    self.running.retain(|at, _| at.host != place.host);
                }
                Life::Asked { .. } => {}
                Life::Started => {
                    self.alive.insert(place.host, place.generation);
                }
                Life::Stalled => {
                    for (_, slots) in self.on(place.host) {
                        slots.free_since = None;
                    }
                }
                Life::Resumed => {
                    for (_, slots) in self.on(place.host) {
                        slots.free_since = (slots.used < slots.capacity).then_some(at);
                    }
                }
            },
            What::Handler { run, step } => {
                let Some(slots) = self.running.get_mut(&run.place) else {
                    return;
                };
                match step {
                    Step::Begin => {
                        slots.used += 1;
                        let (used, capacity) = (slots.used, slots.capacity);
                        if used >= capacity {
                            slots.free_since = None;
                        }
                        if used > capacity {
                            let what = format!("{} runs {used} of {capacity}", run.worker);
                            view.broken(NAME, what);
                        }
                    }
                    Step::Closed => {
                        slots.used = slots.used.saturating_sub(1);
                        slots.free_since.get_or_insert(at);
                    }
                    _ => {}
                }
            }
            What::Committed { changes, .. } => {
                for change in changes {
                    if let Change::Task { task, old, new } = change
                        && new.state != TaskState::Paused
                        && old
                            .as_ref()
                            .is_some_and(|old| old.state == TaskState::Paused)
                    {
                        self.resumed.insert(task.clone(), at);
                    }
                }
                for change in changes {
                    if let Change::Node {
                        task,
                        node,
                        old,
                        new,
                    } = change
                    {
                        let holder = |holder: &Option<(WorkerId, _)>| {
                            holder.as_ref().map(|(worker, _)| worker.clone())
                        };
                        let before = old.as_ref().and_then(|old| holder(&old.holder));
                        let old_token = old.as_ref().map(|old| old.token);
                        if let Some((worker, _)) = &new.holder
                            && old_token != Some(new.token)
                        {
                            self.granted(view, worker);
                        }
                        let key = (task.clone(), node.clone());
                        if new.state == NodeState::Ready {
                            self.ready.entry(key).or_insert(at);
                        } else if let Some(since) = self.ready.remove(&key)
                            && new.holder.is_some()
                        {
                            self.waited(view, &key.0, &key.1, since);
                        }
                        // Only now: it may be this grant that takes the last slot.
                        self.holds(view.plan, at, before, holder(&new.holder));
                    }
                }
                self.feed(view, changes, at);
            }
            What::Undone { .. } => self.ready.clear(),
            _ => {}
        }
    }
}

impl Capacity {
    fn on(&mut self, host: u32) -> impl Iterator<Item = (&Place, &mut Slots)> {
        self.running
            .iter_mut()
            .filter(move |(at, _)| at.host == host)
    }

    /// A reader may run from the moment on in which none of its sources waits for a slot itself.
    fn feed(&mut self, view: &View<'_>, changes: &[Change], at: u64) {
        let touched = |task: &TaskId| {
            let mut nodes = changes.iter();
            nodes.any(|change| matches!(change, Change::Node { task: t, .. } if t == task))
        };
        for ((task, node), since) in &mut self.ready {
            let Some(plan) = view.node(task.as_str(), node.as_str()) else {
                continue;
            };
            if sources(plan).next().is_none() || !touched(task) {
                continue;
            }
            if !is_fed(view, task, plan) {
                *since = u64::MAX;
            } else if *since == u64::MAX {
                *since = at;
            }
        }
    }

    /// A node has another holder, or none any more.
    fn holds(&mut self, plan: &Plan, at: u64, before: Option<WorkerId>, now: Option<WorkerId>) {
        for (worker, more) in before
            .map(|w| (w, false))
            .into_iter()
            .chain(now.map(|w| (w, true)))
        {
            let capacity = capacity_of(plan, &worker);
            let (count, free_since) = self.held.entry(worker).or_insert((0, Some(at)));
            *count = if more {
                *count + 1
            } else {
                count.saturating_sub(1)
            };
            if *count < capacity {
                free_since.get_or_insert(at);
            } else {
                *free_since = None;
            }
        }
    }

    /// With one shard the owner knows every grant: never more than the worker takes.
    fn granted(&self, view: &mut View<'_>, worker: &WorkerId) {
        let capacity = capacity_of(view.plan, worker);
        // A task that was set aside keeps its node records as they were; its runs are told to end.
        let tasks = view.ledger.tasks.iter();
        let tasks = tasks.filter(|(id, _)| !view.ledger.is_set_aside(id));
        let nodes = tasks.flat_map(|(_, task)| task.nodes.values());
        let facts = nodes.filter_map(|node| node.fact.as_ref());
        let held = facts
            .filter(|fact| fact.holder.as_ref().is_some_and(|(id, _)| id == worker))
            .count();
        if view.plan.world.shards == 1 && held > capacity as usize {
            view.broken(NAME, format!("{worker} holds {held} grants of {capacity}"));
        }
    }

    /// A ready node was granted: did a fitting slot stay free for too long meanwhile?
    fn waited(&self, view: &mut View<'_>, task: &TaskId, node: &NodeId, since: u64) {
        let Some(plan) = view.node(task.as_str(), node.as_str()) else {
            return;
        };
        // Nothing goes wrong in a calm plan: one round is a matter of messages, from the beginning.
        let calm = view.plan.is_calm();
        let round_ms = if calm {
            view.plan.calm_round_ms()
        } else {
            view.plan.round_ms()
        };
        let Some(judged_from) = self.healed_at.or(calm.then_some(0)) else {
            return;
        };
        let limits = &view.plan.world.limits;
        let of_type = limits.types.keys().any(|role| role.as_str() == plan.role);
        let options = view.task(task.as_str()).map(|task| &task.options);
        let of_key = options.is_some_and(|options| options.limit_key.is_some())
            && (limits.key_default.is_some() || !limits.keys.is_empty());
        let limited = limits.running_max.is_some() || of_type || of_key;
        // What waits for its limits waits, slots or not.
        if limited {
            return;
        }
        let role = plan.role.clone();
        let since = since.max(self.resumed.get(task).copied().unwrap_or(0));
        for slots in self.running.values() {
            if !slots.roles.contains(&role) {
                continue;
            }
            let Some(mut free_since) = slots.free_since else {
                continue;
            };
            if calm {
                // A START may be on its way to a slot that nothing runs in yet.
                match self.held.get(&slots.worker) {
                    Some((_, None)) => continue,
                    Some((_, Some(since))) => free_since = free_since.max(*since),
                    None => {}
                }
            }
            let from = since.max(free_since).max(judged_from);
            let waited = view.event.at.saturating_sub(from) / 1_000;
            if waited > round_ms {
                let what = format!("{task}/{node}: ready beside a free slot for {waited} ms");
                view.broken(NAME, what);
                return;
            }
        }
    }
}

fn capacity_of(plan: &Plan, worker: &WorkerId) -> u32 {
    worker_plan(plan, worker.as_str()).map_or(0, |plan| plan.capacity)
}

/// Nodes whose batches it reads while they may still grow.
pub(super) fn sources(node: &NodePlan) -> impl Iterator<Item = &String> {
    let streams = node.parents.iter();
    let streams = streams.filter(|(_, link)| node.streams_from(*link));
    let reads = node.reader.iter().flat_map(|reader| &reader.from);
    reads.chain(streams.map(|(parent, _)| parent))
}

/// None of its sources, and of theirs, waits for a slot.
fn is_fed(view: &View<'_>, task: &TaskId, node: &NodePlan) -> bool {
    sources(node).all(|source| {
        let fact = NodeId::new(source).ok();
        let Some(fact) = fact.and_then(|source| view.ledger.fact(task, &source)) else {
            return false;
        };
        let plan = view.node(task.as_str(), source);
        let runs = || fact.holder.is_some() && plan.is_none_or(|plan| is_fed(view, task, plan));
        fact.state.is_terminal() || runs()
    })
}
