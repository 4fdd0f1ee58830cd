//! Streams in the memory of one process as a `Transport`.

use async_trait::async_trait;
use flowkit_core::id::Offset;
use flowkit_core::message::Envelope;
use flowkit_core::port::{
    ErrorKind, PortError, Stream, Transport, TransportReply, TransportRequest,
};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::Notify;

use crate::broker::check_size;
use crate::broker::log::Log;

/// How much a [`LocalTransport`] keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalLimits {
    /// Entries of a shard's stream that its owner has not let go of with `Forget`. Beyond this an
    /// append answers `Retry`. Default 262,144.
    pub shard_entries_max: usize,
    /// Entries of an inbox or of the announcements. They have many readers, so `Forget` does
    /// nothing here and the oldest go first; a reader that fell behind gets `Invalid` and reads on
    /// from `Bounds`. Default 16,384.
    pub shared_entries_max: usize,
}

impl Default for LocalLimits {
    fn default() -> Self {
        Self {
            shard_entries_max: 262_144,
            shared_entries_max: 16_384,
        }
    }
}

/// The [`Transport`] of an engine that lives in one process.
///
/// Messages are moved, not encoded. Each stream has a lock of its own, which is never held across
/// an await, and a reader at the end of its stream is woken by the append it waits for: nothing
/// polls. The streams die with the process; a shard's stream starts at the offset where the store
/// stopped ([`LocalTransport::starting_at`]).
///
/// Needs a tokio runtime with its timer for reads that wait. A dropped read has no effect; every
/// other call is done when it is first polled.
pub struct LocalTransport {
    limits: LocalLimits,
    streams: RwLock<BTreeMap<Stream, Arc<Channel>>>,
}

#[derive(Default)]
struct Channel {
    log: Mutex<Log>,
    grown: Notify,
}

impl Channel {
    fn log(&self) -> MutexGuard<'_, Log> {
        // A log is changed by single pushes and pops: a panic leaves it whole.
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Entries from `from` on, as soon as there is one.
    async fn read(&self, from: Offset, limit: u32) -> Result<TransportReply, PortError> {
        loop {
            let mut grown = std::pin::pin!(self.grown.notified());
            // From here on no append is missed, though it may come before the await.
            grown.as_mut().enable();
            if let Some(entries) = self.log().read(from, limit)? {
                return Ok(entries);
            }
            grown.await;
        }
    }
}

impl LocalTransport {
    /// Empty streams from offset 0, with the default limits.
    #[must_use]
    pub fn new() -> Self {
        Self::with_limits(LocalLimits::default())
    }

    /// Empty streams from offset 0.
    #[must_use]
    pub fn with_limits(limits: LocalLimits) -> Self {
        Self {
            limits,
            streams: RwLock::default(),
        }
    }

    /// The stream is empty and its first entry will stand at `offset`: for the stream of a shard,
    /// `next` of the shard record.
    #[must_use]
    pub fn starting_at(self, stream: Stream, offset: Offset) -> Self {
        let channel = self.channel(stream);
        channel.log().replace(offset);
        self
    }

    fn channel(&self, stream: Stream) -> Arc<Channel> {
        let known = {
            let streams = self.streams.read().unwrap_or_else(PoisonError::into_inner);
            streams.get(&stream).cloned()
        };
        known.unwrap_or_else(|| {
            let mut streams = self.streams.write().unwrap_or_else(PoisonError::into_inner);
            streams.entry(stream).or_default().clone()
        })
    }

    fn append(&self, stream: Stream, envelope: Arc<Envelope>) -> Result<TransportReply, PortError> {
        let channel = self.channel(stream);
        let offset = {
            let mut log = channel.log();
            match stream {
                Stream::Shard(_) if log.len() >= self.limits.shard_entries_max => {
                    let detail = "the shard's owner is behind";
                    return Err(PortError::new(ErrorKind::Retry, "append", detail));
                }
                Stream::Shard(_) => {}
                Stream::Inbox(_) | Stream::Announcements => {
                    if log.len() >= self.limits.shared_entries_max {
                        log.drop_first();
                    }
                }
            }
            log.append(0, Ok(envelope))
        };
        channel.grown.notify_waiters();
        Ok(TransportReply::Appended { offset })
    }
}

impl Default for LocalTransport {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for LocalTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalTransport")
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Transport for LocalTransport {
    async fn call(&self, request: TransportRequest) -> Result<TransportReply, PortError> {
        check_size(&request)?;
        match request {
            TransportRequest::Append { stream, envelope } => self.append(stream, envelope),
            TransportRequest::Read {
                stream,
                from,
                limit,
                wait_ms,
            } => {
                let channel = self.channel(stream);
                if let Some(entries) = channel.log().read(from, limit)? {
                    return Ok(entries);
                }
                let empty = TransportReply::Entries {
                    entries: Vec::new(),
                    next: from,
                };
                if wait_ms == 0 {
                    return Ok(empty);
                }
                let wait = Duration::from_millis(wait_ms);
                tokio::time::timeout(wait, channel.read(from, limit))
                    .await
                    .unwrap_or(Ok(empty))
            }
            TransportRequest::Bounds { stream } => Ok(self.channel(stream).log().bounds()),
            TransportRequest::Forget { stream, before } => {
                if let Stream::Shard(_) = stream {
                    self.channel(stream).log().forget(before);
                }
                Ok(TransportReply::Done)
            }
        }
    }
}
