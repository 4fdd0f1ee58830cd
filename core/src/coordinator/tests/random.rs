//! Random inputs (stale, duplicated, reordered, lost, refused) never break an invariant.

use proptest::prelude::*;
use std::collections::BTreeMap;

use super::bench::*;
use crate::coordinator::{Effect, Input, Limit, Limits};
use crate::id::{Incarnation, Offset, OpId};
use crate::message::{
    Body, CancelReason, CancelTask, Cancelled, ControlTask, Envelope, RefusalReason, ReleaseReason,
    TaskFailed, TaskRefused, TaskReleased, WaitTask,
};
use crate::port::{
    ErrorKind, PortError, StoreReply, StoreRequest, Stream, TransportReply, TransportRequest,
};

const GRAPHS: [&str; 3] = [
    r#"{"nodes":[{"node_id":"a","type":"a","retry_policy":{"max":2,"backoff_sec":1,"losses_max":3}}]}"#,
    r#"{"nodes":[{"node_id":"a","type":"a"},
        {"node_id":"b","type":"b","depends_on":["a"],"io":{"start_when":"first_batch",
         "input_inline":{"input_adapter":"pull.from_artifacts","input_args":{"from_nodes":["a"]}}}},
        {"node_id":"c","type":"a","depends_on":["b"]}]}"#,
    r#"{"nodes":[{"node_id":"a","type":"a","routing":{"on_success":["b"],"on_failure":["c"]}},
        {"node_id":"b","type":"b"},{"node_id":"c","type":"a"}]}"#,
];

#[derive(Clone, Debug)]
enum Step {
    Submit {
        task: u8,
        graph: usize,
    },
    Cancel {
        task: u8,
    },
    Control {
        task: u8,
        no: u64,
        pause: bool,
    },
    Wait {
        task: u8,
    },
    Beat {
        task: u8,
        node: u8,
        token: u64,
    },
    Event {
        task: u8,
        node: u8,
        token: u64,
        seq: u64,
        kind: u8,
        incarnation: u64,
    },
    Refuse {
        task: u8,
        node: u8,
        token: u64,
        kind: u8,
    },
    Pass {
        ms: u64,
    },
    Idle,
    /// Answers the oldest outstanding request: well, or with an error.
    Answer {
        error: u8,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (0..3u8, 0..3usize).prop_map(|(task, graph)| Step::Submit { task, graph }),
        1 => (0..3u8).prop_map(|task| Step::Cancel { task }),
        2 => (0..3u8, 1..4u64, any::<bool>())
            .prop_map(|(task, no, pause)| Step::Control { task, no, pause }),
        1 => (0..3u8).prop_map(|task| Step::Wait { task }),
        3 => (0..3u8, 0..3u8, 0..4u64)
            .prop_map(|(task, node, token)| Step::Beat { task, node, token }),
        12 => (0..3u8, 0..3u8, 1..4u64, 1..4u64, 0..6u8, 1..3u64).prop_map(
            |(task, node, token, seq, kind, incarnation)| Step::Event {
                task, node, token, seq, kind, incarnation,
            }
        ),
        1 => (0..3u8, 0..3u8, 1..4u64, 0..5u8)
            .prop_map(|(task, node, token, kind)| Step::Refuse { task, node, token, kind }),
        3 => prop_oneof![Just(1u64), Just(600), Just(5_000), Just(12_000), Just(70_000)]
            .prop_map(|ms| Step::Pass { ms }),
        6 => Just(Step::Idle),
        14 => (0..12u8).prop_map(|error| Step::Answer { error }),
    ];
    proptest::collection::vec(step, 1..120)
}

/// Outstanding requests, and a store that only remembers what a takeover has to find.
#[derive(Default)]
struct World {
    open: BTreeMap<OpId, Request>,
    epoch: u64,
    seq: u64,
}

enum Request {
    Store(StoreRequest),
    Transport(TransportRequest),
}

impl World {
    fn take_in(&mut self, out: &[Effect]) {
        for effect in out {
            match effect {
                Effect::Store { op, request } => {
                    self.open.insert(*op, Request::Store(request.clone()));
                }
                Effect::Transport {
                    request: TransportRequest::Append { .. },
                    ..
                }
                | Effect::Transport {
                    request: TransportRequest::Forget { .. },
                    ..
                } => {}
                Effect::Transport { op, request } => {
                    self.open.insert(*op, Request::Transport(request.clone()));
                }
                _ => {}
            }
        }
    }

    fn answer(&mut self, error: u8, next: u64) -> Option<Input> {
        let long_poll = |request: &Request| {
            matches!(request, Request::Transport(TransportRequest::Read { .. }))
        };
        let op = *self.open.iter().find(|(_, request)| !long_poll(request))?.0;
        let request = self.open.remove(&op)?;
        let kind = match error {
            0 => Some(ErrorKind::Unknown),
            1 => Some(ErrorKind::Retry),
            2 => Some(ErrorKind::Fenced),
            3 => Some(ErrorKind::Invalid),
            _ => None,
        };
        if let Some(kind) = kind {
            let error = PortError::new(kind, "test", "as drawn");
            return Some(match request {
                Request::Store(_) => store_error(op, error),
                Request::Transport(_) => Input::TransportDone {
                    op,
                    result: Err(error),
                },
            });
        }
        Some(match request {
            Request::Transport(_) => transport_ok(
                op,
                TransportReply::Bounds {
                    start: Offset(0),
                    end: Offset(next),
                },
            ),
            Request::Store(request) => store_ok(op, self.store(request)),
        })
    }

    fn store(&mut self, request: StoreRequest) -> StoreReply {
        match request {
            StoreRequest::AcquireShard { owner, ttl_ms, .. } => {
                StoreReply::Lease(crate::port::LeaseView {
                    held: true,
                    owner,
                    remaining_ms: ttl_ms,
                })
            }
            StoreRequest::ReadShard { .. } => StoreReply::Shard(shard_record(self.epoch, self.seq)),
            StoreRequest::RaiseEpoch { .. } => {
                self.epoch += 1;
                StoreReply::Shard(shard_record(self.epoch, self.seq))
            }
            StoreRequest::Commit(commit) => {
                self.seq = commit.seq;
                StoreReply::Committed { seq: commit.seq }
            }
            StoreRequest::LookupTasks { tasks } => StoreReply::Answers(vec![None; tasks.len()]),
            StoreRequest::ReadWorkers => {
                StoreReply::Workers(vec![worker_record("w1", 1, &["a", "b"])].into())
            }
            StoreRequest::LoadTasks { .. } => StoreReply::Tasks(crate::port::TaskPage {
                tasks: Vec::new(),
                unreadable: Vec::new(),
                more: false,
            }),
            _ => StoreReply::Done,
        }
    }
}

fn event_body(kind: u8) -> Body {
    match kind {
        0 | 1 => Body::BatchOk(batch("b")),
        2 => done(1, 0, 0),
        3 => Body::TaskFailed(TaskFailed {
            batch_uid: None,
            reason_code: "boom".into(),
            permanent: false,
            error: "".into(),
            retry_after_ms: Some(100),
        }),
        4 => Body::Cancelled(Cancelled {
            reason: CancelReason::UserRequest,
        }),
        _ => Body::TaskReleased(TaskReleased {
            reason: ReleaseReason::LeaseLapsed,
        }),
    }
}

/// A submission with something of everything that may be asked for.
fn submission(task: u8, graph: usize) -> Envelope {
    let mut message = submit(&format!("t{task}"), GRAPHS[graph]);
    if let Body::Submit(submit) = &mut message.body {
        submit.options.priority = i32::from(task) - 1;
        submit.options.start_delay_ms = [0, 0, 1_000][usize::from(task)];
        submit.options.limit_key = (graph > 0).then(|| "k".into());
    }
    message
}

fn play(steps: Vec<Step>, limits: Limits) {
    let name = |task: u8| format!("t{task}");
    let node_name = |node: u8| ["a", "b", "c"][usize::from(node)];
    let mut config = config();
    config.shard_lease_ttl_ms = 1_000_000;
    config.limits = limits;
    let workers = vec![worker_record("w1", 1, &["a", "b"])];
    let mut bench = Bench::owned_with(config, Vec::new(), workers);
    let mut world = World::default();
    for step in steps {
        let message = match step {
            Step::Submit { task, graph } => Some(submission(task, graph)),
            Step::Cancel { task } => Some(client(
                &name(task),
                Body::CancelTask(CancelTask {
                    reason: "".into(),
                    grace_ms: None,
                    inbox: 0,
                }),
            )),
            Step::Control { task, no, pause } => {
                let control = ControlTask {
                    control_no: no,
                    reason: "".into(),
                    inbox: 0,
                };
                let body = if pause {
                    Body::PauseTask(control)
                } else {
                    Body::ResumeTask(control)
                };
                Some(client(&name(task), body))
            }
            Step::Wait { task } => Some(client(&name(task), Body::WaitTask(WaitTask { inbox: 0 }))),
            Step::Beat { task, node, token } => Some(beat(&name(task), node_name(node), token)),
            Step::Event {
                task,
                node,
                token,
                seq,
                kind,
                incarnation,
            } => {
                let mut message = event(&name(task), node_name(node), token, seq, event_body(kind));
                message.sender.incarnation = Incarnation(incarnation);
                message.free_slots = Some(u32::from(kind % 3));
                Some(message)
            }
            Step::Refuse {
                task,
                node,
                token,
                kind,
            } => {
                let reason = match kind {
                    0 => RefusalReason::Busy,
                    1 => RefusalReason::Draining,
                    2 => RefusalReason::NoHandler,
                    3 => RefusalReason::NotCurrent,
                    _ => RefusalReason::StoreUnreachable,
                };
                let body = Body::TaskRefused(TaskRefused { reason });
                Some(event(&name(task), node_name(node), token, 0, body))
            }
            Step::Pass { ms } => {
                bench.now_ms += ms;
                let out = bench.raw(Input::Wake);
                world.take_in(&out);
                None
            }
            Step::Idle => {
                let wanted = bench.machine.wants_idle();
                let out = bench.raw(Input::Idle);
                // A driver may leave out what is not wanted.
                assert!(wanted || out.is_empty(), "not wanted, and yet: {out:?}");
                world.take_in(&out);
                None
            }
            Step::Answer { error } => {
                if let Some(input) = world.answer(error, bench.next) {
                    let out = bench.raw(input);
                    world.take_in(&out);
                }
                None
            }
        };
        // The newest long poll is answered with the message; older ones belong to lost shards.
        let is_poll = |request: &Request| {
            matches!(
                request,
                Request::Transport(TransportRequest::Read {
                    stream: Stream::Shard(_),
                    ..
                })
            )
        };
        let mut polls = world
            .open
            .iter()
            .filter(|(_, request)| is_poll(request))
            .map(|(op, _)| *op);
        if let Some(op) = polls.next_back().or(bench.fetch.take())
            && let Some(message) = message
        {
            world.open.remove(&op);
            let offset = Offset(bench.next);
            bench.next += 1;
            let entry = crate::port::Entry {
                offset,
                message: Ok(message.into()),
            };
            let reply = TransportReply::Entries {
                entries: vec![entry],
                next: Offset(bench.next),
            };
            let out = bench.raw(transport_ok(op, reply));
            world.take_in(&out);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_inputs_never_break_an_invariant(steps in steps()) {
        play(steps, Limits::default());
    }

    #[test]
    fn random_inputs_never_break_an_invariant_within_limits(steps in steps()) {
        let limits = Limits::default()
            .all(3)
            .of_type("a".parse().expect("a role"), Limit::running(2))
            .of_key("k", Limit::starts(2, 600).and_running(1));
        play(steps, limits);
    }
}
