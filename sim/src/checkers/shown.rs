//! What clients are shown of a task, by `status`, `list`, `why` and of what workers run, is how it stood at some moment since they
//! asked: `answered`.

use std::collections::BTreeMap;

use flowkit_core::id::{NodeId, TaskId, Token, WorkerId};
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
                if let Some((_, look)) = look.filter(|_| view.plan.world.slack_ms < 1_000)
                    && !view.ledger.is_rotten(task)
                    && let Err(what) = look.fits(shown)
                {
                    view.broken(NAME, format!("client {client} looks at {task}: {what}"));
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
        let nodes = ledger.nodes.iter().filter_map(|(id, node)| {
            let fact = node.fact.as_ref()?;
            Some((id.clone(), vec![Stood::of(fact)]))
        });
        Self {
            task: ledger.fact.iter().map(|f| (f.state, f.settled)).collect(),
            nodes: nodes.collect(),
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
                let moved = stood
                    .iter()
                    .any(|stood| stood.held != self.nodes[node][0].held);
                let seen = shown.clone().count() > 0;
                (seen || moved || self.unlisted || stood[0].held.is_none())
                    && shown.all(|by| stood.iter().any(|stood| stood.held == by))
            }),
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
