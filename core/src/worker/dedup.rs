//! Identities of commands seen lately. It only saves work: correctness never rests on it, because
//! it may forget.

use serde::Serialize;
use std::collections::{BTreeMap, VecDeque};

use crate::id::DedupId;
use crate::time::Mono;

/// A cache of message identities, bounded in size and age.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Dedup {
    size_max: usize,
    ttl_ms: u64,
    seen: BTreeMap<DedupId, Mono>,
    order: VecDeque<(Mono, DedupId)>,
}

impl Dedup {
    pub(super) fn new(size_max: usize, ttl_ms: u64) -> Self {
        Self {
            size_max,
            ttl_ms,
            seen: BTreeMap::new(),
            order: VecDeque::new(),
        }
    }

    /// Notes an identity; true if it was known and is not too old.
    pub(super) fn seen(&mut self, id: DedupId, now: Mono) -> bool {
        while let Some((at, oldest)) = self.order.front().copied() {
            if self.order.len() <= self.size_max && now.since(at) < self.ttl_ms {
                break;
            }
            self.order.pop_front();
            self.seen.remove(&oldest);
        }
        if self.seen.contains_key(&id) {
            return true;
        }
        if self.size_max > 0 {
            if self.order.len() == self.size_max
                && let Some((_, oldest)) = self.order.pop_front()
            {
                self.seen.remove(&oldest);
            }
            self.seen.insert(id, now);
            self.order.push_back((now, id));
        }
        false
    }

    pub(super) fn check_invariants(&self) {
        assert!(self.order.len() <= self.size_max);
        assert_eq!(self.order.len(), self.seen.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Which of so many identities are known; what is unknown is noted.
    fn known(dedup: &mut Dedup, ids: &[u64], at: u64) -> Vec<bool> {
        let known = ids.iter().map(|id| dedup.seen(DedupId(*id), Mono(at)));
        let known = known.collect();
        dedup.check_invariants();
        known
    }

    #[test]
    fn the_oldest_identity_goes_when_there_are_too_many() {
        let mut dedup = Dedup::new(3, 1_000);
        assert_eq!(known(&mut dedup, &[1, 2, 3, 1, 2, 3], 0)[3..], [true; 3]);
        assert_eq!(known(&mut dedup, &[4], 1), [false]);
        assert_eq!(known(&mut dedup, &[2, 3, 4], 2), [true; 3]);
        assert_eq!(known(&mut dedup, &[1], 3), [false], "forgotten");
    }

    #[test]
    fn an_identity_is_forgotten_after_its_time_however_often_it_was_met() {
        let mut dedup = Dedup::new(10, 1_000);
        known(&mut dedup, &[1], 5_000);
        known(&mut dedup, &[2], 5_500);
        assert_eq!(known(&mut dedup, &[1, 2], 5_999), [true, true]);
        assert_eq!(known(&mut dedup, &[1, 2], 6_000), [false, true]);
        assert_eq!(known(&mut dedup, &[1], 6_999), [true], "noted anew");
    }
}
