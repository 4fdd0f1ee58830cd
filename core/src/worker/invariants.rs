//! What must hold after every input.

use super::Worker;
use super::calls::{For, Sent};
use super::ended::ENDED_MAX;
use super::run::Work;

impl Worker {
    /// Checks the machine's invariants.
    ///
    /// # Panics
    /// When one is broken: a bug of this crate.
    pub fn check_invariants(&self) {
        if crate::planted::is_any() {
            return; // It is for the simulator's checkers to find.
        }
        self.timers.check_invariants();
        self.dedup.check_invariants();
        for (id, run) in &self.runs {
            run.check_invariants();
            assert_eq!(*id, run.id);
            let closed = matches!(run.work, Work::Closed);
            assert_eq!(
                self.slots.holds(*id),
                !closed,
                "a slot is held exactly as long as something of the handler may be left"
            );
            let node = run.node();
            assert!(run.abandoned || !run.forgotten, "kept only for its slot");
            if !run.abandoned {
                assert_eq!(self.by_node.get(&node), Some(id), "one run per node");
            }
            if let Some(ended) = self.ended.get(&node)
                && self.by_node.get(&node) == Some(id)
            {
                assert_ne!(ended.token, run.token, "an ended token never runs");
            }
            if matches!(run.work, Work::Checking) {
                assert!(
                    !self.beats.names(run.shard, *id),
                    "unchecked, so not accepted"
                );
                assert_eq!(run.outgoing.len(), 0);
            }
        }
        for (node, id) in &self.by_node {
            let run = self.runs.get(id).expect("every node maps to a run");
            assert_eq!(&run.node(), node);
        }
        for id in self.slots.taken() {
            assert!(self.runs.contains_key(id), "every slot has its run");
        }
        assert!(self.slots.taken().len() <= self.config.capacity as usize);
        assert!(self.beats.len() <= self.runs.len());
        assert!(self.ended.len() <= ENDED_MAX + self.config.capacity as usize);
        let reads = self
            .calls
            .values()
            .filter(|call| matches!(call.why, For::Grants(_)))
            .count();
        assert!(reads <= 1, "one read of grants at a time");
        let inbox = self
            .sent
            .values()
            .filter(|sent| matches!(sent, Sent::Inbox))
            .count();
        assert!(inbox <= 1, "one read of the inbox at a time");
        for id in self.grants.waiting() {
            assert!(
                self.runs.contains_key(id),
                "what waits for its check exists"
            );
        }
    }
}
