//! Announcements as bytes: what any program that reads the topic finds.

use super::bench::*;
use crate::id::{Incarnation, ShardId, TaskId};
use crate::message::{Body, Envelope};
use crate::port::{StoreReply, Stream, TransportRequest};
use crate::worker::{Effect, Input, RunEvent};
use serde_json::{Value, json};

/// What the worker announces by these effects, as it stands in the topic.
fn announced(out: &[Effect]) -> Vec<Value> {
    let appends = out.iter().filter_map(|effect| match effect {
        Effect::Transport {
            request:
                TransportRequest::Append {
                    stream: Stream::Announcements,
                    envelope,
                },
            ..
        } => Some(envelope),
        _ => None,
    });
    appends
        .map(|envelope: &std::sync::Arc<Envelope>| {
            let bytes = envelope.encode().expect("small");
            serde_json::from_slice(&bytes).expect("JSON")
        })
        .collect()
}

#[test]
fn an_announcement_has_the_six_fields_of_the_guide_on_the_wire() {
    let mut bench = Bench::cold(|_| {});
    bench.input(Input::Wake);
    bench.transport(1, bounds(0, 7));
    let out = bench.store(2, StoreReply::Registered(Incarnation(3)));
    let [message] = &announced(&out)[..] else {
        panic!("one announcement: {out:?}");
    };
    assert_eq!(message["kind"], "WORKER_ONLINE");
    assert_eq!(message["msg_type"], "event");
    assert_eq!(
        message["payload"],
        json!({
            "worker_id": "w",
            "type": "count,sum",
            "capabilities": {"roles": ["count", "sum"]},
            "version": "2.0.0",
            "capacity": {"tasks": 2},
            "status": "online",
            // Beside the guide's fields: which process start, and where commands reach it.
            "incarnation": 3,
            // And when to miss it.
            "announce_interval_ms": 60_000,
            "inbox": 0,
        })
    );
    assert_eq!(message["free_slots"], 2);
}

#[test]
fn it_is_repeated_every_interval_and_says_when_the_worker_is_stopping() {
    let mut bench = Bench::new();
    let again = announced(&bench.pass(60_000));
    assert_eq!(again.len(), 1, "every announce_interval_sec");
    assert_eq!(again[0]["payload"]["status"], "online");
    let mut bench = Bench::new();
    bench.begin(start(), 1);
    let out = bench.input(Input::Shutdown { grace_ms: 1_000 });
    let said = announced(&out);
    assert_eq!(said.len(), 1, "{out:?}");
    assert_eq!(said[0]["payload"]["status"], "draining");
    assert_eq!(said[0]["free_slots"], 0);
}

#[test]
fn a_worker_that_was_announced_as_full_tells_all_shards_soon_that_it_has_room_again() {
    let free = |out: &[Effect]| {
        let said = announced(out).into_iter();
        said.map(|message| message["free_slots"].clone())
            .collect::<Vec<_>>()
    };
    for (shards, told) in [(2, vec![json!(1)]), (1, vec![])] {
        let mut bench = Bench::with(|config| {
            config.capacity = 1;
            config.shards = shards;
            // The lease and the silence of the store are another matter.
            config.announce_interval_ms = 1_000;
        });
        bench.processing();
        assert_eq!(free(&bench.pass(1_000)), [json!(0)], "{shards} shards");
        bench.run(1, RunEvent::Failed(failure("odd", false, false)));
        bench.run(1, RunEvent::Closed);
        assert_eq!(free(&bench.pass(249)), Vec::<Value>::new());
        assert_eq!(free(&bench.pass(1)), told, "{shards} shards");
    }
}

#[test]
fn a_slot_that_is_free_between_two_runs_is_no_news() {
    let mut bench = Bench::with(|config| {
        config.capacity = 1;
        config.shards = 2;
        config.announce_interval_ms = 1_000;
    });
    bench.processing();
    assert_eq!(announced(&bench.pass(1_000)).len(), 1);
    bench.run(1, RunEvent::Failed(failure("odd", false, false)));
    bench.run(1, RunEvent::Closed);
    let mut next = started(4);
    next.node_id = Some(node("m"));
    bench.arrive(vec![next]);
    assert_eq!(bench.worker.free_slots(), 0);
    assert_eq!(announced(&bench.pass(250)), Vec::<Value>::new());
}

/// To which shards these effects say that a slot is free, and how many.
fn told_of_room(out: &[Effect]) -> Vec<(Stream, Option<u32>)> {
    let appends = out.iter().filter_map(|effect| match effect {
        Effect::Transport {
            request: TransportRequest::Append { stream, envelope },
            ..
        } if matches!(envelope.body, Body::SlotFree) => Some((*stream, envelope.free_slots)),
        _ => None,
    });
    appends.collect()
}

#[test]
fn an_owner_that_an_event_told_of_a_full_worker_hears_soon_of_room_that_another_ones_run_left() {
    let mut bench = Bench::with(|config| {
        config.capacity = 2;
        config.shards = 64;
    });
    // Two runs of tasks in different shards: the second one's first word says that none is free.
    bench.begin(start(), 1);
    let other = TaskId::new("t2").expect("an id");
    let shard = ShardId::of(&other, 64);
    assert_ne!(shard, ShardId::of(&task(), 64), "another owner");
    let mut second = started(4);
    second.task_id = Some(other);
    let read = op_of(&bench.arrive(vec![second])[0]);
    let beat = op_of(&bench.store(read, grants(&[Some((4, false))]))[0]);
    bench.confirm(beat);
    assert_eq!(bench.worker.free_slots(), 0);
    bench.run(1, RunEvent::Failed(failure("odd", false, false)));
    bench.run(1, RunEvent::Closed);
    assert_eq!(told_of_room(&bench.pass(249)), []);
    let out = bench.pass(1);
    assert_eq!(told_of_room(&out), [(Stream::Shard(shard), Some(1))]);
    assert_eq!(announced(&out), Vec::<Value>::new(), "nobody else asks");
}
