//! What cannot be paused, delayed or limited.

use flowkit_memory::{LocalTransport, MemoryStore};
use flowkit_runtime::{
    ClientError, CoordinatorSettings, Engine, EngineSettings, Limit, Limits, ReplyError,
    StartError, SubmitOptions, TaskId,
};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

use crate::support::{engine, one_node};

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
