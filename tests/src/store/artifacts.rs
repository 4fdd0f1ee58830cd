//! Accepted batches and staged bodies.

use flowkit_core::id::Token;
use flowkit_core::json::Json;
use flowkit_core::message::Artifact;
use flowkit_core::port::{ErrorKind, PortError, Record, StoreReply, StoreRequest};
use flowkit_core::record::ArtifactRecord;

use super::{Owner, accepted, artifacts, artifacts_request};
use crate::StoreInstance;
use crate::records::{IntoRecord, artifact, batch_uid, json, large_json, node_id, task_id};

/// An accepted batch with its body in the record.
pub(super) fn inline(
    task: &str,
    node: &str,
    number: u64,
    uid: &str,
    body: &Json,
) -> ArtifactRecord {
    artifact(
        task,
        node,
        number,
        uid,
        Some(Artifact::Inline(body.clone())),
    )
}

/// An accepted batch whose body was staged under a token.
pub(super) fn staged(
    task: &str,
    node: &str,
    number: u64,
    uid: &str,
    token: u64,
    body: &Json,
) -> ArtifactRecord {
    let size = Some(Artifact::Staged(body.len() as u64));
    ArtifactRecord {
        token: Token(token),
        ..artifact(task, node, number, uid, size)
    }
}

fn stage_request(node: (&str, &str), uid: &str, token: u64, body: &Json) -> StoreRequest {
    StoreRequest::StageArtifact {
        task_id: task_id(node.0),
        node_id: node_id(node.1),
        batch_uid: batch_uid(uid),
        token: Token(token),
        body: body.clone(),
    }
}

async fn try_stage(
    store: &StoreInstance,
    node: (&str, &str),
    uid: &str,
    token: u64,
    body: &Json,
) -> Result<StoreReply, PortError> {
    store.call(stage_request(node, uid, token, body)).await
}

pub(super) async fn stage(
    store: &StoreInstance,
    node: (&str, &str),
    uid: &str,
    token: u64,
    body: &Json,
) {
    let reply = try_stage(store, node, uid, token, body).await;
    assert_eq!(reply, Ok(StoreReply::Done));
}

const NODE: (&str, &str) = ("t", "a");

/// Only this node's, only above `after`, with their uids.
pub async fn accepted_batches_page_by_number(store: &mut StoreInstance) {
    let mut owner = Owner::take(store, "one").await;
    assert_eq!(accepted(store, NODE, 0, 10).await, [0; 0]);
    for numbers in [1..=300, 301..=303] {
        let records = numbers.map(|n| artifact("t", "a", n, &format!("u-{n}"), None).record());
        owner.commit(store, records.collect()).await;
    }
    let others = vec![
        artifact("t", "a2", 1, "x", None).record(),
        artifact("t2", "a", 1, "x", None).record(),
    ];
    owner.commit(store, others).await;
    let mut after = 0;
    let mut found = Vec::new();
    for expected in [100, 100, 100, 3, 0] {
        let page = accepted(store, NODE, after, 100).await;
        assert_eq!(page.len(), expected);
        after = page.last().copied().unwrap_or(after);
        found.extend(page);
    }
    assert_eq!(found, (1..=303).collect::<Vec<u64>>());
    let request = StoreRequest::ReadAccepted {
        task_id: task_id("t"),
        node_id: node_id("a"),
        after: 254,
        limit: 2,
    };
    let expected = [(255, batch_uid("u-255")), (256, batch_uid("u-256"))];
    assert_eq!(
        store.ok(request).await,
        StoreReply::Accepted(expected.to_vec())
    );
}

/// The whole records, as they were accepted.
pub async fn artifacts_page_by_number(store: &mut StoreInstance) {
    let mut owner = Owner::take(store, "one").await;
    assert_eq!(artifacts(store, NODE, 0, 10).await, []);
    let body = json(r#"{"k":[true,null,1e5,"\u00e4"]}"#);
    let written = [
        inline("t", "a", 1, "u1", &body),
        artifact("t", "a", 2, "u2", None),
        inline("t", "a", 3, "u3", &json("0")),
    ];
    let records: Vec<Record> = written.iter().cloned().map(IntoRecord::record).collect();
    owner.commit(store, records).await;
    assert_eq!(artifacts(store, NODE, 0, 10).await, written);
    assert_eq!(artifacts(store, NODE, 0, 2).await, written[..2]);
    assert_eq!(artifacts(store, NODE, 2, 2).await, written[2..]);
    assert_eq!(artifacts(store, NODE, 3, 2).await, []);
    assert_eq!(artifacts(store, ("t", "b"), 0, 2).await, []);
}

/// About 4 MiB, and at least one artifact however large it is.
pub async fn a_reply_of_artifacts_is_bounded_in_bytes(store: &mut StoreInstance) {
    let mut owner = Owner::take(store, "one").await;
    let sizes = [1, 1, 1, 1, 1, 1, 6, 1, 1].map(|mib| mib * 1024 * 1024);
    for (n, bytes) in (1..).zip(sizes) {
        let uid = format!("u{n}");
        let body = large_json(bytes);
        stage(store, NODE, &uid, 1, &body).await;
        let record = staged("t", "a", n, &uid, 1, &body);
        owner.commit(store, vec![record.record()]).await;
    }
    let mut found = Vec::new();
    while found.len() < sizes.len() {
        let after = found.len() as u64;
        let page = artifacts(store, NODE, after, 100).await;
        assert!(!page.is_empty(), "no way past number {after}");
        let bytes: Vec<usize> = page.iter().map(body_len).collect();
        let all_but_last: usize = bytes[..bytes.len() - 1].iter().sum();
        assert!(all_but_last <= 5 * 1024 * 1024, "{bytes:?} in one reply");
        found.extend(bytes);
    }
    let expected = sizes.map(|bytes| bytes + 2);
    assert_eq!(found, expected);
}

fn body_len(record: &ArtifactRecord) -> usize {
    match &record.artifact {
        Some(Artifact::Inline(body)) => body.len(),
        other => panic!("not resolved: {other:?}"),
    }
}

/// Staging shows nothing; the commit does.
pub async fn a_staged_body_is_invisible_until_accepted(store: &mut StoreInstance) {
    let mut owner = Owner::take(store, "one").await;
    let body = large_json(300 * 1024);
    stage(store, NODE, "u1", 1, &body).await;
    assert_eq!(artifacts(store, NODE, 0, 10).await, []);
    assert_eq!(accepted(store, NODE, 0, 10).await, [0; 0]);
    let record = staged("t", "a", 1, "u1", 1, &body);
    owner.commit(store, vec![record.record()]).await;
    let found = artifacts(store, NODE, 0, 10).await;
    assert_eq!(found, [inline("t", "a", 1, "u1", &body)]);
}

/// The accepted token chooses; what another holder staged is not seen, before or after.
pub async fn a_staged_body_of_another_token_is_never_shown(store: &mut StoreInstance) {
    let mut owner = Owner::take(store, "one").await;
    let bodies = [1, 2, 3].map(|n| json(&format!("{{\"by\":{n}}}")));
    stage(store, NODE, "u1", 1, &bodies[0]).await;
    stage(store, NODE, "u1", 2, &bodies[1]).await;
    let record = staged("t", "a", 1, "u1", 2, &bodies[1]);
    owner.commit(store, vec![record.record()]).await;
    stage(store, NODE, "u1", 3, &bodies[2]).await;
    stage(store, NODE, "u1", 1, &bodies[2]).await;
    let found = artifacts(store, NODE, 0, 10).await;
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].artifact, Some(Artifact::Inline(bodies[1].clone())));
}

/// A repeat after a lost reply, before and after acceptance.
pub async fn staging_again_is_harmless(store: &mut StoreInstance) {
    let mut owner = Owner::take(store, "one").await;
    let body = json(r#"{"a":1}"#);
    for _ in 0..2 {
        stage(store, NODE, "u1", 1, &body).await;
    }
    let record = staged("t", "a", 1, "u1", 1, &body);
    owner.commit(store, vec![record.record()]).await;
    stage(store, NODE, "u1", 1, &body).await;
    let found = artifacts(store, NODE, 0, 10).await;
    assert_eq!(found, [inline("t", "a", 1, "u1", &body)]);
}

/// Whoever tries.
pub async fn an_accepted_body_never_changes(store: &mut StoreInstance) {
    let mut owner = Owner::take(store, "one").await;
    let body = json(r#"{"a":1}"#);
    stage(store, NODE, "u1", 1, &body).await;
    let record = staged("t", "a", 1, "u1", 1, &body);
    owner.commit(store, vec![record.record()]).await;
    let other = json(r#"{"a":2}"#);
    let refused = try_stage(store, NODE, "u1", 1, &other).await;
    assert_eq!(
        refused.map_err(|error| error.kind),
        Err(ErrorKind::Conflict)
    );
    let found = artifacts(store, NODE, 0, 10).await;
    assert_eq!(found, [inline("t", "a", 1, "u1", &body)]);
}

/// Said, not skipped and not made up.
pub async fn an_accepted_body_that_is_missing_is_corrupt(store: &mut StoreInstance) {
    let mut owner = Owner::take(store, "one").await;
    let record = staged("t", "a", 1, "u1", 1, &json("1"));
    owner.commit(store, vec![record.record()]).await;
    let refused = store.refused(artifacts_request(NODE, 0, 10)).await;
    assert_eq!(refused, ErrorKind::Corrupt);
}
