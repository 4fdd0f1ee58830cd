//! Operating tasks: pause, priority, delay, limits, retention.

#![allow(missing_docs, reason = "cases are named for what they show")]

use flowkit_runtime::{
    Batch, BatchResult, ClientError, CoordinatorSettings, HandlerError, Json, Limit, Limits,
    NodeState, ReplyError, RerunOptions, RunContext, SubmitOptions, TaskId, TaskState, handler_fn,
};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::Barrier;

use super::{Ground, Site, finished, one_node, until};

pub async fn a_paused_task_starts_nothing_until_it_is_resumed(ground: impl Ground) {
    let site = Site::new(ground).await;
    let task = site.submit(&one_node("echo", json!({}))).await;
    // Both may be asked for twice.
    for _ in 0..2 {
        let state = task.pause("a test").await.expect("durable");
        assert_eq!(state, Some(TaskState::Paused));
    }
    let status = task.status().await.expect("there");
    assert_eq!((status.state, status.control_no), (TaskState::Paused, 1));
    let echo =
        handler_fn(|_, batch: Batch<Json>| async move { Ok(BatchResult::of(batch.payload)) });
    site.worker("echo", echo).await;
    // The worker is there and idle: another task runs.
    let other = site.submit(&one_node("echo", json!({}))).await;
    finished(&other).await;
    let status = task.status().await.expect("there");
    assert_eq!(
        (status.state, status.nodes[0].grants),
        (TaskState::Paused, 0)
    );
    let why = task.why().await.expect("an answer").why;
    assert_eq!(
        why,
        "it is paused (a test): no node starts, what runs goes on"
    );
    for _ in 0..2 {
        let state = task.resume("a test").await.expect("durable");
        assert_ne!(state, Some(TaskState::Paused));
    }
    finished(&task).await;
    // What has ended stays as it was.
    let state = task.pause("late").await.expect("answered");
    assert_eq!(state, Some(TaskState::Finished));
    let status = task.status().await.expect("there");
    let entries = status.history.entries.iter();
    let entries: Vec<_> = entries.map(|e| (e.to, e.cause.as_str())).collect();
    assert_eq!(
        entries[..3],
        [
            (TaskState::Queued, "submitted"),
            (TaskState::Paused, "paused: a test"),
            (TaskState::Queued, "resumed: a test"),
        ]
    );
    let ended = entries.last().map(|(to, _)| *to);
    assert_eq!(ended, Some(TaskState::Finished), "{entries:?}");
    let entries = &status.nodes[0].history.entries;
    let granted = entries.iter().filter(|e| e.to == NodeState::Running);
    let granted: Vec<_> = granted
        .map(|e| e.cause.starts_with("granted to "))
        .collect();
    assert_eq!(granted, [true], "{entries:?}");
    site.stop().await;
}

pub async fn tasks_run_by_priority(ground: impl Ground) {
    let site = Site::new(ground).await;
    let graph = one_node("note", json!({}));
    let mut tasks = Vec::new();
    for (name, priority) in [("low", -1), ("middle", 0), ("high", 5)] {
        let options = SubmitOptions::with_task_id(TaskId::new(name).expect("an id"));
        let task = site
            .client()
            .submit(&graph, options.priority(priority))
            .await;
        tasks.push(task.expect("taken"));
    }
    let begun: Arc<Mutex<Vec<String>>> = Arc::default();
    let note = begun.clone();
    let handler = handler_fn(move |cx: RunContext, _: Batch<Json>| {
        let task = cx.info().task_id.to_string();
        note.lock().expect("no panic").push(task);
        async move { Ok(BatchResult::<()>::new()) }
    });
    site.worker("note", handler).await;
    for task in &tasks {
        finished(task).await;
    }
    assert_eq!(*begun.lock().expect("no panic"), ["high", "middle", "low"]);
    site.stop().await;
}

pub async fn a_delayed_task_does_not_start_before_its_time(ground: impl Ground) {
    let site = Site::new(ground).await;
    let nothing = handler_fn(|_, _: Batch<Json>| async move { Ok(BatchResult::<()>::new()) });
    site.worker("r", nothing).await;
    let graph = one_node("r", json!({}));
    let now = site.submit(&graph).await;
    finished(&now).await;
    let delay = Duration::from_millis(1_500);
    let asked = Instant::now();
    let options = SubmitOptions::default().start_delay(delay);
    let later = site.client().submit(&graph, options).await.expect("taken");
    finished(&later).await;
    assert!(asked.elapsed() >= delay, "{:?}", asked.elapsed());
    site.stop().await;
}

/// How many run, and the most that ever did.
#[derive(Clone, Default)]
struct Counts(Arc<Mutex<(u32, u32)>>);

impl Counts {
    fn begin(&self) {
        let mut counts = self.0.lock().expect("no panic");
        counts.0 += 1;
        counts.1 = counts.1.max(counts.0);
    }

    fn end(&self) -> u32 {
        let mut counts = self.0.lock().expect("no panic");
        counts.0 -= 1;
        counts.1
    }
}

/// Six tasks of each role; each of them ends only when as many run as its limit allows.
pub async fn limits_of_all_of_a_type_and_of_a_key_hold_and_are_used(ground: impl Ground) {
    let two = "two".parse().expect("a type");
    let limits = Limits::default()
        .all(3)
        .of_type(two, Limit::running(2))
        .of_each_other_key(Limit::running(1));
    let site = Site::with(ground, CoordinatorSettings::default().limits(limits)).await;
    let process = site.process().await;
    let roles = [
        ("one", Some("tenant"), 1),
        ("two", None, 2),
        ("three", None, 3),
    ];
    let mut builder = process.builder().capacity(8);
    for (role, _, most) in roles {
        let (counts, together) = (Counts::default(), Arc::new(Barrier::new(most)));
        let handler = handler_fn(move |cx: RunContext, _: Batch<Json>| {
            let (counts, together) = (counts.clone(), together.clone());
            async move {
                counts.begin();
                together.wait().await;
                // Long enough for one too many to come.
                cx.sleep(Duration::from_millis(50)).await?;
                Ok(BatchResult::of(counts.end()))
            }
        });
        builder = builder.role(role, handler);
    }
    process.start(builder);
    for (role, key, most) in roles {
        let mut tasks = Vec::new();
        for _ in 0..6 {
            let mut options = SubmitOptions::default();
            options.operated.limit_key = key.map(Arc::from);
            let graph = one_node(role, json!({}));
            let task = site.client().submit(&graph, options).await;
            tasks.push(task.expect("taken"));
        }
        for task in tasks {
            finished(&task).await;
            let seen: Vec<usize> = super::artifacts(&task, "n").await;
            assert!(seen[0] <= most, "{role}: {seen:?}");
        }
    }
    site.stop().await;
}

pub async fn starts_of_a_key_are_spread_over_time(ground: impl Ground) {
    let window_ms = 800;
    let limits = Limits::default().of_key("api", Limit::starts(2, window_ms));
    let site = Site::with(ground, CoordinatorSettings::default().limits(limits)).await;
    let process = site.process().await;
    let nothing = handler_fn(|_, _: Batch<Json>| async move { Ok(BatchResult::<()>::new()) });
    process.start(process.builder().role("r", nothing).capacity(8));
    let asked = Instant::now();
    let mut tasks = Vec::new();
    for _ in 0..6 {
        let options = SubmitOptions::default().limit_key("api");
        let task = site
            .client()
            .submit(&one_node("r", json!({})), options)
            .await;
        tasks.push(task.expect("taken"));
    }
    for task in tasks {
        finished(&task).await;
    }
    let least = Duration::from_millis(2 * window_ms);
    assert!(asked.elapsed() >= least, "{:?}", asked.elapsed());
    site.stop().await;
}

pub async fn a_finished_task_is_swept_and_its_id_stays_taken(ground: impl Ground) {
    let settings = CoordinatorSettings::default()
        .retention_finished_sec(0.05)
        .sweep_interval_sec(0.02);
    let site = Site::with(ground, settings).await;
    let handler = handler_fn(|_, batch: Batch<Value>| async move {
        match batch.payload["fail"].is_null() {
            true => Ok(BatchResult::of(batch.payload)),
            false => Err(HandlerError::permanent("broken", "as asked")),
        }
    });
    site.worker("r", handler).await;
    let fails = site.submit(&one_node("r", json!({"fail": true}))).await;
    let outcome = fails.wait().await.expect("it ends");
    assert_eq!(outcome.state, TaskState::Failed);
    let client = site.client();
    let graph = one_node("r", json!({"n": 1}));
    let key = || SubmitOptions::with_key("k");
    let task = client.submit(&graph, key()).await.expect("taken");
    finished(&task).await;
    let error = until(async || task.status().await.err()).await;
    assert!(matches!(error, ClientError::Swept(_)), "{error}");
    assert!(error.to_string().contains("retention ended"), "{error}");
    // Those that did not finish are kept by another setting: for ever.
    let left = client.list(None, 10).await.expect("readable");
    let left: Vec<&TaskId> = left.tasks.iter().map(|task| &task.task_id).collect();
    assert_eq!(left, [fails.id()]);
    let error = task.artifacts("n").all().await.expect_err("gone");
    assert!(matches!(error, ClientError::Swept(_)), "{error}");
    let error = task.rerun(RerunOptions::all()).await.expect_err("gone");
    assert_eq!(error.refusal(), Some(ReplyError::Swept), "{error}");
    // How it ended is known, and what is done is not done again.
    finished(&task).await;
    let same = client.submit(&graph, key()).await.expect("the same");
    assert_eq!(same.id(), task.id());
    let gone = same.status().await;
    assert!(matches!(gone, Err(ClientError::Swept(_))), "{gone:?}");
    let other = one_node("r", json!({"n": 2}));
    let error = client.submit(&other, key()).await.expect_err("another");
    assert_eq!(error.refusal(), Some(ReplyError::IdempotencyConflict));
    site.stop().await;
}
