//! What cannot run again.

use flowkit_runtime::{ClientError, ReplyError, RerunOptions, TaskId};
use serde_json::{Value, json};

use crate::support::{engine, submit};

/// `src` gives one artifact, `sink` reads it.
fn graph() -> Value {
    json!({"nodes": [
        {"node_id": "src", "type": "src"},
        {"node_id": "sink", "type": "sink", "depends_on": ["src"],
         "retry_policy": {"max": 1},
         "io": {"input_inline": {"input_adapter": "pull.from_artifacts",
                                 "input_args": {"from_node": "src"}}}},
    ]})
}

#[tokio::test]
async fn what_cannot_run_again_is_refused() {
    let engine = engine().await;
    let running = submit(&engine, &graph()).await;
    let error = running.rerun(RerunOptions::default()).await.unwrap_err();
    assert_eq!(error.refusal(), Some(ReplyError::NotSettled), "{error}");
    running.cancel("", None).await.unwrap();
    running.wait().await.unwrap();
    let error = running
        .rerun(RerunOptions::from_nodes(["src", "x", "y"]))
        .await
        .unwrap_err();
    let ClientError::Refused { kind, faults, .. } = &error else {
        panic!("{error}")
    };
    assert_eq!((*kind, faults.len()), (ReplyError::Invalid, 2), "{error}");
    let error = running
        .rerun(RerunOptions::from_nodes(["a\0b"]))
        .await
        .unwrap_err();
    assert_eq!(error.refusal(), Some(ReplyError::Invalid), "{error}");
    let nobody = engine.client().task(TaskId::new("nobody").unwrap());
    let error = nobody.rerun(RerunOptions::all()).await.unwrap_err();
    assert_eq!(error.refusal(), Some(ReplyError::NotFound), "{error}");
    engine.stop().await;
}
