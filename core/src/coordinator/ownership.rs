//! Taking a shard over, keeping it, losing it.
//!
//! The order is what keeps two owners apart: the lease; then the shard epoch is raised; *then*
//! everything is read; then the stream is followed from the offset in the shard record.

use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

use super::config::Config;
use super::context::{Context, Purpose, ShardOp};
use super::io::Subject;
use super::limits::Meters;
use super::shard::Shard;
use super::spared::Spared;
use crate::id::{ClientId, DedupId, Offset, ShardId, TaskId};
use crate::planted::{Bug, is_planted};
use crate::port::{
    ErrorKind, PortError, StoreReply, StoreRequest, Stream, TaskPage, TaskWithNodes,
    TransportReply, TransportRequest,
};
use crate::record::ShardRecord;
use crate::report::{Report, ReportKind};
use crate::time::Mono;

/// Tasks read per page at a takeover.
const LOAD_PAGE: u32 = 1_000;

/// Commits made with care after one was refused for a reason that no entry explains.
pub(super) const CAREFUL_COMMITS: u32 = 64;
/// How often in the time of a lease a shard is looked at that another one should hand over.
const LOOKS_PER_LEASE: u64 = 10;
/// Leases for which a shard is kept at least, so that changing views do not toss it about.
const LEASES_KEPT: u64 = 2;

/// One shard as this process sees it.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Slot {
    pub(super) id: ShardId,
    ownership: u64,
    pub(super) phase: Phase,
    /// When the lease is renewed next; set while it is ours.
    pub(super) renew_at: Option<Mono>,
    pub(super) renewing: bool,
    backoff_ms: u64,
    /// Since when it is ours.
    owned_since: Mono,
    /// The coordinator that left last; its lease is given back any moment.
    departed: Option<ClientId>,
    /// Who held the lease when it was looked at last.
    seen_owner: Option<ClientId>,
    /// It was taken on its way to another coordinator, and given back; once per look that found an owner.
    gave_way: bool,
    /// A load of this process succeeded before: grants found by a later one may be alive.
    loaded_before: bool,
    /// Carried over a reload: where one entry per commit is folded, and what to set aside.
    pub(super) careful_until: Offset,
    pub(super) poisoned: BTreeSet<(Offset, DedupId)>,
    pub(super) quarantine: BTreeSet<TaskId>,
    /// Tasks that cannot even be set aside.
    pub(super) spared: Spared,
    /// Loaded once more by this owner: what it knows of starts, and as of which epoch and commit.
    pub(super) reloading: Option<((u64, u64), Meters)>,
    /// Tasks that cannot even be loaded to be set aside.
    unloadable: BTreeSet<TaskId>,
    pub(super) refused: BTreeMap<TaskId, u128>,
    pub(super) careful_left: u32,
}

/// How far the takeover is.
#[derive(Clone, Debug, Serialize)]
pub(super) enum Phase {
    /// Not ours; tried again then.
    Waiting(Mono),
    /// Can the stream be read at all?
    Probing,
    /// The lease is asked for.
    Acquiring,
    /// The shard record is read.
    Reading,
    /// The shard epoch is raised.
    Raising,
    /// The tasks are read, page by page.
    Loading(Box<Shard>),
    /// The log's bounds are read.
    Bounding(Box<Shard>),
    /// The entry before `next` is read, to notice another log.
    Checking(Box<Shard>, Offset),
    /// Ours.
    Owned(Box<Shard>),
    /// Given up for good: the process stops.
    Released,
}

impl Slot {
    pub(super) fn new(id: ShardId) -> Self {
        Self {
            id,
            ownership: 0,
            phase: Phase::Waiting(Mono(0)),
            renew_at: None,
            renewing: false,
            backoff_ms: 0,
            owned_since: Mono(0),
            departed: None,
            seen_owner: None,
            gave_way: false,
            loaded_before: false,
            careful_until: Offset(0),
            poisoned: BTreeSet::new(),
            quarantine: BTreeSet::new(),
            spared: Spared::default(),
            reloading: None,
            unloadable: BTreeSet::new(),
            refused: BTreeMap::new(),
            careful_left: 0,
        }
    }

    pub(super) fn owned(&mut self) -> Option<&mut Shard> {
        match &mut self.phase {
            Phase::Owned(shard) => Some(shard),
            _ => None,
        }
    }

    pub(super) fn is_current(&self, ownership: u64) -> bool {
        self.ownership == ownership
    }

    /// What the machine panicked over is set aside by the next ownership.
    pub(super) fn panicked(&mut self, subject: &Subject) {
        if let (Some(offset), Some(message)) = (subject.offset, subject.message) {
            self.poisoned.insert((offset, message));
            self.careful_until = self.careful_until.max(offset.next());
        }
        if subject.loading {
            self.unloadable.extend(subject.task_id.clone());
        } else {
            self.quarantine.extend(subject.task_id.clone());
        }
        self.careful_left = CAREFUL_COMMITS;
        self.loaded_before = true;
    }

    pub(super) fn purpose(&self, op: ShardOp) -> Purpose {
        Purpose::Shard {
            shard: self.id,
            ownership: self.ownership,
            op,
        }
    }

    fn retry(&mut self, ctx: &mut Context<'_>, error: &PortError) {
        ctx.report(Report::new(ReportKind::PortFailed, error.to_string()));
        self.backoff_ms = (self.backoff_ms * 2).clamp(ctx.config.retry_backoff_ms, 2_000);
        let jitter = ctx.random.below(self.backoff_ms / 4 + 1);
        self.phase = Phase::Waiting(ctx.now.mono.after(self.backoff_ms + jitter));
    }

    /// Starts or goes on with what is due by time.
    pub(super) fn tick(&mut self, ctx: &mut Context<'_>) {
        if let Phase::Waiting(until) = self.phase
            && until <= ctx.now.mono
        {
            // A new round: replies to the last one no longer count.
            self.ownership += 1;
            self.renew_at = None;
            self.renewing = false;
            self.phase = Phase::Probing;
            let stream = Stream::Shard(self.id);
            ctx.transport(
                self.purpose(ShardOp::Probe),
                TransportRequest::Bounds { stream },
            );
        }
        if self.renew_at.is_some_and(|at| at <= ctx.now.mono) && !self.renewing {
            let deaf_since = self
                .owned()
                .map_or(ctx.now.mono, |shard| shard.stream_ok_at);
            if ctx.now.mono.since(deaf_since) > ctx.config.shard_lease_ttl_ms {
                // Another owner may be able to read the stream: make way.
                self.release(ctx);
                self.lose(ctx, "its stream cannot be read");
                return;
            }
            self.renewing = true;
            ctx.store(self.purpose(ShardOp::Renew), self.acquire(ctx.config));
        }
    }

    pub(super) fn poll_timeout(&self, config: &Config) -> Option<Mono> {
        let own = match &self.phase {
            Phase::Waiting(until) => Some(*until),
            Phase::Owned(shard) => shard.poll_timeout(config),
            _ => None,
        };
        let renew = self.renew_at.filter(|_| !self.renewing);
        own.into_iter().chain(renew).chain(self.spared_due()).min()
    }

    /// Another coordinator should own this shard, and has had time to say so. Not while a renewal is
    /// under way: carried out behind the release, it would take the lease again for nobody.
    pub(super) fn makes_way(&self, ctx: &Context<'_>) -> bool {
        matches!(self.phase, Phase::Owned(_))
            && ctx.config.shards > 1
            && !ctx.peers.is_mine(self.id)
            && ctx.now.mono.since(self.owned_since) >= LEASES_KEPT * ctx.config.shard_lease_ttl_ms
            && (!self.renewing || is_planted(Bug::RenewedReleased))
    }

    /// Gives an owned shard that is quiet to whoever should own it.
    pub(super) fn hand_over(&mut self, ctx: &mut Context<'_>) {
        self.release(ctx);
        self.lose(ctx, "handed over: another coordinator has its share");
        self.seen_owner = None;
        self.phase = Phase::Waiting(ctx.now.mono.after(ctx.config.shard_lease_ttl_ms));
    }

    /// The lease was just given back by an owner who makes way for another coordinator than this one: a
    /// look that came in between took it. It would change hands once more in a while.
    fn is_on_its_way(&self, ctx: &Context<'_>) -> bool {
        let rightful = ctx.peers.rightful(self.id).filter(|_| !self.gave_way);
        rightful.is_some_and(|rightful| {
            let seen = self.seen_owner.as_ref();
            seen.is_some_and(|owner| owner != rightful && self.departed.as_ref() != Some(owner))
        })
    }

    /// The lease of a coordinator that leaves is free, or soon will be.
    pub(super) fn departed(&mut self, ctx: &mut Context<'_>, owner: &ClientId) {
        self.departed = Some(owner.clone());
        self.look_soon(ctx);
    }

    /// The lease may be free: does not wait for the end of the last round's wait.
    pub(super) fn look_soon(&mut self, ctx: &mut Context<'_>) {
        if let Phase::Waiting(until) = self.phase {
            let jitter = ctx.random.below(ctx.config.retry_backoff_ms + 1);
            self.phase = Phase::Waiting(until.min(ctx.now.mono.after(jitter)));
        }
    }

    fn acquire(&self, config: &Config) -> StoreRequest {
        StoreRequest::AcquireShard {
            shard: self.id,
            owner: config.owner.clone(),
            ttl_ms: config.shard_lease_ttl_ms,
        }
    }

    /// Drops all memory of the shard; tried again later.
    pub(super) fn lose(&mut self, ctx: &mut Context<'_>, why: &str) {
        self.drop_memory(ctx);
        self.spared = Spared::default();
        self.reloading = None;
        ctx.workers.forget_full();
        ctx.report(Report::new(
            ReportKind::ShardLost,
            format!("shard {}: {why}", self.id),
        ));
        let jitter = ctx.random.below(ctx.config.shard_lease_ttl_ms / 10 + 1);
        let wait = ctx.config.shard_lease_ttl_ms / 5 + jitter;
        self.phase = Phase::Waiting(ctx.now.mono.after(wait));
        self.renew_at = None;
    }

    pub(super) fn drop_memory(&mut self, ctx: &mut Context<'_>) {
        if let Some(shard) = self.owned() {
            for (worker, held) in &shard.held {
                for _ in held {
                    ctx.workers.grant_ends(worker);
                }
            }
        }
        self.phase = Phase::Waiting(ctx.now.mono);
    }

    /// A store reply to a step of the takeover, or to a renewal.
    pub(super) fn store_done(
        &mut self,
        ctx: &mut Context<'_>,
        op: ShardOp,
        result: Result<StoreReply, PortError>,
    ) {
        match (op, result) {
            (ShardOp::Renew, result) => self.renewed(ctx, result),
            (ShardOp::Verify, result) => self.verified(ctx, result),
            (ShardOp::Release, _) => {}
            (_, Err(error)) if error.kind == ErrorKind::Fenced => {
                self.another_owns();
                self.phase = Phase::Waiting(ctx.now.mono.after(ctx.config.retry_backoff_ms));
            }
            (_, Err(error)) => self.retry(ctx, &error),
            (ShardOp::Acquire, Ok(StoreReply::Lease(lease)))
                if lease.held && self.is_on_its_way(ctx) =>
            {
                self.gave_way = true;
                let request = StoreRequest::ReleaseShard {
                    shard: self.id,
                    owner: ctx.config.owner.clone(),
                };
                ctx.store(self.purpose(ShardOp::Release), request);
                let ttl = ctx.config.shard_lease_ttl_ms;
                self.phase = Phase::Waiting(ctx.now.mono.after(ttl));
            }
            (ShardOp::Acquire, Ok(StoreReply::Lease(lease))) if lease.held => {
                self.renew_at = Some(ctx.now.mono.after(ctx.config.shard_lease_ttl_ms / 3));
                self.phase = Phase::Reading;
                ctx.store(
                    self.purpose(ShardOp::ReadShard),
                    StoreRequest::ReadShard { shard: self.id },
                );
            }
            (ShardOp::Acquire, Ok(StoreReply::Lease(lease))) => {
                self.another_owns();
                self.seen_owner = Some(lease.owner.clone());
                self.gave_way = false;
                let ttl = ctx.config.shard_lease_ttl_ms;
                // One that is to be ours is handed over soon: it should not lie idle then.
                let shared = ctx.config.shards > 1 && ctx.peers.is_mine(self.id);
                let left = self.departed.as_ref() == Some(&lease.owner);
                let longest = if shared || left {
                    ttl / LOOKS_PER_LEASE
                } else {
                    ttl
                };
                let wait = lease.remaining_ms.min(longest) + 1 + ctx.random.below(ttl / 50 + 1);
                self.phase = Phase::Waiting(ctx.now.mono.after(wait));
            }
            (ShardOp::ReadShard, Ok(StoreReply::Shard(record)))
                if matches!(self.phase, Phase::Reading) && is_planted(Bug::LoadedFirst) =>
            {
                self.load(ctx, record);
            }
            (ShardOp::ReadShard, Ok(StoreReply::Shard(record))) => {
                if !is_planted(Bug::LoadedFirst) {
                    self.phase = Phase::Raising;
                }
                let request = StoreRequest::RaiseEpoch {
                    shard: self.id,
                    owner: ctx.config.owner.clone(),
                    epoch: record.epoch,
                    commit_seq: record.commit_seq,
                };
                ctx.store(self.purpose(ShardOp::Raise), request);
            }
            #[cfg(feature = "planted-bugs")]
            (ShardOp::Raise, Ok(StoreReply::Shard(record))) if is_planted(Bug::LoadedFirst) => {
                if let Phase::Loading(shard) = &mut self.phase {
                    shard.epoch = record.epoch;
                    shard.commit_seq = record.commit_seq;
                }
                self.all_loaded(ctx);
            }
            (ShardOp::Raise, Ok(StoreReply::Shard(record))) => self.load(ctx, record),
            (ShardOp::Load, Ok(StoreReply::Tasks(page))) => self.loaded(ctx, page),
            (_, Ok(reply)) => {
                self.retry(ctx, &PortError::unexpected("takeover", &reply));
            }
        }
    }

    fn renewed(&mut self, ctx: &mut Context<'_>, result: Result<StoreReply, PortError>) {
        self.renewing = false;
        if self.renew_at.is_none() {
            return; // The shard was lost meanwhile: its lease is not to be kept.
        }
        let third = ctx.config.shard_lease_ttl_ms / 3;
        match result {
            Ok(StoreReply::Lease(lease)) if !lease.held => {
                self.renew_at = None;
                self.lose(ctx, "another coordinator holds its lease");
            }
            Ok(_) => {
                self.renew_at = Some(ctx.now.mono.after(third));
                // It may have lapsed since the last renewal, by the store's clock, which may jump:
                // another owner may have come and gone.
                if self.owned().is_some() {
                    let request = StoreRequest::ReadShard { shard: self.id };
                    ctx.store(self.purpose(ShardOp::Verify), request);
                }
            }
            // A lease that cannot be renewed may lapse: commits are fenced by the epoch, not by it.
            Err(_) => self.renew_at = Some(ctx.now.mono.after(third.min(500))),
        }
    }

    /// The shard record, read after a renewal. An owner with nothing to commit would never notice by a
    /// fenced commit that a successor has folded the stream and gone.
    fn verified(&mut self, ctx: &mut Context<'_>, result: Result<StoreReply, PortError>) {
        let epoch = self.owned().map(|shard| shard.epoch);
        match result {
            Ok(StoreReply::Shard(record)) if epoch.is_some_and(|epoch| epoch != record.epoch) => {
                self.lose(ctx, "another coordinator owned it meanwhile");
            }
            // Asked again with the next renewal.
            _ => {}
        }
    }

    fn load(&mut self, ctx: &mut Context<'_>, record: ShardRecord) {
        let mut shard = Box::new(Shard::new(
            self.id,
            self.ownership,
            ctx.now.mono,
            ctx.config,
        ));
        shard.epoch = record.epoch;
        shard.commit_seq = record.commit_seq;
        shard.next = record.next;
        shard.forgotten = record.next;
        shard.last_entry = record.last_entry;
        shard.careful_until = self.careful_until;
        // Copies: a takeover that fails half-way must not forget what was blamed.
        shard.careful_left = self.careful_left;
        shard.poisoned = self.poisoned.clone();
        shard.quarantine = self.quarantine.clone();
        shard.refused = self.refused.clone();
        self.carry_starts(&mut shard);
        self.phase = Phase::Loading(shard);
        self.load_page(ctx, None);
    }

    fn load_page(&self, ctx: &mut Context<'_>, after: Option<TaskId>) {
        let request = StoreRequest::LoadTasks {
            shard: self.id,
            after,
            limit: LOAD_PAGE,
        };
        ctx.store(self.purpose(ShardOp::Load), request);
    }

    fn loaded(&mut self, ctx: &mut Context<'_>, page: TaskPage) {
        let Phase::Loading(shard) = &mut self.phase else {
            return;
        };
        if is_planted(Bug::RotStopsLoad) && !page.unreadable.is_empty() {
            return;
        }
        let read = page.tasks.iter().map(|t| &t.task.task_id);
        let last = read
            .chain(page.unreadable.iter().map(|(id, _)| id))
            .max()
            .cloned();
        for (task, why) in &page.unreadable {
            let mut report = Report::new(ReportKind::Quarantined, format!("unreadable: {why}"));
            report.task_id = Some(task.clone());
            ctx.report(report);
            shard.left_out.insert(task.clone());
        }
        let spared = |task: &TaskWithNodes| self.spared.contains(&task.task.task_id);
        for task in page.tasks.into_iter().filter(|task| !spared(task)) {
            if self.unloadable.contains(&task.task.task_id) {
                let text = "left out: it broke the machine as it was loaded";
                let mut report = Report::new(ReportKind::Quarantined, text);
                report.task_id = Some(task.task.task_id.clone());
                ctx.report(report);
                shard.left_out.insert(task.task.task_id);
                continue;
            }
            shard.load_task(ctx, task);
        }
        if page.more && last.is_some() {
            self.load_page(ctx, last);
        } else if is_planted(Bug::LoadedFirst) {
            let request = StoreRequest::ReadShard { shard: self.id };
            ctx.store(self.purpose(ShardOp::ReadShard), request);
        } else {
            self.all_loaded(ctx);
        }
    }

    fn all_loaded(&mut self, ctx: &mut Context<'_>) {
        let waiting = Phase::Waiting(ctx.now.mono);
        if let Phase::Loading(shard) = std::mem::replace(&mut self.phase, waiting) {
            let stream = shard.stream();
            self.phase = Phase::Bounding(shard);
            ctx.transport(
                self.purpose(ShardOp::Bounds),
                TransportRequest::Bounds { stream },
            );
        }
    }

    /// A transport reply to a step of the takeover.
    pub(super) fn transport_done(
        &mut self,
        ctx: &mut Context<'_>,
        op: ShardOp,
        result: Result<TransportReply, PortError>,
    ) {
        let waiting = Phase::Waiting(ctx.now.mono);
        match (op, std::mem::replace(&mut self.phase, waiting), result) {
            (ShardOp::Probe, Phase::Probing, Ok(TransportReply::Bounds { .. })) => {
                self.phase = Phase::Acquiring;
                ctx.store(self.purpose(ShardOp::Acquire), self.acquire(ctx.config));
            }
            (
                ShardOp::Bounds,
                Phase::Bounding(shard),
                Ok(TransportReply::Bounds { start, end }),
            ) => {
                if start > shard.next || end < shard.next {
                    self.begin(ctx, shard, Some(start));
                } else if start == shard.next {
                    self.begin(ctx, shard, None);
                } else {
                    let request = TransportRequest::Read {
                        stream: shard.stream(),
                        from: Offset(shard.next.0 - 1),
                        limit: 1,
                        wait_ms: 0,
                    };
                    self.phase = Phase::Checking(shard, start);
                    ctx.transport(self.purpose(ShardOp::CheckEntry), request);
                }
            }
            (
                ShardOp::CheckEntry,
                Phase::Checking(shard, start),
                Ok(TransportReply::Entries { entries, .. }),
            ) => {
                let same = entries.first().is_some_and(|entry| {
                    entry.offset.next() == shard.next
                        && entry.message.as_ref().ok().map(|m| m.dedup_id) == shard.last_entry
                });
                self.begin(ctx, shard, (!same).then_some(start));
            }
            (_, phase, Err(error)) => {
                drop(phase);
                self.retry(ctx, &error);
            }
            (_, phase, Ok(_)) => self.phase = phase,
        }
    }

    fn begin(&mut self, ctx: &mut Context<'_>, mut shard: Box<Shard>, restart: Option<Offset>) {
        if let Some(start) = restart {
            let detail = format!(
                "shard {}: the stream is not the one of the shard record (next {}); reading it \
                 from its start {start}",
                self.id, shard.next
            );
            ctx.report(Report::new(ReportKind::StreamReplaced, detail));
            shard.restart_stream(start);
            self.careful_until = Offset(0);
        }
        ctx.report(Report::new(
            ReportKind::ShardOwned,
            format!(
                "shard {} at epoch {}, {} tasks",
                self.id,
                shard.epoch,
                shard.tasks.len()
            ),
        ));
        let dead = ctx.config.predecessors_dead && !self.loaded_before;
        self.loaded_before = true;
        // The owned shard has them now.
        self.careful_left = 0;
        self.quarantine.clear();
        self.refused.clear();
        self.backoff_ms = 0;
        // One that is only loaded once more is not kept longer for it.
        if self.reloading.take().is_none() {
            self.owned_since = ctx.now.mono;
        }
        self.spared.loaded(ctx.now.mono);
        // News of room may have stood in what the owner before folded.
        ctx.workers.forget_full();
        shard.stream_ok_at = ctx.now.mono;
        shard.resume(ctx, dead);
        self.phase = Phase::Owned(shard);
    }
}
