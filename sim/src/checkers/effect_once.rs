//! `effect_once`: a finished node has, for every batch of its final input, exactly one visible
//! artifact, and counts its metrics exactly once.
//!
//! What must be there is computed from the scripts, and for readers from the accepted artifacts of
//! their sources; totals are added up anew.

use std::collections::{BTreeMap, BTreeSet};

use flowkit_core::id::{NodeId, TaskId};
use flowkit_core::message::Artifact;
use flowkit_core::record::{ArtifactRecord, NodeState};
use serde_json::{Value, json};

use super::{Broken, Finish, Judge, View, task_plan};
use crate::history::{Change, What};
use crate::plan::{GraphPlan, NodePlan};
use crate::script::{source_artifact, source_len, source_uid};

const NAME: &str = "effect_once";

#[derive(Debug)]
pub(super) struct EffectOnce;

impl Judge for EffectOnce {
    fn event(&mut self, view: &mut View<'_>) {
        let What::Committed { changes, .. } = &view.event.what else {
            return;
        };
        for change in changes {
            match change {
                Change::Node {
                    task, node, new, ..
                } => {
                    let of = new.kept_from.as_ref().unwrap_or(task);
                    let visible = view.ledger.node(of, node).map_or(0, |n| n.artifacts.len());
                    if new.accepted != visible as u64 {
                        let what = format!(
                            "{task}/{node}: {} accepted, {visible} artifacts visible",
                            new.accepted
                        );
                        view.broken(NAME, what);
                    }
                }
                Change::Artifact { task, node, fact } => {
                    let count = view
                        .ledger
                        .node(task, node)
                        .map_or(0, |n| n.artifacts.len());
                    let accepted = view.ledger.fact(task, node).map_or(0, |f| f.accepted);
                    if fact.number > accepted || count as u64 != accepted {
                        let what = format!(
                            "{task}/{node}: artifact {} of {accepted} accepted",
                            fact.number
                        );
                        view.broken(NAME, what);
                    }
                }
                Change::Task { .. } | Change::Tombstone { .. } | Change::Removed { .. } => {}
            }
        }
    }

    fn finish(&mut self, finish: &Finish<'_>, broken: &mut Vec<Broken>) {
        let tasks: Vec<TaskId> = finish.tables.tasks().map(|t| t.task_id.clone()).collect();
        for task in tasks {
            let Some(plan) = task_plan(finish.plan, task.as_str()) else {
                continue;
            };
            if finish.tables.tombstone(&task).is_some() {
                continue; // It is being swept.
            }
            let mut report = |what: String| broken.push(Broken::new(NAME, finish.now, what));
            let nodes: Vec<_> = finish.tables.nodes(&task).cloned().collect();
            for record in nodes.iter().filter(|n| n.state == NodeState::Finished) {
                // A kept node has the batches, and did the work, of another task.
                let of = record.kept_from.as_ref().unwrap_or(&task);
                let scripts = task_plan(finish.plan, of.as_str()).unwrap_or(plan);
                let Some(node) = scripts.graph.node(record.node_id.as_str()) else {
                    report(format!("{task}/{}: not in the graph", record.node_id));
                    continue;
                };
                let artifacts: Vec<&ArtifactRecord> =
                    finish.tables.artifacts(of, &record.node_id).collect();
                let numbers: Vec<u64> = artifacts.iter().map(|a| a.number).collect();
                if numbers != (1..=record.accepted).collect::<Vec<_>>() {
                    report(format!("{task}/{}: numbers {numbers:?}", record.node_id));
                }
                if let Err(what) = input_is_done(finish, &task, &plan.graph, node, &artifacts) {
                    report(format!("{task}/{}: {what}", record.node_id));
                }
                // Functions have no batches and no metrics.
                if let Err(what) = totals_add_up(&record.totals, &artifacts)
                    && node.function.is_none()
                {
                    report(format!("{task}/{}: {what}", record.node_id));
                }
            }
        }
    }
}

fn value_of(artifact: &ArtifactRecord) -> Value {
    match &artifact.artifact {
        Some(Artifact::Inline(value)) => value.decode().unwrap_or_default(),
        // The body of a large one is not in the tables; the reader's own artifact shows it.
        Some(Artifact::Staged(_)) => json!("staged"),
        None => Value::Null,
    }
}

/// What each batch of the node's final input must have left, as text, with how often.
fn input_is_done(
    finish: &Finish<'_>,
    task: &TaskId,
    graph: &GraphPlan,
    node: &NodePlan,
    artifacts: &[&ArtifactRecord],
) -> Result<(), String> {
    let mut expected: BTreeMap<String, i64> = BTreeMap::new();
    let mut note = |key: String, by: i64| *expected.entry(key).or_default() += by;
    match &node.reader {
        None => {
            let full = source_len(node, 1);
            let mut uids = BTreeSet::new();
            for index in 0..full {
                let uid = source_uid(node, index);
                if !uids.insert(uid.clone()) {
                    continue;
                }
                note(format!("{uid} {}", source_text(node, index)), 1);
            }
            for artifact in artifacts {
                let value = value_of(artifact);
                note(format!("{} {value}", artifact.batch_uid), -1);
            }
            // A source that shrank may end without its last batch.
            if node.script.shrinks_at_epoch.is_some() && full > 0 {
                let last = full - 1;
                let key = format!("{} {}", source_uid(node, last), source_text(node, last));
                if expected.get(&key) == Some(&1) {
                    expected.remove(&key);
                }
            }
        }
        Some(reader) => {
            for source in &reader.from {
                let Some(source_plan) = graph.node(source) else {
                    continue;
                };
                let id = NodeId::new(source).map_err(|e| e.to_string())?;
                let kept_from = finish.tables.node(task, &id);
                let kept_from = kept_from.and_then(|source| source.kept_from.as_ref());
                for parent in finish.tables.artifacts(kept_from.unwrap_or(task), &id) {
                    let artifact = artifact_of(source_plan, parent);
                    let items = match artifact["items"].as_array() {
                        _ if reader.takes_whole() => vec![artifact],
                        Some(items) => items.clone(),
                        None => Vec::new(),
                    };
                    let chunks: Vec<&[Value]> = match reader.rechunk {
                        None => vec![&items[..]],
                        Some(size) => items.chunks(size.max(1) as usize).collect(),
                    };
                    for chunk in chunks {
                        note(format!("{source} {} {chunk:?}", parent.batch_uid), 1);
                    }
                }
            }
            for artifact in artifacts {
                let value = value_of(artifact);
                let from = value["from"].as_str().unwrap_or("?");
                let parent = value["parent"].as_str().unwrap_or("?");
                let items = value["items"].as_array().cloned().unwrap_or_default();
                note(format!("{from} {parent} {items:?}"), -1);
            }
        }
    }
    expected.retain(|_, count| *count != 0);
    if expected.is_empty() {
        Ok(())
    } else {
        Err(format!("missing (+) or surplus (-): {expected:?}"))
    }
}

fn source_text(node: &NodePlan, index: u32) -> Value {
    if node.script.large_at == Some(index) {
        json!("staged")
    } else {
        source_artifact(node, index)
    }
}

/// A parent's artifact, as a reader gets it.
fn artifact_of(source: &NodePlan, artifact: &ArtifactRecord) -> Value {
    match &artifact.artifact {
        Some(Artifact::Staged(_)) => {
            let uid = artifact.batch_uid.as_str();
            let index = (0..source.script.batches).find(|i| source_uid(source, *i) == uid);
            index.map_or(Value::Null, |index| source_artifact(source, index))
        }
        _ => value_of(artifact),
    }
}

fn totals_add_up(
    totals: &flowkit_core::record::Totals,
    artifacts: &[&ArtifactRecord],
) -> Result<(), String> {
    let mut values: Vec<f64> = Vec::new();
    for artifact in artifacts {
        if let Some(items) = artifact.metrics.get("items") {
            values.push(items.decode::<f64>().map_err(|e| e.to_string())?);
        }
    }
    let total = totals.get("items").copied().unwrap_or_default();
    let sum = values.iter().fold(0.0, |sum: f64, value| sum + value);
    let fits = total.count == values.len() as u64
        && total.sum.0.total_cmp(&sum).is_eq()
        && (values.is_empty()
            || (values
                .iter()
                .copied()
                .fold(f64::MAX, f64::min)
                .total_cmp(&total.min.0)
                .is_eq()
                && values
                    .iter()
                    .copied()
                    .fold(f64::MIN, f64::max)
                    .total_cmp(&total.max.0)
                    .is_eq()
                && values
                    .last()
                    .is_some_and(|v| v.total_cmp(&total.last.0).is_eq())));
    if !fits {
        return Err(format!("totals are {total:?}, the batches say {values:?}"));
    }
    let finals = totals.get("finals").map_or(0, |total| total.count);
    if finals != 1 {
        return Err(format!("metrics of finalize counted {finals} times"));
    }
    Ok(())
}
