//! What a worker's driver saw.

use flowkit_core::id::{Incarnation, NodeId, Offset, OpId, Role, TaskId, Token, WorkerId};
use flowkit_core::message::Body;
use flowkit_core::port::{PortError, StoreReply, Stream, TransportReply, TransportRequest};
use flowkit_core::report::{Report, ReportKind};
use flowkit_core::time::Mono;
use flowkit_core::worker::{Effect, Input, RunCommand, RunEvent, RunId, Worker as Machine};
use std::collections::BTreeMap;

use super::figures::{Calls, Histogram};
use super::{Trouble, counted};

/// A worker as its driver sees it now. Times are ages in milliseconds on this process's clock;
/// `None` where it never happened.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct WorkerVitals {
    /// The worker.
    pub worker_id: WorkerId,
    /// This process start, once the store has counted it.
    pub incarnation: Option<Incarnation>,
    /// It takes STARTs: registered, not stopping, the store answers.
    pub takes_work: bool,
    /// Free slots, as its messages say.
    pub free_slots: u32,
    /// Runs whose handler was given up and still holds its slot.
    pub abandoned: usize,
    /// Length of a lease, as of the newest START.
    pub lease_ttl_ms: u64,
    /// Time between announcements.
    pub announce_interval_ms: u64,
    /// Its inbox, and how far it has read it.
    pub inbox: (Stream, Offset),
    /// Since it was started.
    pub uptime_ms: u64,
    /// The store answered last.
    pub store_ok_ms: Option<u64>,
    /// A grant was read last: a START that waited for it, or the regular look.
    pub grant_read_ms: Option<u64>,
    /// A heartbeat was confirmed last.
    pub heartbeat_ms: Option<u64>,
    /// Any message was confirmed last.
    pub sent_ms: Option<u64>,
    /// A read of the inbox was answered last, with entries or without.
    pub inbox_ms: Option<u64>,
    /// What went wrong last.
    pub last_error: Option<Trouble>,
    /// Counts by role.
    pub roles: BTreeMap<Role, RoleFigures>,
    /// Calls to the store.
    pub store: Calls,
    /// Calls to the transport.
    pub transport: Calls,
    /// Reports by kind.
    pub reports: BTreeMap<ReportKind, u64>,
}

/// Counts of one role.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RoleFigures {
    /// Runs whose handler was started.
    pub runs_started: u64,
    /// Ended runs by the message that ended them: `TASK_DONE`, `TASK_FAILED`, `CANCELLED`,
    /// `TASK_RELEASED`.
    pub runs_ended: BTreeMap<&'static str, u64>,
    /// All of these, with the times since their handler was started.
    pub runs: Histogram,
    /// Batches that succeeded, with their times.
    pub batches: Histogram,
    /// Batches that failed.
    pub batches_failed: u64,
}

/// Counts on the driver's way.
#[derive(Debug)]
pub(crate) struct WorkerWatch {
    /// When it was first told something.
    started: Option<Mono>,
    announce_interval_ms: u64,
    asked: BTreeMap<OpId, (&'static str, Mono)>,
    runs: BTreeMap<RunId, Run>,
    /// The run whose handler closed last: its end is told in the same step.
    closed: Option<Run>,
    store_ok: Option<Mono>,
    grant_read: Option<Mono>,
    heartbeat: Option<Mono>,
    sent: Option<Mono>,
    inbox: Option<Mono>,
    last_error: Option<(String, Mono)>,
    roles: BTreeMap<Role, RoleFigures>,
    store: Calls,
    transport: Calls,
    reports: BTreeMap<ReportKind, u64>,
}

#[derive(Debug)]
struct Run {
    task_id: TaskId,
    node_id: NodeId,
    token: Token,
    role: Role,
    /// Its handler was started.
    begun: Mono,
    /// A batch is in work since then.
    since: Option<Mono>,
}

impl WorkerWatch {
    pub(crate) fn new(announce_interval_ms: u64) -> Self {
        Self {
            started: None,
            announce_interval_ms,
            asked: BTreeMap::new(),
            runs: BTreeMap::new(),
            closed: None,
            store_ok: None,
            grant_read: None,
            heartbeat: None,
            sent: None,
            inbox: None,
            last_error: None,
            roles: BTreeMap::new(),
            store: Calls::default(),
            transport: Calls::default(),
            reports: BTreeMap::new(),
        }
    }

    /// The machine is about to be told this.
    pub(crate) fn input(&mut self, input: &Input, now: Mono) {
        self.started.get_or_insert(now);
        match input {
            Input::StoreDone { op, result } => self.store_done(*op, result, now),
            Input::TransportDone { op, result } => self.transport_done(*op, result, now),
            Input::Run { run, event } => self.event(*run, event, now),
            Input::Wake | Input::Shutdown { .. } => {}
        }
    }

    fn store_done(&mut self, op: OpId, result: &Result<StoreReply, PortError>, now: Mono) {
        let Some((name, at)) = self.asked.remove(&op) else {
            return;
        };
        // A refusal is an answer, too: the store was reached.
        let reached = !matches!(result, Err(error) if is_away(error));
        self.store.ended(name, now.since(at), result.is_ok());
        if reached {
            self.store_ok = Some(now);
        }
        match result {
            Ok(StoreReply::Grants { .. }) => self.grant_read = Some(now),
            Ok(_) => {}
            Err(error) => self.last_error = Some((format!("store: {error}"), now)),
        }
    }

    fn transport_done(&mut self, op: OpId, result: &Result<TransportReply, PortError>, now: Mono) {
        let Some((name, at)) = self.asked.remove(&op) else {
            return;
        };
        self.transport.ended(name, now.since(at), result.is_ok());
        match result {
            Ok(TransportReply::Appended { .. }) => {
                self.sent = Some(now);
                if name == "append_heartbeat" {
                    self.heartbeat = Some(now);
                }
            }
            Ok(TransportReply::Entries { .. }) => self.inbox = Some(now),
            Ok(_) => {}
            Err(error) => self.last_error = Some((format!("transport: {error}"), now)),
        }
    }

    fn event(&mut self, run: RunId, event: &RunEvent, now: Mono) {
        if *event == RunEvent::Closed {
            self.closed = self.runs.remove(&run);
            return;
        }
        let ends = matches!(event, RunEvent::Processed { .. } | RunEvent::Failed(_));
        let Some(run) = self.runs.get_mut(&run).filter(|_| ends) else {
            return;
        };
        let Some(since) = run.since.take() else {
            return;
        };
        if let Some(figures) = self.roles.get_mut(&run.role) {
            match event {
                RunEvent::Processed { .. } => figures.batches.add(now.since(since)),
                _ => figures.batches_failed += 1,
            }
        }
    }

    /// The machine has asked for this.
    pub(crate) fn effect(&mut self, effect: &Effect, now: Mono) {
        match effect {
            Effect::Store { op, request } => {
                self.asked.insert(*op, (request.name(), now));
            }
            Effect::Transport { op, request } => {
                self.asked.insert(*op, (transport_name(request), now));
            }
            Effect::Run { run, command } => self.command(*run, command, now),
            Effect::Report(report) => self.report(report, now),
            Effect::Stopped { .. } | Effect::Unregistered(_) => {}
        }
    }

    fn command(&mut self, run: RunId, command: &RunCommand, now: Mono) {
        match command {
            RunCommand::Begin(spec) => {
                let role = counted(&self.roles, &spec.role);
                self.roles.entry(role.clone()).or_default().runs_started += 1;
                let begun = Run {
                    task_id: spec.task_id.clone(),
                    node_id: spec.node_id.clone(),
                    token: spec.token,
                    role,
                    begun: now,
                    since: None,
                };
                self.runs.insert(run, begun);
            }
            RunCommand::Process { .. } => {
                if let Some(run) = self.runs.get_mut(&run) {
                    run.since = Some(now);
                }
            }
            _ => {}
        }
    }

    fn report(&mut self, report: &Report, now: Mono) {
        *self.reports.entry(report.kind).or_default() += 1;
        if report.kind == ReportKind::Run {
            self.ended(report, now);
        }
        if report.kind.is_trouble() {
            let text = format!("{}: {}", report.kind.name(), report.detail);
            self.last_error = Some((text, now));
        }
    }

    /// Counts the message by which a run ended, which its report names.
    fn ended(&mut self, report: &Report, now: Mono) {
        let Some(kind) = report.detail.strip_prefix("ended: ").and_then(ending) else {
            return;
        };
        let mut known = self.runs.values().chain(&self.closed);
        let run = known.find(|run| {
            report.task_id.as_ref() == Some(&run.task_id)
                && report.node_id.as_ref() == Some(&run.node_id)
                && report.token == Some(run.token)
        });
        let Some(run) = run else {
            return;
        };
        if let Some(figures) = self.roles.get_mut(&run.role) {
            *figures.runs_ended.entry(kind).or_default() += 1;
            figures.runs.add(now.since(run.begun));
        }
    }

    pub(crate) fn vitals(
        &self,
        machine: &Machine,
        worker_id: &WorkerId,
        now: Mono,
    ) -> WorkerVitals {
        let age = |at: Option<Mono>| at.map(|at| now.since(at));
        WorkerVitals {
            worker_id: worker_id.clone(),
            incarnation: machine.incarnation(),
            takes_work: machine.is_ready(),
            free_slots: machine.free_slots(),
            abandoned: machine.abandoned(),
            lease_ttl_ms: machine.lease_ttl_ms(),
            announce_interval_ms: self.announce_interval_ms,
            inbox: machine.inbox_position(),
            uptime_ms: age(self.started).unwrap_or(0),
            store_ok_ms: age(self.store_ok),
            grant_read_ms: age(self.grant_read),
            heartbeat_ms: age(self.heartbeat),
            sent_ms: age(self.sent),
            inbox_ms: age(self.inbox),
            last_error: self.last_error.as_ref().map(|(text, at)| Trouble {
                text: text.clone(),
                age_ms: now.since(*at),
            }),
            roles: self.roles.clone(),
            store: self.store.clone(),
            transport: self.transport.clone(),
            reports: self.reports.clone(),
        }
    }
}

/// The port was not reached, or may not have been.
pub(super) const fn is_away(error: &PortError) -> bool {
    use flowkit_core::port::ErrorKind;
    matches!(error.kind, ErrorKind::Retry | ErrorKind::Unknown)
}

/// The kinds of message that end a run.
fn ending(kind: &str) -> Option<&'static str> {
    const KINDS: [&str; 4] = ["TASK_DONE", "TASK_FAILED", "CANCELLED", "TASK_RELEASED"];
    KINDS.into_iter().find(|known| *known == kind)
}

pub(super) fn transport_name(request: &TransportRequest) -> &'static str {
    match request {
        TransportRequest::Append { envelope, .. } => match envelope.body {
            Body::Heartbeat(_) => "append_heartbeat",
            _ => "append",
        },
        TransportRequest::Read { .. } => "read",
        TransportRequest::Bounds { .. } => "bounds",
        TransportRequest::Forget { .. } => "forget",
    }
}
