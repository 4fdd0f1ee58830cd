//! `settle`: after faults heal every task settles within the stated bound, in the state that its
//! graph and scripts call for.

use std::collections::BTreeSet;

use flowkit_core::id::TaskId;
use flowkit_core::record::TaskState;

use super::{Broken, Finish, Judge, View};
use crate::expect::{Expected, expect};
use crate::functions::breaks_machine;
use crate::history::{Ask, Change, What};
use crate::plan::{ActionKind, Fault, Plan};

const NAME: &str = "settle";

#[derive(Debug, Default)]
pub(super) struct Settle {
    asked: BTreeSet<TaskId>,
    /// Tasks that lost a node for want of a worker that kept it: their scripts did not get to say
    /// what becomes of them, nor of who follows.
    lost: BTreeSet<TaskId>,
}

/// Settled = terminal, and no grant left: what a waiter relies on. The records of a task that was set
/// aside stay as they are, even if it was terminal before and keeps that state.
fn settled_with_a_grant(view: &View<'_>, changes: &[Change]) -> Option<String> {
    let sets_aside =
        |fault: &Fault| fault.is_refusal() || matches!(fault, Fault::MachinePanic { .. });
    if view.plan.faults.iter().any(sets_aside) {
        return None;
    }
    changes.iter().find_map(|change| {
        let (Change::Task { task, .. } | Change::Node { task, .. }) = change else {
            return None;
        };
        let task_now = view.ledger.tasks.get(task)?;
        let fact = task_now.fact.as_ref()?;
        let settled = fact.settled && fact.state != TaskState::Quarantined;
        let mut nodes = task_now.nodes.iter();
        let held = nodes.find(|(_, node)| {
            let fact = node.fact.as_ref();
            fact.is_some_and(|fact| fact.holder.is_some())
        });
        let (node, _) = held.filter(|_| settled)?;
        Some(format!("{task} is settled while {node} holds a grant"))
    })
}

fn writes_refused(plan: &Plan, task: usize) -> bool {
    plan.faults.iter().any(|fault| {
        let refused = fault.refused_task();
        matches!(fault, Fault::RefuseWrites { .. }) && refused.is_some_and(|of| of as usize == task)
    })
}

impl Judge for Settle {
    fn event(&mut self, view: &mut View<'_>) {
        match &view.event.what {
            What::Asked {
                task,
                ask: Ask::Submit,
                ..
            } => {
                self.asked.insert(task.clone());
            }
            What::Committed { changes, .. } => {
                for change in changes {
                    if let Change::Node { task, new, .. } = change
                        && new.failure_code.as_deref() == Some("worker_lost")
                    {
                        self.lost.insert(task.clone());
                    }
                }
                if let Some(what) = settled_with_a_grant(view, changes) {
                    view.broken(NAME, what);
                }
            }
            What::Undone { changes } => {
                for change in changes {
                    if let Change::Node { task, new, .. } = change
                        && new.failure_code.as_deref() == Some("worker_lost")
                    {
                        self.lost.remove(task);
                    }
                }
            }
            What::Answered {
                task,
                ask: Ask::Wait,
                reply,
                ..
            } => {
                let fact = view.ledger.durable(task);
                let swept = view.ledger.tasks.get(task).and_then(|task| task.tombstone);
                let swept = swept.map(|state| (true, state));
                let mut stored = fact.map(|fact| (fact.settled, fact.state)).or(swept);
                if view.ledger.is_rotten(task) && reply.state == Some(TaskState::Quarantined) {
                    stored = Some((true, TaskState::Quarantined));
                }
                if stored.is_none_or(|(settled, state)| !settled || Some(state) != reply.state) {
                    let what = format!("{task}: a waiter got {reply:?}, stored is {stored:?}");
                    view.broken(NAME, what);
                }
            }
            _ => {}
        }
    }

    fn finish(&mut self, finish: &Finish<'_>, broken: &mut Vec<Broken>) {
        if !finish.settled {
            let mut what = format!(
                "not settled {} ms after faults healed:",
                (finish.now / 1_000).saturating_sub(finish.plan.heal_ms)
            );
            for task in finish.tables.tasks().filter(|task| !task.settled) {
                what.push_str(&format!(" {} {:?}", task.task_id, task.state));
                for node in finish.tables.nodes(&task.task_id) {
                    if !node.state.is_terminal() {
                        what.push_str(&format!(
                            " [{} {:?} token {} held by {:?}]",
                            node.node_id,
                            node.state,
                            node.lease_no,
                            node.grant.as_ref().map(|grant| &grant.worker_id)
                        ));
                    }
                }
            }
            broken.push(Broken::new(NAME, finish.now, what));
            return;
        }
        let refused = |fault: &&Fault| fault.is_refusal();
        // After a refusal, or a panic, commits hold one event each; one that is refused is blamed.
        let careful =
            |fault: &&Fault| refused(fault) || matches!(fault, Fault::MachinePanic { .. });
        let faults = finish.plan.faults.iter();
        let mut tasks = finish.plan.tasks.iter();
        let breaks = tasks.any(|task| breaks_machine(&task.graph));
        let times = faults.clone().filter(careful).count() + usize::from(breaks);
        let free = times > 1 && faults.clone().any(|f| refused(&f));
        for (index, task) in finish.plan.tasks.iter().enumerate() {
            let Ok(id) = TaskId::new(&task.id) else {
                continue;
            };
            // It was set aside, or went on later, and so did who runs it again.
            let of = task.rerun.as_ref().map_or(index, |rerun| rerun.of as usize);
            let refused = [index, of]
                .iter()
                .any(|of| writes_refused(finish.plan, *of));
            let free = free || refused || finish.ledger.is_rotten(&id);
            if !self.asked.contains(&id) || free {
                continue;
            }
            // Of one that was swept its state is left.
            let record = finish.tables.task(&id);
            let swept = finish.tables.tombstone(&id).map(|stone| stone.state);
            let Some(state) = swept.or(record.map(|record| record.state)) else {
                continue;
            };
            let cancelled = finish.plan.actions.iter().any(|action| {
                matches!(action.kind, ActionKind::Cancel { task, .. } if task as usize == index)
            });
            let expected = expect(finish.plan, index);
            let lost = self.lost.contains(&id);
            let fits = match (&expected, state) {
                (_, TaskState::Cancelled) => cancelled,
                _ if lost => true,
                (Expected::Open, _) => true,
                (Expected::Hangs, _) => cancelled,
                (Expected::SetAside, state) => state == TaskState::Quarantined,
                (Expected::Failed, state) => state == TaskState::Failed,
                (Expected::Finished(_), state) => state == TaskState::Finished,
            };
            if !fits {
                let why = record.and_then(|record| record.failure.as_ref());
                let what = format!("{id}: {state:?} ({why:?}), its scripts call for {expected:?}");
                broken.push(Broken::new(NAME, finish.now, what));
            }
            if let (Expected::Finished(states), TaskState::Finished) = (&expected, state)
                && !lost
            {
                for node in finish.tables.nodes(&id) {
                    let wanted = states.get(node.node_id.as_str());
                    if wanted != Some(&node.state) {
                        let what = format!(
                            "{id}/{}: {:?}, its script calls for {wanted:?}",
                            node.node_id, node.state
                        );
                        broken.push(Broken::new(NAME, finish.now, what));
                    }
                }
            }
        }
    }
}
