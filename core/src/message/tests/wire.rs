//! What messages look like on the wire, and what a reader makes of other shapes.

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;

use super::any::{bodies, envelopes};
use crate::id::NodeId;
use crate::json::Json;
use crate::message::size::FRAME_BYTES;
use crate::message::{
    Artifact, BatchOk, Body, Cursor, DecodeError, Envelope, MESSAGE_BYTES_MAX, TaskStart,
};

/// Places of objects of the format inside a payload; other objects belong to users.
const OBJECTS: [&str; 9] = [
    "runs",
    "sources",
    "counts",
    "last_batch",
    "failure",
    "error",
    "adapter",
    "capabilities",
    "capacity",
];

fn add_unknown_fields(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(add_unknown_fields),
        Value::Object(fields) => {
            for (name, part) in fields.iter_mut() {
                if OBJECTS.contains(&name.as_str()) {
                    add_unknown_fields(part);
                }
            }
            fields.insert("from_the_future".to_owned(), json!({"x": [1]}));
        }
        _ => {}
    }
}

/// A part by name, and how it is made large.
type Enlarge<T> = (&'static str, fn(&mut T, Json, Cursor));

/// A body with one part after the other made larger than a message may be.
fn enlarged(body: &Body) -> Vec<(&'static str, Body)> {
    let text: Arc<str> = "x".repeat(MESSAGE_BYTES_MAX).into();
    let json = Json::from(Value::from(&*text));
    let entries = 0..u64::try_from(MESSAGE_BYTES_MAX / 16).expect("small");
    let cursor: Cursor = entries
        .map(|n| (NodeId::new(format!("node-{n}")).expect("a name"), n))
        .collect();
    let mut all = Vec::new();
    match body {
        Body::Submit(_) | Body::CancelTask(_) | Body::Unknown { .. } => {
            let mut body = body.clone();
            let part = match &mut body {
                Body::Submit(submit) => {
                    submit.graph = json;
                    "graph"
                }
                Body::CancelTask(cancel) => {
                    cancel.reason = text;
                    "reason"
                }
                Body::Unknown { payload, .. } => {
                    *payload = json;
                    "payload"
                }
                _ => return all,
            };
            all.push((part, body));
        }
        Body::TaskStart(start) => {
            let parts: [Enlarge<TaskStart>; 4] = [
                ("input", |start, json, _| start.input = json),
                ("checkpoint", |start, json, _| start.checkpoint = Some(json)),
                ("cursor", |start, _, cursor| start.cursor = cursor),
                ("vars", |start, json, _| start.vars = json),
            ];
            for (part, enlarge) in parts {
                let mut start = start.clone();
                enlarge(&mut start, json.clone(), cursor.clone());
                all.push((part, Body::TaskStart(start)));
            }
        }
        Body::BatchOk(ok) => {
            let parts: [Enlarge<BatchOk>; 4] = [
                ("artifact", |ok, json, _| {
                    ok.artifact = Some(Artifact::Inline(json));
                }),
                ("checkpoint", |ok, json, _| ok.checkpoint = Some(json)),
                ("cursor", |ok, _, cursor| ok.cursor = Some(cursor)),
                ("metrics", |ok, json, _| {
                    ok.metrics.insert("m".into(), json);
                }),
            ];
            for (part, enlarge) in parts {
                let mut ok = ok.clone();
                enlarge(&mut ok, json.clone(), cursor.clone());
                all.push((part, Body::BatchOk(ok)));
            }
        }
        Body::TaskDone(done) => {
            let mut done = done.clone();
            done.result = Some(json);
            all.push(("result", Body::TaskDone(done)));
        }
        Body::TaskFailed(failed) => {
            let mut failed = failed.clone();
            failed.error = text;
            all.push(("error", Body::TaskFailed(failed)));
        }
        _ => {}
    }
    all
}

proptest! {
    #[test]
    fn no_message_is_larger_than_its_bound_says(envelope in envelopes()) {
        // Without the allowance for what every message has, which would hide a part left out.
        let encoded = envelope.encode().expect("small").len();
        let bound = envelope.bytes_at_most() - FRAME_BYTES;
        prop_assert!(encoded <= bound + 2_048, "{} of {}", encoded, bound);
    }

    #[test]
    fn a_large_part_makes_a_message_too_large_whichever_it_is(envelope in envelopes()) {
        for (part, body) in enlarged(&envelope.body) {
            let mut large = envelope.clone();
            large.body = body;
            prop_assert!(!large.is_within_limit(), "{}", part);
        }
    }

    #[test]
    fn every_envelope_round_trips(envelope in envelopes()) {
        let bytes = envelope.encode().expect("small");
        prop_assert_eq!(Envelope::decode(&bytes), Ok(envelope.clone()));
        // Again through a pretty printer: white space means nothing outside users' values.
        let value: Value = serde_json::from_slice(&bytes).expect("JSON");
        prop_assert!(value.get("payload").is_some());
    }

    #[test]
    fn unknown_fields_are_ignored_wherever_the_format_has_objects(envelope in envelopes()) {
        let bytes = envelope.encode().expect("small");
        // Numbers of users may lose their spelling in a tree, so both sides take the same way.
        let mut value: Value = serde_json::from_slice(&bytes).expect("JSON");
        let plain = Envelope::decode(value.to_string().as_bytes());
        if !matches!(envelope.body, Body::Unknown { .. } | Body::SlotFree) {
            add_unknown_fields(&mut value["payload"]);
        }
        add_unknown_fields(&mut value["sender"]);
        value["from_the_future"] = json!(true);
        prop_assert_eq!(Envelope::decode(value.to_string().as_bytes()), plain);
    }

    #[test]
    fn absent_fields_are_left_out(envelope in envelopes()) {
        let bytes = envelope.encode().expect("small");
        let value: Value = serde_json::from_slice(&bytes).expect("JSON");
        let fields = value.as_object().expect("an object");
        for (name, present) in [
            ("to", envelope.to.is_some()),
            ("to_incarnation", envelope.to_incarnation.is_some()),
            ("corr_id", envelope.corr_id.is_some()),
            ("task_id", envelope.task_id.is_some()),
            ("node_id", envelope.node_id.is_some()),
            ("step_type", envelope.step_type.is_some()),
            ("attempt_epoch", envelope.attempt_epoch.is_some()),
            ("lease_no", envelope.lease_no.is_some()),
            ("seq", envelope.seq.is_some()),
            ("free_slots", envelope.free_slots.is_some()),
            ("slots_no", envelope.slots_no.is_some()),
        ] {
            prop_assert_eq!(fields.contains_key(name), present, "{}", name);
        }
    }
}

#[test]
fn the_generator_knows_every_kind() {
    let mut runner = TestRunner::deterministic();
    let kinds: BTreeSet<String> = bodies()
        .iter()
        .map(|strategy| {
            let tree = strategy.new_tree(&mut runner).expect("a value");
            tree.current().kind().to_owned()
        })
        .collect();
    assert_eq!(kinds.len(), 23, "22 kinds and an unknown one: {kinds:?}");
}

/// Kind, its class, the shortest payload that is read, the payload as it is written again.
const SHORTEST: [(&str, &str, &str, &str); 20] = [
    (
        "SUBMIT",
        "request",
        r#"{"graph":{},"inbox":3}"#,
        r#"{"graph":{},"vars":null,"inbox":3}"#,
    ),
    (
        "CANCEL_TASK",
        "request",
        r#"{"inbox":3}"#,
        r#"{"reason":"","inbox":3}"#,
    ),
    ("WAIT_TASK", "request", r#"{"inbox":3}"#, r#"{"inbox":3}"#),
    (
        "PAUSE_TASK",
        "request",
        r#"{"control_no":1,"inbox":3}"#,
        r#"{"control_no":1,"reason":"","inbox":3}"#,
    ),
    (
        "RESUME_TASK",
        "request",
        r#"{"control_no":2,"inbox":3}"#,
        r#"{"control_no":2,"reason":"","inbox":3}"#,
    ),
    (
        "RERUN_TASK",
        "request",
        r#"{"of":"t1","inbox":3}"#,
        r#"{"of":"t1","all":false,"inbox":3}"#,
    ),
    ("REPLY", "reply", r#"{"ok":true}"#, r#"{"ok":true}"#),
    (
        "TASK_START",
        "cmd",
        r#"{"input":{},"lease_ttl_ms":60000}"#,
        r#"{"input":{},"lease_ttl_ms":60000,"checkpoint_batches":0,"cursor":{},"cursor_batches":0,"accepted":0,"totals":{},"vars":null,"sources":[]}"#,
    ),
    (
        "TASK_CANCEL",
        "cmd",
        r#"{"reason":"user_request","grace_ms":5}"#,
        r#"{"reason":"user_request","grace_ms":5}"#,
    ),
    (
        "INPUT_READY",
        "cmd",
        r#"{"sources":[{"node_id":"a","last":2,"ended":true}]}"#,
        r#"{"sources":[{"node_id":"a","last":2,"ended":true}]}"#,
    ),
    (
        "TASK_REFUSED",
        "event",
        r#"{"reason":"busy"}"#,
        r#"{"reason":"busy"}"#,
    ),
    (
        "HEARTBEAT",
        "heartbeat",
        r#"{"runs":[{"task_id":"t","node_id":"n","token":9}]}"#,
        r#"{"runs":[{"task_id":"t","node_id":"n","token":9,"batches":0,"in_batch_ms":0}]}"#,
    ),
    (
        "BATCH_OK",
        "event",
        r#"{"batch_uid":"b"}"#,
        r#"{"batch_uid":"b","metrics":{}}"#,
    ),
    (
        "TASK_DONE",
        "event",
        r#"{"counts":{"new":1,"skipped":2,"behind_checkpoint":3}}"#,
        r#"{"metrics":{},"counts":{"new":1,"skipped":2,"behind_checkpoint":3}}"#,
    ),
    (
        "TASK_FAILED",
        "event",
        r#"{"reason_code":"bad_input"}"#,
        r#"{"reason_code":"bad_input","permanent":false,"error":""}"#,
    ),
    (
        "CANCELLED",
        "event",
        r#"{"reason":"task_failed"}"#,
        r#"{"reason":"task_failed"}"#,
    ),
    (
        "TASK_RELEASED",
        "event",
        r#"{"reason":"lease_lapsed"}"#,
        r#"{"reason":"lease_lapsed"}"#,
    ),
    ("SLOT_FREE", "event", "null", "null"),
    (
        "WORKER_ONLINE",
        "event",
        r#"{"worker_id":"w","type":"a,b","capabilities":{"roles":["a","b"]},"version":"2.0.0","capacity":{"tasks":4},"status":"online","incarnation":7,"inbox":1}"#,
        r#"{"worker_id":"w","type":"a,b","capabilities":{"roles":["a","b"]},"version":"2.0.0","capacity":{"tasks":4},"status":"online","incarnation":7,"inbox":1}"#,
    ),
    (
        "WORKER_OFFLINE",
        "event",
        r#"{"worker_id":"w","incarnation":7}"#,
        r#"{"worker_id":"w","incarnation":7}"#,
    ),
];

#[test]
fn the_wire_form_of_every_kind_is_fixed_and_missing_optionals_are_defaulted() {
    for (kind, class, read, written) in SHORTEST {
        let short = format!(
            r#"{{"v":1,"msg_type":"{class}","kind":"{kind}","sender":{{"role":"worker","id":"w"}},"payload":{read}}}"#
        );
        let envelope = Envelope::decode(short.as_bytes()).expect(kind);
        assert_eq!(
            (envelope.body.kind(), envelope.body.msg_type()),
            (kind, class)
        );
        let again = envelope.encode().expect("small");
        assert_eq!(
            String::from_utf8(again).expect("text"),
            format!(
                r#"{{"v":1,"msg_type":"{class}","kind":"{kind}","sender":{{"role":"worker","id":"w","incarnation":0}},"dedup_id":"0000000000000000","ts_ms":0,"payload":{written}}}"#
            )
        );
    }
}

#[test]
fn each_required_field_is_missed_by_name() {
    for (kind, class, read, _) in SHORTEST {
        let payload: Value = serde_json::from_str(read).expect("JSON");
        let Value::Object(fields) = &payload else {
            continue;
        };
        for name in fields.keys() {
            let mut less = fields.clone();
            less.remove(name);
            let message = json!({"v": 1, "msg_type": class, "kind": kind, "payload": less,
                "sender": {"role": "worker", "id": "w"}});
            let error = Envelope::decode(message.to_string().as_bytes()).expect_err(name);
            assert!(
                matches!(&error, DecodeError::Payload { kind: k, message }
                    if k == kind && message.contains(name.as_str())),
                "{error}"
            );
        }
    }
}

#[test]
fn an_unknown_kind_keeps_all_it_carries() {
    let text = r#"{"v":1,"msg_type":"request","kind":"FREEZE_TASK","sender":{"role":"client","id":"c","incarnation":0},"dedup_id":"00000000000000ff","task_id":"t","ts_ms":5,"payload":{"control_no":1.50}}"#;
    let envelope = Envelope::decode(text.as_bytes()).expect("an envelope");
    assert!(matches!(&envelope.body, Body::Unknown { kind, .. } if &**kind == "FREEZE_TASK"));
    assert_eq!(envelope.encode().expect("small"), text.as_bytes());
}

#[test]
fn a_null_that_a_user_saved_is_not_an_absent_one() {
    for text in [
        r#"{"batch_uid":"b","metrics":{},"checkpoint":null}"#,
        r#"{"batch_uid":"b","metrics":{},"artifact":{"inline":null}}"#,
    ] {
        let payload: BatchOk = serde_json::from_str(text).expect("a payload");
        assert_eq!(serde_json::to_string(&payload).expect("JSON"), text);
    }
}

#[test]
fn a_redelivery_keeps_its_identity_and_another_message_has_another() {
    let sender = crate::message::Sender {
        role: crate::message::SenderRole::Worker,
        id: "w".into(),
        incarnation: crate::id::Incarnation(1),
    };
    let message = |ts_ms, seq, nonce| {
        let mut envelope = Envelope::new(sender.clone(), ts_ms, Body::SlotFree);
        envelope.seq = seq;
        envelope.identified(nonce).dedup_id
    };
    assert_eq!(message(1, Some(1), 0), message(2, Some(1), 0));
    let others: BTreeSet<_> = [
        message(1, Some(1), 0),
        message(1, Some(2), 0),
        message(1, None, 0),
        message(1, None, 1),
    ]
    .into();
    assert_eq!(others.len(), 4);
}
