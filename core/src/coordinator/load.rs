//! Tasks coming into memory: submitted, or read at a takeover.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::context::Context;
use super::shard::Shard;
use super::task::{NodeKey, Run, Task};
use crate::function::Functions;
use crate::graph::{Fault, Graph, Plan, Verdict};
use crate::hash::stable128;
use crate::id::{DedupId, Offset, TaskId};
use crate::json::Json;
use crate::planted::{Bug, is_planted};
use crate::port::TaskWithNodes;
use crate::record::{NodeState, TaskState};
use crate::report::{Report, ReportKind};

/// Compiled graphs that are kept for the next task of the same graph.
const PLANS_MAX: usize = 64;

/// Compiled graphs by the hash of their text: equal graphs share one plan and one text.
#[derive(Clone, Debug, Default)]
pub(super) struct Plans {
    plans: BTreeMap<u128, Compiled>,
}

#[derive(Clone, Debug)]
struct Compiled {
    text: Json,
    plan: Arc<Plan>,
    /// Its functions and their arguments were checked, too.
    checked: bool,
}

impl Plans {
    /// Compiles a graph that is submitted (with the functions that there are), or that is stored.
    pub(super) fn compile(
        &mut self,
        graph: &Json,
        functions: Option<&Functions>,
    ) -> Result<(Json, Arc<Plan>), Vec<Fault>> {
        let hash = stable128(&[graph.text().as_bytes()]);
        if let Some(known) = self.plans.get(&hash)
            && known.text == *graph
            && (known.checked || functions.is_none())
        {
            return Ok((known.text.clone(), known.plan.clone()));
        }
        let parsed = match functions {
            Some(functions) => Graph::parse_with(graph, functions)?,
            None => Graph::parse_stored(graph)?,
        };
        let plan = Arc::new(parsed.plan());
        if self.plans.len() >= PLANS_MAX {
            self.plans.clear();
        }
        let compiled = Compiled {
            text: graph.clone(),
            plan: plan.clone(),
            checked: functions.is_some(),
        };
        self.plans.insert(hash, compiled);
        Ok((graph.clone(), plan))
    }
}

/// What a refused commit is blamed on.
#[derive(Debug, Default)]
pub(super) struct Blame {
    /// The entry that it holds: its place, and which message it is. (Where entries were lost, others
    /// come to stand.)
    pub(super) entry: Option<(Offset, DedupId)>,
    /// Tasks that it changes without an entry, or by one that was refused before.
    pub(super) tasks: Vec<TaskId>,
    /// Tasks that it would have created, with the hashes of their submissions.
    pub(super) submissions: Vec<(TaskId, u128)>,
}

impl Shard {
    pub(super) fn insert(&mut self, mut task: Task) -> u64 {
        task.limit_key = self.meters.key_of(&task.record.control.options);
        self.task_newest += 1;
        let number = self.task_newest;
        self.numbers.insert(task.id().clone(), number);
        self.sweeps.came(&task);
        self.tasks.insert(number, task);
        number
    }

    /// Starts what may start in a task that was just submitted.
    pub(super) fn begin_task(&mut self, ctx: &mut Context<'_>, number: u64) {
        let Some(task) = self.tasks.get(&number) else {
            return;
        };
        let plan = task.plan.clone();
        let mut skipped = Vec::new();
        for node in 0..plan.len() {
            let key = NodeKey { task: number, node };
            self.touch(ctx, key);
            let starts = plan.node(node).parents.is_empty();
            if starts && !self.start_or_skip(ctx, key, "it waits for nothing") {
                skipped.push(key);
            }
        }
        for key in skipped {
            self.spread(ctx, key);
        }
    }

    /// Takes a task in as read from the store. Nothing is sent yet.
    pub(super) fn load_task(&mut self, ctx: &mut Context<'_>, stored: TaskWithNodes) {
        let id = stored.task.task_id.clone();
        ctx.subject.task_id = Some(id.clone());
        ctx.subject.loading = true;
        self.read_task(ctx, id, stored);
        ctx.subject.task_id = None;
        ctx.subject.loading = false;
    }

    fn read_task(&mut self, ctx: &mut Context<'_>, id: TaskId, stored: TaskWithNodes) {
        let compiled = self.plans.compile(&stored.task.graph, None);
        let ages: BTreeMap<_, _> = stored
            .nodes
            .iter()
            .map(|node| node.node_id.clone())
            .zip(stored.node_age_ms.iter().copied())
            .collect();
        let loaded = compiled
            .ok()
            .and_then(|(_, plan)| Task::loaded(stored.task, plan, stored.nodes));
        let Some(mut task) = loaded else {
            let mut report = Report::new(
                ReportKind::Quarantined,
                "its records and its graph do not fit",
            );
            report.task_id = Some(id.clone());
            self.left_out.insert(id);
            return ctx.report(report);
        };
        for node in &mut task.nodes {
            let age_ms = ages.get(&node.record.node_id).copied().unwrap_or(0);
            // Never early by the store's clock; a record without a wait starts at once.
            node.retry_at = (node.record.state == NodeState::Deferred).then(|| {
                ctx.now
                    .mono
                    .after(node.record.wait_ms.unwrap_or(0).saturating_sub(age_ms))
            });
            if node.retry_at.is_some() && is_planted(Bug::WaitForgotten) {
                node.retry_at = Some(ctx.now.mono);
            }
        }
        self.insert(task);
    }

    /// Sets everything that follows from the records in motion: the shard is owned.
    pub(super) fn resume(&mut self, ctx: &mut Context<'_>, holders_dead: bool) {
        if self.epoch > 1 && !self.starts_known {
            self.meters.taken_over(ctx.now.mono);
        }
        let numbers: Vec<u64> = self.tasks.keys().copied().collect();
        for number in numbers {
            let Some(task) = self.tasks.get(&number) else {
                continue;
            };
            if self.quarantine.contains(task.id()) {
                self.set_aside(ctx, number);
                continue;
            }
            ctx.subject.task_id = Some(task.id().clone());
            for node in 0..task.nodes.len() {
                self.resume_node(ctx, NodeKey { task: number, node });
            }
            self.task_progress(ctx, number);
            ctx.subject.task_id = None;
        }
        self.sweeps.begin(ctx);
        if holders_dead {
            let held: Vec<NodeKey> = self.held.values().flatten().copied().collect();
            for key in held {
                self.blame_if_broken(ctx, key);
                if self.node(key).is_some_and(super::task::Node::is_granted) {
                    self.lose_grant(ctx, key, "its worker's process is gone");
                }
                ctx.subject.task_id = None;
            }
        }
    }

    fn resume_node(&mut self, ctx: &mut Context<'_>, key: NodeKey) {
        let Some(task) = self.tasks.get(&key.task) else {
            return;
        };
        let node = &task.nodes[key.node];
        if let Some(mut grant) = node.record.grant.clone() {
            if grant.cancel.is_some() && is_planted(Bug::CancelForgotten) {
                grant.cancel = None;
                self.node_mut(key).record.grant = Some(grant.clone());
            }
            self.held
                .entry(grant.worker_id.clone())
                .or_default()
                .insert(key);
            ctx.workers.grant_begins(&grant.worker_id);
            if !is_planted(Bug::LimitUncounted) {
                self.count_grant(key, true, false);
            }
            let mut run = Run::new(ctx.now.mono, ctx.config.resend_backoff_ms);
            // Its commit is in the store, so START may go; nobody here has heard the run yet.
            run.released = true;
            run.resend_at = Some(ctx.now.mono);
            let newest = ctx
                .workers
                .get(&grant.worker_id)
                .map(|w| w.record.incarnation);
            run.dead = newest.is_some_and(|newest| {
                newest > grant.incarnation
                    || newest == grant.incarnation && is_planted(Bug::NewGrantsEnded)
            });
            if let Some(told) = grant.cancel {
                let lease_ms = ctx.config.lease_ttl_ms + ctx.config.lease_margin_ms();
                run.close_at = Some(ctx.now.mono.after(told.grace_ms.max(lease_ms)));
            }
            self.node_mut(key).run = Some(run);
            self.rearm(ctx, key);
            if self.task(key).is_some_and(|task| !task.is_fed(key.node)) {
                self.starving.insert(key);
            }
            return;
        }
        match node.record.state {
            NodeState::Ready => {
                if task.is_held() && is_planted(Bug::PauseForgotten) {
                    let state = TaskState::Running;
                    self.set_task_state(ctx, key.task, state, "forgotten");
                }
                self.enqueue(key);
            }
            NodeState::Deferred if is_planted(Bug::RetryLost) => {}
            NodeState::Deferred => {
                let at = node.retry_at;
                self.set_due(key, at);
            }
            // A start rule that held in the last commit made the node ready in that commit.
            NodeState::Queued => {
                let verdict = node.tally.verdict(task.plan.node(key.node).fan_in);
                assert_eq!(
                    verdict,
                    Verdict::Wait,
                    "a queued node's rule does not hold yet"
                );
            }
            _ => {}
        }
    }

    /// A task that panicked the machine or that the store refuses: nothing of it runs any more.
    fn set_aside(&mut self, ctx: &mut Context<'_>, number: u64) {
        let Some(task) = self.tasks.get_mut(&number) else {
            return;
        };
        let id = task.id().clone();
        let mut report = Report::new(ReportKind::Quarantined, "set aside: it cannot go on");
        report.task_id = Some(id);
        ctx.report(report);
        if task.record.state.is_terminal() {
            task.record.settled = true;
            self.touch_task(ctx, number);
        } else {
            task.record.settled = true;
            self.set_task_state(
                ctx,
                number,
                TaskState::Quarantined,
                "set aside: it cannot go on",
            );
        }
        // Only the task record is written: a node record may be what the store refuses.
        self.open.settled.push(number);
    }

    /// What the commit in flight is to be blamed on, and until where to fold with care.
    pub(super) fn blame(&self) -> (Offset, Option<Blame>) {
        let Some(in_flight) = &self.in_flight else {
            return (self.next, None);
        };
        if !in_flight.careful || is_planted(Bug::NobodyBlamed) {
            return (in_flight.commit.next, None);
        }
        // A step of a sweep has no task in memory; it is found again by the next look.
        if in_flight.sweeps {
            return (in_flight.commit.next, Some(Blame::default()));
        }
        // An entry that changed nothing (a question, a copy) is not to blame for what time did.
        let entry = in_flight.commit.last_entry.filter(|_| in_flight.by_entry);
        let entry = entry.map(|message| (Offset(in_flight.commit.next.0 - 1), message));
        // Without what it says it is refused, too: it is the task's record.
        let entry = entry.filter(|entry| !self.poisoned.contains(entry));
        let blame = if entry.is_some() {
            Blame {
                entry,
                ..Blame::default()
            }
        } else if !in_flight.created.is_empty() {
            Blame {
                submissions: in_flight.created.clone(),
                ..Blame::default()
            }
        } else {
            Blame {
                tasks: in_flight.tasks(),
                ..Blame::default()
            }
        };
        (in_flight.commit.next, Some(blame))
    }
}
