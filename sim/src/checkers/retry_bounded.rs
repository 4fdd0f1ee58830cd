//! `retry_bounded`: handler failures stay within the policy, no retry before its back-off, never
//! after a permanent error; lost workers are bounded apart.

use std::collections::BTreeMap;
use std::sync::Arc;

use flowkit_core::id::{NodeId, TaskId, Token};
use flowkit_core::message::Body;
use flowkit_core::port::Stream;
use flowkit_core::record::NodeState;

use super::{Judge, View};
use crate::history::{Change, NodeFact, What};

const NAME: &str = "retry_bounded";
/// `losses_max` of a graph that names none.
const LOSSES_MAX: u32 = 20;

/// A TASK_FAILED as it stands in a stream.
#[derive(Clone, Debug)]
struct Failure {
    at: u64,
    code: Arc<str>,
    permanent: bool,
    retry_after_ms: Option<u64>,
}

#[derive(Debug, Default)]
pub(super) struct RetryBounded {
    sent: BTreeMap<(TaskId, NodeId, Token), Failure>,
    /// No grant of the node before then.
    not_before: BTreeMap<(TaskId, NodeId), u64>,
}

impl Judge for RetryBounded {
    fn event(&mut self, view: &mut View<'_>) {
        match &view.event.what {
            What::Appended {
                stream: Stream::Shard(_),
                envelope,
                ..
            } => {
                if let (Body::TaskFailed(failed), Some(task), Some(node), Some(token)) = (
                    &envelope.body,
                    &envelope.task_id,
                    &envelope.node_id,
                    envelope.lease_no,
                ) {
                    let key = (task.clone(), node.clone(), token);
                    self.sent.entry(key).or_insert(Failure {
                        at: view.event.at,
                        code: failed.reason_code.clone(),
                        permanent: failed.permanent,
                        retry_after_ms: failed.retry_after_ms,
                    });
                }
            }
            What::Committed { changes, .. } => {
                for change in changes {
                    if let Change::Node {
                        task,
                        node,
                        old,
                        new,
                    } = change
                    {
                        self.node(view, task, node, old.as_deref(), new);
                    }
                }
            }
            // Waits that outlive an owner are counted by the store's clock.
            What::StoreClock { by_ms } => {
                let ahead_us = u64::try_from(*by_ms).unwrap_or(0) * 1_000;
                for not_before in self.not_before.values_mut() {
                    *not_before = not_before.saturating_sub(ahead_us);
                }
            }
            What::Undone { changes } => {
                for change in changes {
                    if let Change::Node { task, node, .. } = change {
                        self.not_before.remove(&(task.clone(), node.clone()));
                    }
                }
            }
            _ => {}
        }
    }
}

impl RetryBounded {
    fn node(
        &mut self,
        view: &mut View<'_>,
        task: &TaskId,
        node: &NodeId,
        old: Option<&NodeFact>,
        new: &NodeFact,
    ) {
        let Some(plan) = view.node(task.as_str(), node.as_str()) else {
            return;
        };
        let (retry_max, backoff_ms) = (plan.retry_max, plan.backoff_ms);
        let losses_max = plan.losses_max.unwrap_or(LOSSES_MAX);
        let ppm = view.plan.world.clock_rate_error_ppm;
        let reading = view.plan.world.reading_us();
        let key = (task.clone(), node.clone());
        if new.failures > retry_max {
            let what = format!("{task}/{node}: {} failures of {retry_max}", new.failures);
            view.broken(NAME, what);
        }
        let old_token = old.map_or(Token(0), |old| old.token);
        if new.token > old_token && new.holder.is_some() {
            if new.failures >= retry_max.max(1) {
                let what = format!("{task}/{node}: granted after {} failures", new.failures);
                view.broken(NAME, what);
            }
            if let Some(not_before) = self.not_before.remove(&key)
                && view.event.at < not_before
            {
                let what = format!(
                    "{task}/{node}: granted {} ms before its back-off ended",
                    (not_before - view.event.at) / 1_000
                );
                view.broken(NAME, what);
            }
        }
        let failures = old.map_or(0, |old| old.failures);
        if new.failures > failures {
            let sent = self.sent.get(&(task.clone(), node.clone(), old_token));
            let Some(sent) = sent else { return };
            let ended = matches!(new.state, NodeState::Failed | NodeState::Cancelled);
            let plan = view.node(task.as_str(), node.as_str());
            let mut listed = plan.iter().flat_map(|plan| &plan.permanent_on);
            let listed = listed.any(|code| **code == *sent.code);
            if (sent.permanent || listed) && !ended {
                let what = format!("{task}/{node}: {:?} after a permanent failure", new.state);
                view.broken(NAME, what);
            }
            let wait_ms = sent.retry_after_ms.unwrap_or(0).max(backoff_ms);
            let exact = wait_ms * 1_000;
            let drift = exact * 2 * ppm / 1_000_000 + 2_000 + reading;
            self.not_before
                .insert(key, sent.at + exact.saturating_sub(drift));
        }
        if new.losses > losses_max || (new.losses == losses_max && !new.state.is_terminal()) {
            let what = format!(
                "{task}/{node}: goes on after {} losses in a row",
                new.losses
            );
            view.broken(NAME, what);
        }
        if new.failure_code.as_deref() == Some("worker_lost")
            && old.is_none_or(|old| old.failure_code.is_none())
            && new.losses < losses_max
        {
            let what = format!("{task}/{node}: worker_lost after {} losses", new.losses);
            view.broken(NAME, what);
        }
        if let Some(old) = old
            && u64::from(new.losses) > u64::from(old.losses) + 1 + new.token.0 - old.token.0
        {
            view.broken(NAME, format!("{task}/{node}: more losses than grants"));
        }
    }
}
