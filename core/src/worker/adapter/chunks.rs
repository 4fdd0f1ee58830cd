//! Batches of one artifact: payloads and uids.

use serde::Serialize;
use std::collections::{BTreeMap, VecDeque};

use super::args::{Args, Shape};
use crate::hash::stable128;
use crate::id::{BatchUid, NodeId, TaskId};
use crate::json::Json;
use crate::message::Artifact;
use crate::planted::{Bug, is_planted};
use crate::record::ArtifactRecord;

/// One batch to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Chunk {
    pub(super) uid: BatchUid,
    pub(super) payload: Json,
}

#[derive(Serialize)]
struct WholePayload<'a> {
    from_node: &'a NodeId,
    #[serde(rename = "ref")]
    reference: WholeRef<'a>,
    meta: &'a Json,
}

#[derive(Serialize)]
struct WholeRef<'a> {
    task_id: &'a TaskId,
    node_id: &'a NodeId,
    batch_uid: &'a BatchUid,
}

#[derive(Serialize)]
struct ChunkPayload<'a> {
    from_node: &'a NodeId,
    items: &'a [Json],
    parent: Parent<'a>,
}

#[derive(Serialize)]
struct Parent<'a> {
    #[serde(rename = "ref")]
    reference: ParentRef<'a>,
    meta_list_key: Option<&'a str>,
}

#[derive(Serialize)]
struct ParentRef<'a> {
    batch_uid: &'a BatchUid,
}

/// The batches of an artifact, in order; none if its list is empty.
pub(super) fn of(args: &Args, artifact: &ArtifactRecord) -> VecDeque<Chunk> {
    let meta = meta_of(artifact);
    match &args.shape {
        Shape::Whole => VecDeque::from([whole(args, artifact, &meta)]),
        Shape::Chunks { size, list_key } => {
            let list = list_key
                .as_deref()
                .and_then(|key| meta.decode::<BTreeMap<String, Json>>().ok()?.remove(key))
                .and_then(|list| list.decode::<Vec<Json>>().ok());
            let items = list.unwrap_or_else(|| {
                if is_planted(Bug::ListlessSkipped) {
                    return Vec::new();
                }
                vec![meta]
            });
            items
                .chunks(*size)
                .enumerate()
                .map(|(index, items)| chunk(artifact, index, items, list_key.as_deref()))
                .collect()
        }
    }
}

/// What a later node sees of an accepted batch: its artifact, or its metrics if it left none.
fn meta_of(artifact: &ArtifactRecord) -> Json {
    match &artifact.artifact {
        Some(Artifact::Inline(value)) => value.clone(),
        // The store resolves staged bodies; one that it did not is shown as what is known of it.
        Some(Artifact::Staged(_)) | None => encoded(&artifact.metrics),
    }
}

fn whole(args: &Args, artifact: &ArtifactRecord, meta: &Json) -> Chunk {
    let (node, uid) = (&artifact.node_id, &artifact.batch_uid);
    // With one source its uids are unique already and stay as they are; with several the source's
    // name goes in front. The list of sources is part of the graph, so this never changes.
    let uid = if args.from_nodes.len() == 1 {
        uid.clone()
    } else if node.as_str().contains(':') {
        // `a:b:1` could as well be batch `b:1` of a source `a`. A hash holds no colon, so it is
        // nobody else's.
        hashed(&[node.as_str().as_bytes(), uid.as_str().as_bytes()])
    } else {
        let joined = format!("{node}:{uid}");
        // Too long for an id: its hash is as unique and as stable.
        BatchUid::new(&joined).unwrap_or_else(|_| hashed(&[joined.as_bytes()]))
    };
    Chunk {
        uid,
        payload: encoded(&WholePayload {
            from_node: node,
            reference: WholeRef {
                task_id: &artifact.task_id,
                node_id: node,
                batch_uid: &artifact.batch_uid,
            },
            meta,
        }),
    }
}

fn chunk(artifact: &ArtifactRecord, index: usize, items: &[Json], key: Option<&str>) -> Chunk {
    let (node, parent) = (&artifact.node_id, &artifact.batch_uid);
    Chunk {
        uid: hashed(&[
            node.as_str().as_bytes(),
            parent.as_str().as_bytes(),
            &(index as u64).to_le_bytes(),
        ]),
        payload: encoded(&ChunkPayload {
            from_node: node,
            items,
            parent: Parent {
                reference: ParentRef { batch_uid: parent },
                meta_list_key: key,
            },
        }),
    }
}

fn hashed(parts: &[&[u8]]) -> BatchUid {
    let text = format!("{:032x}", stable128(parts));
    BatchUid::new(text).expect("32 hex digits are an id")
}

fn encoded<T: Serialize>(value: &T) -> Json {
    // Text keys and checked JSON only: this always has a JSON form.
    Json::encode(value).unwrap_or_default()
}
