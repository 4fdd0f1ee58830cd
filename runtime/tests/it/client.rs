//! Submissions, their repeats and their refusals; nothing here needs a worker.

use flowkit_runtime::{
    ClientError, CoordinatorSettings, Engine, ReplyError, SubmitOptions, TaskId, TaskState,
};
use serde_json::json;

use crate::support::{engine, one_node};

#[tokio::test]
async fn a_submitted_task_is_queued_and_listed() {
    let engine = engine().await;
    let client = engine.client();
    let graph = one_node("nobody", json!({}));
    let task = client
        .submit(&graph, SubmitOptions::default())
        .await
        .unwrap();
    let status = task.status().await.unwrap();
    assert_eq!(status.state, TaskState::Queued);
    assert_eq!(status.nodes.len(), 1);
    let list = client.list(None, 10).await.unwrap();
    assert_eq!(
        list.tasks.iter().map(|t| &t.task_id).collect::<Vec<_>>(),
        [task.id()]
    );
    assert_eq!((list.next, list.unreadable), (None, vec![]));
    engine.stop().await;
}

#[tokio::test]
async fn the_same_submission_again_is_answered_from_state() {
    let engine = engine().await;
    let client = engine.client();
    let graph = one_node("nobody", json!({"n": 1}));
    let first = client
        .submit(&graph, SubmitOptions::with_key("k"))
        .await
        .unwrap();
    let again = engine
        .client()
        .submit(&graph, SubmitOptions::with_key("k"))
        .await
        .unwrap();
    assert_eq!(first.id(), again.id());
    assert_eq!(client.task_of_key("k").id(), first.id());
    assert_eq!(client.list(None, 10).await.unwrap().tasks.len(), 1);
    engine.stop().await;
}

#[tokio::test]
async fn another_graph_under_the_same_key_is_a_conflict() {
    let engine = engine().await;
    let client = engine.client();
    let one = one_node("nobody", json!({"n": 1}));
    let two = one_node("nobody", json!({"n": 2}));
    client
        .submit(&one, SubmitOptions::with_key("k"))
        .await
        .unwrap();
    let error = client
        .submit(&two, SubmitOptions::with_key("k"))
        .await
        .unwrap_err();
    assert_eq!(error.refusal(), Some(ReplyError::IdempotencyConflict));
    engine.stop().await;
}

#[tokio::test]
async fn every_fault_of_a_graph_comes_back_at_once() {
    let engine = engine().await;
    let graph = json!({
        "nodes": [
            {"node_id": "a", "type": "x", "depends_on": ["missing"]},
            {"node_id": "b", "type": "x", "fan_in": "count:9"},
        ],
        "edges": [["a", "nowhere"]],
    });
    let error = engine
        .client()
        .submit(&graph, SubmitOptions::default())
        .await
        .unwrap_err();
    let ClientError::Refused { kind, faults, .. } = &error else {
        panic!("{error}");
    };
    assert_eq!(*kind, ReplyError::InvalidGraph);
    assert!(faults.len() >= 3, "{faults:?}");
    let text = error.to_string();
    assert!(
        text.contains("missing") && text.contains("nowhere"),
        "{text}"
    );
    assert!(
        engine
            .client()
            .list(None, 10)
            .await
            .unwrap()
            .tasks
            .is_empty()
    );
    engine.stop().await;
}

#[tokio::test]
async fn a_cancelled_task_that_nobody_runs_is_settled_at_once() {
    let engine = engine().await;
    let client = engine.client();
    let graph = one_node("nobody", json!({}));
    let task = client
        .submit(&graph, SubmitOptions::default())
        .await
        .unwrap();
    let waiter = task.clone();
    let waiting = tokio::spawn(async move { waiter.wait().await });
    task.cancel("not needed", None).await.unwrap();
    assert_eq!(waiting.await.unwrap().unwrap().state, TaskState::Cancelled);
    // Again, after the fact: the state stays.
    task.cancel("again", None).await.unwrap();
    assert_eq!(task.wait().await.unwrap().state, TaskState::Cancelled);
    assert_eq!(task.status().await.unwrap().state, TaskState::Cancelled);
    engine.stop().await;
}

#[tokio::test]
async fn an_engine_with_enough_in_flight_says_so_and_takes_more_later() {
    let engine = Engine::memory();
    let settings = CoordinatorSettings::default().tasks_in_flight_max(2);
    engine.start_with(settings).await.unwrap();
    let client = engine.client();
    let graph = one_node("nobody", json!({}));
    let options = || SubmitOptions::with_key("k");
    let first = client.submit(&graph, options()).await.unwrap();
    let second = SubmitOptions::default();
    client.submit(&graph, second.clone()).await.unwrap();
    let error = client.submit(&graph, second.clone()).await.unwrap_err();
    assert_eq!(error.refusal(), Some(ReplyError::Overloaded));
    let text = error.to_string();
    assert!(text.contains("2 tasks are in flight"), "{text}");
    // What is there is answered all the same.
    let again = client.submit(&graph, options()).await.unwrap();
    assert_eq!(again.id(), first.id());
    first.cancel("room", None).await.unwrap();
    first.wait().await.unwrap();
    client.submit(&graph, second).await.unwrap();
    assert_eq!(client.list(None, 10).await.unwrap().tasks.len(), 3);
    engine.stop().await;
}

#[tokio::test]
async fn an_unknown_task_is_said_to_be_unknown() {
    let engine = engine().await;
    let task = engine
        .client()
        .task(TaskId::new("never-submitted").unwrap());
    assert!(matches!(
        task.status().await,
        Err(ClientError::NoSuchTask(_))
    ));
    assert_eq!(
        task.wait().await.unwrap_err().refusal(),
        Some(ReplyError::NotFound)
    );
    let error = task.cancel("why not", None).await.unwrap_err();
    assert_eq!(error.refusal(), Some(ReplyError::NotFound));
    engine.stop().await;
}

#[tokio::test(start_paused = true)]
async fn without_a_coordinator_the_client_says_so() {
    let engine = Engine::memory();
    let graph = one_node("nobody", json!({}));
    let error = engine
        .client()
        .submit(&graph, SubmitOptions::default())
        .await
        .unwrap_err();
    assert!(matches!(error, ClientError::NoAnswer(_)), "{error}");
    // The request is in the stream: a coordinator that starts later takes it, once.
    engine.start().await.unwrap();
    let client = engine.client();
    let task = client
        .submit(&graph, SubmitOptions::with_key("after"))
        .await
        .unwrap();
    assert_eq!(task.status().await.unwrap().state, TaskState::Queued);
    assert_eq!(client.list(None, 10).await.unwrap().tasks.len(), 2);
    engine.stop().await;
}
