//! `answered`: a client's call comes to the answer that its task's state calls for: it is refused for
//! a reason only, and ends in no error that says more than that a server could not be reached.

use flowkit_core::message::ReplyError;

use super::{Judge, View};
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
                if !excused {
                    let what = format!("client {client}: {ask:?} of {task}: {}", error.text);
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
                if !has_reason(view, *ask, kind) {
                    let what = format!("client {client}: {ask:?} of {task} is refused: {kind:?}");
                    view.broken(NAME, what);
                }
            }
            _ => {}
        }
    }
}

/// Whether the plan gives a reason for a refusal.
fn has_reason(view: &View<'_>, ask: Ask, kind: Option<ReplyError>) -> bool {
    // What the store refuses, or a machine broke over, is set aside: its clients are told.
    let sets_aside = |fault: &Fault| {
        matches!(
            fault,
            Fault::RefuseCommit { .. }
                | Fault::RefuseBatches { .. }
                | Fault::RefuseTask { .. }
                | Fault::MachinePanic { .. }
        )
    };
    let other_graph = ask == Ask::SubmitOther && kind == Some(ReplyError::IdempotencyConflict);
    other_graph || view.plan.faults.iter().any(sets_aside)
}
