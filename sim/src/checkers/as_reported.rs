//! `as_reported`: what a handler says of its failure is what the owner is told: for good or not,
//! and how long to wait.

use std::collections::BTreeMap;

use flowkit_core::id::{NodeId, TaskId, Token};
use flowkit_core::message::Body;
use flowkit_core::port::Stream;

use super::{Judge, View};
use crate::history::{Step, What};

const NAME: &str = "as_reported";

#[derive(Debug, Default)]
pub(super) struct AsReported {
    /// What a run's handler said last of its own failure.
    said: BTreeMap<(TaskId, NodeId, Token), (bool, Option<u64>)>,
}

/// Failures by their script; every other one is the engine's own.
const SCRIPTED: [&str; 6] = [
    "busy",
    "flaky",
    "hopeless",
    "named",
    "panic",
    // No script has such an error: it was named, and its name is lost.
    "unexpected_error",
];

impl Judge for AsReported {
    fn event(&mut self, view: &mut View<'_>) {
        match &view.event.what {
            What::Handler {
                run,
                step:
                    Step::Failed {
                        permanent,
                        cancelled: false,
                        retry_after_ms,
                    },
            } => {
                let key = (run.task.clone(), run.node.clone(), run.token);
                self.said.insert(key, (*permanent, *retry_after_ms));
            }
            What::Appended {
                stream: Stream::Shard(_),
                envelope,
                ..
            } => {
                let (Body::TaskFailed(failed), Some(task), Some(node), Some(token)) = (
                    &envelope.body,
                    &envelope.task_id,
                    &envelope.node_id,
                    envelope.lease_no,
                ) else {
                    return;
                };
                if !SCRIPTED.contains(&&*failed.reason_code) {
                    return;
                }
                let told = (failed.permanent, failed.retry_after_ms);
                let key = (task.clone(), node.clone(), token);
                let said = self.said.get(&key).copied();
                if said.is_some_and(|said| said != told) {
                    let what = format!(
                        "{task}/{node}: token {token} failed (permanent, retry after ms) as \
                         {said:?}, its owner is told {told:?}"
                    );
                    view.broken(NAME, what);
                }
            }
            _ => {}
        }
    }
}
