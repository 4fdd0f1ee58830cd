//! What clients are shown of a task, by `status`, `list`, `why`, `artifacts`, `watch` and of what workers run, is
//! how it stood at some moment since they asked: `answered`. In one process that may crash it is what was synced
//! by then, too.

use std::collections::BTreeMap;

use flowkit_core::id::{BatchUid, NodeId, TaskId, Token, WorkerId};
use flowkit_core::record::{NodeState, TaskState};

use super::{Judge, View};
use crate::history::{Change, NodeFact, Shown, What};
use crate::plan::{Fault, Rotten};

const NAME: &str = "answered";

#[derive(Debug, Default)]
pub(super) struct Looks {
    open: BTreeMap<u64, (TaskId, Look)>,
}

/// How a task stood since somebody asked.
#[derive(Debug, Default)]
struct Look {
    task: Vec<(TaskState, bool)>,
    nodes: BTreeMap<NodeId, Vec<Stood>>,
    swept: bool,
    /// Workers whose record cannot be read are in no list, nor is what they run.
    unlisted: bool,
}

/// How a node stood: its state, its accepted batches, and who held it.
#[derive(Clone, Debug, PartialEq)]
struct Stood {
    state: NodeState,
    accepted: u64,
    held: Option<(WorkerId, Token)>,
}

impl Stood {
    fn of(fact: &NodeFact) -> Self {
        let holder = fact.holder.as_ref();
        Self {
            state: fact.state,
            accepted: fact.accepted,
            held: holder.map(|(worker, _)| (worker.clone(), fact.token)),
        }
    }
}

impl Judge for Looks {
    fn event(&mut self, view: &mut View<'_>) {
        match &view.event.what {
            What::Looks { task, look, .. } => {
                let stood = Look::now(view, task);
                self.open.insert(*look, (task.clone(), stood));
            }
            What::Committed { changes, .. } if !self.open.is_empty() => {
                for (task, look) in self.open.values_mut() {
                    for change in changes {
                        look.changed(task, change);
                    }
                }
            }
            What::Shown {
                client,
                task,
                look,
                shown,
            } => {
                let look = self.open.remove(look);
                // What real processes are shown is noted at another moment than what the store has.
                let look = look.filter(|_| view.plan.world.slack_ms < 1_000);
                if let Some((_, mut look)) = look.filter(|_| !view.ledger.is_rotten(task)) {
                    look.loses_unsynced(view, task);
                    let mut fits = look.fits(shown);
                    if let (Shown::Artifacts(nodes), false) = (shown, look.swept) {
                        fits = look.artifacts_fit(view, task, nodes);
                    }
                    if let Err(what) = fits {
                        view.broken(NAME, format!("client {client} looks at {task}: {what}"));
                    }
                }
            }
            _ => {}
        }
    }
}

impl Look {
    fn now(view: &View<'_>, task: &TaskId) -> Self {
        let Some(ledger) = view.ledger.tasks.get(task) else {
            return Self::default();
        };
        let mut look = Self {
            swept: ledger.tombstone.is_some(),
            unlisted: view.plan.faults.iter().any(|fault| {
                matches!(
                    fault,
                    Fault::Rot {
                        what: Rotten::Worker { .. },
                        ..
                    }
                )
            }),
            ..Self::default()
        };
        // As it was synced, and from then on.
        for change in view.ledger.unsynced(task) {
            match change {
                Change::Task { old: Some(old), .. } => look.task.push((old.state, old.settled)),
                Change::Node {
                    node,
                    old: Some(old),
                    ..
                } => {
                    let stood = look.nodes.entry(node.clone()).or_default();
                    stood.push(Stood::of(old));
                }
                _ => {}
            }
        }
        look.task
            .extend(ledger.fact.iter().map(|f| (f.state, f.settled)));
        for (id, node) in &ledger.nodes {
            if let Some(fact) = &node.fact {
                let stood = look.nodes.entry(id.clone()).or_default();
                stood.push(Stood::of(fact));
            }
        }
        look
    }

    /// What a crash could still undo is shown to nobody.
    fn loses_unsynced(&mut self, view: &View<'_>, of: &TaskId) {
        for change in view.ledger.unsynced(of) {
            match change {
                Change::Task { .. } => drop(self.task.pop()),
                Change::Node { node, .. } => {
                    if let Some(stood) = self.nodes.get_mut(node) {
                        stood.pop();
                    }
                }
                _ => {}
            }
        }
    }

    fn changed(&mut self, of: &TaskId, change: &Change) {
        match change {
            Change::Task { task, new, .. } if task == of => {
                self.task.push((new.state, new.settled));
            }
            Change::Node {
                task, node, new, ..
            } if task == of => {
                let stood = self.nodes.entry(node.clone()).or_default();
                stood.push(Stood::of(new));
            }
            Change::Tombstone { task, .. } if task == of => self.swept = true,
            _ => {}
        }
    }

    /// The artifacts of each node are those of its accepted batches, without a gap: not less than when
    /// they were asked for, not more than now.
    fn artifacts_fit(
        &self,
        view: &View<'_>,
        task: &TaskId,
        shown: &[(NodeId, Vec<(u64, BatchUid)>)],
    ) -> Result<(), String> {
        for (node, artifacts) in shown {
            let stood = self.nodes.get(node).into_iter().flatten();
            let accepted = stood.map(|stood| stood.accepted);
            let (least, most) = (accepted.clone().min(), accepted.max());
            let count = artifacts.len() as u64;
            let fact = view.ledger.fact(task, node);
            let of = fact.and_then(|fact| fact.kept_from.as_ref());
            let ledger = view.ledger.node(of.unwrap_or(task), node);
            let is_it = |(number, uid): &(u64, BatchUid)| {
                let known = ledger.and_then(|ledger| ledger.artifacts.get(number));
                known.is_some_and(|known| known.uid == *uid)
            };
            let numbers = artifacts.iter().map(|(number, _)| *number);
            let fits = numbers.eq(1..=count)
                && least.is_none_or(|least| least <= count)
                && most.is_some_and(|most| count <= most)
                && artifacts.iter().all(is_it);
            if !fits {
                return Err(format!(
                    "of {node} it is shown {artifacts:?}; there were {least:?} to {most:?}"
                ));
            }
        }
        Ok(())
    }

    fn fits(&self, shown: &Shown) -> Result<(), String> {
        // Parts of it may be gone already.
        if self.swept {
            return Ok(());
        }
        let known = |state: TaskState| self.task.iter().any(|(known, _)| *known == state);
        let fits = match shown {
            Shown::Status {
                state,
                settled,
                nodes,
            } => {
                let stood = |(node, state, batches): &(NodeId, NodeState, u64)| {
                    let stood = self.nodes.get(node).into_iter().flatten();
                    let mut stood = stood.map(|stood| (stood.state, stood.accepted));
                    stood.any(|stood| stood == (*state, *batches))
                };
                self.task.contains(&(*state, *settled))
                    && nodes.len() == self.nodes.len()
                    && nodes.iter().all(stood)
            }
            Shown::Listed(state) => state.is_some_and(known),
            Shown::Why(state, open) => {
                let ended = |stood: &[Stood]| stood.iter().all(|s| s.state.is_terminal());
                let open_all_along = |stood: &[Stood]| !stood.iter().any(|s| s.state.is_terminal());
                let mut nodes = self.nodes.iter();
                known(*state)
                    && nodes.all(|(node, states)| {
                        if open.contains(node) {
                            !ended(states)
                        } else {
                            !open_all_along(states)
                        }
                    })
            }
            Shown::Held(held) => self.nodes.iter().all(|(node, stood)| {
                // Workers are read one after the other: a node that moves on may be seen twice, or not at all.
                let shown = held.iter().filter(|(_, of, _)| of == node);
                let mut shown = shown.map(|(worker, _, token)| Some((worker.clone(), *token)));
                let first = stood.first().and_then(|stood| stood.held.as_ref());
                let moved = stood.iter().any(|stood| stood.held.as_ref() != first);
                let seen = shown.clone().count() > 0;
                (seen || moved || self.unlisted || first.is_none())
                    && shown.all(|by| stood.iter().any(|stood| stood.held == by))
            }),
            Shown::Artifacts(_) => true,
            Shown::Swept | Shown::Failed(_) => false,
        };
        if fits {
            Ok(())
        } else {
            Err(format!(
                "it is shown {shown:?}; since it asked the task was {:?}, its nodes {:?}",
                self.task, self.nodes
            ))
        }
    }
}
