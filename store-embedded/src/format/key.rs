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

    /// A settled task among those of its shard and class, by when it was written.
    pub(crate) fn ended(shard: ShardId, failed: bool, written_ms: i64, task: &[u8]) -> Vec<u8> {
        let mut key = Self::shard(shard).to_vec();
        key.push(u8::from(failed));
        // So that times before 1970 sort first.
        let at = written_ms.cast_unsigned() ^ (1 << 63);
        key.extend_from_slice(&at.to_be_bytes());
        key.extend_from_slice(task);
        key
    }

    /// Time and task in such a key.
    pub(crate) fn parse_ended(key: &[u8]) -> Option<(i64, &[u8])> {
        let (at, task) = key.get(5..)?.split_first_chunk::<8>()?;
        Some(((u64::from_be_bytes(*at) ^ (1 << 63)).cast_signed(), task))
    }

    /// That a task is pointed to by another.
    pub(crate) fn pointer(held: &TaskId, by: &[u8]) -> Vec<u8> {
        let mut key = held.as_str().as_bytes().to_vec();
        key.push(0);
        key.extend_from_slice(by);
        key
    }

    /// Node, batch and token in the key of a staged body.
    pub(crate) fn parse_staged(key: &[u8]) -> Option<(&str, &str, &str, Token)> {
        let (names, token) = key.split_last_chunk::<8>()?;
        let names = std::str::from_utf8(names.strip_suffix(&[0])?).ok()?;
        let mut names = names.splitn(3, '\0');
        let found = (names.next()?, names.next()?, names.next()?);
        Some((found.0, found.1, found.2, Token(u64::from_be_bytes(*token))))
    }

    /// Everything of a node behind its own key.
    pub(crate) fn below_node(task: &TaskId, node: &NodeId) -> Range<Vec<u8>> {
        let mut key = Vec::new();
        Self::node(task, node, &mut key);
        Self::nodes_of(&key)
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
