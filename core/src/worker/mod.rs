//! The worker machine: takes STARTs, drives runs batch by batch, keeps their leases alive.
//!
//! [`Worker`] matches on [`Input`] and pushes [`Effect`]s; the decisions live in small parts
//! beside it. One START's way: `commands` (occupy a slot) -> `grants` (is the token current?) ->
//! `beats` (the first heartbeat, confirmed) -> `batches` (begin, draw, process) -> `endings` (close
//! the handler, the terminal event) -> `events` (until confirmed) -> `ended` (the token's memory).

mod adapter;
mod away;
mod batches;
mod beats;
mod calls;
mod cancel;
mod commands;
mod config;
mod contact;
mod dedup;
mod ended;
mod endings;
mod events;
mod grants;
mod invariants;
mod io;
mod lease;
mod limits;
mod outgoing;
mod output;
mod presence;
mod reader;
mod run;
mod slots;
mod tally;
mod timers;

#[cfg(test)]
mod tests;

pub use config::Config;
pub use io::{Effect, Input, RunCommand, RunEvent, RunFailure, RunId, RunSpec};
pub use limits::{checkpoint_too_large, mark_too_large};

use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

use crate::id::{Incarnation, Offset, OpId, ShardId};
use crate::message::{Envelope, Sender, SenderRole};
use crate::planted::{Bug, is_planted};
use crate::port::Stream;
use crate::report::{Report, ReportKind};
use crate::time::{Mono, Now};

use away::Away;
use beats::Beats;
use calls::{Call, Sent};
use contact::Contact;
use dedup::Dedup;
use ended::Ended;
use grants::Grants;
use presence::{Drain, Phase};
use run::{NodeKey, Run};
use slots::Slots;
use timers::{Timer, Timers};

/// The longest wait between repeats of a failed port call, in milliseconds.
const RETRY_MS_MAX: u64 = 2_000;

/// The worker machine. Pure: it takes the time and inputs, and pushes effects.
#[derive(Clone, Debug, Serialize)]
pub struct Worker {
    config: Config,
    phase: Phase,
    incarnation: Incarnation,
    sender: Sender,
    last_op: u64,
    last_run: u64,
    /// Makes messages without a seq distinct.
    last_nonce: u64,
    /// The number of free slots that was told last, and how often it has changed.
    slots_told: Option<u32>,
    slots_no: u64,
    /// The last announcement said that no slot was free.
    announced_full: bool,
    /// Shards whose last message from here said so.
    full_to: BTreeSet<ShardId>,
    inbox_next: Offset,
    /// Failures in a row of start-up, inbox and announcement.
    boot_failures: u32,
    inbox_failures: u32,
    announce_failures: u32,
    drain: Option<Drain>,
    /// Length of a lease, as of the newest START.
    ttl_ms: u64,
    /// The deployment's value that was told apart from the settings' one.
    lease_told: Option<u64>,
    timers: Timers,
    calls: BTreeMap<OpId, Call>,
    sent: BTreeMap<OpId, Sent>,
    contact: Contact,
    /// For people only: no part of the state.
    #[serde(skip)]
    away: Away,
    grants: Grants,
    beats: Beats,
    slots: Slots,
    runs: BTreeMap<RunId, Run>,
    by_node: BTreeMap<NodeKey, RunId>,
    ended: Ended,
    dedup: Dedup,
}

impl Worker {
    /// A worker that has done nothing yet; its first input is [`Input::Wake`].
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            phase: Phase::New,
            incarnation: Incarnation(0),
            sender: Sender {
                role: SenderRole::Worker,
                id: config.worker_id.as_str().into(),
                incarnation: Incarnation(0),
            },
            last_op: 0,
            last_run: 0,
            last_nonce: 0,
            slots_told: None,
            slots_no: 0,
            announced_full: false,
            full_to: BTreeSet::new(),
            inbox_next: Offset(0),
            boot_failures: 0,
            inbox_failures: 0,
            announce_failures: 0,
            drain: None,
            ttl_ms: 60_000,
            lease_told: None,
            timers: Timers::default(),
            calls: BTreeMap::new(),
            sent: BTreeMap::new(),
            contact: Contact::default(),
            away: Away::default(),
            grants: Grants::default(),
            beats: Beats::default(),
            slots: Slots::new(config.capacity),
            runs: BTreeMap::new(),
            by_node: BTreeMap::new(),
            ended: Ended::default(),
            dedup: Dedup::new(config.dedup_cache_size, config.dedup_ttl_ms),
            config,
        }
    }

    /// Takes one input and pushes what is to be done. Never blocks, never fails: bad or late input
    /// is reported as `Rejected` and changes nothing.
    pub fn handle(&mut self, now: Now, input: Input, out: &mut Vec<Effect>) {
        if self.phase == Phase::Stopped {
            return;
        }
        // The clock decides what has expired, before the input is looked at.
        let clock_first =
            !matches!(input, Input::TransportDone { .. }) || !is_planted(Bug::LeaseRevived);
        while clock_first && let Some(timer) = self.timers.pop_due(now.mono) {
            self.fire(timer, now, out);
        }
        match input {
            Input::Wake => self.wake(now, out),
            Input::StoreDone { op, result } => self.store_done(op, result, now, out),
            Input::TransportDone { op, result } => self.transport_done(op, result, now, out),
            Input::Run { run, event } => self.run_event(run, event, now, out),
            Input::Shutdown { grace_ms } => self.shut_down(grace_ms, now, out),
        }
        self.read_grants(now, out);
        self.look_for_room(now);
        self.stop_if_drained(now, out);
    }

    /// When the next timer is due, if any. Recomputed; early, late and double wakes are legal.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Mono> {
        self.timers.next()
    }

    /// Slots that are free now: what messages carry. 0 while draining or without a store.
    #[must_use]
    pub fn free_slots(&self) -> u32 {
        if self.drain.is_some() || self.contact.is_away() || self.phase != Phase::Running {
            return 0;
        }
        self.slots.free()
    }

    /// This process start, once the store has counted it.
    #[must_use]
    pub fn incarnation(&self) -> Option<Incarnation> {
        (self.incarnation.0 > 0).then_some(self.incarnation)
    }

    /// The worker takes STARTs: it is registered, the store answers, it is not draining.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.phase == Phase::Running && self.drain.is_none() && !self.contact.is_away()
    }

    /// Runs whose handler was given up and still holds its slot.
    #[must_use]
    pub fn abandoned(&self) -> usize {
        self.runs.values().filter(|run| run.abandoned).count()
    }

    /// Length of a lease in milliseconds, as of the newest START.
    #[must_use]
    pub const fn lease_ttl_ms(&self) -> u64 {
        self.ttl_ms
    }

    /// Its inbox, and the first place in it that it has not read.
    #[must_use]
    pub fn inbox_position(&self) -> (Stream, Offset) {
        (self.inbox(), self.inbox_next)
    }

    fn fire(&mut self, timer: Timer, now: Now, out: &mut Vec<Effect>) {
        match timer {
            Timer::Lease(run) => self.lease_lapsed(run, now, out),
            Timer::StoreLost => self.store_lost(now, out),
            Timer::StoreAway => self.store_away(now, out),
            Timer::Deadline(run) => self.deadline(run, now, out),
            Timer::Boot => self.boot(now, out),
            Timer::Inbox => self.read_inbox(out),
            Timer::Announce => self.announce(now, out),
            Timer::Room => self.tell_of_room(now, out),
            Timer::GrantPoll => self.grants.poll_due(),
            Timer::GrantRetry => self.grants.retry(),
            Timer::Beat(shard) => self.beat(shard, now, out),
            Timer::Call(op) => self.repeat_call(op, now, out),
            Timer::Resend(run) => self.resend(run, now, out),
            Timer::Pull(run) => self.look_for_input(run, now, out),
            Timer::HeldBatch(run) => self.send_held(run, now, out),
            Timer::DrainEnd => self.drain_over(now, out),
        }
    }

    fn new_op(&mut self) -> OpId {
        self.last_op += 1;
        OpId(self.last_op)
    }

    fn nonce(&mut self) -> u64 {
        self.last_nonce += 1;
        self.last_nonce
    }

    /// The wait before repeat number `failures`.
    fn backoff_ms(&self, failures: u32) -> u64 {
        let shift = failures.saturating_sub(1).min(16);
        (self.config.retry_backoff_ms << shift).clamp(1, RETRY_MS_MAX)
    }

    /// Appends a message; `free_slots` is as of this moment.
    fn send(&mut self, stream: Stream, mut envelope: Envelope, why: Sent, out: &mut Vec<Effect>) {
        let free = self.free_slots();
        if self.slots_told != Some(free) {
            self.slots_told = Some(free);
            self.slots_no += 1;
        }
        envelope.free_slots = Some(free);
        envelope.slots_no = Some(self.slots_no);
        self.told_of_slots(stream, free);
        let op = self.new_op();
        if let Sent::Event { run, seq } = why
            && let Some(run) = self.runs.get_mut(&run)
        {
            run.outgoing.sent(seq, op);
        }
        self.sent.insert(op, why);
        out.push(Effect::Transport {
            op,
            request: crate::port::TransportRequest::Append {
                stream,
                envelope: std::sync::Arc::new(envelope),
            },
        });
    }

    fn rejected(&self, why: &str, out: &mut Vec<Effect>) {
        out.push(Effect::Report(Report::new(ReportKind::Rejected, why)));
    }

    fn report_run(&self, run: RunId, kind: ReportKind, detail: &str, out: &mut Vec<Effect>) {
        if let Some(run) = self.runs.get(&run) {
            let report = Report::new(kind, detail);
            out.push(Effect::Report(report.about(
                &run.task_id,
                &run.node_id,
                Some(run.token),
            )));
        }
    }
}
