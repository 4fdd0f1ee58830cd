//! What cannot be paused, delayed or limited.

use flowkit_memory::{LocalTransport, MemoryStore};
use flowkit_runtime::{
    Batch, BatchResult, ClientError, CoordinatorSettings, Engine, EngineSettings, Handler, Limit,
    Limits, ReplyError, Role, RunContext, StartError, SubmitOptions, TaskId, TaskState, handler_fn,
};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::support::{engine, one_node, submit, worker};

#[tokio::test]
async fn nobody_can_pause_a_task_that_is_not_there() {
    let engine = engine().await;
    let task = engine.client().task(TaskId::new("nobody").expect("an id"));
    let error = task.pause("").await.expect_err("there is none");
    assert!(matches!(error, ClientError::NoSuchTask(_)), "{error}");
    engine.stop().await;
}

#[tokio::test]
async fn impossible_options_are_refused_with_their_field() {
    let engine = engine().await;
    let client = engine.client();
    let graph = one_node("nobody", json!({}));
    for (options, field) in [
        (
            SubmitOptions::default().start_delay(Duration::MAX),
            "start_delay_ms",
        ),
        (SubmitOptions::default().limit_key(""), "limit_key"),
        (SubmitOptions::default().limit_key("a\nb"), "limit_key"),
    ] {
        let error = client.submit(&graph, options).await.expect_err(field);
        assert_eq!(error.refusal(), Some(ReplyError::Invalid));
        assert!(error.to_string().contains(field), "{error}");
    }
    engine.stop().await;
}

fn limits() -> Limits {
    Limits::default().of_each_other_key(Limit::running(1))
}

#[tokio::test]
async fn limits_need_a_deployment_of_one_shard() {
    let mut settings = EngineSettings::default();
    settings.shards = 2;
    let store = Arc::new(MemoryStore::new());
    let engine = Engine::with_settings(store, Arc::new(LocalTransport::new()), settings);
    let coordinator = CoordinatorSettings::default().limits(limits());
    let error = engine.start_with(coordinator).await.expect_err("refused");
    assert!(matches!(error, StartError::Settings(_)), "{error:?}");
    let text = error.to_string();
    assert!(
        text.contains("limits: need a deployment of one shard"),
        "{text}"
    );
    assert!(text.contains("has 2"), "{text}");
    engine.stop().await;
}

#[tokio::test]
async fn impossible_limits_do_not_start() {
    let coordinator = CoordinatorSettings::default().limits(limits().all(0));
    let error = Engine::memory().start_with(coordinator).await;
    let text = error.expect_err("refused").to_string();
    assert!(
        text.contains("limits: running_max must be 1 or more"),
        "{text}"
    );
}

/// So many at once, and the most of them so far.
type AtOnce = Arc<Mutex<(u32, u32)>>;

/// Counts how many of its runs there are at once, and when each began.
fn counting(counts: &AtOnce, begun: &Arc<Mutex<Vec<tokio::time::Instant>>>) -> impl Handler {
    let (counts, begun) = (counts.clone(), begun.clone());
    handler_fn(move |cx: RunContext, batch: Batch<Value>| {
        let (counts, begun) = (counts.clone(), begun.clone());
        async move {
            begun
                .lock()
                .expect("no panic")
                .push(tokio::time::Instant::now());
            {
                let mut counts = counts.lock().expect("no panic");
                counts.0 += 1;
                counts.1 = counts.1.max(counts.0);
            }
            cx.sleep(Duration::from_millis(20)).await?;
            counts.lock().expect("no panic").0 -= 1;
            Ok(BatchResult::of(batch.payload))
        }
    })
}

/// Runs six tasks of each of two types on three slots each; the most at once, and when they began.
async fn six_of_each(limits: Limits) -> [(u32, Vec<tokio::time::Instant>); 2] {
    let engine = Engine::memory();
    let coordinator = CoordinatorSettings::default().limits(limits);
    engine.start_with(coordinator).await.expect("started");
    let seen = ["limited", "free"].map(|role| {
        let (counts, begun) = (AtOnce::default(), Arc::default());
        for _ in 0..3 {
            worker(&engine, role, counting(&counts, &begun));
        }
        (counts, begun)
    });
    let mut tasks = Vec::new();
    for number in 0..12 {
        let role = ["limited", "free"][number % 2];
        tasks.push(submit(&engine, &one_node(role, json!({ "n": number }))).await);
    }
    for task in tasks {
        let state = task.wait().await.expect("it ends").state;
        assert_eq!(state, TaskState::Finished);
    }
    engine.stop().await;
    seen.map(|(counts, begun)| {
        let most = counts.lock().expect("no panic").1;
        (most, begun.lock().expect("no panic").clone())
    })
}

#[tokio::test(start_paused = true)]
async fn nodes_of_a_limited_type_run_one_after_the_other_and_others_do_not() {
    let role = Role::new("limited").expect("a role");
    let limits = Limits::default().of_type(role, Limit::running(1));
    let [(limited, _), (free, _)] = six_of_each(limits).await;
    assert_eq!((limited, free), (1, 3));
}

#[tokio::test(start_paused = true)]
async fn no_more_nodes_of_a_type_start_within_its_window_than_its_limit_says() {
    let window = Duration::from_millis(1_000);
    let role = Role::new("limited").expect("a role");
    let limits = Limits::default().of_type(role, Limit::starts(2, 1_000));
    let [(_, limited), (_, free)] = six_of_each(limits).await;
    assert_eq!((limited.len(), free.len()), (6, 6));
    for third in limited.windows(3) {
        // What is limited is the grant, which comes a little before.
        let apart = third[2] - third[0];
        assert!(apart >= window - Duration::from_millis(50), "{limited:?}");
    }
    let all = limited[5] - limited[0];
    assert!(all < 3 * window, "nobody waits for longer: {all:?}");
    assert!(free[5] - free[0] < window, "{free:?}");
}
