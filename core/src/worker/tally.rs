//! What a run has met and done: counts, uids, totals.

use serde::Serialize;
use std::collections::{BTreeSet, VecDeque};

use crate::hash::stable128;
use crate::id::BatchUid;
use crate::message::{Counts, Metrics};
use crate::record::{Totals, add_metrics};

/// Uids of this attempt that are remembered to notice duplicates at once. Older ones are
/// forgotten: the store's unique key over (task, node, uid) stands behind.
const MET_MAX: usize = 262_144;
/// Most accepted uids behind which a source may have to be skipped forward.
pub(super) const ACCEPTED_MAX: usize = 2_000_000;

/// What to do with a batch that the source yields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meeting {
    /// Not accepted yet: process it.
    New,
    /// Accepted by an earlier run: skip it.
    Skip,
    /// This attempt has met the uid before.
    Duplicate,
}

/// Counts, uids and totals of one run. Uids are kept as 128-bit hashes.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Tally {
    counts: Counts,
    totals: Totals,
    accepted: BTreeSet<u128>,
    met: BTreeSet<u128>,
    met_order: VecDeque<u128>,
}

impl Tally {
    /// `totals` are those of all batches accepted before.
    pub(super) fn new(totals: Totals) -> Self {
        Self {
            totals,
            ..Self::default()
        }
    }

    /// The source resumes behind this many accepted batches.
    pub(super) fn resumes_behind(&mut self, batches: u64) {
        self.counts.behind_checkpoint = batches;
    }

    /// Adds a page of accepted uids; false if there are too many.
    pub(super) fn add_accepted<'a>(&mut self, uids: impl Iterator<Item = &'a BatchUid>) -> bool {
        self.accepted.extend(uids.map(key));
        self.accepted.len() <= ACCEPTED_MAX
    }

    /// The source yields a batch. A uid that was met before is a duplicate even if it was skipped.
    pub(super) fn meet(&mut self, uid: &BatchUid) -> Meeting {
        let key = key(uid);
        if !self.met.insert(key) {
            return Meeting::Duplicate;
        }
        self.met_order.push_back(key);
        if self.met_order.len() > MET_MAX
            && let Some(oldest) = self.met_order.pop_front()
        {
            self.met.remove(&oldest);
        }
        if self.accepted.remove(&key) {
            self.counts.skipped += 1;
            return Meeting::Skip;
        }
        Meeting::New
    }

    /// Every batch known to be accepted and not behind the resume point was met.
    pub(super) fn met_all_accepted(&self) -> bool {
        self.accepted.is_empty()
    }

    /// A batch is done.
    pub(super) fn done(&mut self, metrics: &Metrics) {
        self.counts.new += 1;
        add_metrics(&mut self.totals, metrics);
    }

    pub(super) const fn counts(&self) -> Counts {
        self.counts
    }

    pub(super) const fn totals(&self) -> &Totals {
        &self.totals
    }

    pub(super) fn check_invariants(&self) {
        assert!(self.met.len() <= MET_MAX && self.met.len() == self.met_order.len());
    }
}

fn key(uid: &BatchUid) -> u128 {
    stable128(&[uid.as_str().as_bytes()])
}
