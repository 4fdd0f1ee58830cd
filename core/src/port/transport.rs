//! The transport port: ordered, append-only streams.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

use super::PortError;
use crate::id::{Offset, ShardId};
use crate::message::{DecodeError, Envelope};

/// One ordered stream of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Stream {
    /// Everything that a shard reacts to.
    Shard(ShardId),
    /// Commands and replies; shared by the workers and clients whose id hashes to it.
    Inbox(u32),
    /// Workers coming and going.
    Announcements,
}

/// A request to the transport.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TransportRequest {
    /// Append a message. -> `Appended`. `Unknown`: it may be in the stream, once or (after a
    /// repeat) twice. `Invalid`: the message is larger than any may be, or a transport of a fixed
    /// number of streams has none of that number. Appends to one stream in the order they were asked
    /// for.
    Append {
        /// Where.
        stream: Stream,
        /// What.
        envelope: Arc<Envelope>,
    },
    /// Entries from an offset on; waits up to `wait_ms` for the first. -> `Entries`.
    /// `Invalid`: `from` is outside of what the log holds (or there is no such stream, here and
    /// below).
    Read {
        /// The stream.
        stream: Stream,
        /// First offset wanted.
        from: Offset,
        /// Most entries per reply.
        limit: u32,
        /// How long to wait for the first entry; 0 = not at all.
        wait_ms: u64,
    },
    /// Start and end of the log. -> `Bounds`
    Bounds {
        /// The stream.
        stream: Stream,
    },
    /// A hint: nobody will read below `before` again. -> `Done`. Logs with a retention of their
    /// own ignore it.
    Forget {
        /// The stream.
        stream: Stream,
        /// First offset still needed.
        before: Offset,
    },
}

/// The answer to a [`TransportRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TransportReply {
    /// It is done.
    Done,
    /// The message is in the stream for good.
    Appended {
        /// Where it stands.
        offset: Offset,
    },
    /// Entries in order.
    Entries {
        /// The entries; empty when the wait ran out.
        entries: Vec<Entry>,
        /// Where to read on.
        next: Offset,
    },
    /// Bounds of the log: `start <= offset < end`.
    Bounds {
        /// First offset that the log still holds.
        start: Offset,
        /// Offset of the next message to come.
        end: Offset,
    },
}

/// One entry of a stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its place.
    pub offset: Offset,
    /// The message, or why it is none.
    pub message: Result<Arc<Envelope>, DecodeError>,
}

/// A transport.
///
/// A call that is dropped before it returns may or may not have happened.
#[async_trait]
pub trait Transport: fmt::Debug + Send + Sync + 'static {
    /// Carries out one request.
    ///
    /// # Errors
    /// [`PortError`], whose kind says what to do next.
    async fn call(&self, request: TransportRequest) -> Result<TransportReply, PortError>;
}
