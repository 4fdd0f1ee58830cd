//! Keys: ids as text, joined by NUL (which no id can hold), numbers big-endian so that they sort.
//!
//! Everything of a task stands together, behind its id.

use flowkit_core::id::{BatchUid, NodeId, ShardId, TaskId, Token};
use std::ops::Range;

/// Makes keys.
pub(crate) struct Key;

impl Key {
    pub(crate) fn node(task: &TaskId, node: &NodeId, out: &mut Vec<u8>) {
        out.extend_from_slice(task.as_str().as_bytes());
        out.push(0);
        out.extend_from_slice(node.as_str().as_bytes());
    }

    pub(crate) fn number(task: &TaskId, node: &NodeId, number: u64, out: &mut Vec<u8>) {
        Self::node(task, node, out);
        out.push(0);
        out.extend_from_slice(&number.to_be_bytes());
    }

    pub(crate) fn uid(task: &TaskId, node: &NodeId, uid: &BatchUid, out: &mut Vec<u8>) {
        Self::node(task, node, out);
        out.push(0);
        out.extend_from_slice(uid.as_str().as_bytes());
    }

    pub(crate) fn staged(task: &TaskId, node: &NodeId, uid: &BatchUid, token: Token) -> Vec<u8> {
        let mut key = Vec::with_capacity(64);
        Self::uid(task, node, uid, &mut key);
        key.push(0);
        key.extend_from_slice(&token.0.to_be_bytes());
        key
    }

    pub(crate) fn unsettled(shard: ShardId, task: &[u8]) -> Vec<u8> {
        let mut key = Self::shard(shard).to_vec();
        key.extend_from_slice(task);
        key
    }

    pub(crate) const fn shard(shard: ShardId) -> [u8; 4] {
        shard.0.to_be_bytes()
    }

    /// Every node of a task.
    pub(crate) fn nodes_of(task: &[u8]) -> Range<Vec<u8>> {
        let mut start = task.to_vec();
        let mut end = start.clone();
        start.push(0);
        end.push(1);
        start..end
    }
}
