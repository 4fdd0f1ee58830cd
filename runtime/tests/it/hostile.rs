//! Handlers that err, panic or hang, hook by hook: who was it, what is kept, and is the slot free again?

use flowkit_runtime::{
    Batch, BatchResult, BatchStream, Engine, ErrorClass, FinalizeResult, Handler, HandlerError,
    NodeState, RunContext, TaskHandle, TaskInput, TaskState,
};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::json;
use std::error::Error;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::support::{engine, one_node, submit, worker};

/// What a node's input says its handler shall do.
#[derive(Clone, Deserialize)]
struct Asked {
    hook: String,
    how: String,
    /// In every attempt, not only in the first.
    always: bool,
}

/// Two batches, each with a checkpoint, and one hook in which it does what its input says.
struct Hostile {
    hangs: mpsc::UnboundedSender<()>,
}

impl Hostile {
    fn asked(cx: &RunContext, hook: &str) -> Option<Asked> {
        let input = cx.input().expect("the test's").inline?;
        let asked: Asked = input.decode().expect("the test's");
        let strikes = asked.hook == hook && (asked.always || cx.info().epoch.0 == 1);
        strikes.then_some(asked)
    }

    async fn at(&self, cx: &RunContext, hook: &str) -> Result<(), HandlerError> {
        let Some(asked) = Self::asked(cx, hook) else {
            return Ok(());
        };
        match &*asked.how {
            "error" => Err(HandlerError::transient("odd", "no such thing")),
            "panic" => panic!("no such thing"),
            "hang" => {
                self.hangs.send(()).expect("the test listens");
                std::future::pending().await
            }
            _ => Ok(()),
        }
    }
}

/// A number, or what has no JSON form.
struct Output(Option<u32>);

impl Serialize for Output {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let number = self.0.ok_or_else(|| serde::ser::Error::custom("no form"))?;
        to.serialize_u32(number)
    }
}

fn says(cx: &RunContext, hook: &str, how: &str) -> bool {
    Hostile::asked(cx, hook).is_some_and(|asked| asked.how == how)
}

/// Panics as it is dropped, if it is to.
struct Held(bool);

impl Drop for Held {
    fn drop(&mut self) {
        assert!(!self.0, "no such thing");
    }
}

impl Handler for Hostile {
    type Run = Held;
    type Input = u32;
    type Output = Output;

    async fn init(&self, cx: &RunContext) -> Result<Held, HandlerError> {
        self.at(cx, "init").await?;
        Ok(Held(says(cx, "drop", "panic")))
    }

    async fn load_input(
        &self,
        cx: &RunContext,
        input: TaskInput,
    ) -> Result<TaskInput, HandlerError> {
        self.at(cx, "load_input").await?;
        Ok(input)
    }

    async fn batches(
        &self,
        cx: &RunContext,
        _: TaskInput,
    ) -> Result<BatchStream<u32>, HandlerError> {
        self.at(cx, "batches").await?;
        let bad_uid = says(cx, "batches", "bad uid");
        let first = cx.checkpoint::<u32>()?.map_or(0, |last| last + 1);
        let batches = (first..2).map(move |n| match n {
            1 if bad_uid => Batch::new("", n),
            _ => Batch::new(format!("b{n}"), n),
        });
        Ok(BatchStream::iter(batches))
    }

    async fn process(
        &self,
        cx: &RunContext,
        _: &mut Held,
        batch: Batch<u32>,
    ) -> Result<BatchResult<Output>, HandlerError> {
        let number = batch.payload;
        cx.save_checkpoint(&number).await?;
        if number == 1 {
            self.at(cx, "process").await?;
            if says(cx, "classify_error", "panic") {
                "x".parse::<u32>()?;
            }
            if says(cx, "drop", "panic") {
                return Err(HandlerError::permanent("odd", "no such thing"));
            }
            if says(cx, "process", "no form") {
                return Ok(BatchResult::of(Output(None)));
            }
        }
        Ok(BatchResult::of(Output(Some(number))).metric("n", 1))
    }

    async fn finalize(&self, cx: &RunContext, run: Held) -> Result<FinalizeResult, HandlerError> {
        self.at(cx, "finalize").await?;
        let form = (!says(cx, "finalize", "no form")).then_some(7);
        drop(run);
        Ok(FinalizeResult::of(Output(form)))
    }

    fn classify_error(&self, _: &(dyn Error + Send + Sync + 'static)) -> ErrorClass {
        panic!("no such thing")
    }

    async fn cleanup(&self, cx: &RunContext) {
        let _ = self.at(cx, "cleanup").await;
    }
}

/// An engine with one worker of one slot, and what says that a handler hangs.
async fn stage() -> (Engine, mpsc::UnboundedReceiver<()>) {
    let engine = engine().await;
    let (hangs, hanging) = mpsc::unbounded_channel();
    worker(&engine, "r", Hostile { hangs });
    (engine, hanging)
}

async fn ask(engine: &Engine, hook: &str, how: &str, always: bool) -> TaskHandle {
    let input = json!({"hook": hook, "how": how, "always": always});
    submit(engine, &one_node("r", input)).await
}

/// Every batch is there once, in its order, and counted once.
async fn complete(task: &TaskHandle, failures: u32, about: &str) {
    let outcome = task.wait().await.unwrap();
    assert_eq!(outcome.state, TaskState::Finished, "{about}: {outcome:?}");
    let status = task.status().await.unwrap();
    let node = status.node("n").unwrap();
    assert_eq!(node.state, NodeState::Finished);
    assert_eq!((node.failures, node.batches), (failures, 2), "{about}");
    assert_eq!(node.totals["n"].count, 2, "{about}");
    assert_eq!(node.result.as_ref().unwrap().text(), "7", "{about}");
    let artifacts = task.artifacts("n").all().await.unwrap();
    let values: Vec<_> = artifacts.iter().map(|a| a.value.text()).collect();
    assert_eq!(values, ["0", "1"], "{about}");
}

/// The worker's one slot takes another task, and all is well with it.
async fn slot_is_free(engine: &Engine, about: &str) {
    complete(&ask(engine, "", "", false).await, 0, about).await;
}

#[tokio::test]
async fn an_error_and_a_panic_in_any_hook_are_named_lose_nothing_and_free_the_slot() {
    let (engine, _hanging) = stage().await;
    let of_hooks = ["init", "load_input", "batches", "process", "finalize"]
        .into_iter()
        .flat_map(|hook| [(hook, "error", "odd"), (hook, "panic", "panic")]);
    let all = of_hooks.chain([("classify_error", "panic", "panic")]);
    for (hook, how, code) in all {
        let about = format!("{how} in {hook}");
        complete(&ask(&engine, hook, how, false).await, 1, &about).await;

        let task = ask(&engine, hook, how, true).await;
        let outcome = task.wait().await.unwrap();
        assert_eq!(outcome.state, TaskState::Failed, "{about}");
        let failure = outcome.failure.unwrap();
        assert_eq!(&*failure.reason_code, code, "{about}");
        let named = failure.error.contains(hook) || (hook, how) == ("process", "error");
        let told = named && failure.error.contains("no such thing");
        assert!(told, "{about}: {}", failure.error);
        assert_eq!(task.status().await.unwrap().node("n").unwrap().failures, 3);
        slot_is_free(&engine, &about).await;
    }
    engine.stop().await;
}

#[tokio::test]
async fn what_no_hook_may_give_is_a_permanent_failure_that_names_it() {
    let (engine, _hanging) = stage().await;
    for (hook, how, code, text) in [
        ("batches", "bad uid", "bad_input", "batches: batch uid \"\""),
        ("process", "no form", "bad_output", "no JSON form: no form"),
        (
            "finalize",
            "no form",
            "bad_output",
            "finalize: the value has no JSON form: no form",
        ),
    ] {
        let task = ask(&engine, hook, how, true).await;
        let failure = task.wait().await.unwrap().failure.unwrap();
        assert_eq!(&*failure.reason_code, code, "{hook}: {how}");
        assert!(failure.error.contains(text), "{hook}: {}", failure.error);
        let status = task.status().await.unwrap();
        let node = status.node("n").unwrap();
        // What was accepted before stays.
        let accepted = if hook == "finalize" { 2 } else { 1 };
        assert_eq!((node.failures, node.batches), (1, accepted), "{hook}");
        slot_is_free(&engine, hook).await;
    }
    engine.stop().await;
}

#[tokio::test]
async fn a_hang_in_any_hook_ends_with_a_cancel_and_frees_the_slot() {
    let (engine, mut hanging) = stage().await;
    let hooks = ["init", "load_input", "batches", "process", "finalize"];
    for hook in hooks {
        let task = ask(&engine, hook, "hang", true).await;
        hanging.recv().await.expect("it hangs");
        let grace = Some(Duration::from_millis(20));
        task.cancel("enough", grace).await.unwrap();
        let state = task.wait().await.unwrap().state;
        assert_eq!(state, TaskState::Cancelled, "{hook}");
        slot_is_free(&engine, hook).await;
    }
    engine.stop().await;
}

#[tokio::test]
async fn panics_behind_the_end_of_a_run_cost_neither_its_result_nor_the_slot() {
    let (engine, _hanging) = stage().await;
    complete(&ask(&engine, "cleanup", "panic", true).await, 0, "cleanup").await;
    slot_is_free(&engine, "cleanup").await;
    // What a failed run holds is dropped when it is closed.
    let task = ask(&engine, "drop", "panic", true).await;
    let failure = task.wait().await.unwrap().failure.unwrap();
    assert_eq!(&*failure.reason_code, "odd");
    slot_is_free(&engine, "drop").await;
    engine.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_cleanup_that_hangs_is_dropped_after_30_s_and_its_node_is_done() {
    let (engine, mut hanging) = stage().await;
    let task = ask(&engine, "cleanup", "hang", true).await;
    hanging.recv().await.expect("it hangs");
    let began = Instant::now();
    complete(&task, 0, "cleanup").await;
    let took = began.elapsed();
    let about_30 = Duration::from_secs(29)..Duration::from_secs(32);
    assert!(about_30.contains(&took), "{took:?}");
    slot_is_free(&engine, "cleanup").await;

    // A cancel has a grace of its own.
    let task = ask(&engine, "cleanup", "hang", true).await;
    hanging.recv().await.expect("it hangs");
    let began = Instant::now();
    task.cancel("enough", Some(Duration::from_secs(3)))
        .await
        .unwrap();
    let state = task.wait().await.unwrap().state;
    assert_eq!(state, TaskState::Cancelled);
    let took = began.elapsed();
    assert!(took < Duration::from_secs(6), "{took:?}");
    slot_is_free(&engine, "cleanup").await;
    engine.stop().await;
}
