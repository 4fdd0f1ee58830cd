//! `retention`: nothing is swept early by the store's clock, nothing that has not ended, nothing that a
//! rerun points to; children go before their task; what is swept leaves a tombstone and never comes
//! back.

use std::collections::BTreeMap;

use flowkit_core::id::TaskId;
use flowkit_core::port::Removal;
use flowkit_core::record::TaskState;

use super::{Broken, Finish, Judge, View};
use crate::history::{Change, What};

const NAME: &str = "retention";

#[derive(Debug, Default)]
pub(super) struct Retention {
    /// How far the store's clock is before true time.
    ahead_ms: i64,
    /// Settled tasks: how they ended, and when they were last written by the store's clock.
    settled: BTreeMap<TaskId, Settled>,
    /// Tasks that went, and when.
    swept: BTreeMap<TaskId, u64>,
}

#[derive(Debug)]
struct Settled {
    state: TaskState,
    written_ms: i64,
    /// The most that the store's clock was past that before it was set.
    kept_ms: i64,
}

impl Judge for Retention {
    fn event(&mut self, view: &mut View<'_>) {
        match &view.event.what {
            What::StoreClock { by_ms } => {
                // What the store has found expired stays so, though its clock be set back.
                let now_ms = self.now_ms(view);
                for settled in self.settled.values_mut() {
                    settled.kept_ms = settled.kept_ms.max(now_ms - settled.written_ms);
                }
                self.ahead_ms += by_ms;
            }
            What::Committed { changes, .. } => {
                for change in changes {
                    if let Err(what) = self.change(view, change) {
                        view.broken(NAME, what);
                    }
                }
            }
            What::Undone { changes } => {
                for change in changes {
                    match change {
                        Change::Tombstone { task, .. } => {
                            self.swept.remove(task);
                        }
                        Change::Task { task, old, .. }
                            if old.as_ref().is_none_or(|old| !old.settled) =>
                        {
                            self.settled.remove(task);
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }

    fn finish(&mut self, finish: &Finish<'_>, broken: &mut Vec<Broken>) {
        let world = &finish.plan.world;
        // An embedded engine applies before it syncs; what it did last may not be durable yet.
        let unsynced_us = if world.embedded { 8 * world.sync_us } else { 0 };
        for (task, at) in &self.swept {
            if *at + unsynced_us <= finish.now && finish.tables.tombstone(task).is_none() {
                let what = format!("{task}: its tombstone is gone");
                broken.push(Broken::new(NAME, finish.now, what));
            }
        }
    }
}

impl Retention {
    fn now_ms(&self, view: &View<'_>) -> i64 {
        i64::try_from(view.event.at / 1_000).unwrap_or(i64::MAX) + self.ahead_ms
    }

    fn change(&mut self, view: &View<'_>, change: &Change) -> Result<(), String> {
        match change {
            Change::Task { task, new, .. } => {
                if self.swept.contains_key(task) {
                    return Err(format!("{task}: swept, and then written"));
                }
                if new.settled {
                    let settled = Settled {
                        state: new.state,
                        written_ms: self.now_ms(view),
                        kept_ms: 0,
                    };
                    self.settled.insert(task.clone(), settled);
                }
                Ok(())
            }
            Change::Node { task, .. } | Change::Artifact { task, .. } => {
                if self.swept.contains_key(task) {
                    return Err(format!("{task}: swept, and then a part of it is written"));
                }
                Ok(())
            }
            Change::Tombstone { first: false, .. } => Ok(()),
            Change::Tombstone { task, state, .. } => {
                self.swept.insert(task.clone(), view.event.at);
                self.begins(view, task, *state)
            }
            Change::Removed { removal, old } => {
                let task = removal.task_id();
                if !self.swept.contains_key(task) {
                    return Err(format!("{task}: {removal:?} without a tombstone"));
                }
                match removal {
                    Removal::Task { .. } if old.nodes_left > 0 => {
                        let left = old.nodes_left;
                        Err(format!(
                            "{task}: its record went before {left} of its nodes"
                        ))
                    }
                    Removal::Node { node_id, .. }
                        if old.node.as_ref().is_some_and(|n| !n.artifacts.is_empty()) =>
                    {
                        Err(format!(
                            "{task}/{node_id}: its record went before its artifacts"
                        ))
                    }
                    _ => Ok(()),
                }
            }
        }
    }

    /// A task is about to be swept.
    fn begins(&self, view: &View<'_>, task: &TaskId, state: TaskState) -> Result<(), String> {
        // The ledger has seen the whole commit, what it takes away included.
        let ended = self.settled.get(task);
        let Some(settled) = ended.filter(|settled| settled.state == state) else {
            return Err(format!("{task}: swept as {state:?}, settled as {ended:?}"));
        };
        let world = &view.plan.world;
        let retention_ms = if state == TaskState::Finished {
            world.retention_finished_ms
        } else {
            world.retention_failed_ms
        };
        let Some(retention_ms) = retention_ms else {
            return Err(format!("{task}: {state:?} tasks are kept for ever"));
        };
        // Both times are cut to a millisecond.
        let kept_ms = settled.kept_ms.max(self.now_ms(view) - settled.written_ms) + 1;
        if kept_ms < i64::try_from(retention_ms).unwrap_or(i64::MAX) {
            return Err(format!(
                "{task}: swept after {kept_ms} ms, not {retention_ms}"
            ));
        }
        let mut others = view.ledger.tasks.iter();
        let pointing = others.find(|(_, other)| {
            let other = other.fact.as_ref();
            other.is_some_and(|other| other.holds.contains(task))
        });
        match pointing {
            Some((rerun, _)) => Err(format!("{task}: swept, and {rerun} points to it")),
            None => Ok(()),
        }
    }
}
