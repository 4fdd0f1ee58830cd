//! Checkpoints on their way to the store: one at a time per run, acknowledged in order.

use flowkit_core::json::Json;
use flowkit_core::planted::{Bug, is_planted};
use flowkit_core::worker::RunFailure;
use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use tokio::sync::oneshot;

type Answer = Result<(), RunFailure>;

/// A checkpoint, and who waits for its answer, if anybody does.
type Waiting = (Json, Option<oneshot::Sender<Answer>>);

/// The queue. Its head is with the machine; the others wait for the head's answer.
#[derive(Debug, Default)]
pub(crate) struct CheckpointQueue {
    waiting: Mutex<VecDeque<Waiting>>,
}

impl CheckpointQueue {
    /// Queues a checkpoint; returns it at once if it is to be sent now.
    pub(crate) fn push(&self, value: Json) -> (Option<Json>, oneshot::Receiver<Answer>) {
        let (answer, receiver) = oneshot::channel();
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let first = waiting.is_empty().then(|| value.clone());
        waiting.push_back((value, Some(answer)));
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
        if let Some((_, Some(head))) = head {
            // The handler may have stopped waiting (a timeout of its own around the save).
            let _ = head.send(answer);
        }
        waiting.front().map(|(value, _)| value.clone())
    }

    /// Forgets who waits: the batch is over, and they learn that. What the machine has stays at the
    /// head until it is answered: a late answer is not that of the next batch's checkpoint.
    pub(crate) fn clear(&self) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.truncate(1);
        if let Some((_, head)) = waiting.front_mut() {
            *head = None;
        }
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

    #[test]
    fn a_late_answer_is_not_that_of_the_next_batchs_checkpoint() {
        let queue = CheckpointQueue::default();
        let [one, two, three] = [1, 2, 3].map(|n| Json::encode(&n).unwrap());
        let (sent, mut first) = queue.push(one.clone());
        assert_eq!(sent, Some(one));
        let (_, mut second) = queue.push(two);
        queue.clear();
        let ended = Err(oneshot::error::TryRecvError::Closed);
        assert_eq!(
            (first.try_recv(), second.try_recv()),
            (ended.clone(), ended)
        );
        let (sent, mut third) = queue.push(three.clone());
        assert_eq!(sent, None, "the first is still on its way");
        assert_eq!(queue.answered(Ok(())), Some(three));
        assert!(third.try_recv().is_err(), "that answer was the first one's");
        assert_eq!(queue.answered(Ok(())), None);
        assert_eq!(third.try_recv(), Ok(Ok(())));
    }
}
