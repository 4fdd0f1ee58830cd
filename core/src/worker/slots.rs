//! Which runs hold a slot, and which shards wait for one. A slot is held from the moment a START
//! is looked into until nothing of the handler is left.

use serde::Serialize;
use std::collections::{BTreeSet, VecDeque};

use super::io::RunId;
use crate::id::ShardId;
use crate::planted::{Bug, is_planted};

/// The slots of the worker, shared by all its roles.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Slots {
    capacity: u32,
    taken: BTreeSet<RunId>,
    refused: VecDeque<ShardId>,
}

impl Slots {
    pub(super) fn new(capacity: u32) -> Self {
        Self {
            capacity,
            taken: BTreeSet::new(),
            refused: VecDeque::new(),
        }
    }

    pub(super) fn free(&self) -> u32 {
        let taken = u32::try_from(self.taken.len()).unwrap_or(u32::MAX);
        let more = u32::from(is_planted(Bug::OneSlotMore));
        (self.capacity + more).saturating_sub(taken)
    }

    pub(super) fn take(&mut self, run: RunId) {
        assert!(self.free() > 0, "a slot is taken only when one is free");
        self.taken.insert(run);
    }

    /// Gives a slot back; false if the run held none.
    pub(super) fn give_back(&mut self, run: RunId) -> bool {
        self.taken.remove(&run)
    }

    pub(super) fn holds(&self, run: RunId) -> bool {
        self.taken.contains(&run)
    }

    pub(super) fn taken(&self) -> &BTreeSet<RunId> {
        &self.taken
    }

    /// Remembers that a shard was refused for want of a slot. One place per shard, so the queue is
    /// bounded by the number of shards.
    pub(super) fn note_refused(&mut self, shard: ShardId) {
        if !self.refused.contains(&shard) {
            self.refused.push_back(shard);
        }
    }

    /// The shard that has waited longest since it was refused.
    pub(super) fn next_refused(&mut self) -> Option<ShardId> {
        self.refused.pop_front()
    }
}
