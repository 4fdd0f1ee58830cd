//! The worker's life: registration, announcements, its inbox, the drain.

use super::Worker;
use super::calls::{For, Sent};
use super::cancel::ABANDON_AFTER_MS;
use super::io::{Effect, RunCommand};
use super::timers::Timer;
use crate::id::{Incarnation, WorkerId, inbox_of};
use crate::message::{
    Body, CancelReason, Capabilities, Capacity, Envelope, WorkerOffline, WorkerOnline,
};
use crate::planted::{Bug, is_planted};
use crate::port::{
    ErrorKind, PortError, StoreReply, StoreRequest, Stream, TransportReply, TransportRequest,
};
use crate::report::{Report, ReportKind};
use crate::time::{Mono, Now};
use serde::Serialize;

/// Who was told that a worker is full hears after a while that it has room: more may change meanwhile.
const ROOM_NEWS_MS: u64 = 250;
/// Longest wait of one read of the inbox, in milliseconds.
const READ_WAIT_MS: u64 = 30_000;
/// Most entries of one read.
const READ_LIMIT: u32 = 256;
/// Time for the last messages once every handler is gone or given up.
const FAREWELL_MS: u64 = 1_000;

/// Where the process stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) enum Phase {
    New,
    /// Looks up the end of its inbox, then registers.
    Booting,
    Running,
    Stopped,
}

/// A graceful stop.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Drain {
    /// When running batches are aborted.
    pub(super) deadline: Mono,
    /// WORKER_OFFLINE is on its way.
    offline: bool,
}

impl Worker {
    pub(super) fn wake(&mut self, now: Now, out: &mut Vec<Effect>) {
        if self.phase == Phase::New {
            self.phase = Phase::Booting;
            self.boot(now, out);
        }
    }

    /// The inbox's end must be known before anybody knows the worker: nothing sent to it is missed.
    pub(super) fn boot(&mut self, _now: Now, out: &mut Vec<Effect>) {
        let stream = self.inbox();
        self.ask_transport(Sent::Bounds, TransportRequest::Bounds { stream }, out);
    }

    pub(super) fn bounds_known(
        &mut self,
        result: Result<TransportReply, PortError>,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        let Ok(TransportReply::Bounds { start, end }) = result else {
            self.boot_failures += 1;
            let wait_ms = self.backoff_ms(self.boot_failures);
            self.timers.set(Timer::Boot, now.mono.after(wait_ms));
            return;
        };
        self.boot_failures = 0;
        if self.phase == Phase::Running {
            // The place that was read is gone. What the log still holds is read from its start:
            // commands that are not current are recognised as such.
            self.inbox_next = start;
            self.read_inbox(out);
            return;
        }
        self.inbox_next = end;
        self.register(Incarnation(0), now, out);
    }

    fn register(&mut self, expected: Incarnation, now: Now, out: &mut Vec<Effect>) {
        let request = StoreRequest::RegisterWorker {
            worker_id: self.config.worker_id.clone(),
            expected,
            start_nonce: self.config.start_nonce,
            roles: self.config.roles.clone(),
            capacity: self.config.capacity,
            inbox: inbox_of(self.config.worker_id.as_str(), self.config.inboxes),
            worker_version: self.config.worker_version.clone(),
        };
        self.call(For::Register, request, now, out);
    }

    pub(super) fn registered(
        &mut self,
        result: Result<StoreReply, PortError>,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        let incarnation = match result {
            Ok(StoreReply::Registered(incarnation)) => incarnation,
            Ok(StoreReply::IncarnationIs(stored)) => return self.register(stored, now, out),
            // It stays so, however often it is tried.
            Err(error) if error.kind == ErrorKind::Corrupt => {
                self.phase = Phase::Stopped;
                self.timers.clear();
                return out.push(Effect::Unregistered(error));
            }
            _ => {
                self.boot_failures += 1;
                let wait_ms = self.backoff_ms(self.boot_failures);
                self.timers.set(Timer::Boot, now.mono.after(wait_ms));
                return;
            }
        };
        self.boot_failures = 0;
        self.incarnation = incarnation;
        self.sender.incarnation = incarnation;
        self.phase = Phase::Running;
        self.announce(now, out);
        self.read_inbox(out);
    }

    pub(super) fn announce(&mut self, now: Now, out: &mut Vec<Effect>) {
        if self.phase != Phase::Running {
            return;
        }
        let every_ms = self.config.announce_interval_ms;
        if !is_planted(Bug::AnnouncedOnce) {
            self.timers.set(Timer::Announce, now.mono.after(every_ms));
        }
        // An idle worker asks here whether a newer process of its id is alive.
        self.grants.probe();
        let body = Body::WorkerOnline(self.announcement());
        let nonce = self.nonce();
        let envelope = Envelope::new(self.sender.clone(), now.wall_ms, body).identified(nonce);
        self.send(Stream::Announcements, envelope, Sent::Online, out);
    }

    /// What the worker says of itself.
    fn announcement(&self) -> WorkerOnline {
        let config = &self.config;
        let roles = &config.roles;
        let names: Vec<&str> = roles.iter().map(crate::id::Role::as_str).collect();
        let mut online = WorkerOnline {
            worker_id: config.worker_id.clone(),
            kind: names.join(",").into(),
            capabilities: Capabilities {
                roles: roles.clone(),
            },
            version: config.worker_version.clone(),
            capacity: Capacity {
                tasks: config.capacity,
            },
            status: match self.drain {
                Some(_) => "draining".into(),
                None => "online".into(),
            },
            incarnation: self.incarnation,
            inbox: inbox_of(config.worker_id.as_str(), config.inboxes),
            abandoned: u32::try_from(self.abandoned()).unwrap_or(u32::MAX),
            announce_interval_ms: config.announce_interval_ms,
        };
        spoil(&mut online);
        online
    }

    /// What each owner believes of the slots here: that none is free, or that some are.
    pub(super) fn told_of_slots(&mut self, stream: Stream, free: u32) {
        match stream {
            Stream::Announcements => {
                self.announced_full = free == 0;
                if free > 0 {
                    self.full_to.clear();
                }
            }
            Stream::Shard(shard) if free == 0 => {
                self.full_to.insert(shard);
            }
            Stream::Shard(shard) => {
                self.full_to.remove(&shard);
                self.announced_full &= self.config.shards > 1;
            }
            Stream::Inbox(_) => {}
        }
    }

    /// An owner that was told that the worker is full hears of the slots again with the next message of a
    /// run of its own, if it has one here. It should not wait for the next announcement otherwise.
    pub(super) fn look_for_room(&mut self, now: Now) {
        let told_full = self.announced_full || !self.full_to.is_empty();
        if told_full && self.free_slots() > 0 && !is_planted(Bug::RoomUntold) {
            let at = now.mono.after(ROOM_NEWS_MS);
            self.timers.set_earlier(Timer::Room, at);
        }
    }

    /// Room that lasted is worth telling; a slot between two runs is not.
    pub(super) fn tell_of_room(&mut self, now: Now, out: &mut Vec<Effect>) {
        if self.free_slots() == 0 {
            return;
        }
        if self.announced_full {
            self.announce(now, out);
        }
        for shard in std::mem::take(&mut self.full_to) {
            let nonce = self.nonce();
            let envelope = Envelope::new(self.sender.clone(), now.wall_ms, Body::SlotFree);
            let envelope = envelope.identified(nonce);
            self.send(Stream::Shard(shard), envelope, Sent::Room { shard }, out);
        }
    }

    pub(super) fn online_sent(&mut self, result: &Result<TransportReply, PortError>, now: Now) {
        if result.is_ok() {
            self.announce_failures = 0;
            return;
        }
        self.announce_failures += 1;
        let wait_ms = self.backoff_ms(self.announce_failures);
        self.timers
            .set_earlier(Timer::Announce, now.mono.after(wait_ms));
    }

    pub(super) fn read_inbox(&mut self, out: &mut Vec<Effect>) {
        let request = TransportRequest::Read {
            stream: self.inbox(),
            from: self.inbox_next,
            limit: READ_LIMIT,
            wait_ms: READ_WAIT_MS,
        };
        self.ask_transport(Sent::Inbox, request, out);
    }

    pub(super) fn inbox_read(
        &mut self,
        result: Result<TransportReply, PortError>,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        match result {
            Ok(TransportReply::Entries { entries, next }) => {
                self.inbox_failures = 0;
                self.inbox_next = self.inbox_next.max(next);
                for entry in entries {
                    self.entry(entry, now, out);
                }
                self.read_inbox(out);
            }
            Err(error) if error.kind == ErrorKind::Invalid => self.boot(now, out),
            Ok(_) | Err(_) => {
                self.inbox_failures += 1;
                let wait_ms = self.backoff_ms(self.inbox_failures);
                self.timers.set(Timer::Inbox, now.mono.after(wait_ms));
            }
        }
    }

    /// A graceful stop: no new work, running batches end within the grace, runs are handed over.
    pub(super) fn shut_down(&mut self, grace_ms: u64, now: Now, out: &mut Vec<Effect>) {
        if self.phase != Phase::Running {
            // Nobody knows this process yet.
            self.stop(false, out);
            return;
        }
        let deadline = now.mono.after(grace_ms);
        let first = self.drain.is_none();
        if self.drain.is_some_and(|drain| drain.deadline <= deadline) {
            return;
        }
        let offline = self.drain.is_some_and(|drain| drain.offline);
        self.drain = Some(Drain { deadline, offline });
        if !offline && !is_planted(Bug::DrainUnbounded) {
            let end = deadline.after(ABANDON_AFTER_MS + FAREWELL_MS);
            self.timers.set(Timer::DrainEnd, end);
        }
        let runs: Vec<_> = self.runs.keys().copied().collect();
        if first && !runs.is_empty() {
            // Owners send nothing more while the runs end.
            self.announce(now, out);
        }
        for run in runs {
            if is_planted(Bug::DrainUntold) {
                continue;
            }
            self.end_run(run, CancelReason::Shutdown, deadline, now, out);
        }
    }

    /// Says goodbye once every run is handed over and confirmed.
    pub(super) fn stop_if_drained(&mut self, now: Now, out: &mut Vec<Effect>) {
        if self.phase == Phase::Running && self.drain.is_some() && self.runs.is_empty() {
            self.go_offline(now, out);
        }
    }

    /// The time for handing over is up: a goodbye, and a short wait for its confirmation.
    pub(super) fn drain_over(&mut self, now: Now, out: &mut Vec<Effect>) {
        if self.drain.is_some_and(|drain| drain.offline) {
            self.stop(false, out);
        } else {
            self.go_offline(now, out);
        }
    }

    fn go_offline(&mut self, now: Now, out: &mut Vec<Effect>) {
        let Some(drain) = self.drain.as_mut().filter(|drain| !drain.offline) else {
            return;
        };
        drain.offline = true;
        self.timers
            .set(Timer::DrainEnd, now.mono.after(FAREWELL_MS));
        self.timers.cancel(Timer::Announce);
        let body = Body::WorkerOffline(WorkerOffline {
            worker_id: self.config.worker_id.clone(),
            incarnation: self.incarnation,
        });
        let nonce = self.nonce();
        let envelope = Envelope::new(self.sender.clone(), now.wall_ms, body).identified(nonce);
        self.send(Stream::Announcements, envelope, Sent::Offline, out);
    }

    /// Confirmed or not: owners that miss it see the lease end.
    pub(super) fn offline_sent(&mut self, out: &mut Vec<Effect>) {
        self.stop(false, out);
    }

    /// A newer process of this worker id is alive: drop everything, send nothing more.
    pub(super) fn superseded(&mut self, by: Incarnation, now: Now, out: &mut Vec<Effect>) {
        let detail = format!(
            "incarnation {by} of this worker is alive; this is {}",
            self.incarnation
        );
        out.push(Effect::Report(Report::new(ReportKind::Superseded, detail)));
        for (run, state) in &self.runs {
            if self.slots.holds(*run) && !state.work.before_begin() {
                for command in [
                    RunCommand::Cancel {
                        reason: CancelReason::Fenced,
                        deadline: now.mono,
                    },
                    RunCommand::Abort,
                ] {
                    out.push(Effect::Run { run: *run, command });
                }
            }
        }
        self.stop(true, out);
    }

    fn stop(&mut self, superseded: bool, out: &mut Vec<Effect>) {
        self.phase = Phase::Stopped;
        self.timers.clear();
        out.push(Effect::Stopped { superseded });
    }

    pub(super) fn inbox(&self) -> Stream {
        Stream::Inbox(inbox_of(
            self.config.worker_id.as_str(),
            self.config.inboxes,
        ))
    }

    /// The store has been failing for a while: say that no slot is free, refuse what waits.
    pub(super) fn store_away(&mut self, now: Now, out: &mut Vec<Effect>) {
        self.contact.call_away();
        if self.contact.is_away() {
            self.announce(now, out);
            self.refuse_unchecked(now, out);
        }
    }

    /// The store has been failing for a whole lease: hand every run over.
    pub(super) fn store_lost(&mut self, now: Now, out: &mut Vec<Effect>) {
        if !self.contact.is_failing() {
            return;
        }
        let runs: Vec<_> = self.runs.keys().copied().collect();
        let deadline = now.mono.after(super::cancel::LAPSE_GRACE_MS);
        for run in runs {
            self.end_run(run, CancelReason::StoreUnreachable, deadline, now, out);
        }
    }
}

/// What planted bugs do to an announcement.
fn spoil(online: &mut WorkerOnline) {
    if is_planted(Bug::AnnouncedAsAnother)
        && let Ok(another) = WorkerId::new("another")
    {
        online.worker_id = another;
    }
    if is_planted(Bug::AnnouncedOneRole) {
        online.capabilities.roles.truncate(1);
    }
    if is_planted(Bug::AnnouncedOneType)
        && let Some(first) = online.capabilities.roles.first()
    {
        online.kind = first.as_str().into();
    }
    if is_planted(Bug::AnnouncedRoom) {
        online.capacity.tasks += 1;
    }
    if is_planted(Bug::AnnouncedUnversioned) {
        online.version = "".into();
    }
    if is_planted(Bug::AnnouncedLeaving) {
        online.status = "draining".into();
    }
}
