//! Whether the store answers. Decides nothing about runs.

use crate::time::Mono;
use serde::Serialize;

/// How long the store must fail before the worker calls it away.
pub(super) const AWAY_AFTER_MS: u64 = 2_000;

/// What changed with an answer of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    None,
    /// The first failure after a success: it has been failing since then.
    Failing(Mono),
    /// It answers again; `was_away` if it had been called away.
    Back {
        was_away: bool,
    },
}

/// The store as the worker sees it.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct Contact {
    failing_since: Option<Mono>,
    away: bool,
}

impl Contact {
    /// A call that was issued at `issued` had no outcome.
    pub(super) fn failed(&mut self, issued: Mono) -> Change {
        if self.failing_since.is_some() {
            return Change::None;
        }
        self.failing_since = Some(issued);
        Change::Failing(issued)
    }

    /// The store answered.
    pub(super) fn answered(&mut self) -> Change {
        if self.failing_since.take().is_none() {
            return Change::None;
        }
        let was_away = std::mem::take(&mut self.away);
        Change::Back { was_away }
    }

    /// It has been failing for [`AWAY_AFTER_MS`].
    pub(super) fn call_away(&mut self) {
        self.away = self.failing_since.is_some();
    }

    pub(super) const fn is_away(&self) -> bool {
        self.away
    }

    pub(super) const fn is_failing(&self) -> bool {
        self.failing_since.is_some()
    }
}
