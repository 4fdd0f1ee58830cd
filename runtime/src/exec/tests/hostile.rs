//! Lines that are JSON and of a known kind, and still not to be believed.

use std::fmt;
use std::sync::{Arc, Mutex};
use tracing::field::{Field, Visit};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

use super::*;

/// What no error may show: it was given to the program, not said by it.
const SECRETS: [&str; 2] = ["of-the-arguments", "of-the-payload"];

/// The failure of a first batch in which a shell does this.
async fn failure_of(script: &str) -> RunFailure {
    let script = format!("read -r hello; read -r batch; {script}; sleep 60");
    let exec = Exec::new("sh", ["-c", &script, SECRETS[0]]);
    let mut run = Run::start(exec).await.expect("it starts");
    let payload = Json::encode(&serde_json::json!({"password": SECRETS[1]})).expect("JSON");
    let failure = run.process_payload("b", payload).await;
    let failure = failure.expect_err("it must fail");
    run.end().await;
    for secret in SECRETS {
        assert!(!failure.error.contains(secret), "{failure:?}");
    }
    let shown = failure.error.chars();
    let hidden = shown.filter(|c| c.is_control() && !matches!(c, '\n' | '\t'));
    assert_eq!(hidden.count(), 0, "{failure:?}");
    failure
}

#[tokio::test]
async fn a_field_that_cannot_be_is_named_with_what_it_should_be() {
    let twice = r#"{"kind":"progress","done":1,"done":2}"#;
    let long = format!(r#"{{"kind":"cancelled","{}":1}}"#, "x".repeat(100_000));
    for (line, parts) in [
        (
            r#"{"kind":"error","message":"m","retry_after_ms":-1}"#,
            &["`error`", "`retry_after_ms`", "-1", "u64"][..],
        ),
        (
            r#"{"kind":"error","message":"m","retry_after_ms":18446744073709551616}"#,
            &["`retry_after_ms`", "u64"],
        ),
        (
            r#"{"kind":"error","message":"m","retry_after_ms":0.5}"#,
            &["`retry_after_ms`", "0.5"],
        ),
        (
            r#"{"kind":"error","message":"m","permanent":"yes"}"#,
            &["`permanent`", "boolean"],
        ),
        (r#"{"kind":"error","code":"c"}"#, &["lacks", "`message`"]),
        (
            r#"{"kind":"progress","done":-3}"#,
            &["`progress`", "`done`", "-3"],
        ),
        (
            r#"{"kind":"log","message":"m","level":"fatal"}"#,
            &["`level`", "fatal", "`warn`"],
        ),
        (
            r#"{"kind":"result","batch_uid":null}"#,
            &["`batch_uid`", "a string"],
        ),
        (
            r#"{"kind":"result","batch_uid":"b","metrics":[1]}"#,
            &["`metrics`", "a map"],
        ),
        (
            r#"{"kind":"cancelled","why":"\u001b[31m"}"#,
            &["unknown field \"why\""],
        ),
        (twice, &["\"done\" is there twice"]),
        (&long, &["unknown field \"xxx"]),
    ] {
        let failure = failure_of(&format!("echo '{line}'")).await;
        is(&failure, "exec_protocol", true, parts);
    }
}

#[tokio::test]
async fn a_checkpoint_that_is_too_large_fails_its_batch_for_good() {
    let script = r#"printf '{"kind":"checkpoint","batch_uid":"b","value":"%065535d"}\n' 7
        echo '{"kind":"result","batch_uid":"b"}'"#;
    let failure = failure_of(script).await;
    let parts = ["65537 bytes", "65536", "a reference"];
    is(&failure, "checkpoint_too_large", true, &parts);

    // One byte less is kept, before the result counts.
    let script = r#"printf '{"kind":"checkpoint","batch_uid":"b","value":"%065534d"}\n' 7
        echo '{"kind":"result","batch_uid":"b"}'"#;
    let mut run = Run::start(answers_once(script, "cat > /dev/null"))
        .await
        .expect("it starts");
    assert!(run.process("b").await.is_ok());
    let kept = run.control.checkpoints();
    assert_eq!(kept.iter().map(String::len).collect::<Vec<_>>(), [65_536]);
    run.end().await;
}

#[tokio::test]
async fn a_wait_of_any_length_is_passed_on() {
    let script = r#"echo '{"kind":"error","message":"m","retry_after_ms":18446744073709551615}'"#;
    let failure = failure_of(script).await;
    is(&failure, "exec_error", false, &["m"]);
    assert_eq!(failure.retry_after_ms, Some(u64::MAX));
}

#[tokio::test]
async fn cancelled_without_a_cancel_is_a_failure_that_is_tried_again() {
    let failure = failure_of(r#"echo '{"kind":"cancelled"}'"#).await;
    is(&failure, "cancelled", false, &["cancelled"]);
    assert!(failure.cancelled, "the worker knows that nobody told it to");
}

#[tokio::test]
async fn a_second_final_line_breaks_the_protocol() {
    let script = r#"echo '{"kind":"result","batch_uid":"b"}'; read -r finalize
        for i in 1 2; do echo "{\"kind\":\"final\",\"result\":$i}"; done"#;
    let mut run = Run::start(answers_once(script, "sleep 60"))
        .await
        .expect("it starts");
    assert!(run.process("b").await.is_ok());
    let failure = run.finalize().await.expect_err("which one counts?");
    is(&failure, "exec_protocol", true, &["a second `final` line"]);
}

/// The messages of events.
#[derive(Clone, Default)]
struct Logged(Arc<Mutex<Vec<(tracing::Level, String)>>>);

impl<S: tracing::Subscriber> Layer<S> for Logged {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        struct Message(String);
        impl Visit for Message {
            fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
                if field.name() == "message" {
                    self.0 = format!("{value:?}");
                }
            }
        }
        let mut message = Message(String::new());
        event.record(&mut message);
        let level = *event.metadata().level();
        self.0.lock().unwrap().push((level, message.0));
    }
}

#[tokio::test]
async fn a_log_line_is_cut_and_holds_nothing_that_a_terminal_obeys() {
    let logged = Logged::default();
    // While there is but one subscriber in the process, an event that another thread, which has none, meets first is
    // taken for one that nobody wants.
    let _second = tracing::Dispatch::new(tracing_subscriber::registry());
    let subscriber = tracing_subscriber::registry().with(logged.clone());
    let _guard = tracing::subscriber::set_default(subscriber);
    // Two bytes each behind an odd one: the cut falls within a character.
    let script = r#"
import json, sys
sys.stdin.readline(), sys.stdin.readline()
for level, message in [("warn", "x" + "é" * 4000), ("debug", "a\x1b[2J\x07\x00b\u009b"), ("error", "")]:
    print(json.dumps({"kind": "log", "level": level, "message": message}))
print(json.dumps({"kind": "result", "batch_uid": "b"}), flush=True)
sys.stdin.read()
"#;
    let mut run = Run::start(Exec::new("python3", ["-c", script]))
        .await
        .expect("it starts");
    assert!(run.process("b").await.is_ok());
    run.end().await;
    let logged = logged.0.lock().unwrap();
    let of_program = logged
        .iter()
        .filter(|(_, text)| !text.contains("temporary"));
    let cut = format!("x{}", "é".repeat(2_047));
    let expected = [
        (tracing::Level::WARN, cut.as_str()),
        (tracing::Level::DEBUG, "a [2J  b "),
        (tracing::Level::ERROR, ""),
    ];
    let said: Vec<_> = of_program
        .map(|(level, text)| (*level, text.as_str()))
        .collect();
    assert_eq!(said, expected);
}
