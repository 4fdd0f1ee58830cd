//! Stale, duplicated, reordered and lost inputs in any order never break an invariant, never start
//! a token twice, never leave a gap in a run's events; and once faults heal a drain always ends.

use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::bench::*;
use crate::hash::stable64;
use crate::id::{Incarnation, NodeId, Offset, OpId, Token};
use crate::json::Json;
use crate::message::{
    AdapterSpec, Artifact, Body, CancelReason, Envelope, InputReady, Metrics, SourceState,
    TaskCancel,
};
use crate::port::{
    Entry, ErrorKind, GrantView, PortError, StoreReply, StoreRequest, TransportReply,
    TransportRequest,
};
use crate::record::{ArtifactRecord, RECORD_VERSION, ScratchRecord};
use crate::time::Now;
use crate::worker::{Config, Effect, Input, RunCommand, RunEvent, RunId, Worker};

const NODES: [&str; 3] = ["a", "b", "c"];

/// The worker among a store, a transport and handlers that do anything at all.
struct Chaos {
    worker: Worker,
    at: u64,
    offset: u64,
    store: Vec<(OpId, StoreRequest)>,
    transport: Vec<(OpId, TransportRequest)>,
    /// Answered requests: their answers may come again.
    answered: Vec<OpId>,
    /// The outstanding command of each run.
    commands: BTreeMap<RunId, RunCommand>,
    batches: u64,
    /// Kinds of effects met, for people and for the test that nothing is left out.
    met: BTreeMap<String, u64>,
    stopped: bool,
    overdue: u32,
    // What is checked.
    granted: BTreeMap<NodeId, Token>,
    over: BTreeSet<(NodeId, Token)>,
    begun: BTreeSet<(NodeId, Token)>,
    accepted: BTreeSet<(NodeId, Token)>,
    run_of: BTreeMap<RunId, (NodeId, Token)>,
    seqs: BTreeMap<(NodeId, Token), u64>,
    ended: BTreeMap<(NodeId, Token), u64>,
}

impl Chaos {
    fn new() -> Self {
        let mut config = Config::new(id("w"), vec![role("count"), role("sum")], 2, 7);
        config.shards = 2;
        config.dedup_cache_size = 4;
        Self {
            worker: Worker::new(config),
            at: 1_000,
            offset: 0,
            store: Vec::new(),
            transport: Vec::new(),
            answered: Vec::new(),
            commands: BTreeMap::new(),
            batches: 0,
            met: BTreeMap::new(),
            stopped: false,
            overdue: 0,
            granted: BTreeMap::new(),
            over: BTreeSet::new(),
            begun: BTreeSet::new(),
            accepted: BTreeSet::new(),
            run_of: BTreeMap::new(),
            seqs: BTreeMap::new(),
            ended: BTreeMap::new(),
        }
    }

    fn input(&mut self, input: Input) {
        let mut out = Vec::new();
        self.worker.handle(Now::new(self.at, 0), input, &mut out);
        self.worker.check_invariants();
        assert!(!self.stopped || out.is_empty(), "nothing follows `Stopped`");
        for effect in out {
            self.effect(effect);
        }
        // What became due meanwhile (a failure counts from when the request was made) fires now.
        let due = self.worker.poll_timeout();
        if due.is_some_and(|due| due.0 <= self.at) {
            self.overdue += 1;
            assert!(self.overdue < 5, "a timer that is due fires for good");
            self.input(Input::Wake);
            self.overdue = 0;
        }
    }

    fn effect(&mut self, effect: Effect) {
        *self.met.entry(name_of(&effect)).or_default() += 1;
        match effect {
            Effect::Store { op, request } => self.store.push((op, request)),
            Effect::Transport { op, request } => {
                if let TransportRequest::Append { envelope, .. } = &request {
                    envelope.encode().expect("every message can be sent");
                    self.sent(envelope);
                }
                self.transport.push((op, request));
            }
            Effect::Run { run, command } => self.told(run, command),
            Effect::Report(_) => {}
            Effect::Stopped { .. } | Effect::Unregistered(_) => self.stopped = true,
        }
    }

    /// Events are numbered without gaps, and nothing follows the one that ends a run.
    fn sent(&mut self, envelope: &Envelope) {
        let (Some(node), Some(token), Some(seq)) =
            (&envelope.node_id, envelope.lease_no, envelope.seq)
        else {
            return;
        };
        let run = (node.clone(), token);
        let newest = self.seqs.entry(run.clone()).or_insert(0);
        assert!(seq <= *newest + 1, "no gap in the events of a run");
        *newest = seq.max(*newest);
        if !matches!(envelope.body, Body::BatchOk(_)) {
            let end = *self.ended.entry(run.clone()).or_insert(seq);
            assert!(seq <= end, "a run ends once");
        }
        if let Some(end) = self.ended.get(&run) {
            assert!(seq <= *end, "nothing follows the end of a run");
        }
    }

    fn told(&mut self, run: RunId, command: RunCommand) {
        match &command {
            RunCommand::Begin(spec) => {
                let token = (spec.node_id.clone(), spec.token);
                assert!(self.accepted.contains(&token), "accepted before it begins");
                assert!(self.begun.insert(token.clone()), "a token is run once");
                self.run_of.insert(run, token);
            }
            RunCommand::CheckpointSaved(_) | RunCommand::Cancel { .. } => return,
            RunCommand::Abort => {
                // An aborted handler still answers, or blocks for ever: see `answer`.
                return;
            }
            _ => {}
        }
        let old = self.commands.insert(run, command);
        assert!(old.is_none(), "one command at a time");
    }

    /// Answers a request of the store: well, or with an error.
    fn answer_store(&mut self, pick: u32, fail: bool) {
        if self.store.is_empty() {
            return;
        }
        let (op, request) = self.store.remove(pick as usize % self.store.len());
        let result = if fail {
            Err(error(pick))
        } else {
            Ok(self.store_reply(&request, pick))
        };
        self.answered.push(op);
        self.input(Input::StoreDone { op, result });
    }

    fn store_reply(&mut self, request: &StoreRequest, pick: u32) -> StoreReply {
        let odd = pick.is_multiple_of(5);
        match request {
            StoreRequest::RegisterWorker { .. } => StoreReply::Registered(Incarnation(3)),
            StoreRequest::ReadGrants { nodes, .. } => StoreReply::Grants {
                incarnation: Incarnation(3),
                grants: nodes
                    .iter()
                    .map(|(_, node)| {
                        Some(GrantView {
                            token: self.current(node, pick.is_multiple_of(19)),
                            cancelled: pick.is_multiple_of(23),
                            unreadable: false,
                        })
                    })
                    .collect(),
            },
            StoreRequest::ReadAccepted { after, .. } => {
                StoreReply::Accepted(vec![(after + 1, uid("b1"))])
            }
            StoreRequest::ReadArtifacts { node_id, after, .. } if !odd => {
                StoreReply::Artifacts(vec![artifact(node_id, after + 1)])
            }
            StoreRequest::ReadArtifacts { .. } => StoreReply::Artifacts(Vec::new()),
            StoreRequest::TakeScratch { .. } => StoreReply::Scratch(Some(ScratchRecord {
                token: Token(1),
                save_no: 1,
                batch_uid: Some(uid("b2")),
                checkpoint: json("5"),
            })),
            StoreRequest::ReadTask { .. } => StoreReply::Task(None),
            _ => StoreReply::Done,
        }
    }

    /// The current token of a node: the newest one granted, unless that was shown to be over. A
    /// store never calls a token current again.
    fn current(&mut self, node: &NodeId, over: bool) -> Option<Token> {
        let newest = self.granted.get(node).copied()?;
        if over {
            self.over.insert((node.clone(), newest));
        }
        Some(newest).filter(|token| !self.over.contains(&(node.clone(), *token)))
    }

    fn answer_transport(&mut self, pick: u32, fail: bool) {
        let waiting: Vec<_> = (0..self.transport.len())
            .filter(|index| !matches!(self.transport[*index].1, TransportRequest::Read { .. }))
            .collect();
        if waiting.is_empty() {
            return;
        }
        let (op, request) = self
            .transport
            .remove(waiting[pick as usize % waiting.len()]);
        self.answered.push(op);
        let result = if fail {
            Err(error(pick))
        } else {
            Ok(match &request {
                TransportRequest::Bounds { .. } => bounds(0, self.offset),
                TransportRequest::Append { envelope, .. } => {
                    if let Body::Heartbeat(heartbeat) = &envelope.body {
                        for run in &heartbeat.runs {
                            self.accepted.insert((run.node_id.clone(), run.token));
                        }
                    }
                    appended()
                }
                _ => TransportReply::Done,
            })
        };
        self.input(Input::TransportDone { op, result });
    }

    fn deliver(&mut self, envelope: Envelope) {
        // What an owner sends was granted before.
        if let (Some(node), Some(token)) = (envelope.node_id.clone(), envelope.lease_no) {
            let newest = self.granted.entry(node).or_default();
            *newest = token.max(*newest);
        }
        let Some(index) = self
            .transport
            .iter()
            .position(|(_, request)| matches!(request, TransportRequest::Read { .. }))
        else {
            return;
        };
        let (op, _) = self.transport.remove(index);
        self.offset += 1;
        let reply = TransportReply::Entries {
            entries: vec![Entry {
                offset: Offset(self.offset),
                message: Ok(Arc::new(envelope)),
            }],
            next: Offset(self.offset),
        };
        self.input(Input::TransportDone {
            op,
            result: Ok(reply),
        });
    }

    fn about(&self, pick: u32, body: Body) -> Envelope {
        let node = node(NODES[pick as usize % 3]);
        let newest = self.granted.get(&node).map_or(0, |token| token.0);
        let token = match pick / 3 % 8 {
            // Something old, or the next grant; mostly the current one.
            0 => u64::from(pick / 24) % (newest + 1),
            1 => newest + 1,
            _ => newest,
        };
        let mut envelope = command(token.max(1), body);
        envelope.node_id = Some(node);
        // Copies of a message keep their identity.
        envelope.identified(0)
    }

    fn begin(&mut self, pick: u32) {
        let mut start = start();
        start.lease_ttl_ms = 3_000;
        start.accepted = 3;
        start.checkpoint_batches = u64::from(pick % 2);
        if pick.is_multiple_of(4) {
            start.adapter = Some(AdapterSpec {
                name: "pull.from_artifacts".into(),
                args: json(r#"{"from_node":"s"}"#),
            });
            start.sources = vec![SourceState {
                node_id: node("s"),
                last: 2,
                ended: pick.is_multiple_of(8),
                kept_from: None,
            }];
        }
        let envelope = self.about(pick, Body::TaskStart(Box::new(start)));
        self.deliver(envelope);
    }

    fn cancel(&mut self, pick: u32) {
        let reasons = [
            CancelReason::UserRequest,
            CancelReason::Yield,
            CancelReason::Fenced,
            CancelReason::TaskFailed,
        ];
        let cancel = TaskCancel {
            reason: reasons[pick as usize / 7 % 4],
            grace_ms: u64::from(pick % 1_000),
        };
        let envelope = self.about(pick, Body::TaskCancel(cancel));
        self.deliver(envelope);
    }

    fn input_ready(&mut self, pick: u32) {
        let sources = vec![SourceState {
            node_id: node("s"),
            last: u64::from(pick % 9),
            ended: pick.is_multiple_of(3),
            kept_from: None,
        }];
        let envelope = self.about(pick, Body::InputReady(InputReady { sources }));
        self.deliver(envelope);
    }

    /// A handler answers its command, or says something it should not say now.
    fn answer(&mut self, pick: u32, wild: bool) {
        let runs: Vec<_> = self.run_of.keys().copied().collect();
        if runs.is_empty() {
            return;
        }
        let run = runs[pick as usize % runs.len()];
        if wild {
            self.wild(run, pick);
            return;
        }
        let Some(command) = self.commands.remove(&run) else {
            return;
        };
        self.batches += 1;
        let event = match command {
            RunCommand::Close => RunEvent::Closed,
            _ if pick.is_multiple_of(6) => RunEvent::Failed(failure(
                "odd",
                pick.is_multiple_of(12),
                pick.is_multiple_of(18),
            )),
            RunCommand::Begin(_) => RunEvent::Loaded { adapter: None },
            RunCommand::NextBatch if pick.is_multiple_of(4) => RunEvent::BatchesEnded,
            RunCommand::NextBatch => {
                batch(&format!("b{}", self.batches % 50), pick.is_multiple_of(3))
            }
            RunCommand::Process { .. } => RunEvent::Processed {
                metrics: metrics("n", "1"),
                artifact: artifact_of(pick),
                result: pick.is_multiple_of(5).then(|| json("[1]")),
            },
            RunCommand::Finalize { .. } => finalized(),
            other => panic!("not outstanding: {other:?}"),
        };
        if matches!(event, RunEvent::Closed) {
            self.run_of.remove(&run);
        }
        self.input(Input::Run { run, event });
    }

    fn wild(&mut self, run: RunId, pick: u32) {
        let event = match pick % 3 {
            0 => RunEvent::Checkpoint(json("7")),
            // Answers without a command are those of a handler that is busy with something else.
            _ if self.commands.contains_key(&run) => return,
            1 => processed(),
            _ => RunEvent::Loaded { adapter: None },
        };
        self.input(Input::Run { run, event });
    }

    fn act(&mut self, kind: u8, pick: u32) {
        match kind {
            0..=3 => self.answer_store(pick, false),
            4 => self.answer_store(pick, true),
            5..=8 => self.answer_transport(pick, false),
            9 => self.answer_transport(pick, true),
            10..=12 => self.begin(pick),
            13 => self.cancel(pick),
            14 => self.input_ready(pick),
            15..=20 => self.answer(pick, false),
            21 => self.answer(pick, true),
            22 => {
                // An answer comes a second time.
                if let Some(op) = self
                    .answered
                    .get(pick as usize % self.answered.len().max(1))
                {
                    let (op, result) = (*op, Ok(StoreReply::Done));
                    self.input(Input::StoreDone { op, result });
                    let result = Ok(appended());
                    self.input(Input::TransportDone { op, result });
                }
            }
            23 => {
                let grace_ms = u64::from(pick % 4_000);
                if pick.is_multiple_of(16) {
                    self.input(Input::Shutdown { grace_ms });
                }
            }
            24 => {
                self.at += u64::from(pick % 4_000);
                self.input(Input::Wake);
            }
            _ => {
                self.at += u64::from(pick % 60);
                self.input(Input::Wake);
            }
        }
    }

    /// Faults heal: every request is answered well, every handler answers; the drain must end.
    fn settle(&mut self) {
        self.input(Input::Shutdown { grace_ms: 1_000 });
        for _ in 0..2_000 {
            if self.stopped {
                return;
            }
            self.answer_store(1, false);
            self.answer_transport(1, false);
            for _ in 0..3 {
                self.answer(1, false);
            }
            self.at += 5;
            self.input(Input::Wake);
        }
        panic!("the drain does not end: {:?}", self.worker);
    }
}

fn name_of(effect: &Effect) -> String {
    let text = match effect {
        Effect::Transport {
            request: TransportRequest::Append { envelope, .. },
            ..
        } => match &envelope.body {
            Body::TaskRefused(refused) => format!("{refused:?}"),
            Body::TaskReleased(released) => format!("{released:?}"),
            body => return body.kind().to_owned(),
        },
        Effect::Store { request, .. } => format!("{request:?}"),
        Effect::Run { command, .. } => format!("{command:?}"),
        Effect::Report(report) => format!("{:?}", report.kind),
        other => format!("{other:?}"),
    };
    let end = text
        .find(['(', ' '])
        .filter(|_| !text.starts_with("TaskRe"));
    text[..end.unwrap_or(text.len())].to_owned()
}

fn error(pick: u32) -> PortError {
    let kind = match pick % 5 {
        0 | 1 => ErrorKind::Retry,
        2 | 3 => ErrorKind::Unknown,
        _ if pick.is_multiple_of(2) => ErrorKind::Invalid,
        _ => ErrorKind::Fenced,
    };
    PortError::new(kind, "op", "detail")
}

fn artifact_of(pick: u32) -> Option<Json> {
    match pick % 5 {
        0 => None,
        1 => Some(Json::encode(&"x".repeat(300 * 1024)).unwrap()),
        _ => Some(json("[1]")),
    }
}

fn artifact(source: &NodeId, number: u64) -> ArtifactRecord {
    ArtifactRecord {
        version: RECORD_VERSION,
        task_id: task(),
        node_id: source.clone(),
        number,
        batch_uid: uid(&format!("s{number}")),
        token: Token(1),
        metrics: Metrics::new(),
        artifact: Some(Artifact::Inline(json("[1]"))),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    // What must be met, and is: see `random_inputs_reach_every_corner`.
    #[test]
    fn any_mix_of_inputs_keeps_the_invariants(
        actions in prop::collection::vec((0_u8..30, any::<u32>()), 1..400),
    ) {
        let mut chaos = Chaos::new();
        chaos.input(Input::Wake);
        chaos.answer_transport(1, false);
        chaos.answer_store(1, false);
        for (kind, pick) in actions {
            chaos.act(kind, pick);
        }
        if !chaos.stopped {
            chaos.settle();
        }
    }
}

/// The random test is worth something only if it gets everywhere.
#[test]
fn random_inputs_reach_every_corner() {
    let mut met: BTreeMap<String, u64> = BTreeMap::new();
    let mut seed = 7_u64;
    let mut draw = || {
        seed = stable64(&[&seed.to_le_bytes()]);
        seed
    };
    for _ in 0..2_000 {
        let mut chaos = Chaos::new();
        chaos.input(Input::Wake);
        chaos.answer_transport(1, false);
        chaos.answer_store(1, false);
        for _ in 0..draw() % 600 {
            let drawn = draw();
            let kind = u8::try_from(drawn % 30).expect("below 30");
            chaos.act(kind, (drawn >> 32) as u32);
        }
        if !chaos.stopped {
            chaos.settle();
        }
        for (name, count) in chaos.met {
            *met.entry(name).or_default() += count;
        }
    }
    let wanted = [
        "Begin",
        "NextBatch",
        "Process",
        "Finalize",
        "Close",
        "Abort",
        "Cancel",
        "CheckpointSaved",
        "BATCH_OK",
        "TASK_DONE",
        "TASK_FAILED",
        "CANCELLED",
        "HEARTBEAT",
        "SLOT_FREE",
        "WORKER_ONLINE",
        "WORKER_OFFLINE",
        "TaskRefused { reason: Busy }",
        "TaskRefused { reason: NotCurrent }",
        "TaskRefused { reason: Draining }",
        "TaskRefused { reason: StoreUnreachable }",
        "TaskReleased { reason: Fenced }",
        "TaskReleased { reason: Yield }",
        "TaskReleased { reason: LeaseLapsed }",
        "TaskReleased { reason: Shutdown }",
        "TaskReleased { reason: StoreUnreachable }",
        "TakeScratch",
        "PutScratch",
        "StageArtifact",
        "ReadAccepted",
        "ReadArtifacts",
        "ReadTask",
        "Abandoned",
        "Rejected",
        "PortFailed",
        "Stopped",
    ];
    let missing: Vec<_> = wanted
        .iter()
        .filter(|name| !met.contains_key(**name))
        .collect();
    assert!(missing.is_empty(), "never met: {missing:?} of {met:?}");
}
