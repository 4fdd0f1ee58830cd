//! The flusher: makes closed epochs durable and answers those who waited for it.

use flowkit_core::id::ShardId;
use flowkit_core::port::StoreReply;
use redb::ReadTransaction;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, mpsc};

use super::Reply;
use crate::disk::Behind;
use crate::error::Stop;
use crate::reader;
use crate::shared::{Shared, cause_of_panic};

/// One flush.
pub(super) struct Flush {
    /// The state that will be durable.
    pub(super) snapshot: Arc<ReadTransaction>,
    /// Who waits for it.
    pub(super) waiters: Vec<Waiter>,
}

/// Someone who waits for a flush.
pub(super) struct Waiter {
    pub(super) reply: Reply,
    pub(super) then: Then,
}

/// What is answered after the flush.
pub(super) enum Then {
    Reply(StoreReply),
    Synced(ShardId),
}

/// Carries flushes out, one after the other, until the writer is gone.
pub(super) fn run(
    shared: &Shared,
    behind: &Behind,
    flushes: &mpsc::Receiver<Flush>,
    flushed: impl Fn(),
) {
    for flush in flushes {
        let mut flush = flush;
        let ended = catch_unwind(AssertUnwindSafe(|| carry_out(shared, behind, &mut flush)));
        match ended {
            Ok(Ok(())) => {}
            Ok(Err(cause)) => shared.failure.set(&cause),
            Err(panic) => shared.failure.set(&cause_of_panic(&*panic)),
        }
        drop(flush);
        flushed();
    }
}

fn carry_out(shared: &Shared, behind: &Behind, flush: &mut Flush) -> Result<(), String> {
    behind
        .drain()
        .map_err(|error| format!("writing to the disk failed: {error}"))?;
    shared.set_synced(flush.snapshot.clone());
    for waiter in flush.waiters.drain(..) {
        let reply = match waiter.then {
            Then::Reply(reply) => reply,
            Then::Synced(shard) => match reader::shard(&flush.snapshot, "sync", shard) {
                Ok(record) => StoreReply::Synced {
                    seq: record.commit_seq,
                },
                Err(Stop::Store(error)) => return Err(error.to_string()),
                Err(Stop::Answer(error)) => return Err(error.to_string()),
            },
        };
        // The caller may have gone away.
        let _ = waiter.reply.send(Ok(reply));
    }
    Ok(())
}
