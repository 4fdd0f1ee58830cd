//! What a task must come to, computed from its graph and scripts alone, as if nothing ever broke.

use std::collections::{BTreeMap, BTreeSet};

use flowkit_core::record::NodeState;

use crate::checkers::{Standing, holds, standing};
use crate::plan::{Fault, GraphPlan, Link, NodePlan, Plan, TroubleKind};
use crate::script::{source_len, source_uid};

/// What a task must come to.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Expected {
    /// It finishes, with these states of its nodes.
    Finished(BTreeMap<String, NodeState>),
    /// It fails; what its other nodes come to is a matter of timing.
    Failed,
    /// A handler hangs until it is cancelled.
    Hangs,
}

/// How one node ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// It finishes, with so many batches.
    Finished(u64),
    Failed,
    Hangs,
}

/// What a task of a plan must come to.
pub(crate) fn expect(plan: &Plan, task: usize) -> Expected {
    let graph = &plan.tasks[task].graph;
    let mut states: BTreeMap<String, NodeState> = BTreeMap::new();
    let mut batches: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for node in &graph.nodes {
        let parents: Vec<Standing> = node
            .parents
            .iter()
            .map(|(parent, link)| {
                let state = states.get(parent).copied().unwrap_or(NodeState::Queued);
                standing(state, 0, *link, false)
            })
            .collect();
        if !holds(node, &parents) {
            states.insert(node.id.clone(), NodeState::Skipped);
            continue;
        }
        let refused = plan.faults.iter().any(|fault| {
            matches!(fault, Fault::RefuseBatches { task: t, node: n }
                if *t as usize == task && *n == node.id)
        });
        // Items of each batch that the node gets.
        let input: Vec<u64> = match &node.reader {
            None => vec![u64::from(node.script.items); node.script.batches as usize],
            Some(reader) => {
                let sources = reader.from.iter().filter_map(|from| batches.get(from));
                let parents = sources.flatten().copied();
                match reader.rechunk {
                    None => parents.collect(),
                    Some(size) => parents
                        .flat_map(|items| chunks(items, u64::from(size.max(1))))
                        .collect(),
                }
            }
        };
        match end_of(node, input.len() as u64, refused) {
            End::Hangs => return Expected::Hangs,
            End::Failed => {
                states.insert(node.id.clone(), NodeState::Failed);
            }
            End::Finished(count) => {
                let kept = usize::try_from(count).unwrap_or(usize::MAX);
                batches.insert(node.id.clone(), input.into_iter().take(kept).collect());
                states.insert(node.id.clone(), NodeState::Finished);
            }
        }
    }
    let unhandled = graph
        .nodes
        .iter()
        .filter(|node| states.get(&node.id) == Some(&NodeState::Failed))
        .any(|node| !handled(graph, &states, &node.id));
    if unhandled {
        Expected::Failed
    } else {
        Expected::Finished(states)
    }
}

fn chunks(items: u64, size: u64) -> Vec<u64> {
    let full = usize::try_from(items / size).unwrap_or(0);
    let mut chunks = vec![size; full];
    if !items.is_multiple_of(size) {
        chunks.push(items % size);
    }
    chunks
}

fn handled(graph: &GraphPlan, states: &BTreeMap<String, NodeState>, failed: &str) -> bool {
    graph.nodes.iter().any(|node| {
        let routed = node
            .parents
            .iter()
            .any(|(parent, link)| parent == failed && *link == Link::OnFailure);
        routed && states.get(&node.id) == Some(&NodeState::Finished)
    })
}

fn end_of(node: &NodePlan, input: u64, refused: bool) -> End {
    if node.reader.is_some() {
        return reader_end(node, input, refused);
    }
    let mut accepted: BTreeSet<String> = BTreeSet::new();
    // Index behind which a checkpoint lies, and how many batches were accepted then.
    let mut checkpoint: Option<(u32, u64)> = None;
    'attempts: for epoch in 1..=node.retry_max.max(1) {
        let first = checkpoint.map_or(0, |(index, _)| index + 1);
        let (mut seen, mut new, mut skipped) = (BTreeSet::new(), 0, 0);
        for index in first..source_len(node, epoch) {
            let uid = source_uid(node, index);
            if !seen.insert(uid.clone()) {
                return End::Failed;
            }
            if accepted.contains(&uid) {
                skipped += 1;
                continue;
            }
            for kind in troubles(node, epoch, Some(index)) {
                match kind {
                    TroubleKind::Permanent => return End::Failed,
                    TroubleKind::Hangs => return End::Hangs,
                    TroubleKind::Transient
                    | TroubleKind::Panics
                    | TroubleKind::RetryAfter { .. } => continue 'attempts,
                    TroubleKind::Slow { .. } => {}
                }
            }
            if refused {
                return End::Failed;
            }
            accepted.insert(uid);
            new += 1;
            if saves(node, index) {
                checkpoint = Some((index, accepted.len() as u64));
            }
        }
        for kind in troubles(node, epoch, None) {
            match kind {
                TroubleKind::Permanent => return End::Failed,
                TroubleKind::Hangs => return End::Hangs,
                TroubleKind::Transient | TroubleKind::Panics | TroubleKind::RetryAfter { .. } => {
                    continue 'attempts;
                }
                TroubleKind::Slow { .. } => {}
            }
        }
        // The checkpoint that the attempt began with counts, not the ones it saved itself.
        let behind = accepted.len() as u64 - new - skipped;
        let at_begin = match checkpoint {
            _ if first == 0 => 0,
            _ => behind_at(node, first, &accepted),
        };
        if at_begin + skipped + new < accepted.len() as u64 {
            return End::Failed;
        }
        debug_assert!(behind <= at_begin);
        return End::Finished(accepted.len() as u64);
    }
    End::Failed
}

/// Batches behind a resume point: all of the source before it are accepted.
fn behind_at(node: &NodePlan, first: u32, accepted: &BTreeSet<String>) -> u64 {
    let uids: BTreeSet<String> = (0..first).map(|i| source_uid(node, i)).collect();
    uids.intersection(accepted).count() as u64
}

fn saves(node: &NodePlan, index: u32) -> bool {
    let every = node.script.checkpoint_every.max(1);
    node.script.checkpoints > 0 && (index + 1).is_multiple_of(every)
}

fn reader_end(node: &NodePlan, input: u64, refused: bool) -> End {
    'attempts: for epoch in 1..=node.retry_max.max(1) {
        let mut kinds = troubles(node, epoch, None);
        if input > 0 {
            let of_batches = node.script.trouble.iter();
            kinds.extend(
                of_batches
                    .filter(|t| t.batch.is_some() && (t.epoch == 0 || t.epoch == epoch))
                    .map(|t| t.kind),
            );
            if refused {
                return End::Failed;
            }
        }
        for kind in kinds {
            match kind {
                TroubleKind::Permanent => return End::Failed,
                TroubleKind::Hangs => return End::Hangs,
                TroubleKind::Transient | TroubleKind::Panics | TroubleKind::RetryAfter { .. } => {
                    continue 'attempts;
                }
                TroubleKind::Slow { .. } => {}
            }
        }
        return End::Finished(input);
    }
    End::Failed
}

fn troubles(node: &NodePlan, epoch: u32, batch: Option<u32>) -> Vec<TroubleKind> {
    let all = node.script.trouble.iter();
    all.filter(|t| (t.epoch == 0 || t.epoch == epoch) && t.batch == batch)
        .map(|t| t.kind)
        .collect()
}
