//! What fails, and how it is named: input, hooks, programs.

#![allow(missing_docs, reason = "cases are named for what they show")]

use flowkit_runtime::{
    Batch, BatchResult, BatchStream, Exec, Failure, FinalizeResult, Handler, HandlerError, Json,
    RunContext, TaskInput, TaskState,
};
use serde_json::{Value, json};

use super::{Ground, Site, finished, one_node};

/// How a task of one node failed, and after how many attempts.
async fn failure(site: &Site, role: &str, input: Value) -> (Failure, u32) {
    let task = site.submit(&one_node(role, input)).await;
    let outcome = task.wait().await.expect("it ends");
    assert_eq!(outcome.state, TaskState::Failed);
    let node = task.status().await.expect("there").nodes.remove(0);
    (outcome.failure.expect("it failed"), node.attempts.0)
}

pub async fn input_of_another_shape_is_never_tried_again(ground: impl Ground) {
    #[derive(serde::Deserialize)]
    struct Pages {
        pages: Vec<u32>,
    }
    let site = Site::new(ground).await;
    let handler = flowkit_runtime::handler_fn(|_, batch: Batch<Pages>| async move {
        Ok(BatchResult::of(batch.payload.pages.len()))
    });
    site.worker("r", handler).await;
    for (input, part) in [
        (json!({"pages": "all"}), "expected a sequence"),
        (json!({"pages": [1, -2]}), "-2"),
        (json!({"page": [1]}), "missing field `pages`"),
        (json!({"pages": null}), "null"),
    ] {
        let (failure, attempts) = failure(&site, "r", input.clone()).await;
        assert_eq!((&*failure.reason_code, attempts), ("bad_input", 1));
        assert!(failure.error.contains(part), "{input}: {failure:?}");
    }
    // The worker is none the worse for it.
    let task = site
        .submit(&one_node("r", json!({"pages": [1, 2, 3]})))
        .await;
    finished(&task).await;
    site.stop().await;
}

/// Fails in the hook that its input names, as the input says.
struct Failing;

impl Failing {
    fn at(cx: &RunContext, hook: &str) -> Result<(), HandlerError> {
        let asked: Value = cx.input()?.decode()?;
        if asked["hook"] != hook {
            return Ok(());
        }
        match asked["how"].as_str() {
            Some("panic") => panic!("on purpose"),
            Some("permanent") => Err(HandlerError::permanent("torn", "on purpose")),
            _ => Err(HandlerError::transient("torn", "on purpose")),
        }
    }
}

impl Handler for Failing {
    type Run = ();
    type Input = Value;
    type Output = u32;

    async fn init(&self, cx: &RunContext) -> Result<(), HandlerError> {
        Self::at(cx, "init")
    }

    async fn load_input(
        &self,
        cx: &RunContext,
        input: TaskInput,
    ) -> Result<TaskInput, HandlerError> {
        Self::at(cx, "load_input").map(|()| input)
    }

    async fn batches(
        &self,
        cx: &RunContext,
        input: TaskInput,
    ) -> Result<BatchStream<Value>, HandlerError> {
        Self::at(cx, "batches").map(|()| BatchStream::whole_input(&input))
    }

    async fn process(
        &self,
        cx: &RunContext,
        (): &mut (),
        _: Batch<Value>,
    ) -> Result<BatchResult<u32>, HandlerError> {
        Self::at(cx, "process").map(|()| BatchResult::of(1))
    }

    async fn finalize(&self, cx: &RunContext, (): ()) -> Result<FinalizeResult, HandlerError> {
        Self::at(cx, "finalize").map(|()| FinalizeResult::new())
    }

    async fn cleanup(&self, cx: &RunContext) {
        // Behind the end of a run there is nothing left to fail.
        let _ = Self::at(cx, "cleanup");
    }
}

pub async fn an_error_or_a_panic_of_any_hook_is_an_attempt_that_names_it(ground: impl Ground) {
    let site = Site::new(ground).await;
    site.worker("r", Failing).await;
    for hook in ["init", "load_input", "batches", "process", "finalize"] {
        for (how, code, attempts) in [
            ("transient", "torn", 3),
            ("permanent", "torn", 1),
            ("panic", "panic", 3),
        ] {
            let input = json!({"hook": hook, "how": how});
            let (failure, made) = failure(&site, "r", input).await;
            let seen = (&*failure.reason_code, made);
            assert_eq!(seen, (code, attempts), "{hook} {how}: {failure:?}");
            let named = match (hook, how) {
                (_, "panic") => format!("the handler panicked: in {hook}: on purpose"),
                ("process", _) => "on purpose".to_owned(),
                _ => format!("{hook}: on purpose"),
            };
            assert_eq!(&*failure.error, named, "{hook} {how}");
        }
    }
    let task = site
        .submit(&one_node("r", json!({"hook": "cleanup", "how": "panic"})))
        .await;
    finished(&task).await;
    site.stop().await;
}

/// Does what its batch says, in a shell.
fn obeys() -> Exec {
    let script = r#"read -r hello; read -r batch
case $batch in
  *'"do":"exit"'*) echo no model >&2; exit 3;;
  *'"do":"die"'*) kill -9 $$;;
  *'"do":"leave"'*) exit 0;;
  *'"do":"chat"'*) echo Loading model...;;
  *'"do":"misspell"'*) echo '{"kind":"result","batch_uid":"input","artefact":1}';;
  *'"do":"negate"'*) echo '{"kind":"error","message":"m","retry_after_ms":-1}';;
  *'"do":"mistake"'*) echo '{"kind":"result","batch_uid":"other"}';;
  *'"do":"hoard"'*) printf '{"kind":"checkpoint","batch_uid":"input","value":"%070000d"}\n' 7;;
  *'"do":"give up"'*) echo '{"kind":"error","code":"bad_scan","message":"torn","permanent":true}';;
  *'"do":"work"'*) echo '{"kind":"result","batch_uid":"input","artifact":1}';;
esac
while read -r line; do :; done"#;
    Exec::new("sh", ["-c", script])
}

pub async fn a_program_that_exits_or_says_nonsense_fails_as_its_page_says(ground: impl Ground) {
    let site = Site::new(ground).await;
    site.worker("r", obeys()).await;
    for (what, code, attempts, part) in [
        ("exit", "exec_exit", 3, "no model"),
        ("die", "exec_killed", 3, "signal: 9"),
        ("leave", "exec_protocol", 1, "without a result"),
        ("chat", "exec_protocol", 1, "\"Loading model...\""),
        ("misspell", "exec_protocol", 1, "artefact"),
        ("negate", "exec_protocol", 1, "`retry_after_ms`"),
        ("mistake", "exec_protocol", 1, "\"other\""),
        ("hoard", "checkpoint_too_large", 1, "65536"),
        ("give up", "bad_scan", 1, "torn"),
    ] {
        let (failure, made) = failure(&site, "r", json!({"do": what})).await;
        let seen = (&*failure.reason_code, made);
        assert_eq!(seen, (code, attempts), "{what}: {failure:?}");
        assert!(failure.error.contains(part), "{what}: {failure:?}");
    }
    let task = site.submit(&one_node("r", json!({"do": "work"}))).await;
    finished(&task).await;
    let done: Vec<Json> = super::artifacts(&task, "n").await;
    assert_eq!(done.iter().map(Json::text).collect::<Vec<_>>(), ["1"]);
    site.stop().await;
}
