//! `dedup_bounded`: a redelivered message never has a second effect.

use std::collections::BTreeSet;

use flowkit_core::id::{NodeId, TaskId, Token};
use flowkit_core::record::NodeState;

use super::{Judge, View};
use crate::history::{Change, What};

const NAME: &str = "dedup_bounded";

#[derive(Debug, Default)]
pub(super) struct DedupBounded {
    /// Tokens that ended in a failure.
    failed: BTreeSet<(TaskId, NodeId, Token)>,
}

impl Judge for DedupBounded {
    fn event(&mut self, view: &mut View<'_>) {
        let changes = match &view.event.what {
            What::Committed { changes, .. } => changes,
            What::Undone { changes } => {
                for change in changes {
                    if let Change::Node {
                        task,
                        node,
                        old: Some(old),
                        new,
                    } = change
                        && new.failures > old.failures
                    {
                        self.failed.remove(&(task.clone(), node.clone(), old.token));
                    }
                }
                return;
            }
            _ => return,
        };
        for change in changes {
            let Change::Node {
                task,
                node,
                old: Some(old),
                new,
            } = change
            else {
                continue;
            };
            if new.failures > old.failures {
                let key = (task.clone(), node.clone(), old.token);
                if new.failures > old.failures + 1 || !self.failed.insert(key) {
                    let what = format!("{task}/{node}: token {} failed twice", old.token);
                    view.broken(NAME, what);
                }
            }
            if old.state == NodeState::Finished && new.accepted != old.accepted {
                view.broken(NAME, format!("{task}/{node}: a batch after its end"));
            }
            if new.token == old.token && new.last_seq < old.last_seq && new.holder.is_some() {
                view.broken(NAME, format!("{task}/{node}: seq went back"));
            }
        }
    }
}
