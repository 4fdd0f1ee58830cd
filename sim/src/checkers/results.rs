//! `results`: what handlers give is what is kept: the result of a finished node, and the metrics of
//! each batch. A result is made of the totals that the handler was shown, which must be those of
//! all accepted batches; or it is what the last of these marked, in whichever run that was.

use std::collections::BTreeMap;

use flowkit_core::hash::stable128;
use flowkit_core::id::Token;
use flowkit_core::message::Artifact;
use flowkit_core::record::{ArtifactRecord, NodeRecord, NodeState};
use serde_json::Value;

use super::{Broken, Finish, Judge, View, task_plan};
use crate::script;

const NAME: &str = "results";

#[derive(Debug)]
pub(super) struct Results;

impl Judge for Results {
    fn event(&mut self, _view: &mut View<'_>) {}

    fn finish(&mut self, finish: &Finish<'_>, broken: &mut Vec<Broken>) {
        for task in finish.tables.tasks() {
            let Some(plan) = task_plan(finish.plan, task.task_id.as_str()) else {
                continue;
            };
            if finish.tables.tombstone(&task.task_id).is_some() {
                continue; // It is being swept.
            }
            for record in finish.tables.nodes(&task.task_id) {
                let Some(node) = plan.graph.node(record.node_id.as_str()) else {
                    continue;
                };
                let mut report = |what: String| {
                    let what = format!("{}/{}: {what}", record.task_id, record.node_id);
                    broken.push(Broken::new(NAME, finish.now, what));
                };
                // What functions result in is judged with the vars.
                if record.state == NodeState::Finished && node.function.is_none() {
                    let origin = record.kept_from.as_ref().unwrap_or(&record.task_id);
                    let artifacts = finish.tables.artifacts(origin, &record.node_id);
                    let last = artifacts.max_by_key(|artifact| artifact.number);
                    let marked =
                        last.and_then(|last| script::marked(node, last.batch_uid.as_str()));
                    let expected = script::result(node, &record.totals).or(marked);
                    let expected = expected.unwrap_or_default();
                    let result = result_of(record);
                    if result != expected {
                        report(format!("its result is {result}, not {expected}"));
                    }
                }
                // Batches of each run that are accepted: the first, the second, and so on.
                let mut done: BTreeMap<Token, u32> = BTreeMap::new();
                for artifact in finish.tables.artifacts(&record.task_id, &record.node_id) {
                    let count = done.entry(artifact.token).or_default();
                    *count += 1;
                    if let Err(what) = metrics_fit(artifact, *count) {
                        report(format!("batch {}: {what}", artifact.batch_uid));
                    }
                }
            }
        }
    }
}

fn result_of(record: &NodeRecord) -> Value {
    let result = record.result.as_ref();
    result.map_or(Value::Null, |result| result.decode().unwrap_or_default())
}

fn metrics_fit(artifact: &ArtifactRecord, nth: u32) -> Result<(), String> {
    let uid = artifact.batch_uid.as_str();
    let label = artifact.metrics.get("label");
    let label = label.and_then(|label| label.decode::<String>().ok());
    if label.as_deref() != Some(uid) {
        return Err(format!("its label is {label:?}"));
    }
    let told = artifact.metrics.get("nth");
    let told = told.and_then(|told| told.decode::<Value>().ok());
    let expected = script::nth(artifact.token, nth);
    if told.as_ref().is_some_and(|told| *told != expected) {
        return Err(format!("its run says {told:?} of it, not {expected}"));
    }
    // Handlers of the machines' own world have none.
    let key = artifact.metrics.get("key");
    let key = key.and_then(|key| key.decode::<String>().ok());
    let parts = [artifact.task_id.as_str(), artifact.node_id.as_str(), uid];
    let expected = format!("{:032x}", stable128(&parts.map(str::as_bytes)));
    if key.as_ref().is_some_and(|key| *key != expected) {
        return Err(format!("its idempotency key is {key:?}, not {expected}"));
    }
    // The body of a large one is not in the tables.
    let Some(Artifact::Inline(value)) = &artifact.artifact else {
        return Ok(());
    };
    let value: Value = value.decode().map_err(|error| error.to_string())?;
    let items = value["items"].as_array().map_or(0, Vec::len);
    let counted = artifact.metrics.get("items");
    let counted = counted.and_then(|items| items.decode::<usize>().ok());
    if counted != Some(items) {
        return Err(format!("{items} items, counted as {counted:?}"));
    }
    Ok(())
}
