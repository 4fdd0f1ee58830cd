//! Tasks that the store does not even let be set aside: one of them must not hold up its shard. They are
//! left alone, in the store as they are, and tried again in turn, after a while that grows.
//!
//! Nobody is told that such a task is set aside: the store may take it again, and another owner go on with
//! it. Who waits for it waits on; what is asked of it meanwhile is not answered, and asked again.

use serde::Serialize;
use std::collections::VecDeque;

use super::context::Context;
use super::last_read::LastRead;
use super::ownership::{Phase, Slot};
use crate::id::TaskId;
use crate::planted::{Bug, is_planted};
use crate::report::{Report, ReportKind};
use crate::time::Mono;

/// How long the first one is left alone; every refusal doubles it.
const WAIT_MS_MIN: u64 = 1_000;
/// To try again is to load the whole shard anew: no more often than this in the long run.
const WAIT_MS_MAX: u64 = 60_000;

/// Those of one shard.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Spared {
    /// The next to be tried first.
    tasks: VecDeque<TaskId>,
    again_at: Option<Mono>,
    wait_ms: u64,
}

impl Spared {
    pub(super) fn contains(&self, task: &TaskId) -> bool {
        self.tasks.contains(task)
    }

    fn add(&mut self, ctx: &mut Context<'_>, task: &TaskId) {
        self.wait_ms = (self.wait_ms * 2).clamp(WAIT_MS_MIN, WAIT_MS_MAX);
        if !is_planted(Bug::SparedForgotten) {
            self.again_at = Some(ctx.now.mono.after(self.wait_ms));
        }
        if !self.contains(task) {
            self.tasks.push_back(task.clone());
        }
        let text = format!(
            "the store refuses even to set it aside: left alone, and tried again in {} ms",
            self.wait_ms
        );
        let mut report = Report::new(ReportKind::Quarantined, text);
        report.task_id = Some(task.clone());
        ctx.report(report);
    }
}

impl Slot {
    /// A commit was refused, and these tasks are to blame.
    pub(super) fn spare(&mut self, ctx: &mut Context<'_>, blamed: &[TaskId]) {
        for task in blamed {
            // The commit that was to set it aside, then: nothing else of it is in memory.
            if self.quarantine.contains(task) {
                self.spared.add(ctx, task);
            }
        }
    }

    /// It is time to try one of them again.
    pub(super) fn tries_again(&self, now: Mono) -> bool {
        let due = self.spared.again_at.is_some_and(|at| at <= now);
        due && matches!(self.phase, Phase::Owned(_))
    }

    /// When that is, if the shard is at rest by then; else the answers that it waits for are an occasion. A
    /// process that stops leaves it to the next owner.
    pub(super) fn spared_due(&self) -> Option<Mono> {
        match &self.phase {
            Phase::Owned(shard) if shard.is_quiet() && shard.last_read == LastRead::Unasked => {
                self.spared.again_at
            }
            _ => None,
        }
    }

    /// Loads an owned shard that is quiet once more, and with it the task whose turn it is.
    pub(super) fn try_again(&mut self, ctx: &mut Context<'_>) {
        self.spared.tasks.pop_front();
        let others = !self.spared.tasks.is_empty();
        let again_at = ctx.now.mono.after(self.spared.wait_ms);
        self.spared.again_at = others.then_some(again_at);
        self.reload(ctx);
    }
}
