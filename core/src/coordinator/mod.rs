//! The coordinator machine: owns shards, folds their streams, decides what may start.
//!
//! One stream per shard, one owner by lease in the store. Everything a shard reacts to enters
//! through its stream; everything that follows leaves in one commit; only then messages leave.
//!
//! * `ownership`: taking a shard over, keeping it, losing it
//! * `peers`: other coordinators, and who should own which shard
//! * `shard`, `task`, `load`: what an owner holds in memory
//! * `fold`, `request`, `rerun`: what one message does
//! * `flow`: how grants and nodes end, and what follows down the graph
//! * `pause`: holding a task back, for a time or until a client lets it go on
//! * `dispatch`, `ready`, `limits`, `workers`: ready nodes meet free slots, within limits
//! * `functions`: `when` is judged, and `coordinator_fn` nodes run
//! * `lease`, `gate`: clocks of grants, and what must be read before one is expired
//! * `sweep`: what goes when retention ends
//! * `commit`: group commits and the messages that wait for them

mod commit;
mod config;
mod context;
mod dispatch;
mod flow;
mod fold;
mod functions;
mod gate;
mod invariants;
mod io;
mod last_read;
mod lease;
mod limited;
mod limits;
mod load;
mod ownership;
mod parked;
mod pause;
mod peers;
mod ready;
mod reload;
mod request;
mod rerun;
mod shard;
mod spared;
mod sweep;
mod task;
mod workers;

#[cfg(test)]
mod tests;

pub use config::Config;
pub use io::{Effect, Input, Subject};
pub use limits::{Limit, Limits, STARTS_MAX, WINDOW_MS_MAX};

use commit::CommitOutcome;
use context::{AnnounceOp, Context, Ops, Purpose, Random, ShardOp};
use ownership::{Phase, Slot};
use peers::Peers;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use workers::Workers;

use crate::id::{Incarnation, Offset, Role, ShardId, WorkerId};
use crate::message::{Body, Envelope};
use crate::planted::{Bug, is_planted};
use crate::port::{PortError, StoreReply, StoreRequest, Stream, TransportReply, TransportRequest};
use crate::report::{Report, ReportKind};
use crate::time::{Mono, Now};

/// How long a read of the announcements waits for the first entry.
const ANNOUNCE_WAIT_MS: u64 = 30_000;
const ANNOUNCE_LIMIT: u32 = 256;

/// The coordinator machine. See the crate's documentation for how to drive it.
#[derive(Clone, Debug, Serialize)]
pub struct Coordinator {
    config: Config,
    ops: Ops,
    random: Random,
    workers: Workers,
    peers: Peers,
    slots: Vec<Slot>,
    announcements: Announcements,
    stopping: bool,
    /// Every worker there was has stopped in order.
    workers_left: bool,
    stopped: bool,
    subject: Subject,
}

/// Following the workers that come and go.
#[derive(Clone, Debug, Default, Serialize)]
struct Announcements {
    /// Where to read on, once the end was looked up.
    from: Option<Offset>,
    /// The workers' records were read after that.
    known: bool,
    busy: bool,
    again_at: Option<Mono>,
    /// Workers whose records cannot be read, as told.
    unreadable: BTreeSet<WorkerId>,
}

impl Coordinator {
    /// A machine that has not seen any input yet.
    ///
    /// # Panics
    /// There are limits and more than one shard.
    #[must_use]
    pub fn new(config: Config) -> Self {
        assert!(
            config.limits.is_none() || config.shards <= 1,
            "limits need a deployment of one shard"
        );
        let slots = (0..config.shards.max(1))
            .map(|shard| Slot::new(ShardId(shard)))
            .collect();
        Self {
            ops: Ops::default(),
            random: Random(config.seed),
            workers: Workers::default(),
            peers: Peers::default(),
            slots,
            announcements: Announcements::default(),
            stopping: false,
            workers_left: false,
            stopped: false,
            subject: Subject::default(),
            config,
        }
    }

    /// Handles one input and pushes what follows. Never blocks, never fails.
    ///
    /// # Panics
    /// On a broken invariant, which is a bug. The driver then makes a new machine and tells it
    /// [`Coordinator::subject`] of this one, which costs that task only.
    pub fn handle(&mut self, now: Now, input: Input, out: &mut Vec<Effect>) {
        if self.stopped {
            return;
        }
        self.subject = Subject::default();
        let mut slots = std::mem::take(&mut self.slots);
        let mut ctx = Context {
            now,
            config: &self.config,
            ops: &mut self.ops,
            workers: &mut self.workers,
            peers: &mut self.peers,
            random: &mut self.random,
            subject: &mut self.subject,
            out,
        };
        match input {
            Input::Wake => {}
            Input::Idle => {
                for shard in slots.iter_mut().filter_map(Slot::owned) {
                    shard.idle();
                }
            }
            Input::StoreDone { op, result } => match ctx.ops.take(op) {
                Some(Purpose::Shard {
                    shard,
                    ownership,
                    op,
                }) => {
                    ctx.subject.shard = Some(shard);
                    if let Some(slot) = slot_of(&mut slots, shard, ownership) {
                        store_done(&mut ctx, slot, op, result);
                    }
                }
                Some(Purpose::Announcements(_)) => {
                    self.announcements
                        .workers_read(&mut ctx, &mut slots, result);
                }
                None => {}
            },
            Input::TransportDone { op, result } => match ctx.ops.take(op) {
                Some(Purpose::Shard {
                    shard,
                    ownership,
                    op,
                }) => {
                    ctx.subject.shard = Some(shard);
                    if let Some(slot) = slot_of(&mut slots, shard, ownership) {
                        transport_done(&mut ctx, slot, op, result);
                    }
                }
                Some(Purpose::Announcements(op)) => {
                    self.announcements
                        .transport_done(&mut ctx, &mut slots, op, result);
                }
                None => {}
            },
            Input::Shutdown { workers_left } => {
                self.stopping = true;
                self.workers_left = workers_left;
            }
            Input::Panicked { subject } => {
                for slot in &mut slots {
                    if subject.shard == Some(slot.id) {
                        slot.panicked(&subject);
                    }
                }
            }
        }
        self.announcements.tick(&mut ctx);
        if !self.stopping && with_peers(&mut ctx, |peers, ctx| peers.tick(ctx)) {
            shares_changed(&mut ctx, &mut slots);
        }
        for slot in &mut slots {
            if slot.may_leave(self.stopping)
                && slot.owned().is_none()
                && !matches!(slot.phase, Phase::Released)
            {
                slot.release(&mut ctx);
                slot.phase = Phase::Released;
            }
            ctx.subject.shard = Some(slot.id);
            slot.tick(&mut ctx);
            let makes_way = slot.makes_way(&ctx);
            let tries_again = slot.tries_again(ctx.now.mono);
            if let Some(shard) = slot.owned() {
                shard.stopping = self.stopping || makes_way || tries_again;
                if self.stopping {
                    shard.read_last(&mut ctx);
                }
                shard.workers_left = self.workers_left;
                run(&mut ctx, shard);
                let is_quiet = shard.is_quiet();
                let is_done = is_quiet && shard.has_read_last();
                if is_done && slot.may_leave(self.stopping) {
                    slot.release(&mut ctx);
                    slot.phase = Phase::Released;
                } else if is_quiet && makes_way && !self.stopping {
                    slot.hand_over(&mut ctx);
                } else if is_quiet && tries_again && !self.stopping {
                    slot.try_again(&mut ctx);
                }
            }
        }
        if ctx.workers.strangers {
            ctx.workers.strangers = false;
            self.announcements.known = false;
            self.announcements.tick(&mut ctx);
        }
        if self.stopping
            && slots
                .iter()
                .all(|slot| matches!(slot.phase, Phase::Released))
        {
            self.stopped = true;
            peers::leave(&mut ctx);
            ctx.out.push(Effect::Stopped);
        }
        self.slots = slots;
    }

    /// When [`Input::Wake`] is due. Recomputed; early, late and double wakes are legal.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Mono> {
        if self.stopped {
            return None;
        }
        let shards = self
            .slots
            .iter()
            .filter_map(|slot| slot.poll_timeout(&self.config));
        let peers = self.peers.poll_timeout(&self.config);
        let peers = peers.filter(|_| !self.stopping);
        shards.chain(self.announcements.again_at).chain(peers).min()
    }

    /// [`Input::Idle`] would let a commit begin; while this is false it changes nothing, and a driver
    /// may leave it out.
    #[must_use]
    pub fn wants_idle(&self) -> bool {
        self.slots.iter().any(|slot| match &slot.phase {
            Phase::Owned(shard) => shard.wants_idle(),
            _ => false,
        })
    }

    /// What the machine is handling, for the driver that caught its panic.
    #[must_use]
    pub fn subject(&self) -> Subject {
        self.subject.clone()
    }

    /// Number of tasks that are not settled, of the shards that this process owns.
    #[must_use]
    pub fn tasks_in_flight(&self) -> usize {
        self.slots
            .iter()
            .map(|slot| match &slot.phase {
                Phase::Owned(shard) => shard.tasks.len(),
                _ => 0,
            })
            .sum()
    }

    /// The first place in each owned shard's stream that is not folded.
    #[must_use]
    pub fn positions(&self) -> Vec<(ShardId, Offset)> {
        let owned = self.slots.iter().filter_map(|slot| match &slot.phase {
            Phase::Owned(shard) => Some((slot.id, shard.next)),
            _ => None,
        });
        owned.collect()
    }

    /// Ready nodes of owned shards that wait for a slot, by role; only roles for which some wait.
    #[must_use]
    pub fn waiting(&self) -> BTreeMap<Role, usize> {
        let mut waiting = BTreeMap::new();
        for slot in &self.slots {
            if let Phase::Owned(shard) = &slot.phase {
                for (role, nodes) in shard.ready.by_role() {
                    *waiting.entry(role.clone()).or_default() += nodes;
                }
            }
        }
        waiting
    }

    /// Shards that this process owns now.
    #[must_use]
    pub fn shards_owned(&self) -> usize {
        self.slots
            .iter()
            .filter(|slot| matches!(slot.phase, Phase::Owned(_)))
            .count()
    }
}

fn slot_of(slots: &mut [Slot], shard: ShardId, ownership: u64) -> Option<&mut Slot> {
    let slot = slots.get_mut(shard.0 as usize)?;
    slot.is_current(ownership).then_some(slot)
}

/// What an owned shard does by itself after every input: in this order, so that a freed slot, a
/// fired timer and a folded event meet in one commit.
fn run(ctx: &mut Context<'_>, shard: &mut shard::Shard) {
    let stopping = shard.stopping;
    shard.tick(ctx);
    if stopping {
        shard.pump_last(ctx);
        shard.tick(ctx);
        shard.hand_back_what_is_left(ctx);
    } else {
        shard.pump(ctx);
        shard.tick(ctx);
        shard.dispatch(ctx);
        shard.look_up(ctx);
        shard.read_source(ctx);
        shard.sweep(ctx);
    }
    shard.commit(ctx);
    if !stopping {
        // A cut made room.
        shard.pump(ctx);
        shard.fetch(ctx);
    }
    shard.sync(ctx);
}

fn store_done(
    ctx: &mut Context<'_>,
    slot: &mut Slot,
    op: ShardOp,
    result: Result<StoreReply, PortError>,
) {
    match op {
        ShardOp::Commit => {
            let Some(shard) = slot.owned() else { return };
            match shard.committed(ctx, result.map(|_| ())) {
                CommitOutcome::Continue => {}
                CommitOutcome::Fenced => slot.lose(ctx, "another owner is current"),
                CommitOutcome::Refused => slot.refused(ctx),
            }
        }
        ShardOp::Sync => {
            let Some(shard) = slot.owned() else { return };
            let seq = match result {
                Ok(StoreReply::Synced { seq }) => Ok(seq),
                Ok(_) => Ok(0),
                Err(error) => Err(error),
            };
            shard.synced(ctx, seq);
        }
        ShardOp::Lookup => {
            if let Some(shard) = slot.owned() {
                shard.looked_up(ctx, result);
            }
        }
        ShardOp::Sweep => {
            if let Some(shard) = slot.owned() {
                shard.sweep_answered(ctx, result);
            }
        }
        ShardOp::Source => {
            if let Some(shard) = slot.owned() {
                shard.source_read(ctx, result);
            }
        }
        _ => slot.store_done(ctx, op, result),
    }
}

fn transport_done(
    ctx: &mut Context<'_>,
    slot: &mut Slot,
    op: ShardOp,
    result: Result<TransportReply, PortError>,
) {
    match op {
        ShardOp::Fetch => {
            let Some(shard) = slot.owned() else { return };
            match result {
                Ok(TransportReply::Entries { entries, .. }) => shard.fetched(ctx, entries),
                Err(error) if error.kind == crate::port::ErrorKind::Invalid => {
                    // The log does not hold what is to be read: look at it again from the start
                    // of a takeover.
                    slot.lose(ctx, "its stream does not hold the next entry");
                }
                _ => shard.fetch_failed(ctx),
            }
        }
        ShardOp::LastRead => {
            if let Some(shard) = slot.owned() {
                shard.read_last_answered(ctx, result);
            }
        }
        ShardOp::EndOffset => {
            if let Some(shard) = slot.owned() {
                shard.end_offset(ctx, result);
            }
        }
        _ => slot.transport_done(ctx, op, result),
    }
}

impl Announcements {
    fn tick(&mut self, ctx: &mut Context<'_>) {
        if self.busy || self.again_at.is_some_and(|at| at > ctx.now.mono) {
            return;
        }
        self.busy = true;
        self.again_at = None;
        let stream = Stream::Announcements;
        match self.from {
            None => {
                let purpose = Purpose::Announcements(AnnounceOp::Bounds);
                ctx.transport(purpose, TransportRequest::Bounds { stream });
            }
            Some(_) if !self.known => {
                let purpose = Purpose::Announcements(AnnounceOp::Workers);
                ctx.store(purpose, StoreRequest::ReadWorkers);
            }
            Some(from) => {
                let purpose = Purpose::Announcements(AnnounceOp::Read);
                let request = TransportRequest::Read {
                    stream,
                    from,
                    limit: ANNOUNCE_LIMIT,
                    wait_ms: ANNOUNCE_WAIT_MS,
                };
                ctx.transport(purpose, request);
            }
        }
    }

    fn failed(&mut self, ctx: &Context<'_>) {
        self.again_at = Some(ctx.now.mono.after(ctx.config.retry_backoff_ms.max(100)));
    }

    fn workers_read(
        &mut self,
        ctx: &mut Context<'_>,
        slots: &mut [Slot],
        result: Result<StoreReply, PortError>,
    ) {
        self.busy = false;
        let Ok(StoreReply::Workers(found)) = result else {
            return self.failed(ctx);
        };
        if is_planted(Bug::RotHidesWorkers) && !found.unreadable.is_empty() {
            return self.failed(ctx);
        }
        self.known = true;
        for (worker, why) in &found.unreadable {
            if !self.unreadable.contains(worker) {
                let text = format!("the record of worker {worker} is left out: {why}");
                ctx.report(Report::new(ReportKind::Quarantined, text));
            }
        }
        let unreadable = found.unreadable.into_iter();
        self.unreadable = unreadable.map(|(worker, _)| worker).collect();
        for record in found.workers {
            let (id, incarnation) = (record.worker_id.clone(), record.incarnation);
            ctx.workers.learn(record, false);
            if ctx.config.predecessors_dead {
                ctx.workers.presume_dead(&id);
            }
            learned(ctx, slots, &id, incarnation);
        }
    }

    fn transport_done(
        &mut self,
        ctx: &mut Context<'_>,
        slots: &mut [Slot],
        op: AnnounceOp,
        result: Result<TransportReply, PortError>,
    ) {
        self.busy = false;
        match (op, result) {
            (AnnounceOp::Bounds, Ok(TransportReply::Bounds { start, end })) => {
                // A log that died with the dead holds only what the living said.
                let alone = ctx.config.predecessors_dead;
                self.from = Some(if alone { start } else { end });
            }
            (AnnounceOp::Read, Ok(TransportReply::Entries { entries, next })) => {
                self.from = Some(next);
                for entry in entries {
                    if let Ok(message) = entry.message {
                        announced(ctx, slots, &message);
                    }
                }
            }
            (AnnounceOp::Read, Err(error)) if error.kind == crate::port::ErrorKind::Invalid => {
                // Another log, or one that forgot: what was missed is in the store.
                self.from = None;
                self.known = false;
            }
            _ => self.failed(ctx),
        }
    }
}

fn announced(ctx: &mut Context<'_>, slots: &mut [Slot], message: &Envelope) {
    match &message.body {
        Body::WorkerOnline(online) => {
            ctx.workers
                .online(online, message.free_slots, message.slots_no);
            learned(ctx, slots, &online.worker_id, online.incarnation);
        }
        Body::WorkerOffline(offline) => {
            ctx.workers.offline(&offline.worker_id, offline.incarnation);
        }
        Body::CoordinatorOnline(online)
            if with_peers(ctx, |peers, ctx| peers.online(ctx, &online.owner)) =>
        {
            shares_changed(ctx, slots);
        }
        Body::CoordinatorOffline(offline) if offline.owner != ctx.config.owner => {
            ctx.peers.offline(ctx.config, &offline.owner);
            // Its leases are free: nobody waits for them to lapse.
            for slot in slots {
                slot.departed(ctx, &offline.owner);
            }
        }
        _ => {}
    }
}

/// The peers need the rest of the context.
fn with_peers<T>(ctx: &mut Context<'_>, act: impl FnOnce(&mut Peers, &mut Context<'_>) -> T) -> T {
    let mut peers = std::mem::take(ctx.peers);
    let done = act(&mut peers, ctx);
    *ctx.peers = peers;
    done
}

/// Shards that are to be this process's are looked at soon; those that are not are handed over by
/// their slots' own ticks.
fn shares_changed(ctx: &mut Context<'_>, slots: &mut [Slot]) {
    for slot in slots {
        if ctx.peers.is_mine(slot.id) {
            slot.look_soon(ctx);
        }
    }
}

/// A process of a worker is known: its grants are counted, and those of older ones are over.
fn learned(ctx: &mut Context<'_>, slots: &mut [Slot], worker: &WorkerId, incarnation: Incarnation) {
    let mut granted = 0;
    for shard in slots.iter_mut().filter_map(Slot::owned) {
        granted += shard.held.get(worker).map_or(0, BTreeSet::len);
        shard.worker_restarted(ctx, worker, incarnation);
    }
    ctx.workers
        .recount(worker, u32::try_from(granted).unwrap_or(u32::MAX));
}
