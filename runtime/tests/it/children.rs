//! What a handler starts and makes beside its result is gone when its run is, however that ended.

use flowkit_runtime::{
    Batch, BatchResult, HandlerError, Json, RunContext, TaskHandle, TaskState, WorkerHandle,
    handler_fn,
};
use serde_json::json;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{ChildStdout, Command};
use tokio::sync::mpsc;

use crate::support::{engine, one_node, submit, worker};

/// A process with a child in the background, both holding standard output open.
const WITH_CHILD: &str = "(while :; do sleep 1; done) & echo ready; while :; do sleep 1; done";

/// How a run ends.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Success,
    Failure,
    Panic,
    Cancel,
    WorkerStop,
}

/// What a run left for the test to look at: a pipe that its processes hold, and its folder.
type Left = (BufReader<ChildStdout>, PathBuf);

async fn hold(cx: &RunContext) -> Result<Left, HandlerError> {
    let mut command = Command::new("sh");
    let command = command.args(["-c", WITH_CHILD]).stdout(Stdio::piped());
    let mut process = cx.spawn(command)?;
    let folder = cx.temp_dir()?;
    std::fs::write(folder.join("half"), "done")?;
    let stdout = process.stdout.take().expect("piped");
    let mut stdout = BufReader::new(stdout);
    stdout.read_line(&mut String::new()).await?;
    Ok((stdout, folder))
}

async fn ended(end: End, task: &TaskHandle, worker: &WorkerHandle) {
    let state = match end {
        End::Success => TaskState::Finished,
        End::Failure | End::Panic => TaskState::Failed,
        End::Cancel => {
            task.cancel("enough", None).await.expect("it runs");
            TaskState::Cancelled
        }
        End::WorkerStop => return worker.stop().await.expect("in order"),
    };
    assert_eq!(task.wait().await.expect("it ends").state, state, "{end:?}");
}

async fn nothing_is_left(end: End) {
    let engine = engine().await;
    let (say, mut left) = mpsc::unbounded_channel::<Left>();
    let handler = handler_fn(move |cx: RunContext, _: Batch<Json>| {
        let say = say.clone();
        async move {
            let _ = say.send(hold(&cx).await?);
            match end {
                End::Success => return Ok(BatchResult::of(1)),
                End::Failure => return Err(HandlerError::permanent("broken", "on purpose")),
                End::Panic => panic!("on purpose"),
                End::Cancel | End::WorkerStop => cx.cancelled().await,
            };
            Err(HandlerError::cancelled())
        }
    });
    let worker = worker(&engine, "r", handler);
    let mut graph = one_node("r", json!({}));
    graph["nodes"][0]["retry_policy"]["max"] = json!(1);
    let task = submit(&engine, &graph).await;
    let (mut stdout, folder) = left.recv().await.expect("it began");
    ended(end, &task, &worker).await;
    let mut text = String::new();
    let rest = stdout.read_to_string(&mut text);
    let all_dead = tokio::time::timeout(Duration::from_secs(30), rest).await;
    assert!(all_dead.is_ok(), "{end:?}: a process lives on");
    assert!(!folder.exists(), "{end:?}: the folder is still there");
    engine.stop().await;
}

#[tokio::test]
async fn a_run_that_succeeds_leaves_no_process_and_no_folder() {
    nothing_is_left(End::Success).await;
}

#[tokio::test]
async fn a_run_that_fails_leaves_no_process_and_no_folder() {
    nothing_is_left(End::Failure).await;
}

#[tokio::test]
async fn a_run_that_panics_leaves_no_process_and_no_folder() {
    nothing_is_left(End::Panic).await;
}

#[tokio::test]
async fn a_run_that_is_cancelled_leaves_no_process_and_no_folder() {
    nothing_is_left(End::Cancel).await;
}

#[tokio::test]
async fn a_run_whose_worker_stops_leaves_no_process_and_no_folder() {
    nothing_is_left(End::WorkerStop).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_never_returns_loses_its_processes_with_its_worker() {
    let engine = engine().await;
    let (say, mut left) = mpsc::unbounded_channel::<Left>();
    let (go_on, wait) = std::sync::mpsc::channel::<()>();
    let wait = Arc::new(Mutex::new(wait));
    let handler = handler_fn(move |cx: RunContext, _: Batch<Json>| {
        let (say, wait) = (say.clone(), wait.clone());
        async move {
            let _ = say.send(hold(&cx).await?);
            // Blocks its thread: neither a cancel nor an abort reaches it.
            let _ = wait.lock().map(|wait| wait.recv());
            Ok(BatchResult::of(1))
        }
    });
    let worker = worker(&engine, "r", handler);
    submit(&engine, &one_node("r", json!({}))).await;
    let (mut stdout, folder) = left.recv().await.expect("it began");
    worker.stop().await.expect("it gives the handler up");
    let mut text = String::new();
    let rest = stdout.read_to_string(&mut text);
    let all_dead = tokio::time::timeout(Duration::from_secs(30), rest).await;
    assert!(all_dead.is_ok(), "a process lives on");
    assert!(!folder.exists(), "the folder is still there");
    go_on.send(()).expect("the handler still waits");
    engine.stop().await;
}
