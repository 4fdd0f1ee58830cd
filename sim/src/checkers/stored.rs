//! `stored`: what the store holds of a task makes sense by itself. The validator of `flowkit doctor`
//! is the judge; so this also shows that it has nothing to say of what is right.

use flowkit_core::doctor::faults_of;
use flowkit_core::port::TaskWithNodes;
use flowkit_core::record::TaskRecord;

use super::{Broken, Finish, Judge, View};

const NAME: &str = "stored";

#[derive(Debug)]
pub(super) struct Stored;

impl Judge for Stored {
    fn event(&mut self, _view: &mut View<'_>) {}

    fn finish(&mut self, finish: &Finish<'_>, broken: &mut Vec<Broken>) {
        // Nobody is shown what a sweep has begun to take away: it may be under way as the run ends, or
        // leave the rest for people, since a record can no longer be read.
        let shown = |task: &&TaskRecord| finish.tables.tombstone(&task.task_id).is_none();
        for task in finish.tables.tasks().filter(shown) {
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
