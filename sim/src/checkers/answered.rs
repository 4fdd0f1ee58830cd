//! `answered`: a client's call comes to the answer that its task's state calls for: it is refused for
//! a reason only, and ends in no error that says more than that a server could not be reached.

use flowkit_core::id::TaskId;
use flowkit_core::message::ReplyError;

use super::{Judge, View};
use crate::functions::breaks_machine;
use crate::history::{Ask, What};
use crate::plan::Fault;

const NAME: &str = "answered";

#[derive(Debug, Default)]
pub(super) struct Answered {
    healed_at: Option<u64>,
}

impl Judge for Answered {
    fn event(&mut self, view: &mut View<'_>) {
        let at = view.event.at;
        match &view.event.what {
            What::Healed => self.healed_at = Some(at),
            What::Failed {
                client,
                task,
                ask,
                error,
            } => {
                // While servers and coordinators are away nobody can be expected to answer.
                let excused = error.unanswered_ms.is_some_and(|ms| {
                    let asked_at = at.saturating_sub(ms * 1_000);
                    self.healed_at.is_none_or(|healed| asked_at < healed)
                });
                if !excused && !view.ledger.is_rotten(task) {
                    let what = format!("client {client}: {ask:?} of {task}: {}", error.text);
                    view.broken(NAME, what);
                }
            }
            What::Denied {
                client,
                task,
                ask,
                kind,
            } => {
                let plan = view.task(task.as_str());
                let reason = match kind {
                    ReplyError::Overloaded => {
                        let submits = matches!(ask, Ask::Submit | Ask::SubmitOther);
                        submits && view.plan.world.tasks_in_flight_max.is_some()
                    }
                    ReplyError::NotSettled => plan.is_some_and(|plan| plan.rerun.is_some()),
                    ReplyError::Invalid => sets_aside(view, task),
                    _ => false,
                };
                if !reason {
                    let what = format!("client {client}: {ask:?} of {task} is refused: {kind:?}");
                    view.broken(NAME, what);
                }
            }
            What::Answered {
                client,
                task,
                ask,
                reply,
            } if !reply.ok => {
                // Whether a rerun may be refused is what `rerun` judges.
                let plan = view.task(task.as_str());
                if *ask == Ask::Submit && plan.is_some_and(|plan| plan.rerun.is_some()) {
                    return;
                }
                let kind = reply.error.as_ref().map(|error| error.kind);
                let other = *ask == Ask::SubmitOther;
                let conflict = other && kind == Some(ReplyError::IdempotencyConflict);
                let invalid = kind == Some(ReplyError::Invalid);
                // Nobody can tell whether it is the same one, nor what becomes of it.
                let rotten = view.ledger.is_rotten(task);
                let excused = conflict || rotten || invalid && sets_aside(view, task);
                if !excused {
                    let what = format!("client {client}: {ask:?} of {task} is refused: {kind:?}");
                    view.broken(NAME, what);
                }
            }
            _ => {}
        }
    }
}

/// Whether there is a reason to set the task aside: the store refuses something, a record cannot be read,
/// or it breaks the machine itself. Its clients are told.
fn sets_aside(view: &View<'_>, task: &TaskId) -> bool {
    if view.ledger.is_rotten(task) {
        return true;
    }
    let refuses = |fault: &Fault| match fault.refused_task() {
        Some(index) => {
            let refused = view.plan.tasks.get(index as usize);
            refused.is_some_and(|refused| refused.id == task.as_str())
        }
        None => fault.is_refusal(),
    };
    let plan = view.task(task.as_str());
    view.plan.faults.iter().any(refuses) || plan.is_some_and(|plan| breaks_machine(&plan.graph))
}
