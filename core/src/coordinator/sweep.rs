//! Retention: settled tasks go once their time is over, children first, the task last; a tombstone
//! stays. And staged bodies that no artifact points to.
//!
//! A sweep begins with the tombstone, in the first of its commits: from then on nobody sees the task
//! any more or runs it again, and whoever owns the shard later finds it among the expired ones and
//! goes on. One step stands in each commit, beside whatever else there is.

use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::config::Config;
use super::context::{Context, ShardOp};
use super::shard::Shard;
use super::task::Task;
use crate::id::{ShardId, TaskId};
use crate::planted::{Bug, is_planted};
use crate::port::{
    PortError, Record, Removal, StagedKey, StoreReply, StoreRequest, TaskAnswer, TaskWithNodes,
};
use crate::record::{NodeState, RECORD_VERSION, TombstoneRecord};
use crate::report::{Report, ReportKind};
use crate::time::Mono;

/// Expired tasks per page.
const PAGE: u32 = 100;
/// Artifacts that one removal takes away at most.
const ARTIFACTS: u64 = 256;
/// Records that one step takes away, about.
const STEP: u64 = 512;
/// What one removal weighs at least: it is a few commands to a store on a network.
const REMOVAL: u64 = 16;
/// Staged bodies looked at in one request.
const BODIES: u32 = 256;
/// Most tasks whose staged bodies wait to be looked at; more go with their tasks.
const BODIES_WAITING_MAX: usize = 10_000;
/// Looks for staged bodies of tasks that do not exist: one in so many looks for expired tasks.
const LOOKS_PER_ORPHANS: u64 = 60;
/// The wait after a failed request.
const HOLD_MS: u64 = 1_000;

/// What was asked of the store.
#[derive(Clone, Debug, Serialize)]
enum Asked {
    Expired { failed: bool },
    Remains(TaskId),
    Staged,
    Known(Vec<TaskId>),
    Bodies,
}

/// Which page of expired tasks comes next.
#[derive(Clone, Debug, Serialize)]
struct Next {
    failed: bool,
    after: Option<(i64, TaskId)>,
}

/// The sweep of one shard.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Sweeps {
    /// When the next look is due; none without retention.
    at: Option<Mono>,
    /// Nothing is asked until then: a request failed.
    held_until: Option<Mono>,
    looks: u64,
    asked: Option<Asked>,
    pages: VecDeque<Next>,
    expired: VecDeque<TaskId>,
    /// The task that is being swept, and what of it is still to be done.
    task: Option<TaskId>,
    steps: VecDeque<(u64, Record)>,
    /// A step stands in a commit that the store has not answered for.
    committing: bool,
    /// Tasks whose staged bodies are to be looked at, and where.
    bodies: VecDeque<(TaskId, Option<StagedKey>)>,
    /// Where the search for staged bodies of tasks that do not exist goes on.
    orphans: Option<Option<TaskId>>,
    /// One page of that search is due: one with each look.
    orphans_due: bool,
    /// How many tasks in memory point to a task.
    pointing: BTreeMap<TaskId, u32>,
    /// Tasks that were pointed to by what has left memory since the last page was asked for.
    pointed: BTreeSet<TaskId>,
}

impl Sweeps {
    /// The first look: not all shards of a process at once.
    pub(super) fn begin(&mut self, ctx: &mut Context<'_>) {
        if ctx.config.retention_finished_ms.is_some() || ctx.config.retention_failed_ms.is_some() {
            let interval_ms = ctx.config.sweep_interval_ms.max(1);
            let jitter = ctx.random.below(interval_ms);
            self.at = Some(ctx.now.mono.after(jitter));
        }
    }

    /// A task came into memory.
    pub(super) fn came(&mut self, task: &Task) {
        for held in task.record.rerun.iter().flat_map(|rerun| &rerun.holds) {
            *self.pointing.entry(held.clone()).or_default() += 1;
        }
    }

    /// A settled task leaves memory: its last commit is in the store.
    pub(super) fn left(&mut self, task: &Task) {
        for held in task.record.rerun.iter().flat_map(|rerun| &rerun.holds) {
            if let Some(count) = self.pointing.get_mut(held) {
                *count -= 1;
                if *count == 0 {
                    self.pointing.remove(held);
                }
            }
            // Without retention no page is ever asked for.
            if self.at.is_some() {
                self.pointed.insert(held.clone());
            }
        }
        // A run that ended well has left no body behind that was not accepted.
        let troubled = task.nodes.iter().any(|node| {
            let record = &node.record;
            record.grants > u32::from(record.state == NodeState::Finished)
        });
        let troubled = troubled && !is_planted(Bug::BodiesKept);
        if troubled && self.bodies.len() < BODIES_WAITING_MAX {
            self.bodies.push_back((task.id().clone(), None));
        }
    }

    /// A sweep of the task has begun.
    pub(super) fn is_sweeping(&self, task: &TaskId) -> bool {
        self.task.as_ref() == Some(task)
    }

    /// The store has taken the commit that holds a step.
    pub(super) fn committed(&mut self) {
        self.committing = false;
        if self.steps.is_empty() {
            self.task = None;
        }
    }

    /// When something is due by time alone.
    pub(super) fn due(&self) -> Option<Mono> {
        if self.asked.is_some() || self.task.is_some() {
            return None;
        }
        let waits = self.pages.is_empty()
            && self.expired.is_empty()
            && self.bodies.is_empty()
            && !(self.orphans_due && self.orphans.is_some());
        match self.held_until {
            Some(until) => Some(until),
            None if waits => self.at,
            // Whatever there is was asked for already, but for care.
            None => None,
        }
    }

    fn hold(&mut self, ctx: &Context<'_>) {
        self.held_until = Some(ctx.now.mono.after(HOLD_MS));
    }

    fn look(&mut self, config: &Config) {
        self.looks += 1;
        self.orphans_due = true;
        // One that is still going on goes on.
        if !self.pages.is_empty() || !self.expired.is_empty() {
            return;
        }
        for (failed, age_ms) in [
            (false, config.retention_finished_ms),
            (true, config.retention_failed_ms),
        ] {
            if age_ms.is_some() {
                let after = None;
                self.pages.push_back(Next { failed, after });
            }
        }
        if self.looks.is_multiple_of(LOOKS_PER_ORPHANS) && self.orphans.is_none() {
            self.orphans = Some(None);
        }
    }
}

/// What it takes to sweep a task, with about how many records each step takes away.
fn steps_of(found: &TaskWithNodes) -> VecDeque<(u64, Record)> {
    let task = &found.task;
    let tombstone = TombstoneRecord {
        version: RECORD_VERSION,
        task_id: task.task_id.clone(),
        submission_hash: task.submission_hash,
        state: task.state,
    };
    let mut steps = VecDeque::new();
    let remove = |removal| Record::Remove(removal);
    let whole = remove(Removal::Task {
        task_id: task.task_id.clone(),
    });
    if !is_planted(Bug::NoTombstone) {
        steps.push_back((1, Record::Tombstone(Box::new(tombstone))));
    }
    if is_planted(Bug::TaskBeforeNodes) {
        steps.push_back((1, whole.clone()));
    }
    for node in &found.nodes {
        // A kept node's batches are another task's.
        let own = if node.kept_from.is_some() {
            0
        } else {
            node.accepted
        };
        let mut from = 1;
        while from <= own {
            let to = own.min(from + ARTIFACTS - 1);
            let removal = Removal::Artifacts {
                task_id: task.task_id.clone(),
                node_id: node.node_id.clone(),
                from,
                to,
            };
            steps.push_back((REMOVAL + to - from, remove(removal)));
            from = to + 1;
        }
        let removal = Removal::Node {
            task_id: task.task_id.clone(),
            node_id: node.node_id.clone(),
        };
        steps.push_back((REMOVAL, remove(removal)));
    }
    if !is_planted(Bug::TaskBeforeNodes) {
        steps.push_back((1, whole));
    }
    steps
}

impl Shard {
    /// Goes on with what is to be swept, one request or one step at a time.
    pub(super) fn sweep(&mut self, ctx: &mut Context<'_>) {
        let now = ctx.now.mono;
        if self.sweeps.asked.is_some() || self.sweeps.committing || !self.may_change() {
            return;
        }
        if self.sweeps.held_until.is_some_and(|until| until > now) {
            return;
        }
        self.sweeps.held_until = None;
        if self.sweeps.task.is_some() {
            return self.sweep_step(ctx);
        }
        let purpose = self.purpose(ShardOp::Sweep);
        let sweeps = &mut self.sweeps;
        // Before all else, or what always fails would hold it up for ever.
        if sweeps.at.is_some_and(|at| at <= now) {
            sweeps.at = Some(now.after(ctx.config.sweep_interval_ms.max(1)));
            sweeps.look(ctx.config);
        }
        while let Some(task) = sweeps.expired.pop_front() {
            if !self.numbers.contains_key(&task) && !is_held(sweeps, &self.reruns, &task) {
                let request = StoreRequest::ReadRemains {
                    task_id: task.clone(),
                };
                sweeps.asked = Some(Asked::Remains(task));
                return ctx.store(purpose, request);
            }
        }
        if let Some(next) = sweeps.pages.front() {
            let age_ms = if next.failed {
                ctx.config.retention_failed_ms
            } else {
                ctx.config.retention_finished_ms
            };
            let age_ms = age_ms.unwrap_or(u64::MAX);
            let early = age_ms > 1 && is_planted(Bug::SweptEarly);
            let request = StoreRequest::ReadExpired {
                shard: self.id,
                failed: next.failed,
                age_ms: if early { age_ms / 2 } else { age_ms },
                after: next.after.clone(),
                limit: PAGE,
            };
            sweeps.pointed.clear();
            sweeps.asked = Some(Asked::Expired {
                failed: next.failed,
            });
            return ctx.store(purpose, request);
        }
        if let Some((task_id, after)) = sweeps.bodies.front().cloned() {
            sweeps.asked = Some(Asked::Bodies);
            let request = StoreRequest::SweepStaged {
                task_id,
                after,
                limit: BODIES,
            };
            return ctx.store(purpose, request);
        }
        if let Some(after) = sweeps.orphans.clone().filter(|_| sweeps.orphans_due) {
            sweeps.orphans_due = false;
            sweeps.asked = Some(Asked::Staged);
            let request = StoreRequest::ReadStaged { after, limit: PAGE };
            ctx.store(purpose, request);
        }
    }

    /// The next step goes into the open commit.
    fn sweep_step(&mut self, ctx: &Context<'_>) {
        let mut size = 0;
        self.open.begin(ctx.now.mono);
        while let Some((records, _)) = self.sweeps.steps.front() {
            if size > 0 && size + records > STEP {
                break;
            }
            size += records;
            let step = self.sweeps.steps.pop_front();
            self.open.sweep.extend(step.map(|(_, record)| record));
        }
        self.sweeps.committing = true;
    }

    pub(super) fn sweep_answered(
        &mut self,
        ctx: &mut Context<'_>,
        result: Result<StoreReply, PortError>,
    ) {
        let Some(asked) = self.sweeps.asked.take() else {
            return;
        };
        let sweeps = &mut self.sweeps;
        match (asked, result) {
            (Asked::Expired { failed }, Ok(StoreReply::Expired(page))) => {
                sweeps.pages.pop_front();
                let last = page.tasks.last();
                if let Some(last) = last.filter(|_| page.more) {
                    let after = Some((last.written_ms, last.task_id.clone()));
                    sweeps.pages.push_front(Next { failed, after });
                }
                let free = page
                    .tasks
                    .into_iter()
                    .filter(|task| !task.pointed || is_planted(Bug::PointedSwept));
                sweeps.expired.extend(free.map(|task| task.task_id));
            }
            (Asked::Remains(task), Ok(StoreReply::Task(Some(found)))) => {
                let over = found.task.settled && found.task.state.is_terminal();
                if over && !is_held(sweeps, &self.reruns, &task) {
                    sweeps.steps = steps_of(&found);
                    sweeps.task = Some(task);
                }
            }
            // Gone, or not to be read: that is for people to look at.
            (Asked::Remains(_), Ok(_)) => {}
            (Asked::Remains(_), Err(error)) if error.kind == crate::port::ErrorKind::Corrupt => {}
            (Asked::Staged, Ok(StoreReply::Staged { tasks, more })) => {
                sweeps.orphans = tasks.last().filter(|_| more).cloned().map(Some);
                let shards = ctx.config.shards;
                let mine = |task: &TaskId| ShardId::of(task, shards) == self.id;
                let tasks: Vec<TaskId> = tasks
                    .into_iter()
                    .filter(|task| mine(task) && !self.numbers.contains_key(task))
                    .collect();
                if !tasks.is_empty() {
                    self.sweeps.asked = Some(Asked::Known(tasks.clone()));
                    let purpose = self.purpose(ShardOp::Sweep);
                    ctx.store(purpose, StoreRequest::LookupTasks { tasks });
                }
            }
            (Asked::Known(tasks), Ok(StoreReply::Answers(answers))) => {
                let gone = |answer: &Option<TaskAnswer>| answer.as_ref().is_none_or(|a| a.swept);
                let gone = tasks.into_iter().zip(answers).filter(|(_, a)| gone(a));
                sweeps.bodies.extend(gone.map(|(task, _)| (task, None)));
            }
            (Asked::Bodies, Ok(StoreReply::Swept { next, .. })) => {
                if let Some((task, _)) = sweeps.bodies.pop_front()
                    && next.is_some()
                {
                    sweeps.bodies.push_front((task, next));
                }
            }
            // One that cannot be read now holds up no other: the next look finds it again.
            (Asked::Remains(_), Err(_)) => sweeps.hold(ctx),
            (Asked::Bodies, Err(error)) => {
                let failed = sweeps.bodies.pop_front();
                if error.kind == crate::port::ErrorKind::Corrupt {
                    ctx.report(Report::new(ReportKind::PortFailed, error.to_string()));
                } else {
                    sweeps.bodies.extend(failed);
                    sweeps.hold(ctx);
                }
            }
            _ => {
                // Asked again from the next look on; what is half done is found again then.
                sweeps.pages.clear();
                sweeps.expired.clear();
                sweeps.orphans = None;
                sweeps.hold(ctx);
            }
        }
    }
}

/// Something that the store may not know yet points to the task, or is about to.
fn is_held(sweeps: &Sweeps, reruns: &super::rerun::Reruns, task: &TaskId) -> bool {
    let held = sweeps.pointing.contains_key(task) || sweeps.pointed.contains(task);
    (held || reruns.wait_for(task)) && !is_planted(Bug::PointedSwept)
}
