//! One state of everything: machines, store, streams, what is under way, and what may yet go wrong.
//!
//! * `start`: the first state, and processes that start later
//! * `enabled`: what may happen next
//! * `step`: one thing happens
//! * `carry`: effects of machines become calls, mail and handlers' work
//! * `handler`: handlers, as small machines
//! * `watch`: the promises, checked while it happens
//! * `describe`: actions in words

mod carry;
mod describe;
mod enabled;
mod handler;
mod start;
mod step;
mod watch;

pub use enabled::Action;
pub use watch::Broken;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use flowkit_core::coordinator::Coordinator;
use flowkit_core::id::{Incarnation, OpId, ShardId, TaskId, Token};
use flowkit_core::message::Envelope;
use flowkit_core::port::{
    Commit, PortError, StoreReply, StoreRequest, Stream, TransportReply, TransportRequest,
};
use flowkit_core::time::Now;
use flowkit_core::worker::{RunId, Worker};
use flowkit_memory::{BrokerModel, StoreModel};
use serde::Serialize;

use crate::canon::{Canon, Frame};
use crate::scope::{Budget, Scope};
use handler::Handler;
use watch::{Lease, Watch};

/// The only shard.
pub(crate) const SHARD: Stream = Stream::Shard(ShardId(0));

/// The inbox of a worker, which nobody else has. Which number an id really has does not matter.
pub(crate) const fn inbox_of_worker(worker: usize) -> Stream {
    Stream::Inbox(worker as u32)
}

/// A process: the n-th coordinator or worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Process {
    /// A coordinator.
    Coordinator(usize),
    /// A worker.
    Worker(usize),
}

/// What a process asked of a port, and how far that is.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Call {
    pub(crate) op: OpId,
    pub(crate) at: At,
}

/// How far a call is.
#[derive(Clone, Debug, Serialize)]
pub(crate) enum At {
    /// Nothing has happened yet.
    Store(StoreRequest),
    Transport(TransportRequest),
    /// It has happened; the answer is on its way. Beside it what was asked, if a check needs it.
    StoreDone(Result<StoreReply, PortError>, Option<StoreRequest>),
    TransportDone(Result<TransportReply, PortError>, Option<Arc<Envelope>>),
}

/// A value that is shared between states until one changes it, with its hash once that was asked for.
#[derive(Debug)]
pub(crate) struct Shared<T>(Arc<Inner<T>>);

#[derive(Debug)]
struct Inner<T> {
    value: T,
    digest: Mutex<Option<(Frame, u64)>>,
}

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: Clone + Serialize> Shared<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(Arc::new(Inner {
            value,
            digest: Mutex::new(None),
        }))
    }

    /// The value, to be changed: what is known of its hash is forgotten.
    pub(crate) fn change(&mut self) -> &mut T {
        if Arc::get_mut(&mut self.0).is_none() {
            *self = Self::new(self.0.value.clone());
        }
        let inner = Arc::get_mut(&mut self.0).expect("nobody else has it");
        inner.digest = Mutex::new(None);
        &mut inner.value
    }

    fn digest(&self, frame: Frame) -> u64 {
        let mut known = self.0.digest.lock().unwrap_or_else(|e| e.into_inner());
        if let Some((of, digest)) = *known
            && of == frame
        {
            return digest;
        }
        let mut canon = Canon::new(frame);
        canon.add(&self.0.value);
        let digest = canon.finish();
        *known = Some((frame, digest));
        digest
    }
}

impl<T> std::ops::Deref for Shared<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0.value
    }
}

/// A coordinator's process.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Owner {
    pub(crate) machine: Coordinator,
    pub(crate) calls: Vec<Call>,
}

/// A worker's process.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Hand {
    pub(crate) machine: Worker,
    pub(crate) calls: Vec<Call>,
    pub(crate) handlers: BTreeMap<RunId, Handler>,
    /// What the store made of its registration.
    pub(crate) incarnation: Option<Incarnation>,
    /// By node and token.
    pub(crate) leases: BTreeMap<(usize, Token), Lease>,
}

/// A place for a process.
#[derive(Clone, Debug)]
pub(crate) struct Seat<P> {
    pub(crate) process: Option<Shared<P>>,
    /// Starts so far.
    pub(crate) starts: u32,
}

/// A message to an inbox that its receiver has not read. A coordinator does not hear what becomes of
/// it, so nothing but the reading can tell when it was appended.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Mail {
    pub(crate) from: Process,
    pub(crate) stream: Stream,
    pub(crate) envelope: Arc<Envelope>,
}

/// Something without an answer that may still happen, or never.
#[derive(Clone, Debug, Serialize)]
pub(crate) enum Late {
    Commit(Arc<Commit>),
    /// Of one process and start; these keep their order.
    Event(Process, u32, Arc<Envelope>),
    Mail(Mail),
}

/// A state.
#[derive(Clone, Debug)]
pub struct World {
    pub(crate) scope: &'static Scope,
    pub(crate) task: TaskId,
    /// True time in milliseconds: every clock shows it.
    pub(crate) now: u64,
    /// How far the store's clock is ahead: shard leases lapse by it.
    pub(crate) store_ahead: u64,
    pub(crate) store: Shared<StoreModel>,
    pub(crate) broker: Arc<BrokerModel>,
    /// Hash of each entry of the shard's stream, and when it was appended.
    pub(crate) log: Arc<Vec<(u64, u64)>>,
    pub(crate) coordinators: Vec<Seat<Owner>>,
    pub(crate) workers: Vec<Seat<Hand>>,
    pub(crate) mail: Vec<Mail>,
    pub(crate) late: Vec<Late>,
    pub(crate) left: Budget,
    pub(crate) watch: Shared<Watch>,
    pub(crate) broken: Option<Broken>,
}

impl World {
    pub(crate) fn clock(&self) -> Now {
        Now::new(self.now, self.now.cast_signed())
    }

    pub(crate) fn store_now(&self) -> u64 {
        self.now + self.store_ahead
    }

    /// The broken promise, if one is.
    #[must_use]
    pub const fn broken(&self) -> Option<&Broken> {
        self.broken.as_ref()
    }

    /// The task is over, durably, and nobody holds a grant.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.store
            .applied()
            .task(&self.task)
            .is_some_and(|task| task.settled)
    }

    /// First offset of the shard's stream that anybody may still read.
    fn read_from(&self) -> u64 {
        let shard = self.store.applied().shard(ShardId(0));
        let mut first = shard.map_or(0, |record| record.next.0);
        for owner in self.coordinators.iter().filter_map(|s| s.process.as_ref()) {
            for call in &owner.calls {
                if let At::Transport(TransportRequest::Read { stream, from, .. }) = &call.at
                    && *stream == SHARD
                {
                    first = first.min(from.0);
                }
            }
        }
        first
    }

    /// One number per state; equal states have equal numbers. What may yet go wrong is left out:
    /// the search keeps it apart.
    #[must_use]
    pub fn digest(&self) -> u64 {
        let shard = self.store.applied().shard(ShardId(0));
        let frame = Frame {
            now: self.now,
            end: self.log.len() as u64,
            announcements_end: self.end(Stream::Announcements),
            commit: shard.map_or((0, 0), |record| (record.commit_seq, record.commit_id)),
        };
        let mut canon = Canon::new(frame);
        canon.word(self.store.digest(Frame {
            now: 0,
            announcements_end: 0,
            ..frame
        }));
        let from = usize::try_from(self.read_from()).unwrap_or(usize::MAX);
        for (hash, at) in self.log.get(from..).unwrap_or_default() {
            canon.word(*hash);
            canon.word(u64::from(*at < self.now));
        }
        canon.word(0);
        for seat in &self.coordinators {
            canon.word(u64::from(seat.starts));
            let process = seat.process.as_ref();
            canon.word(process.map_or(0, |process| process.digest(frame)));
        }
        for (worker, seat) in self.workers.iter().enumerate() {
            canon.word(u64::from(seat.starts));
            // The only places and commits that a worker knows are those of its inbox.
            let frame = Frame {
                now: self.now,
                end: self.end(inbox_of_worker(worker)),
                ..Frame::default()
            };
            let process = seat.process.as_ref();
            canon.word(process.map_or(0, |process| process.digest(frame)));
        }
        canon.add(&self.mail);
        canon.add(&self.late);
        canon.word(self.watch.digest(Frame::default()));
        canon.word(u64::from(self.broken.is_some()));
        canon.finish()
    }

    /// Where the next entry of a stream will stand.
    pub(crate) fn end(&self, stream: Stream) -> u64 {
        self.broker.version(stream)
    }
}
