//! `paused`: once a pause is acknowledged no grant of that task is made until a client asks for its
//! resume; only a client makes it go on.

use std::collections::{BTreeMap, BTreeSet};

use flowkit_core::id::TaskId;
use flowkit_core::record::TaskState;

use super::{Judge, View};
use crate::history::{Ask, Change, What};

const NAME: &str = "paused";

#[derive(Debug, Default)]
pub(super) struct Paused {
    /// When a client first asked for a pause: it may ask for several at once.
    asked: BTreeMap<(u32, TaskId), u64>,
    /// When any client last asked for a resume, or was answered.
    resumed: BTreeMap<TaskId, u64>,
    /// Resumes that are under way.
    resuming: BTreeSet<(TaskId, u32)>,
    /// When the commit that paused a task was applied.
    since: BTreeMap<TaskId, u64>,
}

impl Judge for Paused {
    fn event(&mut self, view: &mut View<'_>) {
        let at = view.event.at;
        match &view.event.what {
            What::Asked { client, task, ask } => match ask {
                Ask::Pause => {
                    self.asked.entry((*client, task.clone())).or_insert(at);
                }
                Ask::Resume => {
                    self.resumed.insert(task.clone(), at);
                    self.resuming.insert((task.clone(), *client));
                }
                _ => {}
            },
            What::Answered {
                client,
                task,
                ask: Ask::Pause,
                reply,
            } => {
                let asked = self.asked.get(&(*client, task.clone())).copied();
                let asked = asked.unwrap_or(at);
                if reply.ok && reply.state == Some(TaskState::Paused) {
                    self.acknowledged(view, task, asked);
                }
            }
            What::Answered {
                client,
                task,
                ask: Ask::Resume,
                ..
            } => {
                self.resumed.insert(task.clone(), at);
                self.resuming.remove(&(task.clone(), *client));
            }
            What::Committed { changes, .. } => {
                for change in changes {
                    self.granted(view, change, changes);
                }
                for change in changes {
                    self.changed(view, change);
                }
            }
            What::Undone { .. } => {
                let tasks = &view.ledger.tasks;
                self.since.retain(|task, _| {
                    let fact = tasks.get(task).and_then(|task| task.fact.as_ref());
                    fact.is_some_and(|fact| fact.state == TaskState::Paused)
                });
            }
            _ => {}
        }
    }
}

impl Paused {
    /// The answer rests on a commit that no crash can undo, unless somebody has asked for the
    /// opposite meanwhile.
    fn acknowledged(&self, view: &mut View<'_>, task: &TaskId, asked: u64) {
        let ledger = view.ledger.tasks.get(task);
        if ledger.is_some_and(|task| task.tombstone.is_some()) {
            return; // It has ended since, and its retention too.
        }
        let fact = view.ledger.durable(task);
        let (state, no) = fact.map_or((None, 0), |fact| (Some(fact.state), fact.control_no));
        let over = state.is_some_and(|state| state.is_terminal() || state == TaskState::Cancelling);
        let overruled = self.resumed.get(task).is_some_and(|at| *at >= asked)
            || self.resuming.iter().any(|(of, _)| of == task);
        if no == 0 || !(state == Some(TaskState::Paused) || over || overruled) {
            let what = format!("{task}: pause acknowledged while {state:?}, control {no}");
            view.broken(NAME, what);
        }
    }

    /// One commit may hold a grant and the pause that stood behind it in the stream, or a resume and
    /// the grant that it let be made.
    fn granted(&self, view: &mut View<'_>, change: &Change, changes: &[Change]) {
        let Change::Node {
            task,
            node,
            old,
            new,
        } = change
        else {
            return;
        };
        let old_token = old.as_ref().map_or(0, |old| old.token.0);
        if new.token.0 <= old_token || new.holder.is_none() || !self.since.contains_key(task) {
            return;
        }
        let went_on = changes.iter().any(|change| {
            matches!(change, Change::Task { task: of, old, new } if of == task
                && old.as_ref().is_none_or(|old| old.control_no != new.control_no))
        });
        let fact = view.ledger.tasks.get(task).and_then(|t| t.fact.as_ref());
        if fact.is_some_and(|fact| fact.state == TaskState::Paused) && !went_on {
            view.broken(
                NAME,
                format!("{task}/{node}: granted while the task is paused"),
            );
        }
    }

    fn changed(&mut self, view: &mut View<'_>, change: &Change) {
        let at = view.event.at;
        let Change::Task { task, old, new } = change else {
            return;
        };
        if new.state == TaskState::Paused {
            self.since.entry(task.clone()).or_insert(at);
            return;
        }
        let was = old.as_ref().map(|old| old.state);
        let since = self.since.remove(task);
        if was == Some(TaskState::Paused)
            && matches!(new.state, TaskState::Queued | TaskState::Running)
        {
            // Who paused it may ask for the resume before the answer is here, but not before it asked.
            let asked = self.resumed.get(task).copied();
            if asked.is_none()
                || old
                    .as_ref()
                    .is_some_and(|old| old.control_no == new.control_no)
            {
                let what = format!("{task}: paused at {since:?}, and went on by itself");
                view.broken(NAME, what);
            }
        }
    }
}
