//! Group commit: what changed goes to the store in one piece, and only then messages leave.

use serde::Serialize;
use std::collections::BTreeSet;
use std::sync::Arc;

use super::context::{Context, ShardOp};
use super::limits::Scope;
use super::shard::Shard;
use super::task::NodeKey;
use crate::id::{Offset, TaskId};
use crate::message::Envelope;
use crate::planted::{Bug, is_planted};
use crate::port::{Commit, ErrorKind, PortError, Record, StoreRequest, Stream, TransportRequest};
use crate::record::ArtifactRecord;
use crate::report::{Report, ReportKind};
use crate::time::Mono;

/// Bytes of user values after which a commit takes no further event.
pub(super) const COMMIT_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Folded entries after which the offset is committed although nothing else changed.
const OFFSET_LAG_MAX: u64 = 10_000;

/// What must have happened to a commit before a message that rests on it leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) enum When {
    /// Visible to everyone who may act on the message: a crash takes both or neither.
    Applied,
    /// Safe from any crash.
    Durable,
}

/// A message that waits for a commit.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Outgoing {
    pub(super) when: When,
    pub(super) stream: Stream,
    pub(super) envelope: Arc<Envelope>,
    /// It is the START of this node's current grant.
    pub(super) start_of: Option<NodeKey>,
}

/// What changed since the last commit was cut.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct OpenCommit {
    pub(super) tasks: BTreeSet<u64>,
    pub(super) nodes: BTreeSet<NodeKey>,
    pub(super) artifacts: Vec<ArtifactRecord>,
    pub(super) outbox: Vec<Outgoing>,
    /// A step of a sweep.
    pub(super) sweep: Vec<Record>,
    /// Readers to be told what their sources have, as of this commit.
    pub(super) readers: BTreeSet<NodeKey>,
    /// Tasks that leave memory once this commit is applied.
    pub(super) settled: Vec<u64>,
    /// Bytes of user values folded in.
    pub(super) bytes: usize,
    /// Tasks that it creates, with the hashes of their submissions.
    pub(super) created: Vec<(TaskId, u128)>,
    /// Limits of starts that its grants count against.
    pub(super) starts: Vec<Scope>,
    /// Entries folded in.
    pub(super) entries: u64,
    /// Its first change was made by an entry, not by time.
    pub(super) by_entry: bool,
    /// When its first change was made.
    since: Option<Mono>,
    /// The driver had nothing else to do since the last change.
    idle: bool,
}

impl OpenCommit {
    /// Notes that something changed.
    pub(super) fn begin(&mut self, now: Mono) {
        self.since.get_or_insert(now);
        self.idle = false;
    }

    /// Nothing to write (messages alone need no commit).
    pub(super) fn is_empty(&self) -> bool {
        self.since.is_none()
    }

    fn records(&self) -> usize {
        self.tasks.len() + self.nodes.len() + self.artifacts.len() + self.sweep.len()
    }
}

/// A commit that the store has not answered for.
#[derive(Clone, Debug, Serialize)]
pub(super) struct InFlight {
    pub(super) commit: Arc<Commit>,
    pub(super) outbox: Vec<Outgoing>,
    settled: Vec<u64>,
    starts: Vec<Scope>,
    /// It holds a step of a sweep.
    pub(super) sweeps: bool,
    /// It was made with care: one event, or what followed from time, alone.
    pub(super) careful: bool,
    /// An entry made its first change, not time.
    pub(super) by_entry: bool,
    /// Tasks that it creates: their submissions were looked up, so no entry stands for them.
    pub(super) created: Vec<(TaskId, u128)>,
    /// When the same commit is submitted again.
    pub(super) retry_at: Option<Mono>,
    backoff_ms: u64,
}

impl InFlight {
    /// The tasks it writes.
    pub(super) fn tasks(&self) -> Vec<TaskId> {
        let tasks: BTreeSet<TaskId> = self
            .commit
            .records
            .iter()
            .map(|record| record.task_id().clone())
            .collect();
        tasks.into_iter().collect()
    }
}

/// What an answer to a commit means for the shard.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum CommitOutcome {
    /// Go on.
    Continue,
    /// Another owner is current.
    Fenced,
    /// The store refuses this commit for good.
    Refused,
}

impl Shard {
    /// True while another entry may be folded into the open commit.
    pub(super) fn has_room(&self, config: &super::Config) -> bool {
        self.may_change()
            && !self.parked.is_full()
            && self.open.records() < config.commit_records_max
            && self.open.bytes < COMMIT_BYTES_MAX
    }

    /// With care, one change goes into one commit: what fails alone is to blame.
    pub(super) fn may_change(&self) -> bool {
        !self.is_careful() || (self.open.is_empty() && self.in_flight.is_none())
    }

    /// Up to and with the last entry that a refused commit may have held.
    fn is_careful(&self) -> bool {
        let of_refused = self.careful_until > Offset(0) && self.next <= self.careful_until;
        of_refused || self.careful_left > 0
    }

    pub(super) fn commit_due(&self, config: &super::Config) -> Option<Mono> {
        if self.in_flight.is_some() {
            return None;
        }
        self.open
            .since
            .map(|since| since.after(config.commit_delay_ms))
    }

    /// There are changes that wait for company, and nobody said yet that none comes.
    pub(super) fn wants_idle(&self) -> bool {
        self.open.since.is_some() && !self.open.idle
    }

    pub(super) fn idle(&mut self) {
        self.open.idle = true;
    }

    /// Cuts the open commit if it is time to, or submits again what is in flight.
    pub(super) fn commit(&mut self, ctx: &mut Context<'_>) {
        if let Some(in_flight) = &mut self.in_flight {
            if in_flight.retry_at.is_some_and(|at| at <= ctx.now.mono) {
                in_flight.retry_at = None;
                let commit = in_flight.commit.clone();
                ctx.store(self.purpose(ShardOp::Commit), StoreRequest::Commit(commit));
            }
            return;
        }
        if self.open.entries >= OFFSET_LAG_MAX {
            self.open.begin(ctx.now.mono);
        }
        let Some(due) = self.commit_due(ctx.config) else {
            return;
        };
        if due <= ctx.now.mono || self.open.idle || !self.has_room(ctx.config) {
            self.cut(ctx);
        }
    }

    fn cut(&mut self, ctx: &mut Context<'_>) {
        self.tell_readers(ctx);
        let careful = self.is_careful();
        self.careful_left = self.careful_left.saturating_sub(1);
        let open = std::mem::take(&mut self.open);
        let mut records = Vec::with_capacity(open.records());
        for number in &open.tasks {
            if let Some(task) = self.tasks.get(number) {
                records.push(Record::Task(Box::new(task.record.clone())));
            }
        }
        for key in &open.nodes {
            if let Some(node) = self.node(*key) {
                let mut record = node.record.clone();
                record.wait_ms = node.retry_at.map(|at| at.since(ctx.now.mono));
                records.push(Record::Node(Box::new(record)));
            }
        }
        let sweeps = !open.sweep.is_empty();
        records.extend(open.sweep);
        let artifacts = open.artifacts.into_iter();
        records.extend(artifacts.map(|artifact| Record::Artifact(Box::new(artifact))));
        let commit = Arc::new(Commit {
            shard: self.id,
            epoch: self.epoch,
            seq: self.commit_seq + 1,
            id: ctx.random.draw(),
            next: self.next,
            last_entry: self.last_entry,
            records,
        });
        self.in_flight = Some(InFlight {
            commit: commit.clone(),
            outbox: open.outbox,
            settled: open.settled,
            starts: open.starts,
            sweeps,
            careful,
            by_entry: open.by_entry,
            created: open.created,
            retry_at: None,
            backoff_ms: ctx.config.retry_backoff_ms,
        });
        ctx.store(self.purpose(ShardOp::Commit), StoreRequest::Commit(commit));
    }

    /// The store answered for the commit in flight.
    pub(super) fn committed(
        &mut self,
        ctx: &mut Context<'_>,
        result: Result<(), PortError>,
    ) -> CommitOutcome {
        let Some(in_flight) = &mut self.in_flight else {
            return CommitOutcome::Continue;
        };
        match result {
            Ok(()) => {}
            Err(error) if error.kind == ErrorKind::Unknown && is_planted(Bug::UnknownIsDone) => {}
            Err(error) => match error.kind {
                ErrorKind::Unknown if is_planted(Bug::UnknownDropped) => {
                    self.in_flight = None;
                    return CommitOutcome::Continue;
                }
                ErrorKind::Fenced => return CommitOutcome::Fenced,
                ErrorKind::Retry | ErrorKind::Unknown => {
                    // It may have happened: only the very same commit tells.
                    in_flight.retry_at = Some(ctx.now.mono.after(in_flight.backoff_ms));
                    in_flight.backoff_ms = (in_flight.backoff_ms * 2).min(2_000);
                    ctx.report(Report::new(ReportKind::PortFailed, error.to_string()));
                    return CommitOutcome::Continue;
                }
                _ => {
                    ctx.report(Report::new(ReportKind::PortFailed, error.to_string()));
                    return CommitOutcome::Refused;
                }
            },
        }
        let Some(done) = self.in_flight.take() else {
            return CommitOutcome::Continue;
        };
        self.commit_seq = done.commit.seq;
        for scope in done.starts {
            self.meters.started(ctx.now.mono, scope);
        }
        if done.sweeps {
            self.sweeps.committed();
        }
        for number in done.settled {
            self.drop_task(ctx, number);
        }
        let mut durable = Vec::new();
        for outgoing in done.outbox {
            if ctx.config.applies_before_sync
                && outgoing.when == When::Durable
                && !is_planted(Bug::AckedUnsynced)
            {
                durable.push(outgoing);
            } else {
                self.release(ctx, outgoing);
            }
        }
        if ctx.config.applies_before_sync {
            self.unsynced.push_back((done.commit.seq, durable));
            self.sync(ctx);
        } else {
            self.forget(ctx, done.commit.next);
        }
        CommitOutcome::Continue
    }

    pub(super) fn sync(&mut self, ctx: &mut Context<'_>) {
        let waits = self.sync_at.is_some_and(|at| at > ctx.now.mono);
        if self.syncing || waits || self.unsynced.is_empty() {
            return;
        }
        self.sync_at = None;
        self.syncing = true;
        ctx.store(
            self.purpose(ShardOp::Sync),
            StoreRequest::Sync { shard: self.id },
        );
    }

    pub(super) fn synced(&mut self, ctx: &mut Context<'_>, result: Result<u64, PortError>) {
        self.syncing = false;
        match result {
            Ok(seq) => {
                while self
                    .unsynced
                    .front()
                    .is_some_and(|(unsynced, _)| *unsynced <= seq || is_planted(Bug::SyncCoversAll))
                {
                    let outbox = self.unsynced.pop_front().map(|(_, outbox)| outbox);
                    for outgoing in outbox.unwrap_or_default() {
                        self.release(ctx, outgoing);
                    }
                }
                if self.unsynced.is_empty() && self.in_flight.is_none() && self.open.is_empty() {
                    let next = self.next;
                    self.forget(ctx, next);
                }
            }
            Err(error) => {
                ctx.report(Report::new(ReportKind::PortFailed, error.to_string()));
                self.sync_at = Some(ctx.now.mono.after(ctx.config.retry_backoff_ms));
            }
        }
        self.sync(ctx);
    }

    /// Sends a message whose commit is where the message needs it.
    pub(super) fn release(&mut self, ctx: &mut Context<'_>, outgoing: Outgoing) {
        if let Some(key) = outgoing.start_of
            && !self.start_released(ctx, key, outgoing.envelope.lease_no)
        {
            return;
        }
        ctx.append(outgoing.stream, outgoing.envelope);
    }

    fn forget(&mut self, ctx: &mut Context<'_>, before: Offset) {
        // Cheap, but not worth an effect per commit.
        if before.0 >= self.forgotten.0 + 256 {
            self.forgotten = before;
            let op = ctx.ops.unanswered();
            let request = TransportRequest::Forget {
                stream: self.stream(),
                before,
            };
            ctx.out.push(super::Effect::Transport { op, request });
        }
    }
}
