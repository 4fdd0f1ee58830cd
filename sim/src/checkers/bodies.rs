//! Bodies of large artifacts, which lie apart: `stored`. A batch is accepted with the body that it points to
//! in the store, and bodies that nothing points to are looked for once their task has settled.

use std::collections::{BTreeMap, BTreeSet};

use flowkit_core::id::{BatchUid, NodeId, TaskId, Token};

use super::{Broken, Finish, Judge, View};
use crate::history::{Change, What};

const NAME: &str = "stored";
/// An owner that lives looks for them within this time, once nothing goes wrong.
const LOOK_US: u64 = 4_000_000;

#[derive(Debug, Default)]
pub(super) struct Bodies {
    staged: BTreeMap<TaskId, BTreeSet<(NodeId, BatchUid, Token)>>,
    /// When tasks settled whose bodies nobody has looked at since. Only memory knows of them: a new
    /// owner does not.
    settled: BTreeMap<TaskId, u64>,
    healed_at: Option<u64>,
}

impl Judge for Bodies {
    fn event(&mut self, view: &mut View<'_>) {
        match &view.event.what {
            What::Staged {
                task,
                node,
                uid,
                token,
            } => {
                let bodies = self.staged.entry(task.clone()).or_default();
                bodies.insert((node.clone(), uid.clone(), *token));
                // Too late for the look at what the task has left.
                self.settled.remove(task);
            }
            What::BodiesSwept { task } => {
                self.settled.remove(task);
            }
            What::Healed => self.healed_at = Some(view.event.at),
            What::EpochRaised { .. } | What::Undone { .. } => self.settled.clear(),
            What::Committed { changes, .. } => {
                for change in changes {
                    self.changed(view, change);
                }
            }
            _ => {}
        }
    }

    fn finish(&mut self, finish: &Finish<'_>, broken: &mut Vec<Broken>) {
        for (task, at) in &self.settled {
            let quiet_since = (*at).max(self.healed_at.unwrap_or(finish.now));
            let slack = 10 * finish.plan.world.slack_us();
            if finish.now < quiet_since + LOOK_US + slack || finish.tables.tombstone(task).is_some()
            {
                continue;
            }
            let left = self.staged.get(task).into_iter().flatten();
            let left = left.filter(|(node, uid, token)| {
                let mut artifacts = finish.tables.artifacts(task, node);
                !artifacts.any(|of| of.batch_uid == *uid && of.token == *token)
            });
            for (node, uid, token) in left {
                let what = format!(
                    "{task}/{node}: the body of {uid} of token {token} is left, and nobody looked"
                );
                broken.push(Broken::new(NAME, finish.now, what));
            }
        }
    }
}

impl Bodies {
    fn changed(&mut self, view: &mut View<'_>, change: &Change) {
        // Who watches real processes does not see what the store is asked for.
        if view.plan.world.slack_ms >= 1_000 {
            return;
        }
        match change {
            Change::Task { task, old, new }
                if new.settled
                    && old.as_ref().is_none_or(|old| !old.settled)
                    && self.staged.contains_key(task) =>
            {
                self.settled.insert(task.clone(), view.event.at);
            }
            Change::Artifact { task, node, fact } if fact.staged => {
                let bodies = self.staged.get(task);
                let body = (node.clone(), fact.uid.clone(), fact.token);
                if !bodies.is_some_and(|bodies| bodies.contains(&body)) {
                    let what = format!(
                        "{task}/{node}: {} of token {} is accepted, and its body is not there",
                        fact.uid, fact.token
                    );
                    view.broken(NAME, what);
                }
            }
            _ => {}
        }
    }
}
