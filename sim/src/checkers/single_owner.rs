//! `single_owner`: a node has one current token, and a process runs a token at most once; nothing
//! sent under another token changes state, counts, artifacts or checkpoint. The time two handlers
//! of one node overlap is reported, and is bounded once the late holder runs.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use flowkit_core::id::{Incarnation, NodeId, TaskId, Token, WorkerId};
use flowkit_core::json::Json;
use flowkit_core::message::Body;
use flowkit_core::port::Stream;
use flowkit_core::record::NodeState;

use super::{Judge, View};
use crate::history::{Change, Life, NodeFact, Place, Run, Step, What};

const NAME: &str = "single_owner";

type Key = (TaskId, NodeId, Token);

/// What stands in the streams under one token.
#[derive(Debug, Default)]
struct Sent {
    batches: Vec<(flowkit_core::id::BatchUid, Option<Json>)>,
    done: bool,
    failed: bool,
    seq_max: u64,
}

#[derive(Debug)]
struct Active {
    run: Rc<Run>,
    /// Another token's handler runs since then, and this one was not told.
    overlapped_since: Option<u64>,
    told: bool,
}

#[derive(Debug, Default)]
pub(super) struct SingleOwner {
    sent: BTreeMap<Key, Sent>,
    holders: BTreeMap<Key, (WorkerId, Incarnation)>,
    began: BTreeSet<(Place, Key)>,
    active: BTreeMap<(TaskId, NodeId), Vec<Active>>,
    /// Processes that are frozen, and when the others went on.
    stalled: BTreeMap<u32, Option<u64>>,
    pub(super) overlap_us: u64,
}

impl Judge for SingleOwner {
    fn event(&mut self, view: &mut View<'_>) {
        match &view.event.what {
            What::Appended {
                stream: Stream::Shard(_),
                envelope,
                ..
            } => {
                if let (Some(task), Some(node), Some(token)) =
                    (&envelope.task_id, &envelope.node_id, envelope.lease_no)
                {
                    let key = (task.clone(), node.clone(), token);
                    let sent = self.sent.entry(key).or_default();
                    sent.seq_max = sent.seq_max.max(envelope.seq.unwrap_or(0));
                    match &envelope.body {
                        Body::BatchOk(batch) => sent
                            .batches
                            .push((batch.batch_uid.clone(), batch.checkpoint.clone())),
                        Body::TaskDone(done) => {
                            sent.done = true;
                            if let Some(batch) = &done.last_batch {
                                sent.batches
                                    .push((batch.batch_uid.clone(), batch.checkpoint.clone()));
                            }
                        }
                        Body::TaskFailed(_) => sent.failed = true,
                        _ => {}
                    }
                }
            }
            What::Committed { changes, .. } => {
                for change in changes {
                    match change {
                        Change::Node {
                            task,
                            node,
                            old,
                            new,
                        } => {
                            self.node(view, (task, node), old.as_deref(), new);
                            self.checkpoint(view, (task, node), changes, old.as_deref(), new);
                        }
                        Change::Artifact { task, node, fact } => {
                            let before = before(changes, task, node);
                            let current = before
                                .filter(|old| old.holder.is_some())
                                .map(|old| old.token);
                            let key = (task.clone(), node.clone(), fact.token);
                            let was_sent = self.sent.get(&key).is_some_and(|sent| {
                                sent.batches.iter().any(|(uid, _)| *uid == fact.uid)
                            });
                            if current != Some(fact.token) || !was_sent {
                                view.broken(
                                    NAME,
                                    format!(
                                        "{task}/{node}: batch {} accepted under token {}, the \
                                         current one was {current:?} (sent: {was_sent})",
                                        fact.uid, fact.token
                                    ),
                                );
                            }
                        }
                        Change::Task { .. } | Change::Tombstone { .. } | Change::Removed { .. } => {
                        }
                    }
                }
            }
            What::Undone { changes } => {
                for change in changes {
                    if let Change::Node {
                        task, node, new, ..
                    } = change
                    {
                        self.holders
                            .remove(&(task.clone(), node.clone(), new.token));
                    }
                }
            }
            What::Handler { run, step } => self.handler(view, run.clone(), step),
            What::Process { place, what } => match what {
                Life::Stalled => {
                    self.stalled.insert(place.host, None);
                }
                Life::Resumed => {
                    self.stalled.insert(place.host, Some(view.event.at));
                }
                _ => {
                    self.stalled.remove(&place.host);
                }
            },
            _ => {}
        }
    }
}

/// The node's record before the commit.
fn before<'a>(changes: &'a [Change], task: &TaskId, node: &NodeId) -> Option<&'a NodeFact> {
    changes.iter().find_map(|change| match change {
        Change::Node {
            task: t,
            node: n,
            old,
            ..
        } if t == task && n == node => old.as_deref(),
        _ => None,
    })
}

impl SingleOwner {
    /// A node's checkpoint is that of the newest accepted batch that had one, and counts the batches
    /// up to that one.
    fn checkpoint(
        &self,
        view: &mut View<'_>,
        (task, node): (&TaskId, &NodeId),
        changes: &[Change],
        old: Option<&NodeFact>,
        new: &NodeFact,
    ) {
        let Some(old) = old else { return };
        let mut expected = (old.checkpoint.as_ref(), old.checkpoint_batches);
        for change in changes {
            if let Change::Artifact {
                task: t,
                node: n,
                fact,
            } = change
                && t == task
                && n == node
                && let Some(sent) = self.sent.get(&(t.clone(), n.clone(), fact.token))
                && let Some((_, Some(checkpoint))) =
                    sent.batches.iter().find(|(uid, _)| *uid == fact.uid)
            {
                expected = (Some(checkpoint), fact.number);
            }
        }
        let stored = (new.checkpoint.as_ref(), new.checkpoint_batches);
        if stored != expected {
            let what = format!("{task}/{node}: resumes at {stored:?}, accepted was {expected:?}");
            view.broken(NAME, what);
        }
    }

    fn node(
        &mut self,
        view: &mut View<'_>,
        (task, node): (&TaskId, &NodeId),
        old: Option<&NodeFact>,
        new: &NodeFact,
    ) {
        let old_token = old.map_or(Token(0), |old| old.token);
        let old_holder = old.and_then(|old| old.holder.as_ref());
        if new.token < old_token {
            view.broken(NAME, format!("{task}/{node}: token fell to {}", new.token));
        }
        if new.token == old_token && new.holder.is_some() && new.holder.as_ref() != old_holder {
            let what = format!("{task}/{node}: token {} was given out again", new.token);
            view.broken(NAME, what);
        }
        if let Some(holder) = &new.holder {
            let key = (task.clone(), node.clone(), new.token);
            self.holders.insert(key, holder.clone());
        }
        let Some(old) = old else { return };
        let key = (task.clone(), node.clone(), old.token);
        let sent = self.sent.get(&key);
        let held = old.holder.is_some();
        if new.failures > old.failures && !(held && sent.is_some_and(|sent| sent.failed)) {
            let what = format!("{task}/{node}: a failure that its holder did not send");
            view.broken(NAME, what);
        }
        // A function has no holder: what it did is judged with the vars.
        let by_function = new.made_vars.is_some() && new.token.0 == 0;
        let finished = new.state == NodeState::Finished && old.state != NodeState::Finished;
        let finished = finished && !by_function;
        if finished && !(held && sent.is_some_and(|sent| sent.done)) {
            let what = format!("{task}/{node}: finished, but not by its holder");
            view.broken(NAME, what);
        }
        if new.token == old.token && new.last_seq > sent.map_or(0, |sent| sent.seq_max) {
            let what = format!("{task}/{node}: seq {} was never sent", new.last_seq);
            view.broken(NAME, what);
        }
    }

    fn handler(&mut self, view: &mut View<'_>, run: Rc<Run>, step: &Step) {
        let at = view.event.at;
        let place = (run.task.clone(), run.node.clone());
        match step {
            Step::Begin => {
                let key = (run.task.clone(), run.node.clone(), run.token);
                match self.holders.get(&key) {
                    Some((worker, _)) if *worker == run.worker => {}
                    other => view.broken(
                        NAME,
                        format!(
                            "{}/{}: {} began under token {}, granted to {other:?}",
                            run.task, run.node, run.worker, run.token
                        ),
                    ),
                }
                if !self.began.insert((run.place, key)) {
                    let what = format!(
                        "{}/{}: one process began token {} twice",
                        run.task, run.node, run.token
                    );
                    view.broken(NAME, what);
                }
                let others = self.active.entry(place).or_default();
                let older = |other: &&mut Active| !other.told && other.run.token < run.token;
                for other in others.iter_mut().filter(older) {
                    other.overlapped_since.get_or_insert(at);
                }
                // A run whose check passed before a freeze may begin beside its successor: then it
                // is the late one.
                let late = others.iter().any(|other| other.run.token > run.token);
                others.push(Active {
                    run,
                    overlapped_since: late.then_some(at),
                    told: false,
                });
            }
            Step::Cancel { .. } | Step::Abort => self.ended(view, &run, false),
            Step::Closed | Step::Lost => self.ended(view, &run, true),
            _ => {}
        }
    }

    fn ended(&mut self, view: &mut View<'_>, run: &Run, gone: bool) {
        let at = view.event.at;
        let key = (run.task.clone(), run.node.clone());
        let Some(active) = self.active.get_mut(&key) else {
            return;
        };
        let same = |other: &Active| other.run.place == run.place && other.run.token == run.token;
        if let Some(mine) = active.iter_mut().find(|other| same(other)) {
            if let Some(since) = mine.overlapped_since.take() {
                // A frozen process cannot end anything: its time counts from when it goes on.
                let since = match self.stalled.get(&run.place.host) {
                    Some(None) => at,
                    Some(Some(resumed)) => since.max(*resumed),
                    None => since,
                };
                let overlap = at.saturating_sub(since);
                self.overlap_us = self.overlap_us.max(overlap);
                let world = &view.plan.world;
                let bound =
                    2 * world.lease_ttl_ms + 2 * world.call_timeout_ms + 2_000 + world.slack_ms;
                if overlap > bound * 1_000 {
                    let what = format!(
                        "{}/{}: token {} went on for {} ms beside its successor",
                        run.task,
                        run.node,
                        run.token,
                        overlap / 1_000
                    );
                    view.broken(NAME, what);
                }
            }
            mine.told = true;
        }
        if gone {
            active.retain(|other| !same(other));
        }
    }
}
