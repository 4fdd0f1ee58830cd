//! The broker as a pure state machine.

pub(crate) mod log;

#[cfg(test)]
mod tests;

use flowkit_core::id::Offset;
use flowkit_core::message::DecodeError;
use flowkit_core::port::{Entry, ErrorKind, PortError, Stream, TransportReply, TransportRequest};
use std::collections::BTreeMap;

use log::Log;

/// What a request to the broker comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is answered.
    Done(Result<TransportReply, PortError>),
    /// A `Read` at the end of its stream that may wait. Keep it; apply it again when
    /// [`BrokerModel::version`] of the stream has changed, and once more with `wait_ms` 0 when the
    /// wait has run out.
    Wait,
}

/// A model of the broker: ordered streams that exist as soon as they are named (or, with
/// [`BrokerModel::of_deployment`], in the number that a deployment has) and start at offset 0 unless
/// told otherwise.
///
/// `Append` always adds an entry, so a repeated one stands there twice, and a late copy of one is
/// out of order: what a network does to requests is the caller's business. `Forget` moves the start
/// of a log unless [`BrokerModel::keep_forgotten`] says that logs have a retention of their own.
///
/// The streams are durable: a broker that restarts is this same model. What dies with its process
/// is replaced by a new model and [`BrokerModel::set_start`].
#[derive(Clone, Debug, Default)]
pub struct BrokerModel {
    streams: BTreeMap<Stream, Log>,
    /// Shards and inboxes of the deployment.
    deployment: Option<(u32, u32)>,
    retention_ms: Option<u64>,
    keep_forgotten: bool,
}

impl BrokerModel {
    /// A broker with empty streams that start at 0, and without retention.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The same with the streams of a deployment and no others: a request to another one is `Invalid`.
    #[must_use]
    pub fn of_deployment(shards: u32, inboxes: u32) -> Self {
        Self {
            deployment: Some((shards, inboxes)),
            ..Self::default()
        }
    }

    /// Carries out one request at the broker's own time `now_ms`, which only retention looks at.
    pub fn apply(&mut self, now_ms: u64, request: &TransportRequest) -> Outcome {
        if let Err(error) = self.check(request) {
            return Outcome::Done(Err(error));
        }
        let retention_ms = self.retention_ms;
        let keep_forgotten = self.keep_forgotten;
        let log = self.log(stream_of(request));
        if let Some(retention_ms) = retention_ms {
            log.expire(now_ms, retention_ms);
        }
        let reply = match request {
            TransportRequest::Append { envelope, .. } => TransportReply::Appended {
                offset: log.append(now_ms, Ok(envelope.clone())),
            },
            TransportRequest::Read {
                from,
                limit,
                wait_ms,
                ..
            } => match log.read(*from, *limit) {
                Ok(Some(entries)) => entries,
                Ok(None) if *wait_ms > 0 => return Outcome::Wait,
                Ok(None) => TransportReply::Entries {
                    entries: Vec::new(),
                    next: *from,
                },
                Err(error) => return Outcome::Done(Err(error)),
            },
            TransportRequest::Bounds { .. } => log.bounds(),
            TransportRequest::Forget { before, .. } => {
                if !keep_forgotten {
                    log.forget(*before);
                }
                TransportReply::Done
            }
        };
        Outcome::Done(Ok(reply))
    }

    /// Changes whenever the stream does; a reader that waits asks again then.
    #[must_use]
    pub fn version(&self, stream: Stream) -> u64 {
        self.streams.get(&stream).map_or(0, Log::version)
    }

    /// Every entry that a stream holds. Checkers look at this.
    pub fn entries(&self, stream: Stream) -> impl Iterator<Item = Entry> {
        let log = self.streams.get(&stream);
        log.into_iter().flat_map(|log| {
            let offsets = log.start().0..log.end().0;
            offsets.filter_map(|offset| {
                let message = log.get(Offset(offset))?.clone();
                Some(Entry {
                    offset: Offset(offset),
                    message,
                })
            })
        })
    }

    /// Makes an empty stream that starts at `offset`, in place of whatever is there.
    pub fn set_start(&mut self, stream: Stream, offset: Offset) {
        self.log(stream).replace(offset);
    }

    /// Drops entries older than this, at the next request to their stream; `None` = never.
    pub fn set_retention(&mut self, retention_ms: Option<u64>) {
        self.retention_ms = retention_ms;
    }

    /// Whether `Forget` does nothing, as with a log that has a retention of its own.
    pub fn keep_forgotten(&mut self, keep: bool) {
        self.keep_forgotten = keep;
    }

    /// Fault: appends bytes that are no message.
    pub fn append_undecodable(
        &mut self,
        now_ms: u64,
        stream: Stream,
        error: DecodeError,
    ) -> Offset {
        self.log(stream).append(now_ms, Err(error))
    }

    /// Fault: appends a copy of an entry, as a producer's retry does; `None` if there is no such
    /// entry.
    pub fn duplicate(&mut self, now_ms: u64, stream: Stream, of: Offset) -> Option<Offset> {
        let log = self.log(stream);
        let message = log.get(of)?.clone();
        Some(log.append(now_ms, message))
    }

    /// Fault: the stream is created anew: empty, from offset 0.
    pub fn recreate(&mut self, stream: Stream) {
        self.set_start(stream, Offset(0));
    }

    /// Fault: the stream loses its entries from `end` on; the next ones get their offsets.
    pub fn truncate(&mut self, stream: Stream, end: Offset) {
        self.log(stream).truncate(end);
    }

    /// Whether a request can be carried out at all.
    fn check(&self, request: &TransportRequest) -> Result<(), PortError> {
        let stream = stream_of(request);
        let is_there = self
            .deployment
            .is_none_or(|(shards, inboxes)| match stream {
                Stream::Shard(shard) => shard.0 < shards,
                Stream::Inbox(inbox) => inbox < inboxes,
                Stream::Announcements => true,
            });
        if !is_there {
            let detail = format!("{stream:?} is not of this deployment");
            return Err(PortError::new(ErrorKind::Invalid, "stream", detail));
        }
        check_size(request)
    }

    fn log(&mut self, stream: Stream) -> &mut Log {
        self.streams.entry(stream).or_default()
    }
}

/// Refuses a message that no transport carries.
pub(crate) fn check_size(request: &TransportRequest) -> Result<(), PortError> {
    match request {
        TransportRequest::Append { envelope, .. } if !envelope.is_within_limit() => {
            let detail = "the message is larger than any may be";
            Err(PortError::new(ErrorKind::Invalid, "append", detail))
        }
        _ => Ok(()),
    }
}

/// The stream that a request is about.
pub(crate) const fn stream_of(request: &TransportRequest) -> Stream {
    match request {
        TransportRequest::Append { stream, .. }
        | TransportRequest::Read { stream, .. }
        | TransportRequest::Bounds { stream }
        | TransportRequest::Forget { stream, .. } => *stream,
    }
}
