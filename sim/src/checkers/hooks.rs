//! `hooks`: a run's handler is asked for one thing at a time; what it wanted to be run at its end
//! is run once, behind everything else, the newest first, and then its cleanup. No run outlives its
//! task.

use std::collections::BTreeMap;

use flowkit_core::id::{BatchUid, TaskId};

use super::{Broken, Finish, Judge, View};
use crate::history::{Life, Place, Step, What};
use crate::script;

const NAME: &str = "hooks";

#[derive(Debug, Default)]
pub(super) struct Hooks {
    runs: BTreeMap<(Place, u64), Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    name: String,
    task: Option<TaskId>,
    batch: Option<BatchUid>,
    hooks: u32,
    /// Its thread, so that nothing ends it but its process.
    blocks: bool,
}

impl Judge for Hooks {
    fn event(&mut self, view: &mut View<'_>) {
        match &view.event.what {
            What::Process {
                place,
                what: Life::Crashed | Life::Stopped,
            } => self.runs.retain(|(at, _), _| at.host != place.host),
            What::Handler { run, step } => {
                let key = (run.place, run.run_id);
                let plan = view.node(run.task.as_str(), run.node.as_str());
                let blocks = plan.is_some_and(|node| node.script.blocks);
                let seen = self.runs.entry(key).or_default();
                if seen.name.is_empty() {
                    seen.task = Some(run.task.clone());
                    seen.name = format!("{}/{}: token {}", run.task, run.node, run.token);
                }
                seen.blocks = blocks;
                let works = matches!(
                    step,
                    Step::Process { .. }
                        | Step::Checkpoint { .. }
                        | Step::Processed { .. }
                        | Step::Finalize
                        | Step::Finalized
                );
                let mut broken = Vec::new();
                if works && seen.hooks > 0 {
                    broken.push(format!("{} works on behind its end: {step:?}", seen.name));
                }
                match step {
                    Step::Process { uid, .. } => {
                        if let Some(batch) = seen.batch.replace(uid.clone()) {
                            broken.push(format!("{} gets {uid} while in {batch}", seen.name));
                        }
                    }
                    Step::Processed { .. } | Step::Failed { .. } | Step::Abort => {
                        seen.batch = None;
                    }
                    Step::Finalize if seen.batch.is_some() => {
                        broken.push(format!("{} finalizes in the middle of a batch", seen.name));
                    }
                    Step::Hook { number } => {
                        let due = script::HOOKS.saturating_sub(seen.hooks);
                        seen.hooks += 1;
                        if *number != due {
                            let name = &seen.name;
                            broken.push(format!("{name} ends with hook {number}, not {due}"));
                        }
                    }
                    Step::Closed => {
                        let left = script::HOOKS.saturating_sub(seen.hooks);
                        if left > 0 {
                            let what = format!("{left} things that it wanted to be run were not");
                            broken.push(format!("{} is closed, {what}", seen.name));
                        }
                        self.runs.remove(&key);
                    }
                    Step::Lost => {
                        self.runs.remove(&key);
                    }
                    _ => {}
                }
                for what in broken {
                    view.broken(NAME, what);
                }
            }
            _ => {}
        }
    }

    fn finish(&mut self, finish: &Finish<'_>, broken: &mut Vec<Broken>) {
        // A task whose submission was answered with an error may be there all the same, and at work.
        let settled = |seen: &Seen| {
            let task = seen.task.as_ref();
            task.and_then(|id| finish.tables.task(id))
                .is_none_or(|task| task.settled)
        };
        for seen in self.runs.values() {
            if !finish.settled || !settled(seen) {
                continue; // It may be in the middle of it.
            }
            let what = if seen.hooks > 0 {
                "ended without its cleanup"
            } else if !seen.blocks {
                "is left behind by its task"
            } else {
                continue;
            };
            let what = format!("{} {what}", seen.name);
            broken.push(Broken::new(NAME, finish.now, what));
        }
    }
}
