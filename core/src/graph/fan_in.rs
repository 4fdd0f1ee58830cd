//! Fan-in: when a node may start, judged by counting its parent edges.

use serde::Serialize;
use std::fmt;

use crate::planted::{Bug, is_planted};

/// How many parents must count before a node starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FanIn {
    /// Every parent counts or is skipped, and at least one counts.
    All,
    /// One parent counts.
    Any,
    /// So many parents count.
    Count(u32),
}

impl fmt::Display for FanIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Any => f.write_str("any"),
            Self::Count(count) => write!(f, "count:{count}"),
        }
    }
}

/// What one parent edge says to its child now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum EdgeState {
    /// The parent may still come to count.
    Pending,
    /// The parent counts.
    Counting,
    /// The parent was skipped: `all` does without it.
    Skipped,
    /// The parent can never count: it failed, was cancelled, or had the other outcome.
    Impossible,
}

/// What follows from the parent edges of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// The rule does not hold yet, but still can.
    Wait,
    /// The rule holds: the node may start.
    Start,
    /// The rule can no longer hold: the node ends skipped.
    Skip,
}

/// The parent edges of one node, counted by state. Every change is O(1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct FanInTally {
    /// Edges in state [`EdgeState::Counting`].
    pub counting: u32,
    /// Edges in state [`EdgeState::Skipped`].
    pub skipped: u32,
    /// Edges in state [`EdgeState::Impossible`].
    pub impossible: u32,
    /// Edges in state [`EdgeState::Pending`].
    pub pending: u32,
}

impl FanInTally {
    /// A node with so many parents, nothing known of them yet.
    ///
    /// # Panics
    /// With more than `u32::MAX` parents; a graph is far smaller.
    #[must_use]
    pub fn new(parents: usize) -> Self {
        Self {
            pending: u32::try_from(parents).expect("a graph's nodes are bounded"),
            ..Self::default()
        }
    }

    /// One edge changed its state.
    ///
    /// # Panics
    /// When no edge is in state `from`: the caller lost track of its edges.
    pub fn move_edge(&mut self, from: EdgeState, to: EdgeState) {
        let count = self.count_mut(from);
        assert!(*count > 0, "no parent edge is {from:?}");
        *count -= 1;
        *self.count_mut(to) += 1;
    }

    /// What the rule says now. A node without parents starts at once.
    ///
    /// Rules 2 and 3 of graphs: only counting parents satisfy a rule; `all` does without skipped
    /// ones; [`Verdict::Skip`] comes as soon as the rule can no longer hold. An edge that counted
    /// may become impossible (its parent failed after its first batch), so a verdict is final only
    /// once it is acted on: a node starts once per attempt.
    #[must_use]
    pub fn verdict(&self, fan_in: FanIn) -> Verdict {
        let parents = self.counting + self.skipped + self.impossible + self.pending;
        let early = self.pending == 1 && is_planted(Bug::FanInEarly);
        let skipped_too = self.skipped > 0 && is_planted(Bug::SkippedCounts);
        let counting = self.counting + if skipped_too { self.skipped } else { 0 };
        let (holds, can_hold) = match fan_in {
            _ if parents == 0 => (true, true),
            FanIn::All => (
                (self.pending == 0 || early) && self.impossible == 0 && counting > 0,
                self.impossible == 0 && counting + self.pending > 0,
            ),
            FanIn::Any => {
                let waits = counting > 0 && self.pending > 0 && is_planted(Bug::AnyWaits);
                (counting > 0 && !waits, counting + self.pending > 0)
            }
            FanIn::Count(count) => {
                let short = counting > 0 && counting + 1 == count && is_planted(Bug::CountShort);
                (counting >= count || short, counting + self.pending >= count)
            }
        };
        match (holds, can_hold) {
            (true, _) => Verdict::Start,
            (false, true) => Verdict::Wait,
            (false, false) => Verdict::Skip,
        }
    }

    fn count_mut(&mut self, state: EdgeState) -> &mut u32 {
        match state {
            EdgeState::Pending => &mut self.pending,
            EdgeState::Counting => &mut self.counting,
            EdgeState::Skipped => &mut self.skipped,
            EdgeState::Impossible => &mut self.impossible,
        }
    }
}
