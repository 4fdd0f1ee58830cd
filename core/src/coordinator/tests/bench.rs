//! A machine with one worker, driven by hand: the test is its store and its transport.

use std::sync::Arc;

use crate::control::TaskOptions;
use crate::coordinator::{Config, Coordinator, Effect, Input};
use crate::id::{
    ClientId, Epoch, Incarnation, NodeId, Offset, OpId, Role, ShardId, TaskId, Token, WorkerId,
};
use crate::json::Json;
use crate::message::{
    BatchOk, Body, Counts, Envelope, Heartbeat, RunBeat, Sender, SenderRole, Submit, TaskDone,
};
use crate::port::{
    Commit, Entry, LeaseView, PortError, Record, StoreReply, StoreRequest, Stream, TaskPage,
    TaskWithNodes, TransportReply, TransportRequest,
};
use crate::record::{NodeRecord, ShardRecord, TaskRecord, WorkerRecord};
use crate::time::Now;

pub(super) const SHARD: ShardId = ShardId(0);

/// The machine under test and the op of its newest read of the stream.
#[derive(Debug)]
pub(super) struct Bench {
    pub(super) machine: Coordinator,
    pub(super) now_ms: u64,
    pub(super) fetch: Option<OpId>,
    pub(super) next: u64,
    /// Effects of the last input, reads of streams left out.
    pub(super) out: Vec<Effect>,
}

pub(super) fn config() -> Config {
    let mut config = Config::new(ClientId::new("c1").expect("an id"), 7);
    config.shard_lease_ttl_ms = 5_000;
    config.lease_ttl_ms = 10_000;
    config
}

pub(super) fn shard_record(epoch: u64, commit_seq: u64) -> ShardRecord {
    ShardRecord {
        shard: SHARD,
        epoch,
        commit_seq,
        commit_id: 0,
        next: Offset(0),
        last_entry: None,
    }
}

pub(super) fn worker_record(id: &str, incarnation: u64, roles: &[&str]) -> WorkerRecord {
    WorkerRecord {
        version: 1,
        worker_id: WorkerId::new(id).expect("an id"),
        incarnation: Incarnation(incarnation),
        start_nonce: 0,
        roles: roles
            .iter()
            .map(|r| Role::new(r).expect("a role"))
            .collect(),
        capacity: 2,
        inbox: 0,
        worker_version: Arc::from("1"),
    }
}

impl Bench {
    /// A machine that owns shard 0, empty, and knows one worker `w1` with two slots.
    pub(super) fn owned() -> Self {
        let mut config = config();
        // The test answers no renewal and no long poll.
        config.shard_lease_ttl_ms = 1_000_000;
        Self::owned_with(
            config,
            Vec::new(),
            vec![worker_record("w1", 1, &["a", "b"])],
        )
    }

    pub(super) fn owned_with(
        config: Config,
        tasks: Vec<TaskWithNodes>,
        workers: Vec<WorkerRecord>,
    ) -> Self {
        let mut bench = Self {
            machine: Coordinator::new(config),
            now_ms: 1_000,
            fetch: None,
            next: 0,
            out: Vec::new(),
        };
        let out = bench.raw(Input::Wake);
        let [announce, probe] = ops(&out)[..] else {
            panic!("two reads of bounds: {out:?}")
        };
        let bounds = |end| TransportReply::Bounds {
            start: Offset(0),
            end: Offset(end),
        };
        let out = bench.raw(transport_ok(announce, bounds(0)));
        bench.raw(store_ok(ops(&out)[0], StoreReply::Workers(workers.into())));
        let out = bench.raw(transport_ok(probe, bounds(0)));
        let lease = LeaseView {
            held: true,
            owner: ClientId::new("c1").expect("an id"),
            remaining_ms: 5_000,
        };
        let out = bench.raw(store_ok(ops(&out)[0], StoreReply::Lease(lease)));
        let out = bench.raw(store_ok(
            ops(&out)[0],
            StoreReply::Shard(shard_record(0, 0)),
        ));
        let out = bench.raw(store_ok(
            ops(&out)[0],
            StoreReply::Shard(shard_record(1, 0)),
        ));
        let page = TaskPage {
            tasks,
            unreadable: Vec::new(),
            more: false,
        };
        let out = bench.raw(store_ok(ops(&out)[0], StoreReply::Tasks(page)));
        let out = bench.raw(transport_ok(ops(&out)[0], bounds(0)));
        bench.keep(out);
        bench
    }

    /// One input; the effects as they are.
    pub(super) fn raw(&mut self, input: Input) -> Vec<Effect> {
        let mut out = Vec::new();
        let now = Now::new(self.now_ms, 1_700_000_000_000);
        self.machine.handle(now, input, &mut out);
        self.machine.check_invariants();
        out
    }

    fn keep(&mut self, mut out: Vec<Effect>) {
        out.retain(|effect| match effect {
            Effect::Transport {
                op,
                request: TransportRequest::Read { stream, .. },
            } => {
                if *stream == Stream::Shard(SHARD) {
                    self.fetch = Some(*op);
                }
                false
            }
            _ => true,
        });
        self.out = out;
    }

    /// One input; what follows is in `out`, reads of streams left out.
    pub(super) fn input(&mut self, input: Input) -> &[Effect] {
        let out = self.raw(input);
        self.keep(out);
        &self.out
    }

    /// Messages arrive in the shard's stream.
    pub(super) fn arrive(&mut self, messages: Vec<Envelope>) -> &[Effect] {
        let op = self.fetch.take().expect("the machine reads its stream");
        let entries = messages
            .into_iter()
            .map(|message| {
                let offset = Offset(self.next);
                self.next += 1;
                Entry {
                    offset,
                    message: Ok(Arc::new(message)),
                }
            })
            .collect();
        self.input(transport_ok(
            op,
            TransportReply::Entries {
                entries,
                next: Offset(self.next),
            },
        ))
    }

    /// The clock moves on and the machine is woken.
    pub(super) fn pass(&mut self, ms: u64) -> &[Effect] {
        self.now_ms += ms;
        self.input(Input::Wake)
    }

    /// The commit that `out` asks for.
    pub(super) fn commit(&self) -> (OpId, Commit) {
        let commits: Vec<_> = self
            .out
            .iter()
            .filter_map(|effect| match effect {
                Effect::Store {
                    op,
                    request: StoreRequest::Commit(commit),
                } => Some((*op, (**commit).clone())),
                _ => None,
            })
            .collect();
        let [commit] = &commits[..] else {
            panic!("one commit, not {:?}", self.out)
        };
        commit.clone()
    }

    /// Cuts what is open and lets the store take it; what then leaves is in `out`.
    pub(super) fn take_commit(&mut self) -> Commit {
        let is_commit = |effect: &Effect| {
            matches!(
                effect,
                Effect::Store {
                    request: StoreRequest::Commit(_),
                    ..
                }
            )
        };
        if !self.out.iter().any(is_commit) {
            self.input(Input::Idle);
        }
        let (op, commit) = self.commit();
        self.input(store_ok(op, StoreReply::Committed { seq: commit.seq }));
        commit
    }

    /// Answers every lookup in `out`: the store knows nothing of the tasks.
    pub(super) fn unknown_tasks(&mut self) -> &[Effect] {
        let (op, count) = self
            .out
            .iter()
            .find_map(|effect| match effect {
                Effect::Store {
                    op,
                    request: StoreRequest::LookupTasks { tasks },
                } => Some((*op, tasks.len())),
                _ => None,
            })
            .expect("a lookup");
        self.input(store_ok(op, StoreReply::Answers(vec![None; count])))
    }

    /// Submits a task and commits it: its STARTs are in `out`.
    pub(super) fn submitted(&mut self, task: &str, graph: &str) -> Commit {
        self.arrive(vec![submit(task, graph)]);
        self.unknown_tasks();
        self.take_commit()
    }

    /// The same with vars.
    pub(super) fn submitted_with(&mut self, task: &str, graph: &str, vars: &str) -> Commit {
        self.submit_with(task, graph, vars);
        self.take_commit()
    }

    /// Submits a task with vars; what follows is in `out`.
    pub(super) fn submit_with(&mut self, task: &str, graph: &str, vars: &str) {
        let mut message = submit(task, graph);
        if let Body::Submit(submit) = &mut message.body {
            submit.vars = Json::parse(vars).expect("JSON");
        }
        self.arrive(vec![message]);
        self.unknown_tasks();
    }

    /// Messages that `out` sends, with the worker or client they go to.
    pub(super) fn sent(&self) -> Vec<(String, Body)> {
        self.out
            .iter()
            .filter_map(|effect| match effect {
                Effect::Transport {
                    request: TransportRequest::Append { envelope, .. },
                    ..
                } => Some((envelope.to.as_deref()?.to_string(), envelope.body.clone())),
                _ => None,
            })
            .collect()
    }

    /// Kinds and nodes of what `out` sends.
    pub(super) fn sent_kinds(&self) -> Vec<String> {
        self.out
            .iter()
            .filter_map(|effect| match effect {
                Effect::Transport {
                    request: TransportRequest::Append { envelope, .. },
                    ..
                } => {
                    let node = envelope.node_id.as_ref().map_or("-", NodeId::as_str);
                    let token = envelope.lease_no.map_or(0, |t| t.0);
                    Some(format!("{} {node} {token}", envelope.body.kind()))
                }
                _ => None,
            })
            .collect()
    }
}

pub(super) fn ops(effects: &[Effect]) -> Vec<OpId> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Store { op, .. } | Effect::Transport { op, .. } => Some(*op),
            _ => None,
        })
        .collect()
}

pub(super) fn store_ok(op: OpId, reply: StoreReply) -> Input {
    Input::StoreDone {
        op,
        result: Ok(reply),
    }
}

pub(super) fn store_error(op: OpId, error: PortError) -> Input {
    Input::StoreDone {
        op,
        result: Err(error),
    }
}

pub(super) fn transport_ok(op: OpId, reply: TransportReply) -> Input {
    Input::TransportDone {
        op,
        result: Ok(reply),
    }
}

pub(super) fn task_id(text: &str) -> TaskId {
    TaskId::new(text).expect("a task id")
}

pub(super) fn node_id(text: &str) -> NodeId {
    NodeId::new(text).expect("a node id")
}

fn from(role: SenderRole, id: &str, incarnation: u64, body: Body) -> Envelope {
    let incarnation = Incarnation(incarnation);
    Envelope::new(
        Sender {
            role,
            id: Arc::from(id),
            incarnation,
        },
        0,
        body,
    )
}

pub(super) fn client(task: &str, body: Body) -> Envelope {
    let mut message = from(SenderRole::Client, "client", 0, body);
    message.task_id = Some(task_id(task));
    message.corr_id = Some(Arc::from("corr"));
    message.identified(0)
}

pub(super) fn submit(task: &str, graph: &str) -> Envelope {
    client(
        task,
        Body::Submit(Submit {
            graph: Json::parse(graph).expect("JSON"),
            vars: Json::null(),
            idempotency_key: None,
            options: TaskOptions::default(),
            inbox: 0,
        }),
    )
}

/// An event of a run of worker `w1`, first process.
pub(super) fn event(task: &str, node: &str, token: u64, seq: u64, body: Body) -> Envelope {
    let mut message = from(SenderRole::Worker, "w1", 1, body);
    message.task_id = Some(task_id(task));
    message.node_id = Some(node_id(node));
    message.lease_no = Some(Token(token));
    message.seq = Some(seq);
    message.identified(0)
}

pub(super) fn beat(task: &str, node: &str, token: u64) -> Envelope {
    let run = RunBeat {
        task_id: task_id(task),
        node_id: node_id(node),
        token: Token(token),
        batches: 0,
        in_batch_ms: 0,
    };
    from(
        SenderRole::Worker,
        "w1",
        1,
        Body::Heartbeat(Heartbeat { runs: vec![run] }),
    )
    .identified(0)
}

pub(super) fn batch(uid: &str) -> BatchOk {
    BatchOk {
        batch_uid: uid.parse().expect("a batch uid"),
        metrics: [(Arc::from("n"), Json::parse("2").expect("JSON"))].into(),
        artifact: None,
        checkpoint: None,
        cursor: None,
        result: None,
    }
}

pub(super) fn done(new: u64, skipped: u64, behind: u64) -> Body {
    Body::TaskDone(TaskDone {
        metrics: Default::default(),
        result: None,
        counts: Counts {
            new,
            skipped,
            behind_checkpoint: behind,
        },
        last_batch: None,
    })
}

pub(super) fn node_of<'a>(commit: &'a Commit, node: &str) -> &'a NodeRecord {
    commit
        .records
        .iter()
        .find_map(|record| match record {
            Record::Node(record) if record.node_id.as_str() == node => Some(&**record),
            _ => None,
        })
        .unwrap_or_else(|| panic!("no record of {node} in {commit:?}"))
}

pub(super) fn task_of(commit: &Commit) -> &TaskRecord {
    commit
        .records
        .iter()
        .find_map(|record| match record {
            Record::Task(record) => Some(&**record),
            _ => None,
        })
        .expect("a task record")
}

/// An epoch, for comparisons that read well.
pub(super) const fn epoch(n: u32) -> Epoch {
    Epoch(n)
}
