//! A shard whose process stops: what workers said before it was told to is folded once more, so that what
//! they handed back at their own end is nobody's when the owner goes, and counts as no loss at its next start.
//!
//! One read that waits for nothing, and no more of it than needs no question: the first request about a
//! task that is not in memory, and all behind it, is for the next owner.

use serde::Serialize;

use super::context::{Context, ShardOp};
use super::ownership::Slot;
use super::shard::{FETCH_LIMIT, Shard};
use crate::message::SenderRole;
use crate::planted::{Bug, is_planted};
use crate::port::{Entry, PortError, StoreRequest, TransportReply, TransportRequest};

/// How far the last read is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) enum LastRead {
    /// The process does not stop.
    #[default]
    Unasked,
    /// It is under way.
    Asked,
    /// It failed, or there may be more: nothing more is waited for.
    Over,
    /// It was answered, with all there was.
    Whole,
}

impl Shard {
    /// The process stops: asks for what was said until now, once.
    pub(super) fn read_last(&mut self, ctx: &mut Context<'_>) {
        if self.last_read != LastRead::Unasked {
            return;
        }
        self.last_read = LastRead::Asked;
        let request = TransportRequest::Read {
            stream: self.stream(),
            from: self.read_to(),
            limit: FETCH_LIMIT,
            wait_ms: 0,
        };
        ctx.transport(self.purpose(ShardOp::LastRead), request);
    }

    /// The last read was answered, or failed.
    pub(super) fn read_last_answered(
        &mut self,
        ctx: &Context<'_>,
        result: Result<TransportReply, PortError>,
    ) {
        self.last_read = LastRead::Over;
        if let Ok(TransportReply::Entries { entries, .. }) = result {
            self.stream_ok_at = ctx.now.mono;
            if entries.len() < FETCH_LIMIT as usize {
                self.last_read = LastRead::Whole;
            }
            self.heard(entries);
        }
    }

    /// Nothing more is to be waited for.
    pub(super) fn has_read_last(&self) -> bool {
        matches!(self.last_read, LastRead::Over | LastRead::Whole)
    }

    /// Every worker has stopped and all that they said is folded: what they still hold they never began, since
    /// the START came when they had read for the last time. The next start would take it for lost.
    pub(super) fn hand_back_what_is_left(&mut self, ctx: &mut Context<'_>) {
        let of_worker = |entry: &Entry| {
            let message = entry.message.as_ref();
            message.is_ok_and(|message| message.sender.role == SenderRole::Worker)
        };
        let is_all = self.last_read == LastRead::Whole && !self.backlog.iter().any(of_worker);
        let is_asked = self.workers_left && !is_planted(Bug::NeverBegunKept);
        if !is_asked || !is_all || self.has_questions() || !self.may_change() {
            return;
        }
        let held: Vec<_> = self.held.values().flatten().copied().collect();
        for key in held {
            self.end_uncounted(ctx, key, "its worker stopped before it began");
        }
    }

    /// Folds what is at hand, up to what is for the next owner.
    pub(super) fn pump_last(&mut self, ctx: &mut Context<'_>) {
        if self.last_read == LastRead::Unasked || self.has_questions() {
            return;
        }
        while self.has_room(ctx.config) {
            let Some(entry) = self.backlog.pop_front() else {
                return;
            };
            if self.is_for_the_next_owner(&entry) {
                self.backlog.push_front(entry);
                return;
            }
            self.fold_entry(ctx, entry);
        }
    }

    /// Requests that were folded wait for an answer of the store, which does not come in time: a commit beyond
    /// them would take them from the next owner. (Workers repeat what they ask.)
    fn has_questions(&self) -> bool {
        self.reruns.wait() || self.parked.has_clients()
    }

    fn is_for_the_next_owner(&self, entry: &Entry) -> bool {
        entry.message.as_ref().is_ok_and(|message| {
            let task = message.task_id.as_ref();
            let is_unknown = task.is_some_and(|task| !self.numbers.contains_key(task));
            message.sender.role == SenderRole::Client && is_unknown
        })
    }
}

impl Slot {
    /// The process stops, and a release would not be undone: a renewal under way would take the lease again
    /// behind it.
    pub(super) fn may_leave(&self, stopping: bool) -> bool {
        stopping && (!self.renewing || is_planted(Bug::RenewedReleased))
    }

    /// Gives the lease back, so that the next owner need not wait for it to lapse.
    pub(super) fn release(&mut self, ctx: &mut Context<'_>) {
        if self.renew_at.take().is_some() {
            let owner = ctx.config.owner.clone();
            let request = StoreRequest::ReleaseShard {
                shard: self.id,
                owner,
            };
            ctx.store(self.purpose(ShardOp::Release), request);
        }
    }
}
