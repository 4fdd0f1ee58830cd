//! `stored`: what the store holds of a task makes sense by itself. The validator of `flowkit doctor`
//! is the judge; so this also shows that it has nothing to say of what is right.

use flowkit_core::doctor::faults_of;
use flowkit_core::id::TaskId;
use flowkit_core::port::TaskWithNodes;
use flowkit_core::record::TaskRecord;

use std::collections::BTreeMap;

use super::{Broken, Finish, Judge, View};
use crate::history::{Change, What};

const NAME: &str = "stored";

#[derive(Debug, Default)]
pub(super) struct Stored {
    /// When a sweep of a task began.
    swept_at: BTreeMap<TaskId, u64>,
}

impl Judge for Stored {
    fn event(&mut self, view: &mut View<'_>) {
        if let What::Committed { changes, .. } = &view.event.what {
            for change in changes {
                if let Change::Tombstone { task, .. } = change {
                    self.swept_at.insert(task.clone(), view.event.at);
                }
            }
        }
    }

    fn finish(&mut self, finish: &Finish<'_>, broken: &mut Vec<Broken>) {
        // A sweep may be under way as the run ends, or wait for the next look of a new owner; or it leaves the
        // rest for people, since a record can no longer be read.
        let patience = 2 * finish.plan.world.sweep_interval_ms * 1_000;
        let judged = |task: &&TaskRecord| {
            let at = self.swept_at.get(&task.task_id);
            at.is_none_or(|at| {
                !finish.ledger.is_rotten(&task.task_id) && finish.now > at + patience
            })
        };
        for task in finish.tables.tasks().filter(judged) {
            let found = TaskWithNodes {
                task: task.clone(),
                nodes: finish.tables.nodes(&task.task_id).cloned().collect(),
                node_age_ms: Vec::new(),
            };
            for fault in faults_of(&found) {
                let what = format!("task {}: {fault}", task.task_id);
                broken.push(Broken::new(NAME, finish.now, what));
            }
        }
    }
}
