//! What must hold after every input. Checked in tests and in the simulator.

use super::Coordinator;
use super::limits::Scope;
use super::ownership::Phase;
use super::shard::Shard;
use super::task::{NodeKey, Task};
use crate::record::{NodeState, TaskState};

impl Coordinator {
    /// Checks everything that must hold between inputs. Costs a look at every node.
    ///
    /// # Panics
    /// On a broken invariant.
    pub fn check_invariants(&self) {
        if crate::planted::is_any() {
            return; // It is for the simulator's checkers to find.
        }
        for slot in &self.slots {
            if let Phase::Owned(shard) = &slot.phase {
                shard.check_invariants();
            }
        }
    }
}

impl Shard {
    fn check_invariants(&self) {
        assert_eq!(self.numbers.len(), self.tasks.len(), "one number per task");
        let mut queued = 0;
        let mut held = 0;
        for (number, task) in &self.tasks {
            assert_eq!(
                self.numbers.get(task.id()),
                Some(number),
                "the number names the task"
            );
            if self.quarantine.contains(task.id()) {
                continue; // Set aside as it was found.
            }
            let open = task
                .nodes
                .iter()
                .filter(|n| !n.record.state.is_terminal())
                .count();
            let grants = task.nodes.iter().filter(|n| n.is_granted()).count();
            assert_eq!(
                (task.open, task.grants),
                (open, grants),
                "counters follow the nodes"
            );
            if task.record.settled {
                assert!(
                    task.record.state.is_terminal() && grants == 0,
                    "settled means over"
                );
            }
            if task.record.state == TaskState::Finished {
                assert_eq!(open, 0, "a finished task has no open node");
            }
            for (index, node) in task.nodes.iter().enumerate() {
                let key = NodeKey {
                    task: *number,
                    node: index,
                };
                let record = &node.record;
                let granted = node.is_granted();
                if task.record.state == TaskState::Quarantined {
                    continue;
                }
                assert_eq!(
                    granted,
                    record.state == NodeState::Running,
                    "running = granted"
                );
                assert_eq!(granted, node.run.is_some(), "a grant has a clock");
                assert!(
                    record.checkpoint_batches <= record.accepted,
                    "no checkpoint runs ahead"
                );
                assert!(
                    record.cursor_batches <= record.accepted,
                    "no cursor runs ahead"
                );
                if task.is_closing() {
                    assert!(
                        granted || record.state.is_terminal(),
                        "an ending task starts nothing"
                    );
                }
                if let Some(grant) = &record.grant {
                    held += 1;
                    let of_worker = self.held.get(&grant.worker_id);
                    assert!(
                        of_worker.is_some_and(|set| set.contains(&key)),
                        "grants are indexed"
                    );
                }
                if node.queued.is_some() {
                    queued += 1;
                    assert_eq!(
                        record.state,
                        NodeState::Ready,
                        "only ready nodes are queued"
                    );
                }
                if task.is_held() {
                    assert!(node.queued.is_none(), "nothing of a paused task is queued");
                } else if record.state == NodeState::Ready && task.is_fed(index) {
                    assert!(
                        node.queued.is_some(),
                        "a ready node whose sources live is queued"
                    );
                }
                if record.state == NodeState::Deferred {
                    assert!(node.due.is_some(), "a deferred node has a timer");
                }
                if let Some(due) = node.due {
                    assert!(self.timers.contains(&(due, key)), "timers are indexed");
                }
                let starving = granted && !task.is_fed(index);
                assert_eq!(
                    self.starving.contains(&key),
                    starving,
                    "starving readers are known"
                );
            }
        }
        assert_eq!(self.ready.len(), queued, "queues hold what is queued");
        let (running, counted) = self.meters.counted();
        assert_eq!(running as usize, held, "limits count what is granted");
        for (scope, count) in counted {
            let of_scope = |task: &Task, node: usize| match scope {
                Scope::Type(role) => task.plan.node(node).role == *role,
                Scope::Key(key) => task.limit_key.as_ref() == Some(key),
            };
            let known = self.tasks.values();
            let known = known.filter(|task| !self.quarantine.contains(task.id()));
            let nodes = known.flat_map(|task| {
                let nodes = 0..task.nodes.len();
                nodes.filter(move |node| of_scope(task, *node) && task.nodes[*node].is_granted())
            });
            assert_eq!(
                nodes.count(),
                count as usize,
                "limits count by type and key"
            );
        }
        let in_held: usize = self
            .held
            .values()
            .map(std::collections::BTreeSet::len)
            .sum();
        assert_eq!(in_held, held, "the index of grants holds what is granted");
    }
}
