//! Runs driven by an input adapter.

use super::bench::*;
use crate::hash::stable128;
use crate::id::Token;
use crate::message::{
    AdapterSpec, Artifact, BatchOk, Body, CancelReason, Cursor, InputReady, Metrics, SourceState,
    TaskStart,
};
use crate::port::{StoreReply, StoreRequest};
use crate::record::{ArtifactRecord, RECORD_VERSION};
use crate::worker::commands::position_from;
use crate::worker::{Effect, RunCommand, RunEvent};

fn adapter(name: &str, args: &str) -> AdapterSpec {
    AdapterSpec {
        name: name.into(),
        args: json(args),
    }
}

fn source(name: &str, last: u64, ended: bool) -> SourceState {
    SourceState {
        node_id: node(name),
        last,
        ended,
        kept_from: None,
    }
}

fn reading(spec: AdapterSpec, sources: Vec<SourceState>) -> TaskStart {
    TaskStart {
        adapter: Some(spec),
        sources,
        ..start()
    }
}

fn pull(name: &str) -> AdapterSpec {
    let args = format!(r#"{{"from_node":"{name}","poll_ms":100,"backoff_max_ms":400}}"#);
    adapter("pull.from_artifacts", &args)
}

fn artifact(source: &str, number: u64, meta: &str) -> ArtifactRecord {
    ArtifactRecord {
        version: RECORD_VERSION,
        task_id: task(),
        node_id: node(source),
        number,
        batch_uid: uid(&format!("{source}{number}")),
        token: Token(1),
        metrics: Metrics::new(),
        artifact: Some(Artifact::Inline(json(meta))),
    }
}

fn read(op: u64, source: &str, after: u64) -> Effect {
    let request = StoreRequest::ReadArtifacts {
        task_id: task(),
        node_id: node(source),
        after,
        limit: 64,
    };
    store_op(op, request)
}

fn cursor(places: &[(&str, u64)]) -> Option<Cursor> {
    let places = places.iter().map(|(name, number)| (node(name), *number));
    Some(places.collect())
}

fn batch_ok(op: u64, seq: u64, batch_uid: &str, cursor: Option<Cursor>) -> Effect {
    let sent = BatchOk {
        cursor,
        ..ok(batch_uid)
    };
    event(op, 1, seq, Body::BatchOk(sent), 1)
}

fn loaded(bench: &mut Bench) -> Vec<Effect> {
    bench.run(1, RunEvent::Loaded { adapter: None })
}

fn finalize() -> Effect {
    let totals = Default::default();
    tell(1, RunCommand::Finalize { totals })
}

#[test]
fn every_artifact_of_a_source_is_a_batch_that_moves_the_cursor() {
    let mut bench = Bench::new();
    bench.begin(reading(pull("s"), vec![source("s", 2, true)]), 1);
    assert_eq!(loaded(&mut bench), vec![read(9, "s", 0)]);
    let page = vec![artifact("s", 1, r#"{"k":1}"#), artifact("s", 2, "2")];
    let out = bench.store(9, StoreReply::Artifacts(page));
    let payload =
        r#"{"from_node":"s","ref":{"task_id":"t","node_id":"s","batch_uid":"s1"},"meta":{"k":1}}"#;
    assert_eq!(out, vec![tell(1, process("s1", payload, None))]);
    let out = bench.run(1, processed());
    let payload =
        r#"{"from_node":"s","ref":{"task_id":"t","node_id":"s","batch_uid":"s2"},"meta":2}"#;
    let sent = batch_ok(10, 1, "s1", cursor(&[("s", 1)]));
    assert_eq!(out, vec![sent, tell(1, process("s2", payload, None))]);
    // The source ended and this was its newest: the last batch goes with TASK_DONE.
    assert_eq!(bench.run(1, processed()), vec![finalize()]);
    bench.run(1, finalized());
    let out = bench.run(1, RunEvent::Closed);
    let last = BatchOk {
        cursor: cursor(&[("s", 2)]),
        ..ok("s2")
    };
    assert_eq!(out[1], event(11, 1, 2, done((2, 0, 0), Some(last)), 2));
}

#[test]
fn an_empty_upstream_finishes_with_count_zero() {
    let mut bench = Bench::new();
    bench.begin(reading(pull("s"), vec![source("s", 0, true)]), 1);
    assert_eq!(loaded(&mut bench), vec![finalize()]);
    bench.run(1, finalized());
    let out = bench.run(1, RunEvent::Closed);
    assert_eq!(out[1], event(9, 1, 1, done((0, 0, 0), None), 2));
}

#[test]
fn a_waiting_reader_is_woken_and_polls_only_as_a_fallback() {
    let mut bench = Bench::new();
    bench.begin(reading(pull("s"), vec![source("s", 0, false)]), 1);
    assert_eq!(loaded(&mut bench), vec![], "it waits");
    assert_eq!(bench.pass(100), vec![read(9, "s", 0)]);
    assert_eq!(bench.store(9, StoreReply::Artifacts(Vec::new())), vec![]);
    // The pause has doubled.
    assert_eq!(bench.pass(199), vec![]);
    assert_eq!(bench.pass(1), vec![read(10, "s", 0)]);
    bench.store(10, StoreReply::Artifacts(Vec::new()));
    let ready = |last, ended| {
        let sources = vec![source("s", last, ended)];
        command(1, Body::InputReady(InputReady { sources }))
    };
    let out = bench.arrive(vec![ready(1, false)]);
    assert_eq!(out, vec![read(op_of(&out[0]), "s", 0)]);
    let page = StoreReply::Artifacts(vec![artifact("s", 1, "1")]);
    let out = bench.store(op_of(&out[0]), page);
    assert_eq!(out.len(), 1, "the batch: {out:?}");
    bench.run(1, processed());
    // Old news and copies change nothing; the end is taken at once.
    assert_eq!(bench.arrive(vec![ready(0, false)]), vec![]);
    assert_eq!(bench.arrive(vec![ready(1, true)]), vec![finalize()]);
}

#[test]
fn a_gap_in_the_sequence_is_waited_for() {
    let mut bench = Bench::new();
    bench.begin(reading(pull("s"), vec![source("s", 2, true)]), 1);
    loaded(&mut bench);
    let page = vec![artifact("s", 2, "2")];
    assert_eq!(bench.store(9, StoreReply::Artifacts(page)), vec![]);
    assert_eq!(bench.pass(100), vec![read(10, "s", 0)]);
}

#[test]
fn chunks_never_cross_artifacts_and_only_the_last_one_moves_the_cursor() {
    let name = "pull.from_artifacts.rechunk:size";
    let args = r#"{"from_nodes":["s","r"],"size":2,"meta_list_key":"items"}"#;
    let mut bench = Bench::new();
    let sources = vec![source("s", 1, true), source("r", 1, true)];
    bench.begin(reading(adapter(name, args), sources), 1);
    assert_eq!(loaded(&mut bench), vec![read(9, "r", 0)]);
    let page = vec![artifact("r", 1, r#"{"items":[1,2,3]}"#)];
    let out = bench.store(9, StoreReply::Artifacts(page));
    let hashed = |source: &str, parent: &str, index: u64| {
        let parts = [source.as_bytes(), parent.as_bytes(), &index.to_le_bytes()];
        format!("{:032x}", stable128(&parts))
    };
    let payload = |items: &str| {
        let parent = r#"{"ref":{"batch_uid":"r1"},"meta_list_key":"items"}"#;
        format!(r#"{{"from_node":"r","items":{items},"parent":{parent}}}"#)
    };
    let first = hashed("r", "r1", 0);
    assert_eq!(out, vec![tell(1, process(&first, &payload("[1,2]"), None))]);
    let out = bench.run(1, processed());
    let second = hashed("r", "r1", 1);
    let next = tell(1, process(&second, &payload("[3]"), None));
    assert_eq!(out, vec![batch_ok(10, 1, &first, None), next]);
    // Only now another source is looked at.
    let out = bench.run(1, processed());
    let moved = cursor(&[("r", 1), ("s", 0)]);
    assert_eq!(out, vec![batch_ok(11, 2, &second, moved), read(12, "s", 0)]);
    // An artifact without the list is one item.
    let page = StoreReply::Artifacts(vec![artifact("s", 1, "7")]);
    let out = bench.store(12, page);
    let parent = r#"{"ref":{"batch_uid":"s1"},"meta_list_key":"items"}"#;
    let payload = format!(r#"{{"from_node":"s","items":[7],"parent":{parent}}}"#);
    let uid = hashed("s", "s1", 0);
    assert_eq!(out, vec![tell(1, process(&uid, &payload, None))]);
}

#[test]
fn uids_of_several_sources_carry_the_name_of_theirs() {
    let args = r#"{"from_nodes":["s","r"]}"#;
    let mut bench = Bench::new();
    let sources = vec![source("s", 1, true), source("r", 0, true)];
    bench.begin(reading(adapter("pull.from_artifacts", args), sources), 1);
    loaded(&mut bench);
    let page = StoreReply::Artifacts(vec![artifact("s", 1, "1")]);
    let out = bench.store(9, page);
    let text = format!("{out:?}");
    assert!(text.contains("batch_uid: s:s1"), "{text}");
}

#[test]
fn equal_joined_uids_of_two_sources_stay_apart() {
    let args = r#"{"from_nodes":["a","a:b"]}"#;
    let mut bench = Bench::new();
    let sources = vec![source("a", 1, true), source("a:b", 1, true)];
    bench.begin(reading(adapter("pull.from_artifacts", args), sources), 1);
    assert_eq!(loaded(&mut bench), vec![read(9, "a:b", 0)]);
    let named = |name: &str, batch: &str| {
        let batch_uid = uid(batch);
        StoreReply::Artifacts(vec![ArtifactRecord {
            batch_uid,
            ..artifact(name, 1, "1")
        }])
    };
    // Joined by a colon both would be `a:b:1`.
    let out = format!("{:?}", bench.store(9, named("a:b", "1")));
    let hash = format!("{:032x}", stable128(&[b"a:b", b"1"]));
    assert!(out.contains(&format!("batch_uid: {hash}")), "{out}");
    let out = bench.run(1, processed());
    let out = bench.store(op_of(&out[1]), named("a", "b:1"));
    let out = format!("{out:?}");
    assert!(out.contains("batch_uid: a:b:1"), "{out}");
}

#[test]
fn bad_adapters_fail_for_good_before_any_batch() {
    let bad = [
        ("pull.other", "{}", "bad_input_adapter"),
        ("pull.from_artifacts", "{}", "bad_input_args"),
        (
            "pull.from_artifacts",
            r#"{"from_node":"x"}"#,
            "bad_input_args",
        ),
        (
            "pull.from_artifacts.rechunk:size",
            r#"{"from_node":"s"}"#,
            "bad_input_args",
        ),
        (
            "pull.from_artifacts.rechunk:size",
            r#"{"from_node":"s","size":2}"#,
            "bad_input_args",
        ),
    ];
    for (name, args, code) in bad {
        let mut bench = Bench::with(|config| config.strict_input_adapters = true);
        bench.begin(reading(adapter(name, args), vec![source("s", 0, true)]), 1);
        assert_eq!(
            loaded(&mut bench),
            vec![tell(1, RunCommand::Close)],
            "{name} {args}"
        );
        let out = bench.run(1, RunEvent::Closed);
        let text = format!("{:?}", out[1]);
        assert!(
            text.contains(code) && text.contains("permanent: true"),
            "{text}"
        );
    }
}

#[test]
fn the_graphs_adapter_wins_then_a_known_proposal_then_the_handlers_batches() {
    let proposal = |name: &str| RunEvent::Loaded {
        adapter: Some(adapter(name, r#"{"from_node":"s"}"#)),
    };
    let start = || TaskStart {
        sources: vec![source("s", 1, false), source("g", 1, false)],
        ..start()
    };
    let mut bench = Bench::new();
    bench.begin(start(), 1);
    let out = bench.run(1, proposal("pull.from_artifacts"));
    assert_eq!(out, vec![read(9, "s", 0)]);

    let mut bench = Bench::new();
    bench.begin(start(), 1);
    let out = bench.run(1, proposal("pull.unknown"));
    assert_eq!(out, vec![tell(1, RunCommand::NextBatch)]);

    let mut bench = Bench::new();
    let start = TaskStart {
        adapter: Some(pull("g")),
        ..start()
    };
    bench.begin(start, 1);
    let out = bench.run(1, proposal("pull.from_artifacts"));
    assert_eq!(out, vec![read(9, "g", 0)]);
}

#[test]
fn a_reader_resumes_behind_its_cursor_and_skips_accepted_chunks() {
    let start = TaskStart {
        cursor: cursor(&[("s", 3)]).unwrap(),
        cursor_batches: 3,
        checkpoint_batches: 1,
        accepted: 4,
        ..reading(pull("s"), vec![source("s", 5, true)])
    };
    let mut bench = Bench::new();
    bench.begin(start, 2);
    let out = loaded(&mut bench);
    let accepted = StoreRequest::ReadAccepted {
        task_id: task(),
        node_id: node("n"),
        after: 3,
        limit: 1_000,
    };
    assert_eq!(out[1], store_op(10, accepted));
    bench.store(9, StoreReply::Scratch(None));
    let out = bench.store(10, StoreReply::Accepted(vec![(4, uid("s4"))]));
    assert_eq!(out, vec![read(11, "s", 3)]);
    let page = vec![artifact("s", 4, "4"), artifact("s", 5, "5")];
    let out = bench.store(11, StoreReply::Artifacts(page));
    let text = format!("{out:?}");
    assert!(out.len() == 1 && text.contains("batch_uid: s5"), "{text}");
    bench.run(1, processed());
    bench.run(1, finalized());
    let out = bench.run(1, RunEvent::Closed);
    let last = BatchOk {
        cursor: cursor(&[("s", 5)]),
        ..ok("s5")
    };
    assert_eq!(out[1], event(12, 2, 1, done((1, 1, 3), Some(last)), 2));
}

#[test]
fn a_cursor_is_kept_back_while_another_source_has_a_half_done_artifact() {
    let name = "pull.from_artifacts.rechunk:size";
    let args = r#"{"from_nodes":["s","r"],"size":1,"meta_list_key":"items"}"#;
    let hashed = |source: &str, parent: &str, index: u64| {
        let parts = [source.as_bytes(), parent.as_bytes(), &index.to_le_bytes()];
        format!("{:032x}", stable128(&parts))
    };
    // The holder before accepted the first of two chunks of `s1`. This one looks at `r` first.
    let start = TaskStart {
        accepted: 1,
        ..reading(
            adapter(name, args),
            vec![source("s", 1, true), source("r", 1, true)],
        )
    };
    let mut bench = Bench::new();
    bench.begin(start, 2);
    loaded(&mut bench);
    bench.store(9, StoreReply::Scratch(None));
    let half = hashed("s", "s1", 0);
    let out = bench.store(10, StoreReply::Accepted(vec![(1, uid(&half))]));
    assert_eq!(out, vec![read(11, "r", 0)]);
    let page = vec![artifact("r", 1, r#"{"items":[1]}"#)];
    bench.store(11, StoreReply::Artifacts(page));
    // It completes `r1`, but a cursor would count the chunk of `s1` as behind it.
    let out = bench.run(1, processed());
    let of_r = event(12, 2, 1, Body::BatchOk(ok(&hashed("r", "r1", 0))), 1);
    assert_eq!(out, vec![of_r, read(13, "s", 0)]);
    let page = vec![artifact("s", 1, r#"{"items":[1,2]}"#)];
    bench.store(13, StoreReply::Artifacts(page));
    bench.run(1, processed());
    bench.run(1, finalized());
    let out = bench.run(1, RunEvent::Closed);
    let last = BatchOk {
        cursor: cursor(&[("r", 1), ("s", 1)]),
        ..ok(&hashed("s", "s1", 1))
    };
    assert_eq!(out[1], event(14, 2, 2, done((2, 1, 0), Some(last)), 2));
}

#[test]
fn a_waiting_reader_yields_at_once() {
    let mut bench = Bench::new();
    bench.begin(reading(pull("s"), vec![source("s", 0, false)]), 1);
    loaded(&mut bench);
    let out = bench.arrive(vec![cancel(1, CancelReason::Yield, 9_000)]);
    let expected = vec![
        told(CancelReason::Yield, 10_000),
        tell(1, RunCommand::Close),
    ];
    assert_eq!(out, expected);
}

#[test]
fn without_trust_in_the_end_of_sources_one_more_look_is_taken() {
    let args = r#"{"from_node":"s","eof_on_task_done":false,"poll_ms":100}"#;
    let mut bench = Bench::new();
    let sources = vec![source("s", 0, true)];
    bench.begin(reading(adapter("pull.from_artifacts", args), sources), 1);
    assert_eq!(loaded(&mut bench), vec![]);
    assert_eq!(bench.pass(100), vec![read(9, "s", 0)]);
    let out = bench.store(9, StoreReply::Artifacts(Vec::new()));
    assert_eq!(out, vec![finalize()]);
}

#[test]
fn sources_are_found_in_whatever_order_they_are_told() {
    let known = [10, 20, 30];
    let find = |at, wanted| position_from(&known, at, |of| *of == wanted);
    assert_eq!(
        [find(0, 10), find(1, 20), find(3, 10), find(2, 40)],
        [Some(0), Some(1), Some(0), None]
    );
    assert_eq!(find(9, 30), Some(2));
}

#[test]
fn the_batches_of_a_kept_node_are_read_where_they_are() {
    let mut bench = Bench::new();
    let kept = SourceState {
        kept_from: Some("first".parse().expect("an id")),
        ..source("s", 1, true)
    };
    bench.begin(reading(pull("s"), vec![kept]), 1);
    let Effect::Store { request: asked, .. } = &loaded(&mut bench)[0] else {
        panic!("a read")
    };
    let expected = StoreRequest::ReadArtifacts {
        task_id: "first".parse().expect("an id"),
        node_id: node("s"),
        after: 0,
        limit: 64,
    };
    assert_eq!(*asked, expected);
}
