//! Checkpoints on their way to the store: one at a time per run, acknowledged in order.

use flowkit_core::json::Json;
use flowkit_core::planted::{Bug, is_planted};
use flowkit_core::worker::RunFailure;
use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use tokio::sync::oneshot;

type Answer = Result<(), RunFailure>;

/// The queue. Its head is with the machine; the others wait for the head's answer.
#[derive(Debug, Default)]
pub(crate) struct CheckpointQueue {
    waiting: Mutex<VecDeque<(Json, oneshot::Sender<Answer>)>>,
}

impl CheckpointQueue {
    /// Queues a checkpoint; returns it at once if it is to be sent now.
    pub(crate) fn push(&self, value: Json) -> (Option<Json>, oneshot::Receiver<Answer>) {
        let (answer, receiver) = oneshot::channel();
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let first = waiting.is_empty().then(|| value.clone());
        waiting.push_back((value, answer));
        (first, receiver)
    }

    /// Answers the head; returns the next one to send.
    pub(crate) fn answered(&self, answer: Answer) -> Option<Json> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let mixed = waiting.len() > 1 && is_planted(Bug::CheckpointAcksMixed);
        let head = if mixed {
            waiting.pop_back()
        } else {
            waiting.pop_front()
        };
        if let Some((_, head)) = head {
            // The handler may have stopped waiting (a timeout of its own around the save).
            let _ = head.send(answer);
        }
        waiting.front().map(|(value, _)| value.clone())
    }

    /// Forgets everything: the batch is over. Who still waits learns that the run ended.
    pub(crate) fn clear(&self) {
        self.waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_checkpoint_at_a_time_even_when_a_waiter_gave_up() {
        let queue = CheckpointQueue::default();
        let one = Json::encode(&1).unwrap();
        let two = Json::encode(&2).unwrap();
        let (sent, first) = queue.push(one.clone());
        assert_eq!(sent, Some(one));
        drop(first);
        let (sent, mut second) = queue.push(two.clone());
        assert_eq!(sent, None, "the first is still on its way");
        assert_eq!(queue.answered(Ok(())), Some(two));
        assert!(
            second.try_recv().is_err(),
            "that answer was the first one's"
        );
        assert_eq!(queue.answered(Ok(())), None);
        assert_eq!(second.try_recv(), Ok(Ok(())));
    }
}
