//! Handlers: their hooks, keys, checkpoints, and programs in their place.

#![allow(missing_docs, reason = "cases are named for what they show")]

use flowkit_runtime::{
    Batch, BatchResult, BatchStream, CoordinatorSettings, Exec, FinalizeResult, Handler,
    HandlerError, Json, NodeState, RunContext, TaskHandle, TaskInput, TaskState, WorkerSettings,
    handler_fn,
};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Semaphore;

use super::{Ground, Site, artifacts, decoded, finished, one_node, until};

/// Notes every hook as it is called. Fails in its second batch, once.
#[derive(Clone, Default)]
struct Hooks(Arc<Mutex<Vec<String>>>);

impl Hooks {
    fn note(&self, cx: &RunContext, hook: &str) {
        let hook = format!("{} {hook}", cx.info().epoch.0);
        self.0.lock().expect("no panic").push(hook);
    }
}

impl Handler for Hooks {
    type Run = u32;
    type Input = u32;
    type Output = u32;

    async fn init(&self, cx: &RunContext) -> Result<u32, HandlerError> {
        self.note(cx, "init");
        Ok(0)
    }

    async fn load_input(
        &self,
        cx: &RunContext,
        input: TaskInput,
    ) -> Result<TaskInput, HandlerError> {
        self.note(cx, "load_input");
        Ok(input)
    }

    async fn batches(
        &self,
        cx: &RunContext,
        input: TaskInput,
    ) -> Result<BatchStream<u32>, HandlerError> {
        self.note(cx, "batches");
        let Value::Array(numbers) = input.decode::<Value>()?["numbers"].take() else {
            return Err(HandlerError::permanent(
                "no_numbers",
                "`numbers` is no list",
            ));
        };
        let numbers = numbers.into_iter().filter_map(|number| number.as_u64());
        let batches = numbers.map(|n| Batch::new(format!("b{n}"), n as u32));
        Ok(BatchStream::iter(batches.collect::<Vec<_>>()))
    }

    async fn process(
        &self,
        cx: &RunContext,
        run: &mut u32,
        batch: Batch<u32>,
    ) -> Result<BatchResult<u32>, HandlerError> {
        self.note(cx, &batch.uid);
        if cx.info().epoch.0 == 1 && *run == 1 {
            "not a number".parse::<u32>()?;
        }
        *run += 1;
        Ok(BatchResult::of(batch.payload).metric("sum", batch.payload))
    }

    async fn finalize(&self, cx: &RunContext, run: u32) -> Result<FinalizeResult, HandlerError> {
        self.note(cx, "finalize");
        let sum = cx.totals()["sum"];
        Ok(FinalizeResult::of(
            json!({"run": run, "sum": sum.sum.0, "of": sum.count}),
        ))
    }

    fn classify_error(
        &self,
        _: &(dyn std::error::Error + Send + Sync),
    ) -> flowkit_runtime::ErrorClass {
        self.0
            .lock()
            .expect("no panic")
            .push("classify_error".to_owned());
        flowkit_runtime::ErrorClass::transient("no_number")
    }

    async fn cleanup(&self, cx: &RunContext) {
        self.note(cx, "cleanup");
    }
}

/// The batch that was accepted before the failure is not worked on again, and counts.
pub async fn every_hook_is_called_in_order_and_totals_are_of_all_attempts(ground: impl Ground) {
    let site = Site::new(ground).await;
    let hooks = Hooks::default();
    site.worker("r", hooks.clone()).await;
    let input = json!({"numbers": [5, 7, 9]});
    let task = site.submit(&one_node("r", input)).await;
    finished(&task).await;
    let first = ["init", "load_input", "batches", "b5", "b7"].map(|hook| format!("1 {hook}"));
    let failed = ["classify_error", "1 cleanup"].map(str::to_owned);
    let second = [
        "init",
        "load_input",
        "batches",
        "b7",
        "b9",
        "finalize",
        "cleanup",
    ];
    let second = second.map(|hook| format!("2 {hook}"));
    let called = hooks.0.lock().expect("no panic").clone();
    assert_eq!(called, [&first[..], &failed, &second].concat());
    let status = task.status().await.expect("there");
    let node = status.node("n").expect("there");
    assert_eq!((node.attempts.0, node.batches, node.failures), (2, 3, 1));
    let result: Value = decoded(node.result.as_ref().expect("of finalize"));
    assert_eq!(result, json!({"run": 2, "sum": 21.0, "of": 3}));
    assert_eq!(artifacts::<u32>(&task, "n").await, [5, 7, 9]);
    site.stop().await;
}

pub async fn a_batch_has_one_idempotency_key_in_every_attempt(ground: impl Ground) {
    let site = Site::new(ground).await;
    let keys: Arc<Mutex<Vec<String>>> = Arc::default();
    let seen = keys.clone();
    let handler = handler_fn(move |cx: RunContext, _: Batch<Json>| {
        seen.lock().expect("no panic").push(cx.idempotency_key());
        async move {
            match cx.info().epoch.0 {
                3 => Ok(BatchResult::of(cx.idempotency_key())),
                _ => Err(HandlerError::transient("flaky", "not yet")),
            }
        }
    });
    site.worker("r", handler).await;
    let task = site.submit(&one_node("r", json!({}))).await;
    finished(&task).await;
    let other = site.submit(&one_node("r", json!({}))).await;
    finished(&other).await;
    let keys = keys.lock().expect("no panic").clone();
    assert_eq!((&keys[0], keys[0].len()), (&keys[1], 32));
    assert_eq!(keys[..3].iter().collect::<Vec<_>>(), [&keys[0]; 3]);
    assert_eq!(keys[3..].iter().collect::<Vec<_>>(), [&keys[3]; 3]);
    assert_ne!(keys[0], keys[3], "another task's");
    site.stop().await;
}

/// Ten batches, resumed at the checkpoint. In the sixth its first holder is stuck after half of it.
struct Steps {
    stuck: Arc<Semaphore>,
    worked: Arc<Mutex<Vec<u32>>>,
}

impl Handler for Steps {
    type Run = ();
    type Input = u32;
    type Output = u32;

    async fn init(&self, _: &RunContext) -> Result<(), HandlerError> {
        Ok(())
    }

    async fn batches(
        &self,
        cx: &RunContext,
        _: TaskInput,
    ) -> Result<BatchStream<u32>, HandlerError> {
        let done = cx.checkpoint::<u32>()?.map_or(0, |last| last + 1);
        let batches = (done..10).map(|n| Batch::new(format!("b{n}"), n));
        Ok(BatchStream::iter(batches))
    }

    async fn process(
        &self,
        cx: &RunContext,
        (): &mut (),
        batch: Batch<u32>,
    ) -> Result<BatchResult<u32>, HandlerError> {
        let number = batch.payload;
        self.worked.lock().expect("no panic").push(number);
        if number == 5 && cx.batch_checkpoint::<u32>()? != Some(1_000) {
            cx.save_checkpoint(&1_000).await?;
            self.stuck.add_permits(1);
            std::future::pending::<()>().await;
        }
        cx.save_checkpoint(&number).await?;
        Ok(BatchResult::of(number).metric("sum", number))
    }
}

fn steps() -> (Steps, Arc<Semaphore>, Arc<Mutex<Vec<u32>>>) {
    let (stuck, worked) = (Arc::new(Semaphore::new(0)), Arc::default());
    let handler = Steps {
        stuck: stuck.clone(),
        worked: Arc::clone(&worked),
    };
    (handler, stuck, worked)
}

/// The holder is stuck in the sixth batch, and the five before it are accepted.
async fn is_stuck(task: &TaskHandle, stuck: &Semaphore) {
    stuck.acquire().await.expect("open").forget();
    until(async || {
        let status = task.status().await.expect("there");
        (status.nodes[0].batches == 5).then_some(())
    })
    .await;
}

fn short_leases() -> CoordinatorSettings {
    // Real time: a machine that is busy elsewhere must keep up with it.
    let settings = CoordinatorSettings::default().lease_ttl_sec(5.0);
    settings.shard_lease_ttl_sec(5.0)
}

async fn expect_steps(task: &TaskHandle, worked: &Mutex<Vec<u32>>) {
    finished(task).await;
    let status = task.status().await.expect("there");
    let node = status.node("n").expect("there");
    assert_eq!(
        (node.attempts.0, node.grants),
        (1, 2),
        "taken over, not failed"
    );
    assert_eq!((node.batches, node.totals["sum"].sum.0), (10, 45.0));
    assert_eq!(
        artifacts::<u32>(task, "n").await,
        (0..10).collect::<Vec<_>>()
    );
    let worked = worked.lock().expect("no panic").clone();
    assert_eq!(worked, [0, 1, 2, 3, 4, 5, 5, 6, 7, 8, 9]);
}

pub async fn a_node_goes_on_at_its_checkpoint_when_its_worker_has_died(ground: impl Ground) {
    let site = Site::with(ground, short_leases()).await;
    let (handler, stuck, worked) = steps();
    let handler = Arc::new(handler);
    let settings = WorkerSettings::default().hb_interval_sec(0.3);
    let first = site.process().await;
    first.start(
        first
            .builder()
            .role("r", handler.clone())
            .settings(settings.clone()),
    );
    let task = site.submit(&one_node("r", json!({}))).await;
    is_stuck(&task, &stuck).await;
    first.kill().await;
    let second = site.process().await;
    second.start(second.builder().role("r", handler).settings(settings));
    expect_steps(&task, &worked).await;
    site.stop().await;
}

pub async fn work_goes_on_after_every_process_has_died(ground: impl Ground) {
    let site = Site::with(ground, short_leases()).await;
    let (handler, stuck, worked) = steps();
    let handler = Arc::new(handler);
    let settings = WorkerSettings::default().hb_interval_sec(0.3);
    let named = |process: &super::Process| {
        let worker = process.builder().worker_id("w").settings(settings.clone());
        worker.role("r", handler.clone())
    };
    let process = site.process().await;
    process.start(named(&process));
    let task = site.submit(&one_node("r", json!({}))).await;
    is_stuck(&task, &stuck).await;
    let id = task.id().clone();
    drop((task, process));
    let site = site.restart().await;
    let process = site.process().await;
    process.start(named(&process));
    expect_steps(&site.client().task(id), &worked).await;
    site.stop().await;
}

const TOLD: &str = r#"
import json, sys
def say(**line):
    print(json.dumps(line), flush=True)
for text in sys.stdin:
    line = json.loads(text)
    if line["kind"] == "batch":
        uid = line["batch_uid"]
        if line["payload"].get("wait"):
            say(kind="checkpoint", batch_uid=uid, value={"page": 7})
            say(kind="progress", done=1)
        else:
            say(kind="result", batch_uid=uid, artifact=line["payload"]["text"], metrics={"n": 1})
    if line["kind"] == "finalize":
        say(kind="final", result=line["totals"]["n"]["sum"])
    if line["kind"] == "cancel":
        open(FILE, "w").write(line["reason"])
        say(kind="cancelled")
"#;

pub async fn a_program_works_as_a_handler_and_is_told_of_its_cancel(ground: impl Ground) {
    let site = Site::new(ground).await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("told");
    let script = TOLD.replace("FILE", &format!("{:?}", file.to_str().expect("UTF-8")));
    let program = Exec::new("python3", ["-c", &script]);
    let process = site.process().await;
    let builder = process.builder().role("r", program).capacity(2);
    let worker = process.start(builder);
    let waits = site.submit(&one_node("r", json!({"wait": true}))).await;
    let works = site.submit(&one_node("r", json!({"text": "hello"}))).await;
    finished(&works).await;
    assert_eq!(artifacts::<String>(&works, "n").await, ["hello"]);

    until(async || {
        let running = worker.status().running;
        running
            .iter()
            .any(|run| run.progress.done == 1)
            .then_some(())
    })
    .await;
    let grace = Some(Duration::from_secs(20));
    waits.cancel("enough", grace).await.expect("durable");
    let outcome = waits.wait().await.expect("it ends");
    assert_eq!(outcome.state, TaskState::Cancelled);
    let node = waits.status().await.expect("there").nodes.remove(0);
    assert_eq!(node.state, NodeState::Cancelled);
    let told = std::fs::read_to_string(&file).expect("it was told");
    assert_eq!(told, "user_request");
    site.stop().await;
}

/// What `input_ref` points to, the handler knows; what it makes of it are its batches.
struct Referring;

impl Handler for Referring {
    type Run = ();
    type Input = Value;
    type Output = Value;

    async fn init(&self, _: &RunContext) -> Result<(), HandlerError> {
        Ok(())
    }

    async fn load_input(
        &self,
        _: &RunContext,
        input: TaskInput,
    ) -> Result<TaskInput, HandlerError> {
        let read = json!({"read": input.reference, "beside": input.inline});
        Ok(TaskInput::of_inline(read.into()))
    }

    async fn process(
        &self,
        cx: &RunContext,
        (): &mut (),
        batch: Batch<Value>,
    ) -> Result<BatchResult<Value>, HandlerError> {
        // As the graph gives it, whatever `load_input` made of it.
        let input = cx.input()?;
        let given = json!({"input_ref": input.reference, "input_inline": input.inline});
        if cx.info().epoch.0 == 1 {
            return Err(HandlerError::transient("flaky", "once"));
        }
        Ok(BatchResult::of(
            json!({"loaded": batch.payload, "given": given}),
        ))
    }
}

const GIVEN: &str = r#"
import json, sys
for text in sys.stdin:
    line = json.loads(text)
    if line["kind"] == "hello":
        given = line["input"]
    if line["kind"] == "batch":
        made = {"given": given, "payload": line["payload"]}
        print(json.dumps({"kind": "result", "batch_uid": line["batch_uid"], "artifact": made}), flush=True)
    if line["kind"] == "finalize":
        print(json.dumps({"kind": "final"}), flush=True)
"#;

pub async fn a_reference_reaches_handlers_and_programs_as_the_graph_gives_it(ground: impl Ground) {
    let site = Site::new(ground).await;
    let process = site.process().await;
    let builder = process.builder().role("handler", Referring).capacity(2);
    let program = Exec::new("python3", ["-c", GIVEN]);
    process.start(builder.role("program", program));
    let io = json!({
        "input_ref": {"bucket": "scans", "pages": [1, 2.5, null]},
        "input_inline": {"lang": "de"},
    });
    let node = |id: &str, io: &Value| {
        json!({"node_id": id, "type": id.split('-').next(), "io": io,
               "retry_policy": {"max": 2, "backoff_sec": 0}})
    };
    let alone = json!({"input_ref": "s3://scans/7"});
    let graph = json!({"nodes": [
        node("handler-1", &io), node("program-1", &io), node("program-2", &alone),
    ]});
    let task = site.submit(&graph).await;
    finished(&task).await;
    let loaded = json!({"read": io["input_ref"], "beside": io["input_inline"]});
    let made = artifacts::<Value>(&task, "handler-1").await;
    assert_eq!(made, [json!({"loaded": loaded, "given": io})]);
    let made = artifacts::<Value>(&task, "program-1").await;
    assert_eq!(made, [json!({"given": io, "payload": io["input_inline"]})]);
    // Without an inline value the one batch is empty, and the program has the reference.
    let made = artifacts::<Value>(&task, "program-2").await;
    let given = &made[0]["given"];
    assert_eq!(given["input_ref"], alone["input_ref"]);
    assert_eq!(
        (&given["input_inline"], &made[0]["payload"]),
        (&Value::Null, &Value::Null)
    );
    site.stop().await;
}
