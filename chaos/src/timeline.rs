//! What was seen from outside of the processes, with its time.

use flowkit_sim::acting::Watcher;
use flowkit_sim::judge::Seen;
use std::sync::{Arc, Mutex, PoisonError};

use crate::journal::now_us;

/// Shared by all who watch.
#[derive(Clone, Debug, Default)]
pub(crate) struct Timeline(Arc<Mutex<Vec<(u64, Seen)>>>);

impl Watcher for Timeline {
    fn saw(&self, seen: Seen) {
        self.note(seen);
    }
}

impl Timeline {
    /// It happens now.
    pub(crate) fn note(&self, seen: Seen) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.push((now_us(), seen));
    }

    /// It happened at a time.
    pub(crate) fn note_at(&self, at_us: u64, seen: Seen) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.push((at_us, seen));
    }

    pub(crate) fn take(&self) -> Vec<(u64, Seen)> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *all)
    }
}
