//! Bytes of any origin give a message or an error, never a panic.

use proptest::prelude::*;

use super::any::envelopes;
use crate::message::{DecodeError, Envelope, MESSAGE_BYTES_MAX};

const HEAD: &str = r#"{"v":1,"msg_type":"event","kind":"#;

fn with_payload(kind: &str, payload: &str) -> Result<Envelope, DecodeError> {
    let sender = r#""sender":{"role":"worker","id":"w"}"#;
    let text = format!(r#"{HEAD}"{kind}",{sender},"payload":{payload}}}"#);
    Envelope::decode(text.as_bytes())
}

/// Whatever was read can be written and read again to the same.
fn harmless(bytes: &[u8]) {
    if let Ok(envelope) = Envelope::decode(bytes) {
        let again = envelope.encode().expect("no larger than a message");
        assert_eq!(Envelope::decode(&again), Ok(envelope));
    }
}

proptest! {
    #[test]
    fn no_prefix_of_a_message_is_a_message(envelope in envelopes()) {
        let bytes = envelope.encode().expect("small");
        for end in 0..bytes.len() {
            prop_assert!(Envelope::decode(&bytes[..end]).is_err(), "{} bytes", end);
        }
    }

    #[test]
    fn a_changed_byte_does_no_harm(envelope in envelopes(), bit in 0_u8..8) {
        let mut bytes = envelope.encode().expect("small");
        for at in 0..bytes.len() {
            bytes[at] ^= 1 << bit;
            harmless(&bytes);
            bytes[at] ^= 1 << bit;
        }
    }

    #[test]
    fn a_byte_set_to_a_sign_of_json_does_no_harm(
        envelope in envelopes(),
        sign in prop::sample::select(br#"{}[]",:\0-9eu."#.to_vec()),
    ) {
        let mut bytes = envelope.encode().expect("small");
        for at in 0..bytes.len() {
            let was = std::mem::replace(&mut bytes[at], sign);
            harmless(&bytes);
            bytes[at] = was;
        }
    }

    #[test]
    fn random_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(Envelope::decode(&bytes).is_err());
    }
}

#[test]
fn deep_nesting_anywhere_is_survived() {
    const DEPTH: usize = 400_000;
    let arrays = format!("{}{}", "[".repeat(DEPTH), "]".repeat(DEPTH));
    let objects = format!("{}1{}", r#"{"a":"#.repeat(100_000), "}".repeat(100_000));
    let open = "[".repeat(2 * DEPTH);
    for deep in [&arrays, &objects] {
        // A user's value: carried, not looked into; limits are checked where it is used.
        for (kind, payload) in [
            ("SUBMIT", format!(r#"{{"graph":{deep},"inbox":0}}"#)),
            ("NEW_KIND", deep.clone()),
            ("SLOT_FREE", deep.clone()),
            ("WAIT_TASK", format!(r#"{{"later":{deep},"inbox":0}}"#)),
        ] {
            let envelope = with_payload(kind, &payload).expect(kind);
            assert_eq!(envelope.body.kind(), kind);
            harmless(&envelope.encode().expect("no larger"));
        }
        // Where the format wants something else.
        for kind in [
            "SUBMIT",
            "HEARTBEAT",
            "TASK_START",
            "REPLY",
            "WORKER_ONLINE",
        ] {
            assert!(with_payload(kind, deep).is_err(), "{kind}");
        }
        let field = format!(r#"{{"runs":{deep}}}"#);
        assert!(with_payload("HEARTBEAT", &field).is_err());
        assert!(Envelope::decode(deep.as_bytes()).is_err());
        let kind = format!(r#"{HEAD}{deep}}}"#);
        assert!(Envelope::decode(kind.as_bytes()).is_err());
    }
    assert!(Envelope::decode(open.as_bytes()).is_err());
    assert!(with_payload("SUBMIT", &open).is_err());
}

#[test]
fn numbers_out_of_range_are_refused() {
    let long = "9".repeat(100_000);
    for number in [
        "-1",
        "1.5",
        "1e400",
        "18446744073709551616",
        "4294967296",
        long.as_str(),
    ] {
        assert!(with_payload("WAIT_TASK", &format!(r#"{{"inbox":{number}}}"#)).is_err());
        let seq = format!(
            r#"{HEAD}"SLOT_FREE","sender":{{"role":"worker","id":"w"}},"free_slots":{number}}}"#
        );
        assert!(Envelope::decode(seq.as_bytes()).is_err());
    }
    // A user's number is carried as it is written.
    let metrics = format!(r#"{{"batch_uid":"b","metrics":{{"n":{long},"e":1e400}}}}"#);
    let envelope = with_payload("BATCH_OK", &metrics).expect("a message");
    harmless(&envelope.encode().expect("small"));
}

#[test]
fn ids_that_a_store_would_refuse_are_refused() {
    let long = "x".repeat(201);
    for id in ["", "$a", r"a\u0000b", r"\n", r"\ud800", &long] {
        let text = format!(
            r#"{HEAD}"SLOT_FREE","sender":{{"role":"worker","id":"w"}},"task_id":"{id}"}}"#
        );
        assert!(Envelope::decode(text.as_bytes()).is_err(), "{id}");
    }
}

#[test]
fn other_versions_and_sizes_are_named() {
    let text =
        r#"{"v":2,"msg_type":"event","kind":"SLOT_FREE","sender":{"role":"worker","id":"w"}}"#;
    assert_eq!(
        Envelope::decode(text.as_bytes()),
        Err(DecodeError::Version(2))
    );
    let large = vec![b' '; MESSAGE_BYTES_MAX + 1];
    assert_eq!(
        Envelope::decode(&large),
        Err(DecodeError::TooLarge(MESSAGE_BYTES_MAX + 1))
    );
    let graph = format!(
        r#"{{"graph":"{}","inbox":0}}"#,
        "x".repeat(MESSAGE_BYTES_MAX - 200)
    );
    let mut envelope = with_payload("SUBMIT", &graph).expect("it just fits");
    envelope.corr_id = Some("y".repeat(300).into());
    assert!(matches!(envelope.encode(), Err(DecodeError::TooLarge(_))));
}
