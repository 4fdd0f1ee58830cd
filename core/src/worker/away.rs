//! Tells people that a server is away, and when it is back: once each, however many calls fail.

use crate::port::PortError;
use crate::report::{Report, ReportKind};
use crate::time::Mono;

use super::contact::AWAY_AFTER_MS;

/// Calls that fail are repeated within two seconds, and may take most of a minute to fail; a longer gap
/// is the end of a row of failures.
const GAP_MS: u64 = 60_000;

/// One way to a server, by what goes along it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Way {
    /// Calls to the store.
    Store,
    /// Reads of the transport.
    Read,
    /// Messages that it is to take.
    Send,
}

/// What is known of the ways. Decides nothing.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Away([Failing; 3]);

#[derive(Clone, Copy, Debug, Default)]
struct Failing {
    since: Option<Mono>,
    last: Option<Mono>,
    told: bool,
}

impl Away {
    /// A call that began at `began` failed. One that fails for a moment is not worth a word.
    pub(super) fn failed(
        &mut self,
        way: Way,
        error: &PortError,
        began: Mono,
        now: Mono,
    ) -> Option<Report> {
        let failing = &mut self.0[way as usize];
        // Single failures that lie far apart are no server that is away.
        let goes_on = failing.last.is_some_and(|last| now.since(last) < GAP_MS);
        if !goes_on && !failing.told {
            failing.since = None;
        }
        failing.last = Some(now);
        let since = *failing.since.get_or_insert(began);
        if failing.told || now.since(since) < AWAY_AFTER_MS {
            return None;
        }
        failing.told = true;
        let text = match way {
            Way::Store => format!("the store does not answer: {error}"),
            Way::Read => format!("the transport cannot be read: {error}"),
            Way::Send => format!("the transport takes no messages: {error}"),
        };
        Some(Report::new(ReportKind::PortFailed, text))
    }

    /// A call was answered.
    pub(super) fn answered(&mut self, way: Way) -> Option<Report> {
        let failing = std::mem::take(&mut self.0[way as usize]);
        let text = match way {
            Way::Store => "the store answers again",
            Way::Read => "the transport can be read again",
            Way::Send => "the transport takes messages again",
        };
        failing
            .told
            .then(|| Report::new(ReportKind::PortBack, text))
    }
}

#[cfg(test)]
mod tests {
    use super::{Away, Way};
    use crate::port::{ErrorKind, PortError};
    use crate::time::Mono;

    /// Which of the failures at these times, in seconds, is told.
    fn told(times: &[u64]) -> Vec<bool> {
        let mut away = Away::default();
        let error = PortError::new(ErrorKind::Unknown, "append", "no answer");
        let failed = times.iter().map(|s| {
            let now = Mono(s * 1_000);
            away.failed(Way::Send, &error, now, now).is_some()
        });
        failed.collect()
    }

    #[test]
    fn calls_that_take_ten_seconds_to_fail_are_one_row_of_failures() {
        assert_eq!(told(&[10, 22, 34]), [false, true, false]);
    }

    #[test]
    fn single_failures_that_lie_minutes_apart_are_no_server_that_is_away() {
        assert_eq!(told(&[10, 80, 150]), [false; 3]);
    }
}
