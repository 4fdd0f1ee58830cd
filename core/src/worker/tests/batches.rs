//! Batches: skipped, checkpointed, staged, counted, failed.

use super::bench::*;
use crate::id::Token;
use crate::json::Json;
use crate::message::{Artifact, BatchOk, Body, MARK_BYTES_MAX, Metrics, TaskStart};
use crate::port::{ErrorKind, StoreReply, StoreRequest};
use crate::record::{ScratchRecord, Totals, add_metrics};
use crate::worker::{RunCommand, RunEvent, mark_too_large};

fn put(op: u64, save_no: u64, batch_uid: &str, checkpoint: &str) -> crate::worker::Effect {
    let request = StoreRequest::PutScratch {
        task_id: task(),
        node_id: node("n"),
        token: Token(1),
        save_no,
        batch_uid: uid(batch_uid),
        checkpoint: json(checkpoint),
    };
    store_op(op, request)
}

/// Run 1 under token 2: `b` is accepted, `c` was in work with checkpoint 5.
fn resumed(bench: &mut Bench) {
    let start = TaskStart {
        accepted: 2,
        checkpoint_batches: 1,
        ..start()
    };
    bench.begin(start, 2);
    bench.run(1, RunEvent::Loaded { adapter: None });
    bench.store(
        9,
        StoreReply::Scratch(Some(ScratchRecord {
            token: Token(1),
            save_no: 1,
            batch_uid: Some(uid("c")),
            checkpoint: json("5"),
        })),
    );
    bench.store(10, StoreReply::Accepted(vec![(2, uid("b"))]));
}

#[test]
fn an_accepted_batch_is_skipped_and_the_one_in_work_gets_its_checkpoint() {
    let mut bench = Bench::new();
    resumed(&mut bench);
    let out = bench.run(1, batch("b", false));
    assert_eq!(out, vec![tell(1, RunCommand::NextBatch)]);
    let out = bench.run(1, batch("c", false));
    assert_eq!(out, vec![tell(1, process("c", "1", Some("5")))]);
    // What the batch had saved stays its newest checkpoint.
    let out = bench.run(1, processed());
    let sent = BatchOk {
        checkpoint: Some(json("5")),
        ..ok("c")
    };
    let sent = event(11, 2, 1, Body::BatchOk(sent), 1);
    assert_eq!(out, vec![sent, tell(1, RunCommand::NextBatch)]);
    bench.run(1, RunEvent::BatchesEnded);
    bench.run(1, finalized());
    let out = bench.run(1, RunEvent::Closed);
    let end = event(12, 2, 2, done((1, 1, 1), None), 2);
    assert_eq!(out, vec![ended(2, "TASK_DONE"), end]);
}

#[test]
fn another_batch_does_not_get_the_checkpoint_of_the_one_in_work() {
    let mut bench = Bench::new();
    resumed(&mut bench);
    let out = bench.run(1, batch("d", false));
    assert_eq!(out, vec![tell(1, process("d", "1", None))]);
}

#[test]
fn the_same_uid_twice_in_one_attempt_fails_for_good() {
    for (first, accepted) in [("b", true), ("d", false)] {
        let mut bench = Bench::new();
        resumed(&mut bench);
        bench.run(1, batch(first, false));
        if !accepted {
            bench.run(1, processed());
        }
        let out = bench.run(1, batch(first, false));
        assert_eq!(out, vec![tell(1, RunCommand::Close)]);
        let out = bench.run(1, RunEvent::Closed);
        let text = format!("batch uid `{first}` came twice in one attempt");
        let end = task_failed(Some(first), "duplicate_batch_uid", true, &text);
        let seq = if accepted { 1 } else { 2 };
        assert_eq!(out[1], event(op_of(&out[1]), 2, seq, end, 2));
    }
}

#[test]
fn a_checkpoint_is_acknowledged_once_it_is_safe_and_travels_with_its_batch() {
    let mut bench = Bench::new();
    bench.processing();
    let out = bench.run(1, RunEvent::Checkpoint(json("1")));
    assert_eq!(out, vec![put(9, 1, "a", "1")]);
    // A store that is away makes the save wait; it is no failure.
    assert_eq!(
        bench.store_fails(9, ErrorKind::Unknown),
        vec![read_grants(10, 1)]
    );
    bench.store(10, grants(&[Some((1, false))]));
    let out = bench.pass(50);
    assert_eq!(out, vec![put(11, 1, "a", "1")]);
    let out = bench.store(11, StoreReply::Done);
    assert_eq!(out, vec![tell(1, RunCommand::CheckpointSaved(Ok(())))]);
    // One that is not acknowledged when the batch ends does not travel.
    let out = bench.run(1, RunEvent::Checkpoint(json("2")));
    assert_eq!(out, vec![put(12, 2, "a", "2")]);
    let out = bench.run(1, processed());
    let sent = BatchOk {
        checkpoint: Some(json("1")),
        ..ok("a")
    };
    assert_eq!(out[0], event(13, 1, 1, Body::BatchOk(sent), 1));
    let out = bench.store(12, StoreReply::Done);
    assert_eq!(out, vec![tell(1, RunCommand::CheckpointSaved(Ok(())))]);
}

#[test]
fn a_checkpoint_that_is_too_large_or_of_no_batch_is_refused() {
    let mut bench = Bench::new();
    bench.begin(start(), 1);
    let refused = |out: Vec<crate::worker::Effect>, code: &str| {
        let [crate::worker::Effect::Run { command, .. }] = &out[..] else {
            panic!("{out:?}");
        };
        let RunCommand::CheckpointSaved(Err(failure)) = command else {
            panic!("{command:?}");
        };
        assert_eq!((&*failure.reason_code, failure.permanent), (code, true));
    };
    let out = bench.run(1, RunEvent::Checkpoint(json("1")));
    refused(out, "no_batch_in_work");
    bench.run(1, RunEvent::Loaded { adapter: None });
    bench.run(1, batch("a", false));
    let large = Json::encode(&"x".repeat(64 * 1024)).unwrap();
    refused(
        bench.run(1, RunEvent::Checkpoint(large)),
        "checkpoint_too_large",
    );
    let bad = json(r#"{"$set":1}"#);
    refused(bench.run(1, RunEvent::Checkpoint(bad)), "bad_value");
}

#[test]
fn a_checkpoint_refused_for_a_greater_token_fences_the_run() {
    let mut bench = Bench::new();
    bench.processing();
    bench.run(1, RunEvent::Checkpoint(json("1")));
    let out = bench.store_fails(9, ErrorKind::Fenced);
    let told = told(crate::message::CancelReason::Fenced, 1_000);
    assert_eq!(out[1..], [told, tell(1, RunCommand::Abort)]);
}

#[test]
fn a_large_artifact_is_staged_before_its_batch_is_told() {
    let mut bench = Bench::new();
    bench.processing();
    let body = Json::encode(&"x".repeat(256 * 1024)).unwrap();
    let bytes = body.len() as u64;
    let out = bench.run(
        1,
        RunEvent::Processed {
            metrics: metrics("n", "2"),
            artifact: Some(body.clone()),
            result: None,
        },
    );
    let stage = || StoreRequest::StageArtifact {
        task_id: task(),
        node_id: node("n"),
        batch_uid: uid("a"),
        token: Token(1),
        body: body.clone(),
    };
    assert_eq!(out, vec![store_op(9, stage())]);
    bench.store_fails(9, ErrorKind::Retry);
    bench.store(10, grants(&[Some((1, false))]));
    assert_eq!(bench.pass(50), vec![store_op(11, stage())]);
    let out = bench.store(11, StoreReply::Done);
    let sent = BatchOk {
        metrics: metrics("n", "2"),
        artifact: Some(Artifact::Staged(bytes)),
        ..ok("a")
    };
    let sent = event(12, 1, 1, Body::BatchOk(sent), 1);
    assert_eq!(out, vec![sent, tell(1, RunCommand::NextBatch)]);
}

#[test]
fn what_does_not_fit_into_a_message_fails_for_good_and_leaves_nothing() {
    let mut bench = Bench::new();
    bench.processing();
    let large = "x".repeat(800 * 1024);
    bench.run(
        1,
        RunEvent::Processed {
            metrics: Metrics::from([("text".into(), Json::encode(&large).unwrap())]),
            artifact: Some(Json::encode(&"x".repeat(250 * 1024)).unwrap()),
            result: None,
        },
    );
    let out = bench.run(1, RunEvent::Closed);
    let text = "metrics, artifact, checkpoint and result of the batch do not fit into a message";
    let end = task_failed(Some("a"), "message_too_large", true, text);
    assert_eq!(out, vec![ended(1, "TASK_FAILED"), event(9, 1, 1, end, 2)]);
}

#[test]
fn a_marked_result_is_bounded_so_that_it_fits_beside_artifact_and_checkpoint() {
    let text = |bytes: usize| Some(Json::encode(&"x".repeat(bytes - 2)).unwrap());
    let marked = |bytes: usize| RunEvent::Processed {
        metrics: Metrics::new(),
        artifact: text(256 * 1024),
        result: text(bytes),
    };
    let mut bench = Bench::new();
    bench.processing();
    bench.run(1, RunEvent::Checkpoint(text(64 * 1024).unwrap()));
    bench.store(9, StoreReply::Done);
    let out = bench.run(1, marked(MARK_BYTES_MAX));
    assert_eq!(out[1], tell(1, RunCommand::NextBatch), "it leaves");

    let mut bench = Bench::new();
    bench.processing();
    bench.run(1, marked(MARK_BYTES_MAX + 1));
    let out = bench.run(1, RunEvent::Closed);
    let failure = mark_too_large(MARK_BYTES_MAX + 1);
    let end = task_failed(Some("a"), "result_too_large", true, &failure.error);
    assert_eq!(out, vec![ended(1, "TASK_FAILED"), event(9, 1, 1, end, 2)]);
}

#[test]
fn a_value_that_no_store_could_keep_fails_its_batch() {
    let mut bench = Bench::new();
    bench.processing();
    bench.run(
        1,
        RunEvent::Processed {
            metrics: Metrics::new(),
            artifact: Some(json(r#"{"$a":1}"#)),
            result: None,
        },
    );
    let out = bench.run(1, RunEvent::Closed);
    let text = format!("{:?}", out[1]);
    assert!(text.contains("bad_value"), "{text}");
}

#[test]
fn finalize_gets_the_totals_of_all_attempts() {
    let mut before = Totals::new();
    add_metrics(&mut before, &metrics("n", "40"));
    let mut bench = Bench::new();
    let start = TaskStart {
        totals: before.clone(),
        ..start()
    };
    bench.begin(start, 1);
    bench.run(1, RunEvent::Loaded { adapter: None });
    bench.run(1, batch("a", true));
    let out = bench.run(
        1,
        RunEvent::Processed {
            metrics: metrics("n", "2"),
            artifact: None,
            result: None,
        },
    );
    let mut totals = before;
    add_metrics(&mut totals, &metrics("n", "2"));
    assert_eq!(totals.values().next().unwrap().count, 2);
    assert_eq!(out, vec![tell(1, RunCommand::Finalize { totals })]);
}

#[test]
fn a_handler_that_fails_ends_its_attempt_with_its_reason() {
    let mut bench = Bench::new();
    bench.begin(start(), 1);
    let out = bench.run(1, RunEvent::Failed(failure("no_db", false, false)));
    assert_eq!(out, vec![tell(1, RunCommand::Close)]);
    let out = bench.run(1, RunEvent::Closed);
    let end = task_failed(None, "no_db", false, "text");
    assert_eq!(out, vec![ended(1, "TASK_FAILED"), event(9, 1, 1, end, 2)]);
}

#[test]
fn an_event_that_does_not_fit_the_run_is_rejected() {
    let mut bench = Bench::new();
    bench.begin(start(), 1);
    let out = bench.run(1, processed());
    let text = "`Processed` of a run that is loading";
    let report = crate::report::Report::new(crate::report::ReportKind::Rejected, text);
    assert_eq!(out, vec![crate::worker::Effect::Report(report)]);
}
