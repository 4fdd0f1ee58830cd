//! Graphs: vars, conditions, functions and detectors of the user; reruns.

#![allow(missing_docs, reason = "cases are named for what they show")]

use flowkit_runtime::function::{Call, Changes, FunctionError, Functions};
use flowkit_runtime::{
    Batch, BatchResult, BatchStream, FinalizeResult, Handler, HandlerError, Json, NodeState,
    ReplyError, RerunOptions, RunContext, SubmitOptions, TaskInput, TaskState, handler_fn,
};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use tokio::sync::Semaphore;

use super::{Ground, Site, artifacts, decoded, finished};

fn functions() -> Functions {
    let gross = |call: &Call<'_>| {
        let net = call.var("net").and_then(Value::as_i64);
        let net = net.ok_or_else(|| FunctionError::new("no_price", "`net` is no whole number"))?;
        let gross = net * 119 / 100;
        Ok(Changes::new()
            .set("gross", gross)
            .result(json!({ "net": net })))
    };
    Functions::default()
        .function("price.gross", gross)
        .function("account.look", |call: &Call<'_>| {
            let to = call.var("to").cloned().unwrap_or_default();
            Ok(Changes::new()
                .set("account", to)
                .block_sensitive(["account"]))
        })
        .detector("account", |text: &str| text.starts_with("DE"))
}

fn function(id: &str, name: &str, args: &Value, after: &[&str]) -> Value {
    json!({"node_id": id, "type": "coordinator_fn", "depends_on": after,
           "io": {"fn": name, "fn_args": args}})
}

fn vars(value: Value) -> SubmitOptions {
    SubmitOptions::default().vars(Json::from(value))
}

pub async fn conditions_see_what_functions_of_the_user_made_of_the_vars(ground: impl Ground) {
    let site = Site::knowing(ground, functions()).await;
    let handler = handler_fn(|cx: RunContext, _: Batch<Json>| async move {
        Ok(BatchResult::of(cx.vars().clone()))
    });
    site.worker("r", handler).await;
    let work = |id: &str, op: &str| {
        json!({"node_id": id, "type": "r", "depends_on": ["gross"],
               "when": {"var": "gross", "op": op, "value": 200}})
    };
    let graph = json!({"nodes": [
        function("gross", "price.gross", &json!({}), &[]),
        work("dear", "gt"),
        work("cheap", "le"),
    ]});
    let task = site
        .client()
        .submit(&graph, vars(json!({"net": 200})))
        .await;
    let task = task.expect("a valid graph");
    finished(&task).await;
    let status = task.status().await.expect("there");
    let states = ["gross", "dear", "cheap"].map(|id| status.node(id).expect("there").state);
    assert_eq!(
        states,
        [NodeState::Finished, NodeState::Finished, NodeState::Skipped]
    );
    let result = status.node("gross").expect("there").result.as_ref();
    assert_eq!(
        decoded::<Value>(result.expect("of the function")),
        json!({"net": 200})
    );
    let made = json!({"net": 200, "gross": 238});
    assert_eq!(decoded::<Value>(&status.vars), made);
    assert_eq!(
        artifacts::<Value>(&task, "dear").await,
        [made],
        "seen by the handler"
    );

    let task = site
        .client()
        .submit(&graph, vars(json!({"net": "dear"})))
        .await;
    let outcome = task.expect("a valid graph").wait().await.expect("it ends");
    assert_eq!(
        &*outcome.failure.expect("it failed").reason_code,
        "no_price"
    );
    site.stop().await;
}

pub async fn a_detector_of_the_user_keeps_a_value_out_of_the_vars(ground: impl Ground) {
    let site = Site::knowing(ground, functions()).await;
    let client = site.client();
    let keep = |value: &str| {
        let args = json!({"kv": {"to": value}, "block_sensitive": ["secrets", "account"]});
        json!({"nodes": [function("keep", "vars.set", &args, &[])]})
    };
    let task = site.submit(&keep("a friend")).await;
    finished(&task).await;
    let sensitive = "DE02120300000000202051";
    let refused = client
        .submit(&keep(sensitive), SubmitOptions::default())
        .await;
    let text = refused.expect_err("refused").to_string();
    assert!(
        text.contains("`account`") && !text.contains(sensitive),
        "{text}"
    );

    // What only a function comes by fails its node.
    let look = json!({"nodes": [function("look", "account.look", &json!({}), &[])]});
    let task = client.submit(&look, vars(json!({"to": sensitive}))).await;
    let task = task.expect("a valid graph");
    let outcome = task.wait().await.expect("it ends");
    let failure = outcome.failure.expect("it failed");
    assert_eq!(&*failure.reason_code, "sensitive_value");
    let text = &failure.error;
    assert!(
        text.contains("`account`") && !text.contains(sensitive),
        "{text}"
    );
    let kept: Value = decoded(&task.status().await.expect("there").vars);
    assert_eq!(kept, json!({"to": sensitive}), "as submitted");
    site.stop().await;
}

/// `src` gives one artifact, `sink` reads it.
fn chain() -> Value {
    json!({"nodes": [
        {"node_id": "src", "type": "src"},
        {"node_id": "sink", "type": "sink", "depends_on": ["src"], "retry_policy": {"max": 1},
         "io": {"input_inline": {"input_adapter": "pull.from_artifacts",
                                 "input_args": {"from_node": "src"}}}},
    ]})
}

pub async fn a_rerun_reads_what_the_old_task_kept(ground: impl Ground) {
    let site = Site::new(ground).await;
    let (drawn, broken) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicBool::new(true)));
    let (count, fails) = (drawn.clone(), broken.clone());
    let src = handler_fn(move |_, _: Batch<Value>| {
        let n = count.fetch_add(1, Ordering::SeqCst);
        async move { Ok(BatchResult::of(json!({ "n": n }))) }
    });
    let sink = handler_fn(move |_, batch: Batch<Value>| {
        let fails = fails.load(Ordering::SeqCst);
        async move {
            if fails {
                return Err(HandlerError::permanent("broken", "not yet"));
            }
            Ok(BatchResult::of(batch.payload["meta"].clone()))
        }
    });
    site.worker("src", src).await;
    site.worker("sink", sink).await;
    let first = site.submit(&chain()).await;
    let outcome = first.wait().await.expect("it ends");
    assert_eq!(outcome.state, TaskState::Failed);
    broken.store(false, Ordering::SeqCst);

    let key = || RerunOptions::with_key("again");
    let again = first.rerun(key()).await.expect("settled");
    finished(&again).await;
    assert_eq!(drawn.load(Ordering::SeqCst), 1, "`src` is kept");
    let status = again.status().await.expect("there");
    assert_eq!(status.rerun_of.as_ref(), Some(first.id()));
    let src = status.node("src").expect("there");
    assert_eq!((src.state, src.batches), (NodeState::Finished, 1));
    assert_eq!(src.kept_from.as_ref(), Some(first.id()));
    for node in ["src", "sink"] {
        let values = artifacts::<Value>(&again, node).await;
        assert_eq!(values, [json!({"n": 0})], "{node}");
    }
    // The old task is as it was.
    let old = first.status().await.expect("there");
    assert_eq!(old.state, TaskState::Failed);

    // The same again is the same task; another one under the key is not.
    let same = first.rerun(key()).await.expect("the same");
    assert_eq!(same.id(), again.id());
    let mut other = key();
    other.all = true;
    let error = first.rerun(other).await.expect_err("another");
    assert_eq!(error.refusal(), Some(ReplyError::IdempotencyConflict));

    let third = again.rerun(RerunOptions::all()).await.expect("settled");
    finished(&third).await;
    assert_eq!(drawn.load(Ordering::SeqCst), 2);
    site.stop().await;
}

/// Two batches with a metric each; the second only once a later node has begun.
struct TwoBatches(Arc<Semaphore>);

impl Handler for TwoBatches {
    type Run = ();
    type Input = u32;
    type Output = u32;

    async fn init(&self, _: &RunContext) -> Result<(), HandlerError> {
        Ok(())
    }

    async fn batches(
        &self,
        _: &RunContext,
        _: TaskInput,
    ) -> Result<BatchStream<u32>, HandlerError> {
        let batches = [1, 2].map(|n| Batch::new(format!("b{n}"), n));
        Ok(BatchStream::iter(batches))
    }

    async fn process(
        &self,
        _: &RunContext,
        (): &mut (),
        batch: Batch<u32>,
    ) -> Result<BatchResult<u32>, HandlerError> {
        if batch.payload == 2 {
            self.0.acquire().await?.forget();
        }
        Ok(BatchResult::of(batch.payload).metric("pages", batch.payload * 3))
    }

    async fn finalize(&self, _: &RunContext, (): ()) -> Result<FinalizeResult, HandlerError> {
        Ok(FinalizeResult::of("both"))
    }
}

/// `slow` has two batches, `odd` fails. What waits for them does so in every way that there is.
fn ways() -> Value {
    let after = |id: &str, parents: &[&str], fan_in: &str| json!({"node_id": id, "type": "r", "depends_on": parents, "fan_in": fan_in});
    json!({
        "nodes": [
            {"node_id": "slow", "type": "two"},
            {"node_id": "odd", "type": "odd", "retry_policy": {"max": 1},
             "routing": {"on_success": ["cheer"], "on_failure": ["mend"]}},
            {"node_id": "cheer", "type": "r"},
            {"node_id": "mend", "type": "r"},
            after("below", &["cheer"], "all"),
            // A parent that is skipped is done without by `all`, and counts for nothing else.
            after("all", &["mend", "cheer"], "all"),
            after("any", &["cheer", "mend"], "any"),
            after("two_of_three", &["cheer", "mend", "slow"], "count:2"),
            after("two_of_two", &["cheer", "mend"], "count:2"),
            // At the first batch of `slow`, which ends only then.
            {"node_id": "early", "type": "early"},
            {"node_id": "late", "type": "r"},
            function("merge", "vars.merge", &json!({"data": {"a": {"b": [1]}, "n": {"m": 2}}}), &[]),
            function("unset", "vars.unset", &json!({"keys": ["token", "a.c", "deep.er"]}), &["merge"]),
            function("count", "vars.incr", &json!({"key": "runs"}), &[]),
            function("told", "merge.generic",
                     &json!({"from_nodes": ["slow", "mend"], "target": {"var": "told"}}), &["slow", "mend", "unset"]),
            function("mean", "metrics.aggregate",
                     &json!({"node_id": "slow", "mode": "mean", "target": {"var": "mean"}}), &["slow", "told"]),
        ],
        "edges": [["slow", "late"]],
        "edges_ex": [{"from": "slow", "to": "early", "mode": "async", "trigger": "on_batch"}],
    })
}

pub async fn nodes_start_by_fan_in_routing_and_edges_and_functions_tell_of_them(
    ground: impl Ground,
) {
    let site = Site::new(ground).await;
    let begun = Arc::new(Semaphore::new(0));
    let process = site.process().await;
    let seen = handler_fn(|cx: RunContext, _: Batch<Json>| async move {
        Ok(BatchResult::of(cx.vars().clone()))
    });
    let odd = handler_fn(|_, _: Batch<Json>| async move {
        Err::<BatchResult<()>, _>(HandlerError::transient("odd", "on purpose"))
    });
    let begins = begun.clone();
    let early = handler_fn(move |_, _: Batch<Json>| {
        begins.add_permits(1);
        async move { Ok(BatchResult::<()>::new()) }
    });
    let worker = process
        .builder()
        .role("two", TwoBatches(begun))
        .role("odd", odd);
    process.start(worker.role("r", seen).role("early", early).capacity(3));
    let begin = json!({"token": "t-1", "a": {"b": 0, "c": 1}, "deep": {"er": 1}, "n": 7});
    let task = site.client().submit(&ways(), vars(begin)).await;
    let mut task = task.expect("a valid graph");
    for round in 0..2 {
        if round == 1 {
            // It begins with what was submitted, removed or not.
            task = task.rerun(RerunOptions::all()).await.expect("settled");
        }
        finished(&task).await;
        let status = task.status().await.expect("there");
        let state = |id: &str| status.node(id).expect("there").state;
        for id in ["cheer", "below", "two_of_two"] {
            assert_eq!(state(id), NodeState::Skipped, "{id}");
        }
        assert_eq!(state("odd"), NodeState::Failed, "it was handled");
        for id in [
            "slow",
            "mend",
            "all",
            "any",
            "two_of_three",
            "early",
            "late",
        ] {
            assert_eq!(state(id), NodeState::Finished, "{id}");
        }
        let told = json!({
            "merged_from": ["slow", "mend"], "complete_nodes": ["mend", "slow"],
            "batches": 3, "results": {"slow": "both"},
        });
        let mean = json!({"node_id": "slow", "mode": "mean", "stats": {"pages": 4.5}});
        for (id, result) in [("told", &told), ("mean", &mean)] {
            let made = status.node(id).expect("there").result.as_ref();
            assert_eq!(decoded::<Value>(made.expect("of the function")), *result);
        }
        // What was removed is as if it had never been, with the parent that is empty then.
        let end = json!({
            "a": {"b": [1]}, "n": {"m": 2}, "runs": 1, "told": told, "mean": mean,
        });
        assert_eq!(decoded::<Value>(&status.vars), end);
    }
    site.stop().await;
}
