//! Programs as handlers, on an engine.

use flowkit_runtime::{Exec, TaskState};
use serde_json::{Value, json};

use crate::support::{engine, one_node, submit, worker};

fn python(script: &str) -> Exec {
    Exec::new("python3", ["-c", script])
}

/// Reads lines; `work` makes a line out of each `batch`, and may say others before.
fn program(work: &str) -> Exec {
    python(&format!(
        r#"
import json, os, sys
def say(**line):
    print(json.dumps(line), flush=True)
for text in sys.stdin:
    line = json.loads(text)
    if line["kind"] == "hello":
        hello = line
    if line["kind"] == "batch":
        batch = line
        uid = batch["batch_uid"]
{}
"#,
        work.lines()
            .map(|line| format!("        {line}\n"))
            .collect::<String>()
    ))
}

#[tokio::test]
async fn a_chain_of_programs_gives_artifacts_totals_and_a_result() {
    let engine = engine().await;
    let split = r#"
for number in [1]:
    say(kind="result", batch_uid=uid, artifact={"items": batch["payload"]["numbers"]})"#;
    worker(&engine, "split", program(split));
    let sum = python(
        r#"
import json, sys
for text in sys.stdin:
    line = json.loads(text)
    if line["kind"] == "batch":
        items = line["payload"]["items"]
        print(json.dumps({"kind": "result", "batch_uid": line["batch_uid"], "artifact": sum(items),
                          "metrics": {"sum": sum(items)}}), flush=True)
    if line["kind"] == "finalize":
        print(json.dumps({"kind": "final", "result": line["totals"]["sum"]}), flush=True)
"#,
    );
    worker(&engine, "sum", sum);
    let args = json!({"from_node": "a", "size": 2, "meta_list_key": "items"});
    let graph = json!({"nodes": [
        {"node_id": "a", "type": "split", "io": {"input_inline": {"numbers": [1, 2, 3, 4, 5]}}},
        {"node_id": "b", "type": "sum", "depends_on": ["a"], "io": {"input_inline": {
            "input_adapter": "pull.from_artifacts.rechunk:size", "input_args": args}}},
    ]});
    let task = submit(&engine, &graph).await;
    assert_eq!(task.wait().await.unwrap().state, TaskState::Finished);
    let sums = task.artifacts("b").all().await.unwrap();
    let sums: Vec<&str> = sums.iter().map(|artifact| artifact.value.text()).collect();
    assert_eq!(sums, ["3", "7", "5"]);
    let status = task.status().await.unwrap();
    let result: Value = status
        .node("b")
        .unwrap()
        .result
        .clone()
        .unwrap()
        .decode()
        .unwrap();
    assert_eq!(
        (&result["sum"], &result["count"]),
        (&json!(15.0), &json!(3))
    );
    engine.stop().await;
}

#[tokio::test]
async fn the_next_attempt_is_a_new_process_that_gets_the_checkpoint_of_its_batch() {
    let engine = engine().await;
    let work = r#"
if batch["attempt"] == 1:
    say(kind="checkpoint", batch_uid=uid, value={"page": 1})
    say(kind="checkpoint", batch_uid=uid, value={"page": 7})
    say(kind="error", code="torn", message="page 8 is torn", retry_after_ms=1)
else:
    say(kind="result", batch_uid=uid,
        artifact={"resumed": batch["checkpoint"], "key": batch["idempotency_key"], "pid": os.getpid()})"#;
    worker(&engine, "r", program(work));
    let task = submit(&engine, &one_node("r", json!({}))).await;
    assert_eq!(task.wait().await.unwrap().state, TaskState::Finished);
    let artifact = &task.artifacts("n").all().await.unwrap()[0];
    let artifact: Value = artifact.value.decode().unwrap();
    assert_eq!(artifact["resumed"], json!({"page": 7}));
    assert_eq!(artifact["key"].as_str().map(str::len), Some(32));
    let status = task.status().await.unwrap();
    assert_eq!(status.node("n").unwrap().attempts.0, 2);
    engine.stop().await;
}

#[tokio::test]
async fn a_broken_protocol_fails_the_task_at_once_and_says_how() {
    let engine = engine().await;
    worker(&engine, "r", program("print('hello world', flush=True)"));
    let task = submit(&engine, &one_node("r", json!({}))).await;
    let outcome = task.wait().await.unwrap();
    assert_eq!(outcome.state, TaskState::Failed);
    let failure = outcome.failure.unwrap();
    assert_eq!(&*failure.reason_code, "exec_protocol");
    assert!(failure.error.contains("hello world"), "{failure:?}");
    let status = task.status().await.unwrap();
    assert_eq!(status.node("n").unwrap().attempts.0, 1);
    engine.stop().await;
}

#[tokio::test]
async fn a_crash_is_repeated_by_the_retry_policy() {
    let engine = engine().await;
    let work = r#"
if batch["attempt"] < 3:
    sys.exit("no luck")
say(kind="result", batch_uid=uid)"#;
    worker(&engine, "r", program(work));
    let task = submit(&engine, &one_node("r", json!({}))).await;
    assert_eq!(task.wait().await.unwrap().state, TaskState::Finished);
    let status = task.status().await.unwrap();
    assert_eq!(status.node("n").unwrap().attempts.0, 3);
    engine.stop().await;
}
