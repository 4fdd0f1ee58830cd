//! Commands on their way to one run. A channel of the usual kind reserves room for dozens of
//! messages, which costs more than the rest of a short run; here at most two wait.

use flowkit_core::planted::{Bug, is_planted};
use flowkit_core::worker::RunCommand;
use futures_util::task::AtomicWaker;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    reader: AtomicWaker,
}

#[derive(Debug, Default)]
struct State {
    commands: VecDeque<RunCommand>,
    /// The other side is gone.
    closed: bool,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The driver's side; dropped, the run ends.
#[derive(Debug)]
pub(crate) struct Commands(Arc<Shared>);

/// The run's side.
#[derive(Debug)]
pub(crate) struct Mailbox(Arc<Shared>);

pub(crate) fn mailbox() -> (Commands, Mailbox) {
    let shared = Arc::new(Shared::default());
    (Commands(shared.clone()), Mailbox(shared))
}

impl Commands {
    /// Delivers a command, or gives it back if the run's task is gone.
    pub(crate) fn send(&self, command: RunCommand) -> Result<(), RunCommand> {
        let mut state = self.0.state();
        if state.closed {
            return Err(command);
        }
        if !state.commands.is_empty() && is_planted(Bug::MailboxOfOne) {
            return Ok(());
        }
        state.commands.push_back(command);
        drop(state);
        self.0.reader.wake();
        Ok(())
    }
}

impl Drop for Commands {
    fn drop(&mut self) {
        self.0.state().closed = true;
        self.0.reader.wake();
    }
}

impl Mailbox {
    /// The next command; `None` once the driver is gone and nothing is left. Cancel safe.
    pub(crate) async fn recv(&mut self) -> Option<RunCommand> {
        poll_fn(|cx| {
            // Before the look: what comes after it wakes.
            self.0.reader.register(cx.waker());
            let mut state = self.0.state();
            match state.commands.pop_front() {
                Some(command) => Poll::Ready(Some(command)),
                None if state.closed => Poll::Ready(None),
                None => Poll::Pending,
            }
        })
        .await
    }
}

impl Drop for Mailbox {
    fn drop(&mut self) {
        self.0.state().closed = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn commands_come_in_order_and_wake_a_waiting_run() {
        let (commands, mut mailbox) = mailbox();
        let run = tokio::spawn(async move {
            let mut seen = Vec::new();
            while let Some(command) = mailbox.recv().await {
                seen.push(command);
            }
            seen
        });
        tokio::task::yield_now().await;
        commands.send(RunCommand::NextBatch).unwrap();
        tokio::task::yield_now().await;
        commands.send(RunCommand::Abort).unwrap();
        commands.send(RunCommand::Close).unwrap();
        drop(commands);
        let expected = [RunCommand::NextBatch, RunCommand::Abort, RunCommand::Close];
        assert_eq!(run.await.unwrap(), expected);
    }

    #[test]
    fn a_command_to_a_task_that_is_gone_comes_back() {
        let (commands, mailbox) = mailbox();
        drop(mailbox);
        assert_eq!(commands.send(RunCommand::Close), Err(RunCommand::Close));
    }
}
