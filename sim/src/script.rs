//! What handlers do that follow the script of their node: their batches, artifacts, checkpoints and
//! troubles. The same for handlers of a simulation, for those in real processes, and for checkers.

use flowkit_core::id::Token;
use flowkit_core::record::Totals;
use serde_json::{Value, json};

use crate::plan::{Hook, NodePlan, Trouble, TroubleKind};

/// Over the limit of what travels in a message.
const LARGE_BYTES: usize = 270 * 1024;

/// The uid of a batch of a node's own source.
#[must_use]
pub fn source_uid(node: &NodePlan, index: u32) -> String {
    let index = if node.script.duplicate_at == Some(index) && index > 0 {
        index - 1
    } else {
        index
    };
    format!("b{index:03}")
}

/// Batches that a node's own source has in an attempt.
#[must_use]
pub fn source_len(node: &NodePlan, epoch: u32) -> u32 {
    match node.script.shrinks_at_epoch {
        Some(from) if epoch >= from => node.script.batches.saturating_sub(1),
        _ => node.script.batches,
    }
}

/// The artifact that a batch of a node's own source leaves.
#[must_use]
pub fn source_artifact(node: &NodePlan, index: u32) -> Value {
    let items: Vec<u32> = (0..node.script.items).map(|i| index * 100 + i).collect();
    let mut artifact = json!({ "of": node.id, "items": items });
    if node.script.large_at == Some(index) {
        artifact["pad"] = Value::String("x".repeat(LARGE_BYTES));
    }
    artifact
}

/// What a batch leaves, and how many items it had; readers say what they read. `index` is its place
/// in the node's own source.
#[must_use]
pub fn artifact(node: &NodePlan, index: Option<u32>, payload: &Value) -> (Value, usize) {
    if let (None, Some(index)) = (&node.reader, index) {
        return (source_artifact(node, index), node.script.items as usize);
    }
    let items = match payload.get("items") {
        Some(items) => items.clone(),
        None => payload["meta"]["items"].clone(),
    };
    let parent = match payload.get("parent") {
        Some(parent) => parent["ref"]["batch_uid"].clone(),
        None => payload["ref"]["batch_uid"].clone(),
    };
    let count = items.as_array().map_or(0, Vec::len);
    let artifact = json!({
        "of": node.id, "from": payload["from_node"], "parent": parent, "items": items,
    });
    (artifact, count)
}

/// What a node's `finalize` returns: what it knows of its batches by then; nothing if each of them
/// marks the result.
#[must_use]
pub fn result(node: &NodePlan, totals: &Totals) -> Option<Value> {
    let items = totals.get("items").copied().unwrap_or_default();
    let result = || json!({ "node": node.id, "batches": items.count, "items": items.sum.0 });
    (!node.script.marks).then(result)
}

/// What a batch marks as the result of its node.
#[must_use]
pub fn marked(node: &NodePlan, uid: &str) -> Option<Value> {
    let mark = || json!({ "node": node.id, "marked_by": uid });
    node.script.marks.then(mark)
}

/// What a handler says of a batch beside its artifact: which one of its run it is, from 1.
#[must_use]
pub fn nth(token: Token, done: u32) -> Value {
    json!([token.0, done])
}

/// Whether a handler writes the artifact of a batch while it works, and does not return it.
#[must_use]
pub fn writes(uid: &str) -> bool {
    uid.bytes().map(u32::from).sum::<u32>() % 2 == 1
}

/// Checkpoints that are saved within a batch.
#[must_use]
pub fn checkpoints(node: &NodePlan, index: Option<u32>) -> u32 {
    match (node.script.checkpoint_every, index) {
        (0 | 1, _) | (_, None) => node.script.checkpoints,
        (every, Some(index)) if (index + 1).is_multiple_of(every) => node.script.checkpoints,
        _ => 0,
    }
}

/// A checkpoint within a batch: the `part`-th, from 1.
#[must_use]
pub fn checkpoint(index: Option<u32>, uid: &str, part: u32, token: Token) -> Value {
    json!({ "i": index, "uid": uid, "part": part, "token": token.0 })
}

/// The batch of its own source that a node goes on with after a checkpoint.
#[must_use]
pub fn resumes_at(checkpoint: Option<&Value>) -> u32 {
    let index = checkpoint.and_then(|value| value["i"].as_u64());
    index.map_or(0, |i| u32::try_from(i + 1).unwrap_or(u32::MAX))
}

/// The code under which a trouble is a failure, if it is one.
#[must_use]
pub const fn code(trouble: TroubleKind) -> Option<&'static str> {
    match trouble {
        TroubleKind::Transient => Some("flaky"),
        TroubleKind::RetryAfter { .. } => Some("busy"),
        TroubleKind::Permanent => Some("hopeless"),
        TroubleKind::Panics | TroubleKind::PanicsNaming => Some("panic"),
        TroubleKind::Classified { .. } => Some("named"),
        TroubleKind::Hangs | TroubleKind::Slow { .. } => None,
    }
}

/// The family of faults that a trouble is counted under when it strikes.
#[must_use]
pub const fn family(trouble: TroubleKind) -> &'static str {
    match trouble {
        TroubleKind::Transient
        | TroubleKind::RetryAfter { .. }
        | TroubleKind::Classified { permanent: false } => "handler_transient",
        TroubleKind::Permanent | TroubleKind::Classified { permanent: true } => "handler_permanent",
        TroubleKind::Panics => "handler_panics",
        TroubleKind::PanicsNaming => "handler_panics_naming",
        TroubleKind::Hangs => "handler_hangs",
        TroubleKind::Slow { .. } => "handler_slow",
    }
}

/// The family of a trouble that shows from the start of a step: it takes long.
pub(crate) const fn lasting(trouble: TroubleKind) -> Option<&'static str> {
    match trouble {
        TroubleKind::Hangs | TroubleKind::Slow { .. } => Some(family(trouble)),
        _ => None,
    }
}

/// The family of troubles in other hooks than `process` and `finalize`, beside their own.
pub const IN_HOOK: &str = "handler_hook_trouble";

/// What a handler asks to be run at its end: so many things, known by their numbers from 1.
pub const HOOKS: u32 = 2;

/// The family under which a handler counts that does not end when it is told to.
pub const IGNORES_CANCEL: &str = "handler_ignores_cancel";

/// What goes wrong in a batch; readers have no index, and trouble in any batch is theirs in each.
#[must_use]
pub fn troubles(node: &NodePlan, epoch: u32, index: Option<u32>) -> Vec<TroubleKind> {
    struck(node, epoch, |trouble| {
        let batch = trouble.batch.filter(|_| trouble.hook.is_none());
        batch.is_some() && (index.is_none() || batch == index)
    })
}

/// What goes wrong in `finalize`.
#[must_use]
pub fn final_troubles(node: &NodePlan, epoch: u32) -> Vec<TroubleKind> {
    struck(node, epoch, |trouble| {
        trouble.hook.is_none() && trouble.batch.is_none()
    })
}

/// What goes wrong in another hook.
#[must_use]
pub fn hook_troubles(node: &NodePlan, epoch: u32, hook: Hook) -> Vec<TroubleKind> {
    struck(node, epoch, |trouble| trouble.hook == Some(hook))
}

fn struck(node: &NodePlan, epoch: u32, here: impl Fn(&Trouble) -> bool) -> Vec<TroubleKind> {
    let all = node.script.trouble.iter();
    all.filter(|trouble| trouble.is_in(epoch) && here(trouble))
        .map(|trouble| trouble.kind)
        .collect()
}
