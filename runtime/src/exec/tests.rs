//! Programs as handlers, hostile ones above all: each is a real process.

use flowkit_core::message::CancelReason;
use flowkit_core::worker::RunFailure;
use std::time::{Duration, Instant};

use super::*;
use crate::{ErrorClass, TestControl};

mod hostile;

/// Answers every batch with its own payload's text, in a shell.
const ANSWERS: &str = r#"while read -r line; do
  uid=$(printf '%s' "$line" | sed -n 's/.*"batch_uid":"\([^"]*\)".*/\1/p')
  case $line in *'"kind":"batch"'*)
    printf '{"kind":"result","batch_uid":"%s","artifact":"did %s"}\n' "$uid" "$uid";;
  esac
done"#;

fn shell(script: &str) -> Exec {
    Exec::new("sh", ["-c", script])
}

/// Answers the first line that is a batch with `text`, then goes on with `then`.
fn answers_once(text: &str, then: &str) -> Exec {
    shell(&format!("read -r hello; read -r batch; {text}\n{then}"))
}

struct Run {
    cx: RunContext,
    control: TestControl,
    run: ExecRun,
    exec: Exec,
}

impl Run {
    async fn start(exec: Exec) -> Result<Self, RunFailure> {
        let (cx, control) = RunContext::for_test();
        let run = exec.init(&cx).await.map_err(failure)?;
        Ok(Self {
            cx,
            control,
            run,
            exec,
        })
    }

    async fn process(&mut self, uid: &str) -> Result<BatchResult<Json>, RunFailure> {
        self.process_payload(uid, Json::null()).await
    }

    async fn process_payload(
        &mut self,
        uid: &str,
        payload: Json,
    ) -> Result<BatchResult<Json>, RunFailure> {
        self.control.begin_batch(uid);
        let batch = Batch::new(uid, payload);
        let result = self.exec.process(&self.cx, &mut self.run, batch).await;
        result.map_err(failure)
    }

    async fn finalize(self) -> Result<FinalizeResult, RunFailure> {
        let end = self.exec.finalize(&self.cx, self.run).await;
        self.control.run_cleanups().await;
        end.map_err(failure)
    }

    async fn end(self) {
        drop(self.run);
        self.control.run_cleanups().await;
    }
}

fn failure(error: HandlerError) -> RunFailure {
    error.into_failure(|_| ErrorClass::transient("unexpected_error"))
}

/// The failure of a program's first batch.
async fn first_failure(exec: Exec) -> RunFailure {
    let mut run = Run::start(exec).await.expect("it starts");
    let began = Instant::now();
    let failure = run.process("b").await.expect_err("it must fail");
    assert!(began.elapsed() < Duration::from_secs(20), "{failure:?}");
    run.end().await;
    failure
}

#[track_caller]
fn is(failure: &RunFailure, code: &str, permanent: bool, parts: &[&str]) {
    assert_eq!(
        (&*failure.reason_code, failure.permanent),
        (code, permanent),
        "{failure:?}"
    );
    for part in parts {
        assert!(failure.error.contains(part), "{part:?}: {failure:?}");
    }
    assert!(failure.error.len() < 4_000, "{}", failure.error.len());
}

#[tokio::test]
async fn one_process_does_all_batches_and_ends_on_the_end_of_file() {
    let mut run = Run::start(shell(ANSWERS)).await.unwrap();
    for uid in ["a", "b", "c"] {
        let result = run.process(uid).await.unwrap();
        let expected = format!("\"did {uid}\"");
        assert_eq!(result.artifact.unwrap().text(), expected);
    }
    let end = run.finalize().await.unwrap();
    assert!(end.result.is_none() && end.metrics.is_empty());
}

#[tokio::test]
async fn everything_that_a_program_may_say_is_passed_on() {
    let script = r#"
read -r hello; echo '{"kind":"hello","protocol":1}'
read -r batch
echo '{"kind":"log","level":"warn","message":"slow page"}'
echo
echo '{"kind":"progress","done":3,"total":9}'
echo '{"kind":"checkpoint","batch_uid":"b","value":{"page":3}}'
echo '{"kind":"result","batch_uid":"b","artifact":[1],"metrics":{"pages":9,"lang":"de"}}'
read -r finalize
echo '{"kind":"final","result":{"ok":true},"metrics":{"files":1}}'"#;
    let mut run = Run::start(shell(script)).await.unwrap();
    let result = run.process("b").await.unwrap();
    assert_eq!(result.artifact.unwrap().text(), "[1]");
    assert_eq!(result.metrics["pages"].text(), "9");
    assert_eq!(run.cx.progress().done, 3);
    assert_eq!(run.control.checkpoints(), [r#"{"page":3}"#]);
    let end = run.finalize().await.unwrap();
    assert_eq!(end.result.unwrap().unwrap().text(), r#"{"ok":true}"#);
    assert_eq!(end.metrics["files"].text(), "1");
}

#[tokio::test]
async fn a_program_is_told_all_that_a_handler_can_know() {
    let script = r#"
import json, os, sys
hello = json.loads(sys.stdin.readline())
batch = json.loads(sys.stdin.readline())
print(json.dumps({"kind": "result", "batch_uid": batch["batch_uid"], "artifact": {
    "hello": hello, "batch": batch, "tmp": os.environ["TMPDIR"]}}), flush=True)
finalize = json.loads(sys.stdin.readline())
print(json.dumps({"kind": "final", "result": [finalize, sys.stdin.read()]}))
"#;
    let mut run = Run::start(Exec::new("python3", ["-c", script]))
        .await
        .unwrap();
    let payload = Json::parse(r#"{"page":"seven\nlines é"}"#).unwrap();
    let result = run.process_payload("page-7", payload).await.unwrap();
    let told: serde_json::Value = result.artifact.unwrap().decode().unwrap();
    let (hello, batch) = (&told["hello"], &told["batch"]);
    assert_eq!(hello["kind"], "hello");
    assert_eq!(hello["protocol"], 1);
    assert_eq!(hello["task_id"], "test-task");
    assert_eq!(hello["node_id"], "test-node");
    assert_eq!(hello["role"], "test-role");
    assert_eq!(hello["attempt"], 1);
    assert_eq!(hello["token"], 1);
    assert_eq!(hello["temp_dir"], told["tmp"]);
    assert_eq!(batch["kind"], "batch");
    assert_eq!(batch["batch_uid"], "page-7");
    assert_eq!(batch["idempotency_key"], run.cx.idempotency_key());
    assert_eq!(batch["payload"]["page"], "seven\nlines é");
    let temp_dir = run.cx.temp_dir().unwrap();
    assert_eq!(hello["temp_dir"], temp_dir.to_str().unwrap());
    let end = run.finalize().await.unwrap();
    let end: serde_json::Value = end.result.unwrap().unwrap().decode().unwrap();
    assert_eq!(
        end,
        serde_json::json!([{"kind": "finalize", "totals": {}}, ""])
    );
    assert!(!temp_dir.exists());
}

#[tokio::test]
async fn a_program_that_cannot_be_started_is_transient_and_named() {
    let folder = tempfile::tempdir().unwrap();
    let plain = folder.path().join("plain.py");
    std::fs::write(&plain, "print()").unwrap();
    let missing = Exec::new("no-such-program", ["--token=secret"]);
    for (exec, name) in [
        (missing, "no-such-program"),
        (Exec::new(plain.to_str().unwrap(), [""; 0]), "plain.py"),
    ] {
        let failure = Run::start(exec).await.err().expect("refused");
        is(&failure, "exec_start", false, &[name, "cannot be started"]);
        assert!(!failure.error.contains("secret"), "{failure:?}");
    }
}

#[tokio::test]
async fn an_early_end_says_how_it_ended_and_what_was_said_last() {
    let failure = first_failure(answers_once("", "exit 0")).await;
    let parts = ["exit code 0 and without a result", "\"b\" was in work"];
    is(&failure, "exec_protocol", true, &parts);

    let failure = first_failure(answers_once("echo no model found >&2", "exit 3")).await;
    let parts = ["exit code 3", "\"b\" was in work", "no model found"];
    is(&failure, "exec_exit", false, &parts);

    let failure = first_failure(answers_once("echo dying >&2", "kill -9 $$")).await;
    is(&failure, "exec_killed", false, &["signal: 9", "dying"]);

    // Before it read anything.
    let failure = first_failure(shell("echo broken >&2; exit 127")).await;
    is(&failure, "exec_exit", false, &["exit code 127", "broken"]);
}

#[tokio::test]
async fn an_end_between_batches_fails_the_next_one() {
    let exec = answers_once(r#"echo '{"kind":"result","batch_uid":"a"}'"#, "exit 0");
    let mut run = Run::start(exec).await.unwrap();
    assert!(run.process("a").await.is_ok());
    let failure = run.process("b").await.unwrap_err();
    is(&failure, "exec_protocol", true, &["\"b\" was in work"]);
    run.end().await;
}

#[tokio::test]
async fn lines_that_break_the_protocol_are_permanent_and_shown() {
    for (line, parts) in [
        (
            "Loading model...",
            &["is not JSON", "\"Loading model...\""][..],
        ),
        (r#"{"kind":"reslut"}"#, &["unknown `kind`", "result"]),
        (
            r#"{"kind":"result","batch_uid":"other"}"#,
            &["\"other\"", "\"b\" was in work"],
        ),
        (
            r#"{"kind":"checkpoint","batch_uid":"x","value":1}"#,
            &["a checkpoint", "\"x\""],
        ),
        (
            r#"{"kind":"hello","protocol":2}"#,
            &["version 2", "speaks 1"],
        ),
        (r#"{"kind":"final"}"#, &["before `finalize`"]),
        (
            r#"{"kind":"result","batch_uid":"b","artefact":1}"#,
            &["artefact"],
        ),
    ] {
        let failure = first_failure(answers_once(&format!("echo '{line}'"), "sleep 60")).await;
        is(&failure, "exec_protocol", true, parts);
    }
    let failure = first_failure(answers_once(r"printf '\303\050\n'", "sleep 60")).await;
    is(&failure, "exec_protocol", true, &["is not UTF-8"]);
    let failure = first_failure(answers_once("head -c 5000 /dev/zero; echo", "sleep 60")).await;
    is(&failure, "exec_protocol", true, &["is not JSON"]);
}

#[tokio::test]
async fn a_second_result_is_no_result_of_the_next_batch() {
    let twice = r#"for i in 1 2; do echo '{"kind":"result","batch_uid":"a"}'; done"#;
    let mut run = Run::start(answers_once(twice, "sleep 60")).await.unwrap();
    assert!(run.process("a").await.is_ok());
    let failure = run.process("b").await.unwrap_err();
    is(
        &failure,
        "exec_protocol",
        true,
        &["\"a\"", "\"b\" was in work", "second"],
    );
    run.end().await;

    let mut run = Run::start(answers_once(twice, "cat >/dev/null"))
        .await
        .unwrap();
    assert!(run.process("a").await.is_ok());
    let failure = run.finalize().await.unwrap_err();
    is(&failure, "exec_protocol", true, &["\"a\"", "after its end"]);
}

#[tokio::test]
async fn a_line_over_the_bound_has_an_error_of_its_own() {
    let flood = "head -c 10485760 /dev/zero | tr '\\0' x; echo";
    let exec = answers_once(flood, "sleep 60").line_bytes_max(1 << 20);
    let failure = first_failure(exec).await;
    let parts = ["more than 1048576 bytes", "a reference"];
    is(&failure, "exec_line_too_long", true, &parts);
}

#[tokio::test]
async fn a_line_as_long_as_allowed_is_an_artifact() {
    let script = r#"
import json, sys
sys.stdin.readline()
uid = json.loads(sys.stdin.readline())["batch_uid"]
print(json.dumps({"kind": "result", "batch_uid": uid, "artifact": "x" * 10_000_000}), flush=True)
sys.stdin.read()
"#;
    let mut run = Run::start(Exec::new("python3", ["-c", script]))
        .await
        .unwrap();
    let payload = Json::encode(&"y".repeat(5_000_000)).unwrap();
    let result = run.process_payload("b", payload).await.unwrap();
    assert_eq!(result.artifact.unwrap().len(), 10_000_002);
    assert!(run.finalize().await.is_ok());
}

#[tokio::test]
async fn half_a_line_at_the_end_is_told_unless_the_program_died_of_something_else() {
    let half = r#"printf '{"kind":"res'"#;
    let failure = first_failure(answers_once(half, "exit 0")).await;
    is(&failure, "exec_protocol", true, &["within a line", "kind"]);
    let failure = first_failure(answers_once(half, "exit 4")).await;
    is(&failure, "exec_exit", false, &["exit code 4"]);
    let failure = first_failure(answers_once(half, "kill -9 $$")).await;
    is(&failure, "exec_killed", false, &[]);
}

#[tokio::test]
async fn a_program_that_closes_a_pipe_and_lives_is_found_out() {
    let failure = first_failure(answers_once("exec >&-", "sleep 60")).await;
    let parts = ["closed its standard output and goes on"];
    is(&failure, "exec_protocol", true, &parts);

    let mut run = Run::start(shell("exec <&-; sleep 60")).await.unwrap();
    let payload = Json::encode(&"y".repeat(1_000_000)).unwrap();
    let failure = run.process_payload("b", payload).await.unwrap_err();
    let parts = ["closed its standard input and goes on"];
    is(&failure, "exec_protocol", true, &parts);
    run.end().await;
}

#[tokio::test]
async fn a_program_that_writes_much_before_it_reads_does_not_hang() {
    let script = r#"
import json, sys
for n in range(20_000):
    print(json.dumps({"kind": "log", "level": "debug", "message": "x" * 100}))
sys.stdout.flush()
sys.stdin.readline()
uid = json.loads(sys.stdin.readline())["batch_uid"]
print(json.dumps({"kind": "result", "batch_uid": uid}), flush=True)
sys.stdin.read()
"#;
    let mut run = Run::start(Exec::new("python3", ["-c", script]))
        .await
        .unwrap();
    let payload = Json::encode(&"y".repeat(1_000_000)).unwrap();
    assert!(run.process_payload("b", payload).await.is_ok());
    assert!(run.finalize().await.is_ok());
}

#[tokio::test]
async fn a_flood_of_standard_error_is_read_and_only_its_end_is_kept() {
    let flood = "yes 'a line of errors' | head -c 20000000 >&2; echo the last words >&2";
    let failure = first_failure(answers_once(flood, "exit 5")).await;
    is(
        &failure,
        "exec_exit",
        false,
        &["exit code 5", "the last words"],
    );
}

#[tokio::test]
async fn a_grandchild_that_holds_the_pipes_delays_nothing() {
    let script = "(trap '' TERM; while :; do sleep 1; done) &";
    let began = Instant::now();
    let failure = first_failure(answers_once(script, "exit 6")).await;
    is(&failure, "exec_exit", false, &["exit code 6"]);
    assert!(began.elapsed() < Duration::from_secs(15));
    // One that left the group is out of reach, and not waited for.
    let script = "setsid sh -c 'sleep 15' &";
    let failure = first_failure(answers_once(script, "exit 6")).await;
    is(&failure, "exec_exit", false, &["exit code 6"]);
}

#[tokio::test]
async fn an_error_line_says_how_the_attempt_failed() {
    let line = r#"echo '{"kind":"error","message":"no page"}'"#;
    let failure = first_failure(answers_once(line, "sleep 60")).await;
    is(&failure, "exec_error", false, &["no page"]);
    assert_eq!(failure.retry_after_ms, None);

    let line = r#"echo '{"kind":"error","code":"bad_scan","message":"torn","permanent":true}'"#;
    let failure = first_failure(answers_once(line, "sleep 60")).await;
    is(&failure, "bad_scan", true, &["torn"]);

    let line = r#"echo '{"kind":"error","code":"busy","message":"later","retry_after_ms":1500}'"#;
    let failure = first_failure(answers_once(line, "sleep 60")).await;
    is(&failure, "busy", false, &["later"]);
    assert_eq!(failure.retry_after_ms, Some(1_500));
}

/// Waits until the program says that it is at work.
async fn at_work(control: &TestControl) {
    while control.progress().done == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Cancels the first batch with this grace; the outcome, and how long it took.
async fn cancelled(
    exec: Exec,
    grace: Duration,
) -> (Result<BatchResult<Json>, RunFailure>, Duration) {
    let mut run = Run::start(exec).await.unwrap();
    let control = run.control.clone();
    let (result, told) = tokio::join!(run.process("b"), async {
        at_work(&control).await;
        control.cancel(CancelReason::UserRequest, grace);
        Instant::now()
    });
    let took = told.elapsed();
    run.end().await;
    (result, took)
}

const AT_WORK: &str = r#"echo '{"kind":"progress","done":1}'"#;

#[tokio::test]
async fn a_cancel_is_a_line_first() {
    let script = format!("{AT_WORK}; read -r cancel");
    let answer = r#"case $cancel in
'{"kind":"cancel","reason":"user_request","grace_ms":'*) echo '{"kind":"cancelled"}';;
*) exit 9;;
esac; sleep 60"#;
    let (result, took) = cancelled(answers_once(&script, answer), Duration::from_secs(30)).await;
    assert!(result.unwrap_err().cancelled);
    assert!(took < Duration::from_secs(10), "{took:?}");
}

#[tokio::test]
async fn a_batch_that_ends_well_within_the_grace_counts() {
    let script = format!("{AT_WORK}; read -r cancel");
    let answer = r#"echo '{"kind":"result","batch_uid":"b","artifact":1}'; sleep 60"#;
    let (result, _) = cancelled(answers_once(&script, answer), Duration::from_secs(30)).await;
    assert_eq!(result.unwrap().artifact.unwrap().text(), "1");
}

#[tokio::test]
async fn a_program_that_does_not_hear_the_line_gets_the_signal() {
    let script = format!("{AT_WORK}; while :; do sleep 0.05; done");
    let grace = Duration::from_secs(6);
    let (result, took) = cancelled(answers_once(&script, ""), grace).await;
    assert!(result.unwrap_err().cancelled);
    assert!(took < grace, "before the deadline: {took:?}");

    let trap = format!("trap 'exit 1' TERM; {script}");
    let (result, _) = cancelled(answers_once(&trap, ""), Duration::from_secs(1)).await;
    assert!(result.unwrap_err().cancelled, "its exit code is no failure");
}

#[tokio::test]
async fn a_program_that_ignores_the_signal_is_killed_with_its_run() {
    let script = format!("trap '' TERM; {AT_WORK}; while :; do sleep 0.05; done");
    let mut run = Run::start(answers_once(&script, "")).await.unwrap();
    let control = run.control.clone();
    {
        // What the worker does: tell, wait for the deadline, drop.
        let mut process = std::pin::pin!(run.process("b"));
        tokio::select! {
            result = &mut process => panic!("{result:?}"),
            () = at_work(&control) => {}
        }
        let grace = Duration::from_millis(400);
        control.cancel(CancelReason::UserRequest, grace);
        let outcome = tokio::time::timeout(grace * 2, process).await;
        assert!(outcome.is_err(), "it goes on: {outcome:?}");
    }
    let group = run.run.0.group_for_test();
    let began = Instant::now();
    run.end().await;
    assert!(group.has_ended());
    // Not the five seconds of a run that nobody told to end.
    assert!(began.elapsed() < Duration::from_secs(4));
}

#[test]
fn neither_a_debug_text_nor_an_error_shows_what_a_program_is_called_with() {
    let exec = Exec::parse("ocr --token geheim").unwrap();
    assert_eq!(format!("{exec:?}"), "Exec(\"ocr\", 2 arguments)");
    for line in ["ocr 'geheim", "no-such-program geheim", "''  geheim"] {
        let error = Exec::parse(line).and_then(|exec| exec.check()).unwrap_err();
        let texts = [error.to_string(), format!("{error:?}")];
        assert!(!texts.concat().contains("geheim"), "{texts:?}");
    }
}
