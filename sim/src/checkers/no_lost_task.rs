//! `no_lost_task`: a task whose submission was acknowledged exists, and reaches a terminal state
//! once faults heal. (What `retention` may take is for that one to judge.)

use std::collections::BTreeSet;

use flowkit_core::id::TaskId;
use flowkit_core::message::ReplyError;

use super::{Broken, Finish, Judge, View};
use crate::history::{Ask, What};
use crate::plan::{Fault, Plan};

const NAME: &str = "no_lost_task";

#[derive(Debug, Default)]
pub(super) struct NoLostTask {
    acknowledged: BTreeSet<TaskId>,
}

impl Judge for NoLostTask {
    fn event(&mut self, view: &mut View<'_>) {
        match &view.event.what {
            What::Answered {
                task, ask, reply, ..
            } => {
                let refused = reply.error.as_ref().map(|error| error.kind);
                let swept = view.ledger.tasks.get(task);
                let swept = swept.is_some_and(|task| task.tombstone.is_some());
                let known = swept || view.ledger.durable(task).is_some();
                if view.task(task.as_str()).is_none() {
                    let what = format!("{task}: a submission under a key made another task");
                    view.broken("dedup_bounded", what);
                }
                match ask {
                    Ask::Submit if reply.ok => {
                        self.acknowledged.insert(task.clone());
                        if !known {
                            view.broken(NAME, format!("{task}: acknowledged, but not stored"));
                        }
                    }
                    // A commit that holds nothing else, refused by the store, is answered with the
                    // error. By the time that the answer is read a later owner, who knows nothing of
                    // the refusal, may have stored the task.
                    Ask::Submit if may_refuse(view.plan, task) => {}
                    // Nobody can tell any more whether it is the same one.
                    Ask::Submit if view.ledger.is_rotten(task) => {}
                    // What may not be run again, `rerun` knows.
                    Ask::Submit if view.task(task.as_str()).is_some_and(|t| t.rerun.is_some()) => {}
                    Ask::Submit => {
                        view.broken(NAME, format!("{task}: a good submission got {reply:?}"));
                    }
                    Ask::SubmitOther => {
                        if reply.ok || refused != Some(ReplyError::IdempotencyConflict) {
                            let what = format!("{task}: another graph under its id got {reply:?}");
                            view.broken("dedup_bounded", what);
                        }
                    }
                    Ask::Wait | Ask::Cancel { .. } | Ask::Pause | Ask::Resume => {
                        if refused == Some(ReplyError::NotFound) {
                            view.broken(NAME, format!("{task}: acknowledged, then not found"));
                        }
                    }
                }
            }
            What::Undone { .. } => {
                let gone = self.acknowledged.iter().find(|task| {
                    view.ledger
                        .tasks
                        .get(*task)
                        .is_none_or(|t| t.fact.is_none() && t.tombstone.is_none())
                });
                if let Some(task) = gone.cloned() {
                    view.broken(NAME, format!("{task}: acknowledged, then lost by a crash"));
                }
            }
            _ => {}
        }
    }

    fn finish(&mut self, finish: &Finish<'_>, broken: &mut Vec<Broken>) {
        for task in &self.acknowledged {
            match finish.tables.task(task) {
                None if finish.tables.tombstone(task).is_some() => {}
                None => {
                    broken.push(Broken::new(NAME, finish.now, format!("{task}: not stored")));
                }
                Some(_) if finish.ledger.is_rotten(task) => {}
                Some(record) if !record.state.is_terminal() => {
                    let what = format!("{task}: still {:?}", record.state);
                    broken.push(Broken::new(NAME, finish.now, what));
                }
                Some(_) => {}
            }
        }
    }
}

/// The store of this plan refuses the task, or a commit without looking at what it holds.
fn may_refuse(plan: &Plan, task: &TaskId) -> bool {
    plan.faults.iter().any(|fault| match fault {
        Fault::RefuseCommit { .. } => true,
        Fault::RefuseTask { task: index } | Fault::RefuseWrites { task: index, .. } => {
            plan.tasks[*index as usize].id.as_str() == task.as_str()
        }
        _ => false,
    })
}
