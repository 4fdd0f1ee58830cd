//! Ctrl-C: the first asks the command to stop in order, the second ends it at once.

use tokio::sync::watch;

use super::failure::INTERRUPTED;
use super::output::eputln;

/// Whether the command was asked to stop. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Interrupt(watch::Receiver<bool>);

impl Interrupt {
    /// Begins to listen; from here on Ctrl-C does not end the process by itself.
    pub(crate) fn listen() -> Self {
        let (raise, raised) = watch::channel(false);
        tokio::spawn(async move {
            flowkit::prelude::shutdown_signal().await;
            raise.send_replace(true);
            eputln!("stopping; press Ctrl-C again to end at once");
            flowkit::prelude::shutdown_signal().await;
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
}
