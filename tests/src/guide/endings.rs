//! How runs end: what failed attempts leave behind, which result counts, what is cleaned up and when.

#![allow(missing_docs, reason = "cases are named for what they show")]

use flowkit_runtime::{
    Batch, BatchResult, BatchStream, FinalizeResult, Handler, HandlerError, RunContext, TaskInput,
    TaskState, WorkerSettings, handler_fn,
};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use tokio::sync::mpsc;

use super::{Ground, Site, artifacts, decoded, finished, one_node, until};

type Notes = Arc<Mutex<Vec<String>>>;

fn note(notes: &Notes, text: impl Into<String>) {
    notes.lock().expect("no panic").push(text.into());
}

/// A policy that names codes stands in place of the default one, which names `bad_input` and
/// `schema_mismatch`.
pub async fn a_code_that_the_node_calls_permanent_is_not_tried_again(ground: impl Ground) {
    let site = Site::new(ground).await;
    let handler = handler_fn(|_, batch: Batch<Value>| async move {
        let code = batch.payload["code"].as_str().unwrap_or_default();
        Err::<BatchResult<()>, _>(HandlerError::transient(code, "as asked"))
    });
    site.worker("r", handler).await;
    let named = Some(json!(["no_page", "no_text"]));
    for (permanent_on, code, attempts) in [
        (&named, "no_text", 1),
        (&named, "bad_input", 3),
        (&None, "schema_mismatch", 1),
        (&None, "no_text", 3),
    ] {
        let mut graph = one_node("r", json!({ "code": code }));
        if let Some(codes) = permanent_on {
            graph["nodes"][0]["retry_policy"]["permanent_on"] = codes.clone();
        }
        let task = site.submit(&graph).await;
        let failure = task.wait().await.expect("it ends").failure;
        let failure = failure.expect("it failed");
        assert_eq!((&*failure.reason_code, &*failure.error), (code, "as asked"));
        let node = task.status().await.expect("there").nodes.remove(0);
        let counted = (node.attempts.0, node.failures);
        assert_eq!(counted, (attempts, attempts), "{code} of {permanent_on:?}");
    }
    site.stop().await;
}

const RETRY_AFTER: Duration = Duration::from_millis(900);

/// Two batches. The second fails twice, each time after it has written and marked something.
struct Flaky(Arc<Mutex<Vec<Instant>>>);

impl Handler for Flaky {
    type Run = ();
    type Input = u32;
    type Output = Value;

    async fn init(&self, _: &RunContext) -> Result<(), HandlerError> {
        self.0.lock().expect("no panic").push(Instant::now());
        Ok(())
    }

    async fn batches(
        &self,
        _: &RunContext,
        _: TaskInput,
    ) -> Result<BatchStream<u32>, HandlerError> {
        let batches = [0, 1].map(|n| Batch::new(format!("b{n}"), n));
        Ok(BatchStream::iter(batches))
    }

    async fn process(
        &self,
        cx: &RunContext,
        (): &mut (),
        batch: Batch<u32>,
    ) -> Result<BatchResult<Value>, HandlerError> {
        let (artifacts, attempt) = (cx.artifacts(), cx.info().epoch.0);
        artifacts.upsert_partial(&"half of it")?;
        let of = json!({"batch": batch.payload, "attempt": attempt});
        let reference = artifacts.upsert_partial(&of)?;
        if batch.payload == 0 || attempt < 3 {
            artifacts.mark_complete(&json!({"see": reference, "attempt": attempt}))?;
        }
        match (batch.payload, attempt) {
            (1, 1) => {
                let later = HandlerError::transient("rate_limited", "ask later");
                Err(later.retry_after(RETRY_AFTER))
            }
            (1, 2) => panic!("on purpose"),
            _ => Ok(BatchResult::new()),
        }
    }
}

pub async fn what_failed_attempts_wrote_and_marked_is_gone_and_what_was_accepted_stays(
    ground: impl Ground,
) {
    let site = Site::new(ground).await;
    let began: Arc<Mutex<Vec<Instant>>> = Arc::default();
    site.worker("r", Flaky(began.clone())).await;
    let task = site.submit(&one_node("r", json!({}))).await;
    finished(&task).await;
    let node = task.status().await.expect("there").nodes.remove(0);
    // A panic is an attempt like any other; the worker lives.
    let counted = (node.attempts.0, node.failures, node.batches);
    assert_eq!(counted, (3, 2, 2));
    let written = artifacts::<Value>(&task, "n").await;
    let expected = [(0, 1), (1, 3)].map(|(n, at)| json!({"batch": n, "attempt": at}));
    assert_eq!(written, expected, "the newest of each accepted batch");
    let result: Value = decoded(node.result.as_ref().expect("marked"));
    let reference = json!({"task_id": task.id(), "node_id": "n", "batch_uid": "b0"});
    assert_eq!(result, json!({"see": reference, "attempt": 1}));
    let began = began.lock().expect("no panic").clone();
    let waited = began[1] - began[0];
    // Machines count whole milliseconds.
    assert!(
        waited + Duration::from_millis(1) >= RETRY_AFTER,
        "{waited:?}"
    );
    site.stop().await;
}

/// Marks a result of so many bytes where its input says.
struct Marking;

impl Marking {
    fn mark(cx: &RunContext, place: &str) -> Result<(), HandlerError> {
        let asked: Value = cx.input()?.decode()?;
        if asked["in"] != place {
            return Ok(());
        }
        let bytes = asked["bytes"].as_u64().unwrap_or(1) as usize;
        cx.artifacts().mark_complete(&place.repeat(bytes))
    }
}

impl Handler for Marking {
    type Run = ();
    type Input = Value;
    type Output = String;

    async fn init(&self, cx: &RunContext) -> Result<(), HandlerError> {
        Self::mark(cx, "init")
    }

    async fn batches(
        &self,
        cx: &RunContext,
        input: TaskInput,
    ) -> Result<BatchStream<Value>, HandlerError> {
        Self::mark(cx, "batches")?;
        Ok(BatchStream::whole_input(&input))
    }

    async fn process(
        &self,
        cx: &RunContext,
        (): &mut (),
        _: Batch<Value>,
    ) -> Result<BatchResult<String>, HandlerError> {
        cx.artifacts().mark_complete(&"of the batch")?;
        Self::mark(cx, "p")?;
        // The largest that travels inside a message: the mark goes beside it.
        Ok(BatchResult::of("x".repeat(256 * 1024 - 2)))
    }

    async fn finalize(&self, cx: &RunContext, (): ()) -> Result<FinalizeResult, HandlerError> {
        Self::mark(cx, "finalize")?;
        let asked: Value = cx.input()?.decode()?;
        Ok(match asked["returned"].as_str() {
            Some(result) => FinalizeResult::of(result),
            None => FinalizeResult::new(),
        })
    }
}

/// A run's `init` comes before its batches, but after those of an earlier run: a mark in it would replace
/// what they marked.
pub async fn a_result_is_marked_by_a_batch_or_by_finalize_and_is_bounded(ground: impl Ground) {
    let site = Site::new(ground).await;
    site.worker("r", Marking).await;
    let most = 256 * 1024 - 2;
    for (input, expected) in [
        (json!({}), "of the batch"),
        (json!({"in": "p", "bytes": most}), "pp"),
        (json!({"in": "finalize"}), "finalize"),
        (json!({"in": "finalize", "returned": "this"}), "this"),
    ] {
        let task = site.submit(&one_node("r", input.clone())).await;
        finished(&task).await;
        let node = task.status().await.expect("there").nodes.remove(0);
        let result: String = decoded(node.result.as_ref().expect("marked"));
        assert!(result.starts_with(expected), "{input}");
        let long = input["bytes"] == most && result.len() == most;
        assert!(long || result == expected, "{input}");
    }
    for (input, code, text) in [
        (json!({"in": "init"}), "no_batch", "`finalize`"),
        (json!({"in": "batches"}), "no_batch", "`finalize`"),
        (
            json!({"in": "p", "bytes": 800 * 1024}),
            "result_too_large",
            "819202 bytes; the limit is 262144",
        ),
    ] {
        let task = site.submit(&one_node("r", input.clone())).await;
        let failure = task.wait().await.expect("it ends").failure;
        let failure = failure.expect("it failed");
        assert_eq!(&*failure.reason_code, code, "{input}: {failure:?}");
        assert!(failure.error.contains(text), "{input}: {failure:?}");
        let node = task.status().await.expect("there").nodes.remove(0);
        assert_eq!((node.attempts.0, node.result), (1, None), "{input}");
    }
    site.stop().await;
}

/// How a run ends.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Success,
    Failure,
    Panic,
    Cancel,
    WorkerStop,
    WorkerDeath,
}

/// Says that it was told to end, in the file that it is given.
const CHILD: &str =
    r#"trap 'echo told > "$0"; exit' TERM; echo ready; while :; do sleep 0.05; done"#;

/// What a run holds: a child process and a folder.
#[derive(Clone, Debug)]
struct Held {
    folder: PathBuf,
    child: u32,
}

impl Held {
    fn child_is_dead(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child));
        // Dead and not yet reaped is dead, too.
        stat.map_or(true, |stat| stat.contains(") Z "))
    }
}

/// The state of a run.
struct State(Notes);

impl Drop for State {
    fn drop(&mut self) {
        note(&self.0, "state dropped");
    }
}

struct Holder {
    end: End,
    notes: Notes,
    began: mpsc::UnboundedSender<Held>,
}

impl Handler for Holder {
    type Run = State;
    type Input = Value;
    type Output = u32;

    async fn init(&self, cx: &RunContext) -> Result<State, HandlerError> {
        let folder = cx.temp_dir()?;
        let mut command = Command::new("sh");
        command.args(["-c", CHILD]).arg(folder.join("child"));
        let mut child = cx.spawn(command.stdout(Stdio::piped()))?;
        let mut ready = BufReader::new(child.stdout.take().expect("piped"));
        ready.read_line(&mut String::new()).await?;
        let held = Held {
            folder,
            child: child.id(),
        };
        for name in ["first", "second"] {
            let (notes, held) = (self.notes.clone(), held.clone());
            cx.on_cleanup(async move {
                let told = std::fs::read_to_string(held.folder.join("child"));
                let dead = held.child_is_dead();
                note(&notes, format!("{name}: told {}, {dead}", told.is_ok()));
            });
        }
        let _ = self.began.send(held);
        Ok(State(self.notes.clone()))
    }

    async fn process(
        &self,
        cx: &RunContext,
        _: &mut State,
        _: Batch<Value>,
    ) -> Result<BatchResult<u32>, HandlerError> {
        match self.end {
            End::Success => return Ok(BatchResult::of(1)),
            End::Failure => return Err(HandlerError::permanent("broken", "on purpose")),
            End::Panic => panic!("on purpose"),
            End::Cancel | End::WorkerStop | End::WorkerDeath => cx.cancelled().await,
        };
        Err(HandlerError::cancelled())
    }

    async fn cleanup(&self, cx: &RunContext) {
        let folder = cx.temp_dir().map(|folder| folder.exists());
        note(&self.notes, format!("cleanup: {:?}", folder.ok()));
    }
}

pub async fn every_ending_cleans_up_in_one_order_and_leaves_no_process_and_no_folder(
    ground: impl Ground,
) {
    let site = Site::new(ground).await;
    for (role, end) in [
        ("success", End::Success),
        ("failure", End::Failure),
        ("panic", End::Panic),
        ("cancel", End::Cancel),
        ("stop", End::WorkerStop),
        ("death", End::WorkerDeath),
    ] {
        let notes = Notes::default();
        let (begin, mut began) = mpsc::unbounded_channel();
        let handler = Holder {
            end,
            notes: notes.clone(),
            began: begin,
        };
        let process = site.process().await;
        let patient = WorkerSettings::default().shutdown_grace_sec(30.0);
        let worker = process.start(process.builder().role(role, handler).settings(patient));
        let mut graph = one_node(role, json!({}));
        graph["nodes"][0]["retry_policy"]["max"] = json!(1);
        let task = site.submit(&graph).await;
        let held = began.recv().await.expect("it runs");
        let state = match end {
            End::Success => Some(TaskState::Finished),
            End::Failure | End::Panic => Some(TaskState::Failed),
            End::Cancel => {
                task.cancel("enough", None).await.expect("durable");
                Some(TaskState::Cancelled)
            }
            End::WorkerStop => {
                worker.stop().await.expect("in order");
                None
            }
            End::WorkerDeath => {
                process.kill().await;
                None
            }
        };
        if let Some(state) = state {
            let outcome = task.wait().await.expect("it ends");
            assert_eq!(outcome.state, state, "{end:?}: {:?}", outcome.failure);
        }
        if end == End::WorkerDeath {
            // Nobody is asked any more: it is killed.
            until(async || held.child_is_dead().then_some(())).await;
            until(async || (!held.folder.exists()).then_some(())).await;
            continue;
        }
        let order = [
            "state dropped",
            "second: told true, true",
            "first: told true, true",
            "cleanup: Some(true)",
        ];
        assert_eq!(*notes.lock().expect("no panic"), order, "{end:?}");
        assert!(held.child_is_dead(), "{end:?}");
        assert!(!held.folder.exists(), "{end:?}");
    }
    site.stop().await;
}
