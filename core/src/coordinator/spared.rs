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
    /// Tried last, and not refused since.
    tried: Option<TaskId>,
    again_at: Option<Mono>,
    wait_ms: u64,
    /// When the shard began to be loaded once more.
    reloaded_at: Option<Mono>,
}

impl Spared {
    pub(super) fn contains(&self, task: &TaskId) -> bool {
        self.tasks.contains(task)
    }

    fn add(&mut self, ctx: &mut Context<'_>, refused: Vec<TaskId>) {
        if self.tried.take_if(|task| refused.contains(task)).is_some() {
            // A load hears old beats again: between two of them a lease must be able to lapse.
            let lapse_ms = 2 * (ctx.config.lease_ttl_ms + ctx.config.lease_margin_ms());
            let most = WAIT_MS_MAX.max(lapse_ms);
            self.wait_ms = (self.wait_ms * 2).clamp(WAIT_MS_MIN, most);
            self.again_at = None;
        } else {
            self.wait_ms = self.wait_ms.max(WAIT_MS_MIN);
        }
        if !is_planted(Bug::SparedForgotten) {
            // One more does not put off the others.
            let again_at = ctx.now.mono.after(self.wait_ms);
            self.again_at.get_or_insert(again_at);
        }
        for task in refused {
            let text = format!(
                "the store refuses even to set it aside: left alone, and tried again in {} ms or later",
                self.wait_ms
            );
            let mut report = Report::new(ReportKind::Quarantined, text);
            report.task_id = Some(task.clone());
            ctx.report(report);
            if !self.contains(&task) {
                self.tasks.push_back(task);
            }
        }
    }

    /// The shard begins to be loaded once more.
    pub(super) fn reloads(&mut self, now: Mono) {
        self.reloaded_at.get_or_insert(now);
    }

    /// The shard is loaded: it is served now, at least for as long as that took.
    pub(super) fn loaded(&mut self, now: Mono) {
        let took_ms = self.reloaded_at.take().map_or(0, |at| now.since(at));
        let again_at = now.after(self.wait_ms.max(took_ms));
        self.again_at = self.again_at.map(|at| at.max(again_at));
    }

    /// The one whose turn it is comes back.
    fn next(&mut self, now: Mono) {
        if self.tried.take().is_some() {
            // The last one could be set aside: the store takes such commits again.
            self.wait_ms = WAIT_MS_MIN;
        }
        self.tried = self.tasks.pop_front();
        let again_at = now.after(self.wait_ms);
        self.again_at = (!self.tasks.is_empty()).then_some(again_at);
    }
}

impl Slot {
    /// A commit was refused, and these tasks are to blame.
    pub(super) fn spare(&mut self, ctx: &mut Context<'_>, blamed: &[TaskId]) {
        // Those that the commit was to set aside: nothing else of them is in memory.
        let aside = |task: &&TaskId| self.quarantine.contains(*task);
        let refused: Vec<TaskId> = blamed.iter().filter(aside).cloned().collect();
        if !refused.is_empty() {
            self.spared.add(ctx, refused);
        }
    }

    /// It is time to try one of them again.
    pub(super) fn tries_again(&self, now: Mono) -> bool {
        let due = self.spared.again_at.is_some_and(|at| at <= now);
        // A renewal that is under way would take the lease for nobody, should the process then stop.
        due && matches!(self.phase, Phase::Owned(_)) && !self.renewing
    }

    /// When that is, if the shard is at rest by then; else the answers that it waits for are an occasion. A
    /// process that stops leaves it to the next owner.
    pub(super) fn spared_due(&self) -> Option<Mono> {
        match &self.phase {
            Phase::Owned(shard) if shard.is_quiet() && shard.last_read == LastRead::Unasked => {
                self.spared.again_at.filter(|_| !self.renewing)
            }
            _ => None,
        }
    }

    /// Loads an owned shard that is quiet once more, and with it the task whose turn it is.
    pub(super) fn try_again(&mut self, ctx: &mut Context<'_>) {
        self.spared.next(ctx.now.mono);
        self.reload(ctx);
    }
}
