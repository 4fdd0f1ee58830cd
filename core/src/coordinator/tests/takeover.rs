//! Taking a shard over: the order that keeps two owners apart.

use super::bench::*;
use crate::coordinator::{Coordinator, Effect, Input, Subject};
use crate::id::{ClientId, Offset, OpId};
use crate::port::{
    ErrorKind, LeaseView, PortError, StoreReply, StoreRequest, Stream, TaskPage, TaskWithNodes,
    TransportReply, TransportRequest,
};
use crate::record::{NodeState, TaskState};
use crate::report::{Report, ReportKind};
use crate::time::{Mono, Now};

fn step(machine: &mut Coordinator, input: Input) -> Vec<Effect> {
    let mut out = Vec::new();
    machine.handle(Now::new(1_000, 0), input, &mut out);
    out
}

#[test]
fn the_lease_then_the_epoch_then_the_load_then_the_stream() {
    let mut machine = Coordinator::new(config());
    let owner = ClientId::new("c1").expect("an id");
    let bounds = |op, stream| Effect::Transport {
        op: OpId(op),
        request: TransportRequest::Bounds { stream },
    };
    assert_eq!(
        step(&mut machine, Input::Wake),
        vec![
            bounds(1, Stream::Announcements),
            bounds(2, Stream::Shard(SHARD)),
        ]
    );
    let found = TransportReply::Bounds {
        start: Offset(0),
        end: Offset(0),
    };
    assert_eq!(
        step(&mut machine, transport_ok(OpId(2), found.clone())),
        vec![Effect::Store {
            op: OpId(3),
            request: StoreRequest::AcquireShard {
                shard: SHARD,
                owner: owner.clone(),
                ttl_ms: 5_000
            },
        }]
    );
    let lease = LeaseView {
        held: true,
        owner: owner.clone(),
        remaining_ms: 5_000,
    };
    assert_eq!(
        step(&mut machine, store_ok(OpId(3), StoreReply::Lease(lease))),
        vec![Effect::Store {
            op: OpId(4),
            request: StoreRequest::ReadShard { shard: SHARD }
        }]
    );
    let read = StoreReply::Shard(shard_record(4, 9));
    assert_eq!(
        step(&mut machine, store_ok(OpId(4), read)),
        vec![Effect::Store {
            op: OpId(5),
            request: StoreRequest::RaiseEpoch {
                shard: SHARD,
                owner,
                epoch: 4,
                commit_seq: 9
            },
        }]
    );
    let raised = StoreReply::Shard(shard_record(5, 9));
    assert_eq!(
        step(&mut machine, store_ok(OpId(5), raised)),
        vec![Effect::Store {
            op: OpId(6),
            request: StoreRequest::LoadTasks {
                shard: SHARD,
                after: None,
                limit: 1_000
            },
        }]
    );
    let page = TaskPage {
        tasks: Vec::new(),
        unreadable: Vec::new(),
        more: false,
    };
    assert_eq!(
        step(&mut machine, store_ok(OpId(6), StoreReply::Tasks(page))),
        vec![bounds(7, Stream::Shard(SHARD))]
    );
    assert_eq!(
        step(&mut machine, transport_ok(OpId(7), found)),
        vec![
            Effect::Report(Report::new(
                ReportKind::ShardOwned,
                "shard 0 at epoch 5, 0 tasks"
            )),
            Effect::Transport {
                op: OpId(8),
                request: TransportRequest::Read {
                    stream: Stream::Shard(SHARD),
                    from: Offset(0),
                    limit: 512,
                    wait_ms: 2_500,
                },
            },
        ]
    );
}

#[test]
fn a_held_lease_is_asked_for_again_when_it_lapses() {
    let mut machine = Coordinator::new(config());
    step(&mut machine, Input::Wake);
    let found = TransportReply::Bounds {
        start: Offset(0),
        end: Offset(0),
    };
    step(&mut machine, transport_ok(OpId(1), found.clone()));
    step(&mut machine, transport_ok(OpId(2), found));
    let owner = ClientId::new("other").expect("an id");
    let lease = LeaseView {
        held: false,
        owner,
        remaining_ms: 3_000,
    };
    // Op 3 reads the workers; op 4 asks for the lease.
    assert_eq!(
        step(&mut machine, store_ok(OpId(4), StoreReply::Lease(lease))),
        vec![]
    );
    let again = machine.poll_timeout().expect("a timer");
    assert!(again >= Mono(4_001) && again <= Mono(4_200), "{again:?}");
}

#[test]
fn a_fenced_commit_drops_all_memory_of_the_shard() {
    let mut bench = Bench::owned();
    bench.arrive(vec![submit(
        "t",
        r#"{"nodes":[{"node_id":"n","type":"a"}]}"#,
    )]);
    bench.unknown_tasks();
    bench.input(Input::Idle);
    let (op, _) = bench.commit();
    assert_eq!(bench.machine.tasks_in_flight(), 1);
    let fenced = PortError::new(ErrorKind::Fenced, "commit", "epoch 9");
    let out = bench.input(store_error(op, fenced)).to_vec();
    assert_eq!(
        out,
        vec![Effect::Report(Report::new(
            ReportKind::ShardLost,
            "shard 0: another owner is current"
        ))]
    );
    assert_eq!(bench.machine.shards_owned(), 0);
}

#[test]
fn a_stream_that_is_another_log_is_read_from_its_start() {
    let mut machine = Coordinator::new(config());
    step(&mut machine, Input::Wake);
    let found = TransportReply::Bounds {
        start: Offset(0),
        end: Offset(40),
    };
    step(&mut machine, transport_ok(OpId(2), found.clone()));
    let owner = ClientId::new("c1").expect("an id");
    let lease = LeaseView {
        held: true,
        owner,
        remaining_ms: 5_000,
    };
    step(&mut machine, store_ok(OpId(3), StoreReply::Lease(lease)));
    let mut record = shard_record(1, 3);
    record.next = Offset(100);
    step(&mut machine, store_ok(OpId(4), StoreReply::Shard(record)));
    step(&mut machine, store_ok(OpId(5), StoreReply::Shard(record)));
    let page = TaskPage {
        tasks: Vec::new(),
        unreadable: Vec::new(),
        more: false,
    };
    step(&mut machine, store_ok(OpId(6), StoreReply::Tasks(page)));
    let out = step(&mut machine, transport_ok(OpId(7), found));
    let kinds: Vec<_> = out
        .iter()
        .filter_map(|effect| match effect {
            Effect::Report(report) => Some(report.kind),
            _ => None,
        })
        .collect();
    assert_eq!(
        kinds,
        vec![ReportKind::StreamReplaced, ReportKind::ShardOwned]
    );
    let reads_from = out.iter().find_map(|effect| match effect {
        Effect::Transport {
            request: TransportRequest::Read { from, .. },
            ..
        } => Some(*from),
        _ => None,
    });
    assert_eq!(reads_from, Some(Offset(0)));
}

#[test]
fn after_a_lease_that_may_have_lapsed_an_idle_owner_looks_whether_the_epoch_is_still_its_own() {
    for (epoch, lost) in [(1, false), (2, true)] {
        let mut bench = Bench::owned_with(config(), Vec::new(), Vec::new());
        let renew = ops(bench.pass(1_700))[0];
        // The renewal is answered so late that another owner may have come and gone.
        bench.now_ms += 2_900;
        let lease = LeaseView {
            held: true,
            owner: ClientId::new("c1").expect("an id"),
            remaining_ms: 5_000,
        };
        let out = bench.input(store_ok(renew, StoreReply::Lease(lease)));
        let verify = ops(out)[0];
        let request = StoreRequest::ReadShard { shard: SHARD };
        assert_eq!(
            out,
            [Effect::Store {
                op: verify,
                request
            }]
        );
        let record = StoreReply::Shard(shard_record(epoch, 0));
        let out = bench.input(store_ok(verify, record));
        assert_eq!(!out.is_empty(), lost, "{out:?}");
    }
}

type StoreAnswer = Result<StoreReply, PortError>;

/// Answers everything that takeovers ask for until there is a commit; loads are answered in turn.
fn take_over(bench: &mut Bench, mut out: Vec<Effect>, loads: &mut Vec<StoreAnswer>) {
    for _ in 0..40 {
        let Some(mut next) = answered(bench, out, loads) else {
            return;
        };
        if next.is_empty() {
            bench.now_ms += 500;
            next = bench.raw(Input::Wake);
            next.extend(bench.raw(Input::Idle));
        }
        out = next;
    }
}

/// What follows once a takeover's requests are answered; nothing if it commits.
fn answered(
    bench: &mut Bench,
    out: Vec<Effect>,
    loads: &mut Vec<StoreAnswer>,
) -> Option<Vec<Effect>> {
    let mut next = Vec::new();
    for effect in out {
        let input = match effect {
            Effect::Transport {
                op,
                request: TransportRequest::Bounds { .. },
            } => {
                let (start, end) = (Offset(0), Offset(0));
                transport_ok(op, TransportReply::Bounds { start, end })
            }
            Effect::Store { op, request } => match request {
                StoreRequest::ReadWorkers => {
                    let workers = vec![worker_record("w1", 1, &["a"])];
                    store_ok(op, StoreReply::Workers(workers.into()))
                }
                StoreRequest::AcquireShard { owner, .. } => {
                    let lease = LeaseView {
                        held: true,
                        owner,
                        remaining_ms: 5_000,
                    };
                    store_ok(op, StoreReply::Lease(lease))
                }
                StoreRequest::ReadShard { .. } | StoreRequest::RaiseEpoch { .. } => {
                    store_ok(op, StoreReply::Shard(shard_record(1, 0)))
                }
                StoreRequest::LoadTasks { .. } => match loads.remove(0) {
                    Ok(reply) => store_ok(op, reply),
                    Err(error) => store_error(op, error),
                },
                StoreRequest::Commit(_) => {
                    bench.out.push(Effect::Store { op, request });
                    return None;
                }
                _ => continue,
            },
            _ => continue,
        };
        next.extend(bench.raw(input));
    }
    Some(next)
}

/// A page of one task, "t", with one node that is granted.
fn one_task() -> TaskPage {
    let mut before = Bench::owned();
    let commit = before.submitted("t", r#"{"nodes":[{"node_id":"n","type":"a"}]}"#);
    let stored = TaskWithNodes {
        task: task_of(&commit).clone(),
        nodes: vec![node_of(&commit, "n").clone()],
        node_age_ms: vec![0],
    };
    TaskPage {
        tasks: vec![stored],
        unreadable: Vec::new(),
        more: false,
    }
}

/// An owner whose machine broke over something, up to its first commit.
fn broken_over(subject: Subject, loads: &mut Vec<StoreAnswer>) -> Bench {
    let mut bench = Bench {
        machine: Coordinator::new(config()),
        now_ms: 1_000,
        fetch: None,
        next: 0,
        out: Vec::new(),
    };
    let mut out = bench.raw(Input::Panicked { subject });
    out.extend(bench.raw(Input::Wake));
    take_over(&mut bench, out, loads);
    bench
}

#[test]
fn a_takeover_that_fails_half_way_does_not_forget_what_was_blamed() {
    let page = one_task();
    let away = PortError::new(ErrorKind::Unknown, "load", "no answer");
    let mut loads = vec![Err(away), Ok(StoreReply::Tasks(page))];
    let subject = Subject {
        shard: Some(SHARD),
        task_id: Some(task_id("t")),
        ..Subject::default()
    };
    let bench = broken_over(subject, &mut loads);
    let (_, commit) = bench.commit();
    assert_eq!(task_of(&commit).state, TaskState::Quarantined);
}

#[test]
fn what_time_did_is_blamed_on_its_task_if_the_store_refuses_it() {
    let page = one_task();
    let mut loads = vec![Ok(StoreReply::Tasks(page)); 2];
    // Something broke, and nobody knows over what: the next commits are made with care.
    let subject = Subject {
        shard: Some(SHARD),
        ..Subject::default()
    };
    let mut bench = broken_over(subject, &mut loads);
    let (op, commit) = bench.commit();
    assert_eq!(
        node_of(&commit, "n").state,
        NodeState::Ready,
        "its lease is over"
    );
    let invalid = PortError::new(ErrorKind::Invalid, "commit", "a record is too large");
    bench.out.clear();
    let out = bench.raw(store_error(op, invalid));
    take_over(&mut bench, out, &mut loads);
    let (_, commit) = bench.commit();
    assert_eq!(task_of(&commit).state, TaskState::Quarantined);
}

/// An owner that is to set a task aside, as often as there are loads.
fn to_set_aside(loads: usize) -> (Bench, Vec<StoreAnswer>) {
    let page = one_task();
    let mut loads = vec![Ok(StoreReply::Tasks(page)); loads];
    let subject = Subject {
        shard: Some(SHARD),
        task_id: Some(task_id("t")),
        ..Subject::default()
    };
    let bench = broken_over(subject, &mut loads);
    (bench, loads)
}

/// The commit that sets the task aside.
fn sets_aside(bench: &Bench) -> OpId {
    let (op, commit) = bench.commit();
    assert_eq!(task_of(&commit).task_id, task_id("t"));
    assert_eq!(task_of(&commit).state, TaskState::Quarantined);
    op
}

/// The store refuses it: the shard is loaded again, at once, without the task.
fn refuse(bench: &mut Bench, op: OpId, loads: &mut Vec<StoreAnswer>, load_ms: u64) {
    let invalid = PortError::new(ErrorKind::Invalid, "commit", "simulated");
    let mut out = bench.raw(store_error(op, invalid));
    bench.now_ms += load_ms;
    while !out.is_empty() {
        out = answered(bench, out, loads).expect("it is left alone");
        for effect in &out {
            if let Effect::Transport {
                op,
                request: TransportRequest::Read { .. },
            } = effect
            {
                (bench.fetch, bench.next) = (Some(*op), 0);
            }
        }
    }
    assert_eq!(bench.machine.tasks_in_flight(), 0);
}

#[test]
fn a_task_that_cannot_even_be_set_aside_holds_up_no_other_and_is_tried_again() {
    let (mut bench, mut loads) = to_set_aside(5);
    // Each refusal doubles the time in which it is left alone.
    for wait_ms in [1_000, 2_000] {
        let op = sets_aside(&bench);
        refuse(&mut bench, op, &mut loads, 0);
        let due_ms = bench.now_ms + wait_ms;
        assert!(bench.machine.poll_timeout() <= Some(Mono(due_ms)));
        let other = r#"{"nodes":[{"node_id":"n","type":"nobody has it"}]}"#;
        bench.submitted(&format!("u{wait_ms}"), other);
        bench.now_ms = due_ms - 1;
        let early = bench.raw(Input::Wake);
        let anew = |effect: &Effect| matches!(effect, Effect::Transport { .. });
        assert!(!early.iter().any(anew), "{early:?}");
        let renewed = answered(&mut bench, early, &mut loads).expect("no commit");
        answered(&mut bench, renewed, &mut loads).expect("no commit");
        bench.now_ms = due_ms;
        bench.out.clear();
        let out = bench.raw(Input::Wake);
        take_over(&mut bench, out, &mut loads);
    }
    let op = sets_aside(&bench);
    bench.out.clear();
    bench.raw(store_ok(op, StoreReply::Done));
    assert_eq!(bench.machine.tasks_in_flight(), 0);
    assert_eq!(loads.len(), 0);
}

#[test]
fn a_shard_that_takes_long_to_load_is_served_for_as_long_before_the_next_try() {
    let (mut bench, mut loads) = to_set_aside(2);
    let op = sets_aside(&bench);
    refuse(&mut bench, op, &mut loads, 4_000);
    let loaded_ms = bench.now_ms;
    bench.submitted("u", r#"{"nodes":[{"node_id":"n","type":"nobody has it"}]}"#);
    let probes = |bench: &mut Bench, ms: u64| {
        bench.now_ms = ms;
        let mut out = bench.raw(Input::Wake);
        out.extend(answered(bench, out.clone(), &mut Vec::new()).expect("no commit"));
        out.extend(bench.raw(Input::Wake));
        let probe = |e: &&Effect| matches!(e, Effect::Transport { request, .. } if matches!(request, TransportRequest::Bounds { .. }));
        out.iter().filter(probe).count()
    };
    assert_eq!(probes(&mut bench, loaded_ms + 3_999), 0);
    assert_eq!(probes(&mut bench, loaded_ms + 4_000), 1);
}

/// It waits for the answer to its last read, and would be woken at once, for ever.
#[test]
fn an_owner_that_stops_tries_no_task_again_that_it_left_alone() {
    let (mut bench, mut loads) = to_set_aside(2);
    let op = sets_aside(&bench);
    refuse(&mut bench, op, &mut loads, 0);
    bench.raw(Input::Shutdown {
        workers_left: false,
    });
    bench.now_ms += 1_000;
    let out = bench.raw(Input::Wake);
    let anew = |effect: &Effect| matches!(effect, Effect::Transport { .. });
    assert!(!out.iter().any(anew), "{out:?}");
    let due = bench.machine.poll_timeout();
    assert!(due.is_none_or(|due| due > Mono(bench.now_ms)), "{due:?}");
}

#[test]
fn a_renewal_that_fails_while_a_takeover_waits_is_not_repeated_at_once() {
    let mut machine = Coordinator::new(config());
    let mut at = |ms: u64, input: Input| {
        let mut out = Vec::new();
        machine.handle(Now::new(ms, 0), input, &mut out);
        out
    };
    at(1_000, Input::Wake);
    let found = TransportReply::Bounds {
        start: Offset(0),
        end: Offset(0),
    };
    at(1_000, transport_ok(OpId(2), found));
    let owner = ClientId::new("c1").expect("an id");
    let lease = StoreReply::Lease(LeaseView {
        held: true,
        owner: owner.clone(),
        remaining_ms: 5_000,
    });
    at(1_000, store_ok(OpId(3), lease));
    // The shard record takes long; the lease is renewed meanwhile.
    let renew = |op: u64| Effect::Store {
        op: OpId(op),
        request: StoreRequest::AcquireShard {
            shard: SHARD,
            owner: owner.clone(),
            ttl_ms: 5_000,
        },
    };
    assert_eq!(at(2_667, Input::Wake), vec![renew(5)]);
    let gone = PortError::new(ErrorKind::Unknown, "store", "the line is cut");
    let failed = Effect::Report(Report::new(ReportKind::PortFailed, gone.to_string()));
    assert_eq!(
        at(2_667, store_error(OpId(4), gone.clone())),
        vec![failed],
        "the takeover begins again soon"
    );
    assert_eq!(at(2_667, store_error(OpId(5), gone)), vec![]);
    assert_eq!(at(2_668, Input::Wake), vec![]);
}

/// The task that a machine names which breaks over these records as it takes over.
fn blamed_of(mut stored: TaskWithNodes, change: impl FnOnce(&mut TaskWithNodes)) -> Subject {
    change(&mut stored);
    let mut bench = Bench {
        machine: Coordinator::new(config()),
        now_ms: 1_000,
        fetch: None,
        next: 0,
        out: Vec::new(),
    };
    let page = TaskPage {
        tasks: vec![stored],
        unreadable: Vec::new(),
        more: false,
    };
    let out = bench.raw(Input::Wake);
    let broke = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        take_over(&mut bench, out, &mut vec![Ok(StoreReply::Tasks(page))]);
    }));
    broke.expect_err("the records break an invariant");
    bench.machine.subject()
}

#[test]
fn what_breaks_the_machine_as_it_takes_over_or_grants_is_named() {
    let mut before = Bench::owned();
    let commit = before.submitted("t", r#"{"nodes":[{"node_id":"n","type":"a"}]}"#);
    let mut node = node_of(&commit, "n").clone();
    node.grant = None;
    let stored = TaskWithNodes {
        task: task_of(&commit).clone(),
        nodes: vec![node],
        node_age_ms: vec![0],
    };
    let waits = blamed_of(stored.clone(), |stored| {
        stored.nodes[0].state = NodeState::Queued;
    });
    let granted = blamed_of(stored, |stored| {
        stored.nodes[0].state = NodeState::Ready;
        stored.task.state = TaskState::Cancelled;
    });
    for subject in [waits, granted] {
        assert_eq!(subject.shard, Some(SHARD));
        assert_eq!(subject.task_id, Some(task_id("t")));
    }
}
