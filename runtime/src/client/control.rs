//! Holding a task back and letting it go on.

use flowkit_core::message::{Body, ControlTask};
use flowkit_core::record::TaskState;
use flowkit_core::text::{REASON_BYTES_MAX, cut};

use super::{ClientError, TaskHandle};

/// How often a request is made anew that another client's came before.
const TRIES: u32 = 10;

impl TaskHandle {
    /// Pauses the task. Returns once that is durable: from then on no node of it starts until
    /// [`TaskHandle::resume`]. Nodes that run go on to their end; a cancel works as ever. The state
    /// as of the answer is returned: `Paused`, or that of a task that had ended or was being
    /// cancelled, which stays as it was.
    ///
    /// The reason is kept in the task's history, of a long one the first KiB
    /// ([`REASON_BYTES_MAX`]).
    ///
    /// # Errors
    /// [`ClientError::NoSuchTask`], [`ClientError::Refused`], [`ClientError::NoAnswer`], or the store
    /// cannot be read.
    ///
    /// # Cancel safety
    /// If dropped while waiting, the task may or may not be paused; asking again is safe.
    pub async fn pause(&self, reason: &str) -> Result<Option<TaskState>, ClientError> {
        self.control(reason, true).await
    }

    /// Lets a paused task go on. Returns once that is durable, with the state as of the answer:
    /// `Queued` if nothing of it ever ran, else `Running`, or that of a task that had ended.
    ///
    /// # Errors
    /// As [`TaskHandle::pause`].
    ///
    /// # Cancel safety
    /// If dropped while waiting, the task may or may not go on; asking again is safe.
    pub async fn resume(&self, reason: &str) -> Result<Option<TaskState>, ClientError> {
        self.control(reason, false).await
    }

    async fn control(&self, reason: &str, pause: bool) -> Result<Option<TaskState>, ClientError> {
        let mut tries = 0;
        loop {
            // The number makes a copy of this request that comes late one without effect.
            let control_no = match self.status().await {
                Ok(status) => status.control_no + 1,
                // It has ended; the answer says how.
                Err(ClientError::Swept(_)) => 1,
                Err(error) => return Err(error),
            };
            let control = ControlTask {
                control_no,
                reason: cut(reason, REASON_BYTES_MAX).into(),
                inbox: self.client.inbox().await?.partition(),
            };
            let body = if pause {
                Body::PauseTask(control)
            } else {
                Body::ResumeTask(control)
            };
            let state = self.client.request(&self.task_id, body).await?.state;
            tries += 1;
            let overruled = match state {
                Some(TaskState::Paused) => !pause,
                Some(TaskState::Queued | TaskState::Running) => pause,
                _ => false,
            };
            if !overruled || tries >= TRIES {
                return Ok(state);
            }
        }
    }
}
