//! What every part of the machine needs while one input is handled.

use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::config::Config;
use super::io::Effect;
use super::peers::Peers;
use super::workers::Workers;
use crate::id::{Incarnation, OpId, ShardId};
use crate::message::{Body, Envelope, Sender, SenderRole};
use crate::port::{StoreRequest, Stream, TransportRequest};
use crate::report::Report;
use crate::time::Now;

/// What an outstanding request was made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) enum Purpose {
    /// Follow the announcements.
    Announcements(AnnounceOp),
    /// Part of one ownership of a shard; replies to an earlier ownership are dropped.
    Shard {
        shard: ShardId,
        ownership: u64,
        op: ShardOp,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) enum AnnounceOp {
    Bounds,
    Workers,
    Read,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) enum ShardOp {
    /// Can the stream's end be read? Asked before the lease is.
    Probe,
    Acquire,
    Renew,
    /// Is the epoch still ours? Asked when the lease may have lapsed between two renewals.
    Verify,
    ReadShard,
    Raise,
    Load,
    Bounds,
    CheckEntry,
    Fetch,
    /// What was said before the process was told to stop.
    LastRead,
    Commit,
    Sync,
    Lookup,
    /// The task that a rerun is to keep nodes of.
    Source,
    /// What retention sweeps.
    Sweep,
    EndOffset,
    Release,
}

/// Outstanding requests by op id.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Ops {
    newest: u64,
    open: BTreeMap<OpId, Purpose>,
}

impl Ops {
    pub(super) fn open(&mut self, purpose: Purpose) -> OpId {
        let op = self.unanswered();
        self.open.insert(op, purpose);
        op
    }

    /// An id for a request whose outcome changes nothing: durable state sends it again.
    pub(super) fn unanswered(&mut self) -> OpId {
        self.newest += 1;
        OpId(self.newest)
    }

    pub(super) fn take(&mut self, op: OpId) -> Option<Purpose> {
        self.open.remove(&op)
    }
}

/// A small seeded generator (splitmix64) for commit ids and jitter.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform enough below `n`; 0 if `n` is 0.
    pub(super) fn below(&mut self, n: u64) -> u64 {
        if n == 0 { 0 } else { self.draw() % n }
    }
}

/// The machine's shared parts, borrowed while one input is handled.
pub(super) struct Context<'a> {
    pub(super) now: Now,
    pub(super) config: &'a Config,
    pub(super) ops: &'a mut Ops,
    pub(super) workers: &'a mut Workers,
    pub(super) peers: &'a mut Peers,
    pub(super) random: &'a mut Random,
    /// What is being handled, for [`super::Coordinator::subject`]: it outlives a panic.
    pub(super) subject: &'a mut super::Subject,
    pub(super) out: &'a mut Vec<Effect>,
}

impl Context<'_> {
    pub(super) fn store(&mut self, purpose: Purpose, request: StoreRequest) {
        let op = self.ops.open(purpose);
        self.out.push(Effect::Store { op, request });
    }

    pub(super) fn transport(&mut self, purpose: Purpose, request: TransportRequest) {
        let op = self.ops.open(purpose);
        self.out.push(Effect::Transport { op, request });
    }

    /// Sends a message. Its outcome is not awaited: what matters is sent again from durable state.
    pub(super) fn append(&mut self, stream: Stream, envelope: Arc<Envelope>) {
        let op = self.ops.unanswered();
        self.out.push(Effect::Transport {
            op,
            request: TransportRequest::Append { stream, envelope },
        });
    }

    pub(super) fn report(&mut self, report: Report) {
        self.out.push(Effect::Report(report));
    }

    /// An envelope from this coordinator.
    pub(super) fn envelope(
        &self,
        to: &str,
        to_incarnation: Option<Incarnation>,
        body: Body,
    ) -> Envelope {
        let sender = Sender {
            role: SenderRole::Coordinator,
            id: Arc::from(self.config.owner.as_str()),
            incarnation: Incarnation(0),
        };
        let mut envelope = Envelope::new(sender, self.now.wall_ms, body);
        envelope.to = Some(Arc::from(to));
        envelope.to_incarnation = to_incarnation;
        envelope
    }
}
