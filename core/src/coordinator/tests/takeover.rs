//! Taking a shard over: the order that keeps two owners apart.

use super::bench::*;
use crate::coordinator::{Coordinator, Effect, Input};
use crate::id::{ClientId, Offset, OpId};
use crate::port::{
    ErrorKind, LeaseView, PortError, StoreReply, StoreRequest, Stream, TaskPage, TransportReply,
    TransportRequest,
};
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
