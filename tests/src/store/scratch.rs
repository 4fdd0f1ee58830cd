//! The scratch of a node: the checkpoint of the batch in work, under the token rule.

use flowkit_core::id::Token;
use flowkit_core::json::Json;
use flowkit_core::port::{ErrorKind, StoreReply, StoreRequest};
use flowkit_core::record::ScratchRecord;

use crate::StoreInstance;
use crate::records::{batch_uid, json, large_json, node_id, task_id};

pub(super) async fn take(
    store: &StoreInstance,
    node: (&str, &str),
    token: u64,
) -> Result<Option<ScratchRecord>, ErrorKind> {
    let request = StoreRequest::TakeScratch {
        task_id: task_id(node.0),
        node_id: node_id(node.1),
        token: Token(token),
    };
    match store.call(request).await {
        Ok(StoreReply::Scratch(scratch)) => Ok(scratch),
        Ok(other) => panic!("not a scratch: {other:?}"),
        Err(error) => Err(error.kind),
    }
}

pub(super) async fn put(
    store: &StoreInstance,
    node: (&str, &str),
    token: u64,
    uid: &str,
    checkpoint: &Json,
) -> Result<(), ErrorKind> {
    save(store, node, (token, 1), uid, checkpoint).await
}

async fn save(
    store: &StoreInstance,
    node: (&str, &str),
    (token, save_no): (u64, u64),
    uid: &str,
    checkpoint: &Json,
) -> Result<(), ErrorKind> {
    let request = StoreRequest::PutScratch {
        task_id: task_id(node.0),
        node_id: node_id(node.1),
        token: Token(token),
        save_no,
        batch_uid: batch_uid(uid),
        checkpoint: checkpoint.clone(),
    };
    match store.call(request).await {
        Ok(StoreReply::Done) => Ok(()),
        Ok(other) => panic!("not done: {other:?}"),
        Err(error) => Err(error.kind),
    }
}

fn scratch(token: u64, save_no: u64, uid: &str, checkpoint: &Json) -> ScratchRecord {
    ScratchRecord {
        token: Token(token),
        save_no,
        batch_uid: Some(batch_uid(uid)),
        checkpoint: checkpoint.clone(),
    }
}

const NODE: (&str, &str) = ("t", "a");

/// However often it is taken.
pub async fn scratch_that_was_never_written_is_none(store: &mut StoreInstance) {
    for token in [1, 1, 4] {
        assert_eq!(take(store, NODE, token).await, Ok(None));
    }
}

/// As it was: under the token that wrote it. A repeat sees its own token.
pub async fn scratch_is_handed_to_the_next_token(store: &mut StoreInstance) {
    let checkpoint = large_json(64 * 1024 - 2);
    assert_eq!(take(store, NODE, 1).await, Ok(None));
    assert_eq!(put(store, NODE, 1, "u1", &json("1")).await, Ok(()));
    assert_eq!(put(store, NODE, 1, "u2", &checkpoint).await, Ok(()));
    let taken = take(store, NODE, 2).await;
    assert_eq!(taken, Ok(Some(scratch(1, 1, "u2", &checkpoint))));
    let again = take(store, NODE, 2).await;
    assert_eq!(again, Ok(Some(scratch(2, 0, "u2", &checkpoint))));
}

/// Also where nothing was saved yet: the old holder's first save comes too late.
pub async fn taking_scratch_fences_older_tokens(store: &mut StoreInstance) {
    assert_eq!(take(store, NODE, 2).await, Ok(None));
    let late = put(store, NODE, 1, "u1", &json("1")).await;
    assert_eq!(late, Err(ErrorKind::Fenced));
    assert_eq!(take(store, NODE, 1).await, Err(ErrorKind::Fenced));
    assert_eq!(take(store, NODE, 3).await, Ok(None));
}

/// The stored token is the greatest that wrote; an equal one passes.
pub async fn writing_scratch_fences_older_tokens(store: &mut StoreInstance) {
    for token in [3, 3, 5] {
        let written = put(store, NODE, token, "u1", &json("1")).await;
        assert_eq!(written, Ok(()));
    }
    let late = put(store, NODE, 4, "u2", &json("2")).await;
    assert_eq!(late, Err(ErrorKind::Fenced));
    assert_eq!(take(store, NODE, 4).await, Err(ErrorKind::Fenced));
    let taken = take(store, NODE, 5).await;
    assert_eq!(taken, Ok(Some(scratch(5, 1, "u1", &json("1")))));
}

/// The network may carry out a save after a newer one was acknowledged.
pub async fn a_late_copy_of_an_older_save_changes_nothing(store: &mut StoreInstance) {
    assert_eq!(save(store, NODE, (1, 1), "u1", &json("1")).await, Ok(()));
    assert_eq!(save(store, NODE, (1, 2), "u2", &json("2")).await, Ok(()));
    assert_eq!(save(store, NODE, (1, 1), "u1", &json("1")).await, Ok(()));
    let taken = take(store, NODE, 2).await;
    assert_eq!(taken, Ok(Some(scratch(1, 2, "u2", &json("2")))));
    // A new token counts anew.
    assert_eq!(save(store, NODE, (2, 1), "u3", &json("3")).await, Ok(()));
    let taken = take(store, NODE, 2).await;
    assert_eq!(taken, Ok(Some(scratch(2, 1, "u3", &json("3")))));
}

/// Nothing is shared with the node's neighbours.
pub async fn scratch_belongs_to_one_node(store: &mut StoreInstance) {
    assert_eq!(put(store, NODE, 9, "u1", &json("1")).await, Ok(()));
    for other in [("t", "ab"), ("ta", "a"), ("t", "b")] {
        assert_eq!(take(store, other, 1).await, Ok(None));
    }
}
