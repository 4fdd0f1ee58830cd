//! `resume_point`: the source resumes at the checkpoint of the last accepted batch; the batch that
//! was in work last gets its newest acknowledged checkpoint; an accepted batch is not processed by
//! a token granted after its acceptance.

use std::collections::BTreeMap;

use flowkit_core::id::{BatchUid, NodeId, TaskId, Token};
use flowkit_core::json::Json;

use super::{Judge, View};
use crate::history::{Change, NodeFact, Run, Step, What};

const NAME: &str = "resume_point";

#[derive(Debug, Default)]
pub(super) struct ResumePoint {
    grants: BTreeMap<(TaskId, NodeId, Token), Granted>,
    saves: BTreeMap<(TaskId, NodeId), Vec<Save>>,
    /// What the store was seen to keep; in real runs nobody looks.
    kept: BTreeMap<(TaskId, NodeId, Token), Vec<(BatchUid, Json)>>,
}

/// The node as of a grant.
#[derive(Debug)]
struct Granted {
    checkpoint: Option<Json>,
    accepted: u64,
}

/// A checkpoint that a handler asked to keep.
#[derive(Debug)]
struct Save {
    token: Token,
    uid: BatchUid,
    value: Json,
    acknowledged: bool,
}

impl Judge for ResumePoint {
    fn event(&mut self, view: &mut View<'_>) {
        match &view.event.what {
            What::Committed { changes, .. } => {
                for change in changes {
                    if let Change::Node {
                        task,
                        node,
                        old,
                        new,
                    } = change
                    {
                        self.granted(task, node, old.as_deref(), new);
                    }
                }
            }
            What::Undone { changes } => {
                // A token that a crash took back may be given out again.
                for change in changes {
                    if let Change::Node {
                        task,
                        node,
                        old,
                        new,
                    } = change
                        && old.as_ref().is_none_or(|old| old.token < new.token)
                    {
                        self.grants.remove(&(task.clone(), node.clone(), new.token));
                    }
                }
            }
            What::Kept {
                task,
                node,
                token,
                uid,
                value,
            } => {
                let key = (task.clone(), node.clone(), *token);
                let kept = self.kept.entry(key).or_default();
                kept.push((uid.clone(), value.clone()));
            }
            What::Handler { run, step } => match step {
                Step::Begin => self.began(view, run),
                Step::Process { uid, checkpoint } => {
                    self.process(view, run, uid, checkpoint.as_ref());
                }
                Step::Checkpoint { uid, value } => {
                    let key = (run.task.clone(), run.node.clone());
                    self.saves.entry(key).or_default().push(Save {
                        token: run.token,
                        uid: uid.clone(),
                        value: value.clone(),
                        acknowledged: false,
                    });
                }
                Step::CheckpointSaved {
                    uid,
                    value,
                    ok: true,
                } => {
                    let key = (run.task.clone(), run.node.clone(), run.token);
                    let kept = self.kept.get(&key).into_iter().flatten();
                    let kept = kept.map(|(uid, value)| (uid, value));
                    if !self.kept.is_empty() && !kept.into_iter().any(|k| k == (uid, value)) {
                        let what = format!(
                            "{}/{}: checkpoint {value:?} of batch {uid} is acknowledged, and not stored",
                            run.task, run.node
                        );
                        view.broken(NAME, what);
                    }
                    let key = (run.task.clone(), run.node.clone());
                    let saves = self.saves.entry(key).or_default();
                    let mine = |save: &&mut Save| save.token == run.token && save.value == *value;
                    if let Some(save) = saves.iter_mut().rev().find(mine) {
                        save.acknowledged = true;
                    }
                }
                _ => {}
            },
            _ => {}
        }
    }
}

impl ResumePoint {
    fn granted(&mut self, task: &TaskId, node: &NodeId, old: Option<&NodeFact>, new: &NodeFact) {
        let fresh = old.is_none_or(|old| old.token < new.token);
        if new.holder.is_some() && fresh {
            self.grants.insert(
                (task.clone(), node.clone(), new.token),
                Granted {
                    checkpoint: new.checkpoint.clone(),
                    accepted: new.accepted,
                },
            );
        }
    }

    fn began(&mut self, view: &mut View<'_>, run: &Run) {
        let key = (run.task.clone(), run.node.clone(), run.token);
        let Some(granted) = self.grants.get(&key) else {
            return;
        };
        // A checkpoint with nothing accepted behind it cannot be told from none.
        if granted.checkpoint != run.checkpoint || granted.accepted != run.accepted {
            let what = format!(
                "{}/{}: token {} resumes at {:?} with {} accepted, the grant says {:?} and {}",
                run.task,
                run.node,
                run.token,
                run.checkpoint,
                run.accepted,
                granted.checkpoint,
                granted.accepted
            );
            view.broken(NAME, what);
        }
    }

    fn process(
        &mut self,
        view: &mut View<'_>,
        run: &Run,
        uid: &BatchUid,
        checkpoint: Option<&Json>,
    ) {
        let key = (run.task.clone(), run.node.clone());
        let granted = self
            .grants
            .get(&(run.task.clone(), run.node.clone(), run.token));
        let ledger = view.ledger.node(&run.task, &run.node);
        if let (Some(granted), Some(node)) = (granted, ledger)
            && let Some((number, _)) = node.uids.get(uid)
            && *number <= granted.accepted
        {
            let what = format!(
                "{}/{}: token {} processes batch {uid}, accepted as number {number} before",
                run.task, run.node, run.token
            );
            view.broken(NAME, what);
        }
        let saves = self.saves.get(&key).map_or(&[][..], Vec::as_slice);
        if let Some(given) = checkpoint {
            let known = saves
                .iter()
                .any(|save| save.uid == *uid && save.value == *given && save.token < run.token);
            if !known {
                let what = format!(
                    "{}/{}: batch {uid} got checkpoint {given:?}, never saved for it",
                    run.task, run.node
                );
                view.broken(NAME, what);
            }
        }
        // The newest acknowledged save of an earlier token, if it was for this very batch.
        let newest = saves
            .iter()
            .enumerate()
            .filter(|(_, save)| save.acknowledged && save.token < run.token)
            .max_by_key(|(at, save)| (save.token, *at));
        if let Some((at, save)) = newest
            && save.uid == *uid
        {
            let fine = saves.iter().enumerate().any(|(i, later)| {
                (later.token, i) >= (save.token, at)
                    && later.token < run.token
                    && later.uid == *uid
                    && Some(&later.value) == checkpoint
            });
            // A save that nobody heard of may have happened, for another batch.
            let overwritten = saves.iter().enumerate().any(|(i, later)| {
                (later.token, i) > (save.token, at) && later.token < run.token && later.uid != *uid
            });
            let replaced = overwritten && checkpoint.is_none();
            if !(fine || replaced) {
                let what = format!(
                    "{}/{}: batch {uid} resumes from {checkpoint:?}, acknowledged was {:?}",
                    run.task, run.node, save.value
                );
                view.broken(NAME, what);
            }
        }
    }
}
