//! Grants that may be ended only once everything that stood in the stream by then is folded.

use serde::Serialize;
use std::collections::{BTreeSet, VecDeque};

use super::task::NodeKey;
use crate::id::Offset;
use crate::time::Mono;

/// An owner never expires what it has not yet read: a grant whose time is up first waits for the
/// stream's end offset, then for the fold to reach it, and is then judged again.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Gate {
    /// Wait for the next question.
    waiting: BTreeSet<NodeKey>,
    /// Wait for the answer to the question that is out.
    asked: Option<BTreeSet<NodeKey>>,
    /// Wait for the fold to reach an offset.
    folding: VecDeque<(Offset, BTreeSet<NodeKey>)>,
    /// When to ask again after the question failed.
    ask_at: Option<Mono>,
    /// When to ask whether the end that the fold has not reached is still there.
    recheck_at: Option<Mono>,
}

/// The tail of a log may be lost (an unclean election), and with it the end that was asked for: then
/// the fold might not get there for ever.
const RECHECK_MS: u64 = 5_000;

impl Gate {
    pub(super) fn enter(&mut self, key: NodeKey) {
        self.waiting.insert(key);
    }

    /// When the end of the stream is to be asked for by time alone.
    pub(super) fn due(&self) -> Option<Mono> {
        self.ask_at.into_iter().chain(self.recheck_at).min()
    }

    /// True if the end offset is to be asked for now.
    pub(super) fn ask(&mut self, now: Mono) -> bool {
        let due = |at: Option<Mono>| at.is_some_and(|at| at <= now);
        let first = !self.waiting.is_empty() && self.ask_at.is_none_or(|at| at <= now);
        if self.asked.is_some() || !(first || due(self.recheck_at)) {
            return false;
        }
        self.ask_at = None;
        self.recheck_at = None;
        self.asked = Some(std::mem::take(&mut self.waiting));
        true
    }

    pub(super) fn answered(&mut self, now: Mono, end: Offset) {
        let Some(keys) = self.asked.take() else {
            return;
        };
        for (known, _) in &mut self.folding {
            *known = end.min(*known);
        }
        if !keys.is_empty() {
            self.folding.push_back((end, keys));
        }
        self.recheck_at = (!self.folding.is_empty()).then(|| now.after(RECHECK_MS));
    }

    /// The question failed: nobody expires until it can be asked.
    pub(super) fn failed(&mut self, again_at: Mono) {
        if let Some(keys) = self.asked.take() {
            self.waiting.extend(keys);
            // A mere recheck leaves nothing to ask for: a time that nobody clears would be due for ever.
            self.ask_at = (!self.waiting.is_empty()).then_some(again_at);
            self.recheck_at = (!self.folding.is_empty()).then_some(again_at);
        }
    }

    /// A grant that may be judged: everything below its offset is folded.
    pub(super) fn passed(&mut self, next: Offset) -> Option<NodeKey> {
        while let Some((end, keys)) = self.folding.front_mut()
            && *end <= next
        {
            if let Some(key) = keys.pop_first() {
                return Some(key);
            }
            self.folding.pop_front();
        }
        if self.folding.is_empty() {
            self.recheck_at = None;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The machine would be woken without a pause.
    #[test]
    fn a_recheck_that_fails_once_the_fold_is_there_leaves_nothing_due() {
        let mut gate = Gate::default();
        let key = NodeKey { task: 1, node: 0 };
        gate.enter(key);
        assert!(gate.ask(Mono(0)));
        gate.answered(Mono(0), Offset(10));
        assert_eq!(gate.due(), Some(Mono(RECHECK_MS)));
        assert!(gate.ask(Mono(RECHECK_MS)), "is the end still there?");
        assert_eq!(gate.passed(Offset(10)), Some(key));
        assert_eq!(gate.passed(Offset(10)), None);
        gate.failed(Mono(RECHECK_MS + 100));
        assert_eq!(gate.due(), None);
    }
}
