//! A worker under test, with short names for what goes in and what comes out.

use std::sync::Arc;

use crate::hash::stable64;
use crate::id::{
    BatchUid, DedupId, Epoch, Incarnation, NodeId, Offset, OpId, Role, ShardId, TaskId, Token,
    WorkerId, inbox_of,
};
use crate::json::Json;
use crate::message::{
    BatchOk, Body, CancelReason, Cancelled, Capabilities, Capacity, Counts, Envelope, Heartbeat,
    Metrics, RefusalReason, ReleaseReason, RunBeat, Sender, SenderRole, TaskCancel, TaskDone,
    TaskFailed, TaskRefused, TaskReleased, TaskStart, WorkerOffline, WorkerOnline,
};
use crate::port::{
    Entry, ErrorKind, GrantView, PortError, StoreReply, StoreRequest, Stream, TransportReply,
    TransportRequest,
};
use crate::report::{Report, ReportKind};
use crate::time::{Mono, Now};
use crate::worker::{
    Config, Effect, Input, RunCommand, RunEvent, RunFailure, RunId, RunSpec, Worker,
};

pub(super) const TTL: u64 = 9_000;

/// The worker, its clock, and the places of its streams.
pub(super) struct Bench {
    pub(super) worker: Worker,
    pub(super) at: u64,
    inbox: u64,
    /// The read of the inbox that is under way.
    pub(super) read_op: u64,
    /// The number of the slots in the message that left last.
    pub(super) slots_no: u64,
}

impl Bench {
    /// A worker that was never woken.
    pub(super) fn cold(change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::new(id("w"), vec![role("count"), role("sum")], 2, 7);
        change(&mut config);
        Self {
            worker: Worker::new(config),
            at: 1_000,
            inbox: 7,
            read_op: 0,
            slots_no: 0,
        }
    }

    /// A registered worker of incarnation 3 whose announcement is confirmed.
    pub(super) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(super) fn with(change: impl FnOnce(&mut Config)) -> Self {
        let mut bench = Self::cold(change);
        bench.input(Input::Wake);
        bench.transport(1, bounds(0, 7));
        bench.store(2, StoreReply::Registered(Incarnation(3)));
        bench.transport(3, appended());
        // The first announcement also asks whether a newer process is alive.
        bench.store(5, grants(&[]));
        bench.read_op = 4;
        bench
    }

    pub(super) fn input(&mut self, input: Input) -> Vec<Effect> {
        let mut out = Vec::new();
        let now = Now::new(self.at, 0);
        self.worker.handle(now, input, &mut out);
        self.worker.check_invariants();
        for effect in &mut out {
            match effect {
                Effect::Transport {
                    op,
                    request: TransportRequest::Read { .. },
                } => self.read_op = op.0,
                // Every message has one; its own test looks at it.
                Effect::Transport {
                    request: TransportRequest::Append { envelope, .. },
                    ..
                } => {
                    let slots_no = Arc::make_mut(envelope).slots_no.take();
                    self.slots_no = slots_no.expect("the number of the slots");
                }
                _ => {}
            }
        }
        out
    }

    pub(super) fn store(&mut self, op: u64, reply: StoreReply) -> Vec<Effect> {
        self.input(Input::StoreDone {
            op: OpId(op),
            result: Ok(reply),
        })
    }

    pub(super) fn store_fails(&mut self, op: u64, kind: ErrorKind) -> Vec<Effect> {
        self.input(Input::StoreDone {
            op: OpId(op),
            result: Err(PortError::new(kind, "op", "detail")),
        })
    }

    pub(super) fn transport(&mut self, op: u64, reply: TransportReply) -> Vec<Effect> {
        self.input(Input::TransportDone {
            op: OpId(op),
            result: Ok(reply),
        })
    }

    pub(super) fn transport_fails(&mut self, op: u64, kind: ErrorKind) -> Vec<Effect> {
        self.input(Input::TransportDone {
            op: OpId(op),
            result: Err(PortError::new(kind, "op", "detail")),
        })
    }

    pub(super) fn confirm(&mut self, op: u64) -> Vec<Effect> {
        self.transport(op, appended())
    }

    pub(super) fn run(&mut self, run: u64, event: RunEvent) -> Vec<Effect> {
        self.input(Input::Run {
            run: RunId(run),
            event,
        })
    }

    /// Messages arrive in the inbox. The next read of the inbox is left out of the effects.
    pub(super) fn arrive(&mut self, envelopes: Vec<Envelope>) -> Vec<Effect> {
        let from = self.inbox;
        self.inbox += envelopes.len() as u64;
        let entries = envelopes
            .into_iter()
            .zip(from..)
            .map(|(envelope, offset)| Entry {
                offset: Offset(offset),
                message: Ok(Arc::new(envelope)),
            })
            .collect();
        let reply = TransportReply::Entries {
            entries,
            next: Offset(self.inbox),
        };
        let read = self.read_op;
        let mut out = self.transport(read, reply);
        out.retain(|effect| {
            !matches!(
                effect,
                Effect::Transport {
                    request: TransportRequest::Read { .. },
                    ..
                }
            )
        });
        out
    }

    /// Time passes; timers fire.
    pub(super) fn pass(&mut self, ms: u64) -> Vec<Effect> {
        self.at += ms;
        self.input(Input::Wake)
    }

    /// The worker's run 1 has a handler that waits in `process` of batch `a`.
    pub(super) fn processing(&mut self) {
        self.begin(start(), 1);
        self.run(1, RunEvent::Loaded { adapter: None });
        self.run(1, batch("a", false));
    }

    /// Brings run 1 of `start(token)` to its Begin. Returns the effects of the last step.
    pub(super) fn begin(&mut self, start: TaskStart, token: u64) -> Vec<Effect> {
        let out = self.arrive(vec![command(token, Body::TaskStart(Box::new(start)))]);
        let read = op_of(&out[0]);
        let out = self.store(read, grants(&[Some((token, false))]));
        let beat = op_of(&out[0]);
        self.confirm(beat)
    }
}

pub(super) fn id(text: &str) -> WorkerId {
    WorkerId::new(text).unwrap()
}
pub(super) fn role(text: &str) -> Role {
    Role::new(text).unwrap()
}
pub(super) fn task() -> TaskId {
    TaskId::new("t").unwrap()
}
pub(super) fn node(text: &str) -> NodeId {
    NodeId::new(text).unwrap()
}
pub(super) fn uid(text: &str) -> BatchUid {
    BatchUid::new(text).unwrap()
}
pub(super) fn json(text: &str) -> Json {
    Json::parse(text).unwrap()
}

pub(super) fn metrics(name: &str, value: &str) -> Metrics {
    Metrics::from([(Arc::from(name), json(value))])
}

pub(super) fn start() -> TaskStart {
    TaskStart {
        input: json("{}"),
        adapter: None,
        lease_ttl_ms: TTL,
        checkpoint: None,
        checkpoint_batches: 0,
        cursor: Default::default(),
        cursor_batches: 0,
        accepted: 0,
        totals: Default::default(),
        vars: Json::null(),
        sources: Vec::new(),
    }
}

/// A command of the owner about node `n` of task `t`.
pub(super) fn command(token: u64, body: Body) -> Envelope {
    let owner = Sender {
        role: SenderRole::Coordinator,
        id: "c".into(),
        incarnation: Incarnation(0),
    };
    let mut envelope = Envelope::new(owner, 0, body);
    envelope.to = Some("w".into());
    envelope.to_incarnation = Some(Incarnation(3));
    envelope.task_id = Some(task());
    envelope.node_id = Some(node("n"));
    envelope.step_type = Some(role("count"));
    envelope.attempt_epoch = Some(Epoch(1));
    envelope.lease_no = Some(Token(token));
    envelope.dedup_id = DedupId(stable64(&[
        &token.to_le_bytes(),
        envelope.body.kind().as_bytes(),
    ]));
    envelope
}

/// A TASK_START of node `n`.
pub(super) fn started(token: u64) -> Envelope {
    command(token, Body::TaskStart(Box::new(start())))
}

pub(super) fn bounds(start: u64, end: u64) -> TransportReply {
    TransportReply::Bounds {
        start: Offset(start),
        end: Offset(end),
    }
}

pub(super) fn appended() -> TransportReply {
    TransportReply::Appended { offset: Offset(0) }
}

/// Grants as read: token and cancelled flag; the worker's incarnation is 3.
pub(super) fn grants(views: &[Option<(u64, bool)>]) -> StoreReply {
    StoreReply::Grants {
        incarnation: Incarnation(3),
        grants: views
            .iter()
            .map(|view| {
                Some(GrantView {
                    token: view.map(|(token, _)| Token(token)),
                    cancelled: view.is_some_and(|(_, cancelled)| cancelled),
                    unreadable: false,
                })
            })
            .collect(),
    }
}

pub(super) fn op_of(effect: &Effect) -> u64 {
    match effect {
        Effect::Store { op, .. } | Effect::Transport { op, .. } => op.0,
        other => panic!("no request: {other:?}"),
    }
}

fn worker() -> Sender {
    Sender {
        role: SenderRole::Worker,
        id: "w".into(),
        incarnation: Incarnation(3),
    }
}

fn append(op: u64, stream: Stream, envelope: Envelope) -> Effect {
    Effect::Transport {
        op: OpId(op),
        request: TransportRequest::Append {
            stream,
            envelope: Arc::new(envelope),
        },
    }
}

pub(super) fn shard() -> Stream {
    Stream::Shard(ShardId(0))
}

pub(super) fn inbox() -> Stream {
    Stream::Inbox(inbox_of("w", 1))
}

/// A message about no node, with its nonce.
pub(super) fn plain(op: u64, stream: Stream, body: Body, nonce: u64, free: u32) -> Effect {
    let mut envelope = Envelope::new(worker(), 0, body).identified(nonce);
    envelope.free_slots = Some(free);
    append(op, stream, envelope)
}

pub(super) fn online(op: u64, nonce: u64, status: &str, free: u32) -> Effect {
    announced(op, nonce, status, free, 0)
}

pub(super) fn announced(op: u64, nonce: u64, status: &str, free: u32, abandoned: u32) -> Effect {
    let body = Body::WorkerOnline(WorkerOnline {
        worker_id: id("w"),
        kind: "count,sum".into(),
        capabilities: Capabilities {
            roles: vec![role("count"), role("sum")],
        },
        version: "2.0.0".into(),
        capacity: Capacity { tasks: 2 },
        status: status.into(),
        incarnation: Incarnation(3),
        inbox: inbox_of("w", 1),
        abandoned,
        announce_interval_ms: 60_000,
    });
    plain(op, Stream::Announcements, body, nonce, free)
}

pub(super) fn offline(op: u64, nonce: u64) -> Effect {
    let body = Body::WorkerOffline(WorkerOffline {
        worker_id: id("w"),
        incarnation: Incarnation(3),
    });
    plain(op, Stream::Announcements, body, nonce, 0)
}

pub(super) fn read_inbox(op: u64, from: u64) -> Effect {
    Effect::Transport {
        op: OpId(op),
        request: TransportRequest::Read {
            stream: inbox(),
            from: Offset(from),
            limit: 256,
            wait_ms: 30_000,
        },
    }
}

/// A heartbeat that names tokens of node `n`: (token, batches, in_batch_ms).
pub(super) fn beat(op: u64, nonce: u64, runs: &[(u64, u64, u64)], free: u32) -> Effect {
    let runs = runs.iter().map(|(token, batches, in_batch_ms)| RunBeat {
        task_id: task(),
        node_id: node("n"),
        token: Token(*token),
        batches: *batches,
        in_batch_ms: *in_batch_ms,
    });
    let body = Body::Heartbeat(Heartbeat {
        runs: runs.collect(),
    });
    plain(op, shard(), body, nonce, free)
}

fn about(token: u64, body: Body) -> Envelope {
    let mut envelope = Envelope::new(worker(), 0, body);
    envelope.task_id = Some(task());
    envelope.node_id = Some(node("n"));
    envelope.lease_no = Some(Token(token));
    envelope
}

pub(super) fn refused(op: u64, token: u64, reason: RefusalReason, free: u32) -> Effect {
    let body = Body::TaskRefused(TaskRefused { reason });
    let mut envelope = about(token, body).identified(0);
    envelope.free_slots = Some(free);
    append(op, shard(), envelope)
}

/// An event of a run of node `n`.
pub(super) fn event(op: u64, token: u64, seq: u64, body: Body, free: u32) -> Effect {
    let mut envelope = about(token, body);
    envelope.step_type = Some(role("count"));
    envelope.attempt_epoch = Some(Epoch(1));
    envelope.seq = Some(seq);
    let mut envelope = envelope.identified(0);
    envelope.free_slots = Some(free);
    append(op, shard(), envelope)
}

/// The end of a token that was never taken.
pub(super) fn unknown_end(op: u64, token: u64, body: Body, free: u32) -> Effect {
    let mut envelope = about(token, body);
    envelope.seq = Some(1);
    let mut envelope = envelope.identified(0);
    envelope.free_slots = Some(free);
    append(op, shard(), envelope)
}

pub(super) fn store_op(op: u64, request: StoreRequest) -> Effect {
    Effect::Store {
        op: OpId(op),
        request,
    }
}

/// A read of the grants of node `n` (or of nothing).
pub(super) fn read_grants(op: u64, nodes: usize) -> Effect {
    let request = StoreRequest::ReadGrants {
        worker_id: id("w"),
        nodes: vec![(task(), node("n")); nodes],
    };
    store_op(op, request)
}

pub(super) fn tell(run: u64, command: RunCommand) -> Effect {
    Effect::Run {
        run: RunId(run),
        command,
    }
}

pub(super) fn spec(token: u64, start: &TaskStart) -> RunCommand {
    RunCommand::Begin(Box::new(RunSpec {
        task_id: task(),
        node_id: node("n"),
        role: role("count"),
        epoch: Epoch(1),
        token: Token(token),
        input: start.input.clone(),
        adapter: start.adapter.clone(),
        checkpoint: start.checkpoint.clone(),
        accepted: start.accepted,
        totals: start.totals.clone(),
        vars: start.vars.clone(),
    }))
}

pub(super) fn note(kind: ReportKind, token: u64, detail: &str) -> Effect {
    Effect::Report(Report::new(kind, detail).about(&task(), &node("n"), Some(Token(token))))
}

pub(super) fn process(batch: &str, payload: &str, checkpoint: Option<&str>) -> RunCommand {
    RunCommand::Process {
        batch_uid: uid(batch),
        payload: json(payload),
        checkpoint: checkpoint.map(json),
    }
}

pub(super) fn batch(batch_uid: &str, last: bool) -> RunEvent {
    RunEvent::Batch {
        batch_uid: uid(batch_uid),
        payload: json("1"),
        last,
    }
}

pub(super) fn processed() -> RunEvent {
    RunEvent::Processed {
        metrics: Metrics::new(),
        artifact: None,
        result: None,
    }
}

pub(super) fn finalized() -> RunEvent {
    RunEvent::Finalized {
        metrics: Metrics::new(),
        result: None,
    }
}

pub(super) fn failure(code: &str, permanent: bool, cancelled: bool) -> RunFailure {
    RunFailure {
        reason_code: code.into(),
        permanent,
        error: "text".into(),
        retry_after_ms: None,
        cancelled,
    }
}

/// BATCH_OK of a batch that left nothing.
pub(super) fn ok(batch_uid: &str) -> BatchOk {
    BatchOk {
        batch_uid: uid(batch_uid),
        metrics: Metrics::new(),
        artifact: None,
        checkpoint: None,
        cursor: None,
        result: None,
    }
}

/// TASK_DONE with (new, skipped, behind_checkpoint).
pub(super) fn done(counts: (u64, u64, u64), last_batch: Option<BatchOk>) -> Body {
    Body::TaskDone(TaskDone {
        metrics: Metrics::new(),
        result: None,
        counts: Counts {
            new: counts.0,
            skipped: counts.1,
            behind_checkpoint: counts.2,
        },
        last_batch,
    })
}

pub(super) fn task_failed(
    batch_uid: Option<&str>,
    code: &str,
    permanent: bool,
    text: &str,
) -> Body {
    Body::TaskFailed(TaskFailed {
        batch_uid: batch_uid.map(uid),
        reason_code: code.into(),
        permanent,
        error: text.into(),
        retry_after_ms: None,
    })
}

pub(super) fn released(reason: ReleaseReason) -> Body {
    Body::TaskReleased(TaskReleased { reason })
}

pub(super) fn cancelled(reason: CancelReason) -> Body {
    Body::Cancelled(Cancelled { reason })
}

/// A TASK_CANCEL of node `n`.
pub(super) fn cancel(token: u64, reason: CancelReason, grace_ms: u64) -> Envelope {
    command(token, Body::TaskCancel(TaskCancel { reason, grace_ms }))
}

/// The handler of run 1 is told to end.
pub(super) fn told(reason: CancelReason, deadline: u64) -> Effect {
    let deadline = Mono(deadline);
    tell(1, RunCommand::Cancel { reason, deadline })
}

pub(super) fn ended(token: u64, kind: &str) -> Effect {
    note(ReportKind::Run, token, &format!("ended: {kind}"))
}
