//! What a coordinator's driver saw.

use flowkit_core::coordinator::{Effect, Input};
use flowkit_core::id::{Offset, OpId, Role, ShardId};
use flowkit_core::port::{
    Commit, PortError, Record, StoreReply, StoreRequest, Stream, TransportReply, TransportRequest,
};
use flowkit_core::record::{TaskRecord, TaskState};
use flowkit_core::report::{Report, ReportKind};
use flowkit_core::time::Mono;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::Trouble;
use super::figures::{Calls, Histogram};
use super::worker::{is_away, transport_name};

/// A coordinator as its driver sees it now. Times are ages in milliseconds on this process's clock;
/// `None` where it never happened.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CoordinatorVitals {
    /// Since it was started.
    pub uptime_ms: u64,
    /// The shards of the deployment.
    pub shards_all: u32,
    /// The shards that it owns.
    pub shards: BTreeMap<ShardId, ShardVitals>,
    /// Length of its lease on a shard.
    pub shard_lease_ttl_ms: u64,
    /// Tasks that are not settled, of its shards.
    pub tasks_in_flight: usize,
    /// Ready nodes that wait for a slot, by role; beyond 64 roles the rest is `other`.
    pub waiting: BTreeMap<Role, usize>,
    /// The store answered last.
    pub store_ok_ms: Option<u64>,
    /// What went wrong last.
    pub last_error: Option<Trouble>,
    /// Commits that the store has taken.
    pub commits: u64,
    /// Records in them.
    pub records: u64,
    /// Batches that were accepted.
    pub batches_accepted: u64,
    /// Settled tasks by their terminal state.
    pub tasks_settled: BTreeMap<&'static str, u64>,
    /// The same with their times from submission to end, by the clocks of the coordinators that saw them.
    pub tasks: BTreeMap<&'static str, Histogram>,
    /// Entries read from the shards' streams.
    pub entries_read: u64,
    /// Calls to the store.
    pub store: Calls,
    /// Calls to the transport.
    pub transport: Calls,
    /// Reports by kind.
    pub reports: BTreeMap<ReportKind, u64>,
}

/// One owned shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShardVitals {
    /// How far its stream is folded.
    pub next: Offset,
    /// Its lease was taken or renewed last.
    pub renewed_ms: Option<u64>,
}

/// What the machine itself says.
#[derive(Clone, Debug, Default)]
pub(crate) struct Overview {
    pub(crate) positions: Vec<(ShardId, Offset)>,
    pub(crate) waiting: BTreeMap<Role, usize>,
    pub(crate) tasks_in_flight: usize,
}

/// A store request under way.
#[derive(Debug)]
struct Request {
    name: &'static str,
    at: Mono,
    /// The lease of this shard was asked for.
    lease: Option<ShardId>,
    commit: Option<Arc<Commit>>,
}

/// Counts on the driver's way.
#[derive(Debug)]
pub(crate) struct CoordinatorWatch {
    /// When it was first told something, and the newest time of that.
    started: Option<Mono>,
    newest: Mono,
    shards_all: u32,
    shard_lease_ttl_ms: u64,
    asked: BTreeMap<OpId, Request>,
    renewed: BTreeMap<ShardId, Mono>,
    store_ok: Option<Mono>,
    last_error: Option<(String, Mono)>,
    commits: u64,
    records: u64,
    batches_accepted: u64,
    tasks_settled: BTreeMap<&'static str, u64>,
    tasks: BTreeMap<&'static str, Histogram>,
    entries_read: u64,
    store: Calls,
    transport: Calls,
    reports: BTreeMap<ReportKind, u64>,
}

impl CoordinatorWatch {
    pub(crate) fn new(shards_all: u32, shard_lease_ttl_ms: u64) -> Self {
        Self {
            started: None,
            newest: Mono(0),
            shards_all,
            shard_lease_ttl_ms,
            asked: BTreeMap::new(),
            renewed: BTreeMap::new(),
            store_ok: None,
            last_error: None,
            commits: 0,
            records: 0,
            batches_accepted: 0,
            tasks_settled: BTreeMap::new(),
            tasks: BTreeMap::new(),
            entries_read: 0,
            store: Calls::default(),
            transport: Calls::default(),
            reports: BTreeMap::new(),
        }
    }

    /// The machine panicked; what it had asked for is nobody's any more.
    pub(crate) fn panicked(&mut self, text: &str) {
        self.asked.clear();
        self.last_error = Some((format!("the machine panicked: {text}"), self.newest));
    }

    /// The machine is about to be told this.
    pub(crate) fn input(&mut self, input: &Input, now: Mono) {
        self.started.get_or_insert(now);
        self.newest = now;
        match input {
            Input::StoreDone { op, result } => self.store_done(*op, result, now),
            Input::TransportDone { op, result } => self.transport_done(*op, result, now),
            _ => {}
        }
    }

    fn store_done(&mut self, op: OpId, result: &Result<StoreReply, PortError>, now: Mono) {
        let Some(request) = self.asked.remove(&op) else {
            return;
        };
        let ok = result.is_ok();
        self.store.ended(request.name, now.since(request.at), ok);
        match result {
            Ok(StoreReply::Lease(lease)) if lease.held => {
                if let Some(shard) = request.lease {
                    // A lease runs from the moment it was asked for.
                    self.renewed.insert(shard, request.at);
                }
            }
            Ok(StoreReply::Committed { .. }) => {
                if let Some(commit) = request.commit {
                    self.committed(&commit);
                }
            }
            Ok(_) => {}
            Err(error) => {
                self.last_error = Some((format!("store: {error}"), now));
                if is_away(error) {
                    return;
                }
            }
        }
        self.store_ok = Some(now);
    }

    fn committed(&mut self, commit: &Commit) {
        self.commits += 1;
        self.records += commit.records.len() as u64;
        for record in &commit.records {
            match record {
                Record::Artifact(_) => self.batches_accepted += 1,
                // The last record of a task in memory: it is dropped once it is settled.
                Record::Task(task) if task.settled => {
                    let outcome = state_name(task.state);
                    *self.tasks_settled.entry(outcome).or_default() += 1;
                    self.tasks.entry(outcome).or_default().add(took_ms(task));
                    // For logs; and a trace's root, which is told at its end (observe/src/traces/).
                    tracing::debug!(
                        target: "flowkit_runtime::task",
                        task = %task.task_id,
                        outcome,
                        reason = task.failure.as_ref().map(|failure| &*failure.reason_code),
                        created_at_ms = u64::try_from(task.created_at_ms).unwrap_or_default(),
                        "the task is settled"
                    );
                }
                Record::Task(_) | Record::Node(_) => {}
                Record::Tombstone(_) | Record::Remove(_) => {}
            }
        }
    }

    fn transport_done(&mut self, op: OpId, result: &Result<TransportReply, PortError>, now: Mono) {
        let Some(request) = self.asked.remove(&op) else {
            return;
        };
        let ok = result.is_ok();
        self.transport
            .ended(request.name, now.since(request.at), ok);
        match result {
            Ok(TransportReply::Entries { entries, .. }) if request.lease.is_some() => {
                self.entries_read += entries.len() as u64;
            }
            Ok(_) => {}
            Err(error) => self.last_error = Some((format!("transport: {error}"), now)),
        }
    }

    /// The machine has asked for this.
    pub(crate) fn effect(&mut self, effect: &Effect, now: Mono) {
        match effect {
            Effect::Store { op, request } => {
                let lease = match request {
                    StoreRequest::AcquireShard { shard, .. } => Some(*shard),
                    _ => None,
                };
                let commit = match request {
                    StoreRequest::Commit(commit) => Some(commit.clone()),
                    _ => None,
                };
                let asked = Request {
                    name: request.name(),
                    at: now,
                    lease,
                    commit,
                };
                self.asked.insert(*op, asked);
            }
            Effect::Transport { op, request } => {
                let lease = match request {
                    TransportRequest::Read {
                        stream: Stream::Shard(shard),
                        ..
                    } => Some(*shard),
                    _ => None,
                };
                let asked = Request {
                    name: transport_name(request),
                    at: now,
                    lease,
                    commit: None,
                };
                self.asked.insert(*op, asked);
            }
            Effect::Report(report) => self.report(report, now),
            Effect::Stopped => {}
        }
    }

    fn report(&mut self, report: &Report, now: Mono) {
        *self.reports.entry(report.kind).or_default() += 1;
        if report.kind.is_trouble() {
            let text = format!("{}: {}", report.kind.name(), report.detail);
            self.last_error = Some((text, now));
        }
    }

    pub(crate) fn vitals(&self, machine: Overview, now: Mono) -> CoordinatorVitals {
        let age = |at: &Mono| now.since(*at);
        let mut waiting: BTreeMap<Role, usize> = BTreeMap::new();
        for (role, nodes) in machine.waiting {
            let role = super::counted(&waiting, &role);
            *waiting.entry(role).or_default() += nodes;
        }
        let shards = machine.positions.into_iter().map(|(shard, next)| {
            let renewed_ms = self.renewed.get(&shard).map(age);
            (shard, ShardVitals { next, renewed_ms })
        });
        CoordinatorVitals {
            uptime_ms: self.started.as_ref().map_or(0, age),
            shards_all: self.shards_all,
            shards: shards.collect(),
            shard_lease_ttl_ms: self.shard_lease_ttl_ms,
            tasks_in_flight: machine.tasks_in_flight,
            waiting,
            store_ok_ms: self.store_ok.as_ref().map(age),
            last_error: self.last_error.as_ref().map(|(text, at)| Trouble {
                text: text.clone(),
                age_ms: age(at),
            }),
            commits: self.commits,
            records: self.records,
            batches_accepted: self.batches_accepted,
            tasks_settled: self.tasks_settled.clone(),
            tasks: self.tasks.clone(),
            entries_read: self.entries_read,
            store: self.store.clone(),
            transport: self.transport.clone(),
            reports: self.reports.clone(),
        }
    }
}

/// From its submission to its terminal state; 0 if the clock was set back in between.
fn took_ms(task: &TaskRecord) -> u64 {
    let end = task.history.entries.last().map(|entry| entry.at_ms);
    let took_ms = end.map(|at_ms| at_ms.saturating_sub(task.created_at_ms));
    took_ms.and_then(|ms| u64::try_from(ms).ok()).unwrap_or(0)
}

const fn state_name(state: TaskState) -> &'static str {
    match state {
        TaskState::Finished => "finished",
        TaskState::Failed => "failed",
        TaskState::Cancelled => "cancelled",
        TaskState::Quarantined => "quarantined",
        _ => "other",
    }
}
