//! What became of the spans: counted, and said once.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Spans of this process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TraceFigures {
    /// The collector took them.
    pub delivered: u64,
    /// The collector did not take them, or the queue was full.
    pub dropped: u64,
    /// They wait to be sent.
    pub waiting: u64,
}

/// The same, being counted.
#[derive(Debug)]
pub(super) struct Figures {
    shown: String,
    delivered: AtomicU64,
    dropped: AtomicU64,
    waiting: AtomicU64,
    /// The collector was found away, and that was said.
    is_away: AtomicBool,
}

/// Of the process's newest traces, for `/metrics`.
static CURRENT: Mutex<Option<Arc<Figures>>> = Mutex::new(None);

/// Begins to count.
pub(super) fn start(shown: String) -> Arc<Figures> {
    let figures = Arc::new(Figures {
        shown,
        delivered: AtomicU64::new(0),
        dropped: AtomicU64::new(0),
        waiting: AtomicU64::new(0),
        is_away: AtomicBool::new(false),
    });
    *CURRENT.lock().unwrap_or_else(PoisonError::into_inner) = Some(figures.clone());
    figures
}

/// Those of the process, if it exports traces.
pub(crate) fn current() -> Option<TraceFigures> {
    let current = CURRENT.lock().unwrap_or_else(PoisonError::into_inner);
    current.as_deref().map(Figures::read)
}

impl Figures {
    pub(super) fn read(&self) -> TraceFigures {
        TraceFigures {
            delivered: self.delivered.load(Ordering::Relaxed),
            dropped: self.dropped.load(Ordering::Relaxed),
            waiting: self.waiting.load(Ordering::Relaxed),
        }
    }

    /// At the end: what still waits is lost.
    pub(super) fn ended(&self) -> TraceFigures {
        let waiting = self.waiting.swap(0, Ordering::Relaxed);
        self.dropped.fetch_add(waiting, Ordering::Relaxed);
        self.read()
    }

    /// Takes a place in the queue, unless it is full.
    pub(super) fn enter(&self, queue_max: u64) -> bool {
        let entered = self
            .waiting
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |waiting| {
                (waiting < queue_max).then_some(waiting + 1)
            });
        if entered.is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        entered.is_ok()
    }

    /// The collector's answer to so many spans.
    pub(super) fn answered(&self, spans: u64, error: Option<String>) {
        let left = |waiting: u64| Some(waiting.saturating_sub(spans));
        let _ = self
            .waiting
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, left);
        let count = match error {
            None => &self.delivered,
            Some(_) => &self.dropped,
        };
        count.fetch_add(spans, Ordering::Relaxed);
        let was_away = self.is_away.swap(error.is_some(), Ordering::Relaxed);
        match error {
            Some(error) if !was_away => tracing::warn!(
                "traces cannot be delivered to {}: {error}; spans are dropped until it answers",
                self.shown
            ),
            None if was_away => tracing::info!("traces are delivered to {} again", self.shown),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_drops_and_counts_and_an_answer_makes_room() {
        let figures = start("http://nowhere".to_owned());
        let entered = (0..5).filter(|_| figures.enter(3)).count();
        assert_eq!(entered, 3);
        figures.answered(2, None);
        assert!(figures.enter(3));
        figures.answered(1, Some("away".to_owned()));
        let read = figures.read();
        let expected = TraceFigures {
            delivered: 2,
            dropped: 3,
            waiting: 1,
        };
        assert_eq!(read, expected);
        assert_eq!(figures.ended().dropped, 4);
    }
}
