//! Ctrl-C: the first asks the command to stop in order, the second ends it at once.

use flowkit::of_command::kill_all;
use tokio::sync::watch;

use super::failure::{Failure, INTERRUPTED};
use super::output::eputln;

/// Whether the command was asked to stop. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Interrupt(watch::Receiver<bool>);

impl Interrupt {
    /// Begins to listen; from here on Ctrl-C does not end the process by itself.
    pub(crate) fn listen() -> Self {
        let (raise, raised) = watch::channel(false);
        // Before anything is said: a second one that comes at once must find somebody who listens.
        let mut stops = Stops::listen();
        tokio::spawn(async move {
            tokio::select! {
                () = stops.recv() => {}
                () = hangup() => {}
            }
            raise.send_replace(true);
            eputln!("stopping; press Ctrl-C again to end at once");
            // A terminal that goes away may say so twice.
            stops.recv().await;
            // Nobody else ends what ignores that its standard input is closed.
            kill_all();
            std::process::exit(i32::from(INTERRUPTED));
        });
        Self(raised)
    }

    /// Whether the command was asked to stop by now.
    pub(crate) fn is_raised(&self) -> bool {
        *self.0.borrow()
    }

    /// Returns once the command was asked to stop. Cancel safe.
    pub(crate) async fn raised(&mut self) {
        if self.0.wait_for(|raised| *raised).await.is_err() {
            // The listener is gone with the runtime; nobody waits any more.
            std::future::pending::<()>().await;
        }
    }

    /// What comes of `work`; nothing if the command is asked to stop before: then it is given up.
    pub(crate) async fn before<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            outcome = work => Some(outcome),
            () = self.raised() => None,
        }
    }

    /// The same; to be asked to stop is a failure.
    pub(crate) async fn or<T>(
        &mut self,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let outcome = self.before(work).await;
        outcome.unwrap_or_else(|| Err(Failure::interrupted()))
    }
}

/// Ctrl-C and SIGTERM, each time.
#[cfg(unix)]
struct Stops(Option<[tokio::signal::unix::Signal; 2]>);

#[cfg(unix)]
impl Stops {
    fn listen() -> Self {
        use tokio::signal::unix::{SignalKind, signal};
        let interrupt = signal(SignalKind::interrupt());
        let both = interrupt.and_then(|i| Ok([i, signal(SignalKind::terminate())?]));
        // Without us it is as the system has it: they end the process.
        Self(both.ok())
    }

    async fn recv(&mut self) {
        let Some([interrupt, terminate]) = &mut self.0 else {
            return std::future::pending().await;
        };
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    }
}

#[cfg(not(unix))]
struct Stops;

#[cfg(not(unix))]
impl Stops {
    fn listen() -> Self {
        Self
    }

    async fn recv(&mut self) {
        flowkit::prelude::shutdown_signal().await;
    }
}

/// Ready when the terminal has gone; never under `nohup`.
#[cfg(unix)]
async fn hangup() {
    use tokio::signal::unix::{SignalKind, signal};
    if is_ignored(HANGUP) {
        return std::future::pending().await;
    }
    match signal(SignalKind::hangup()) {
        Ok(mut hangup) => drop(hangup.recv().await),
        // As it is without us: it ends the process.
        Err(_) => std::future::pending().await,
    }
}

#[cfg(not(unix))]
async fn hangup() {
    std::future::pending().await
}

#[cfg(unix)]
const HANGUP: u32 = 1;

/// The process was started with this signal ignored; so it is taken to be where the system does not say.
#[cfg(unix)]
fn is_ignored(signal: u32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    ignored.is_none_or(|mask| mask & (1 << (signal - 1)) != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::pending;

    #[tokio::test]
    async fn what_does_not_come_to_its_end_is_given_up_once_the_command_is_asked_to_stop() {
        let (raise, raised) = watch::channel(false);
        let mut interrupt = Interrupt(raised);
        let done = interrupt.or(async { Ok::<_, Failure>(1) }).await;
        assert_eq!(done.expect("it was quick"), 1);
        raise.send_replace(true);
        let given_up = interrupt.or(pending::<Result<(), Failure>>()).await;
        assert_eq!(given_up.expect_err("given up").to_string(), "interrupted");
    }
}
