//! The promises, checked while it happens. Nothing here asks a machine for its opinion: only the store,
//! messages, answers of ports and what handlers are told are looked at.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use flowkit_core::id::{Incarnation, NodeId, Token, WorkerId};
use flowkit_core::json::Json;
use flowkit_core::message::{Body, CancelReason, Envelope, Reply};
use flowkit_core::port::{
    Commit, ErrorKind, PortError, StoreReply, StoreRequest, TransportReply, TransportRequest,
};
use flowkit_core::record::{NodeRecord, NodeState, TaskState};
use flowkit_core::time::Mono;
use flowkit_core::worker::{RunCommand, RunId, RunSpec};
use flowkit_memory::{StoreModel, Tables};
use serde::Serialize;

use super::{At, Hand, Process, World};
use crate::scope::{LEASE_TTL_MS, Scope};

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Its name, as in the README; `no_panic` is an assertion of a machine.
    pub promise: &'static str,
    /// What was seen.
    pub what: String,
}

impl Broken {
    pub(crate) fn new(promise: &'static str, what: impl Into<String>) -> Self {
        Self {
            promise,
            what: what.into(),
        }
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.promise, self.what)
    }
}

/// What has to be remembered to judge what comes.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Watch {
    cancel_acknowledged: bool,
    /// The node as of each grant.
    grants: BTreeMap<(usize, Token), Granted>,
    /// Tokens that processes (worker, start) have begun.
    began: BTreeSet<(usize, u32, usize, Token)>,
    /// Checkpoints that handlers asked to keep, oldest first.
    saves: Vec<Save>,
}

#[derive(Clone, Debug, Serialize)]
struct Granted {
    holder: (WorkerId, Incarnation),
    accepted: u64,
    checkpoint: Option<Json>,
}

#[derive(Clone, Debug, Serialize)]
struct Save {
    node: usize,
    token: Token,
    batch: u32,
    acknowledged: bool,
}

/// A run's right to go on, as its worker has been told.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Lease {
    /// Send time of the last heartbeat that was confirmed in time, and the lease's length.
    pub(super) until: Mono,
    told_fenced: bool,
}

fn place(node: &NodeId) -> usize {
    let number = node.as_str().trim_start_matches('n').parse::<usize>();
    number.map_or(0, |number| number.saturating_sub(1))
}

fn node_record(tables: &Tables, world: &World, node: usize) -> Option<NodeRecord> {
    let node = NodeId::new(Scope::node_id(node)).ok()?;
    tables.node(&world.task, &node).cloned()
}

impl World {
    pub(super) fn breaks(&mut self, broken: Broken) {
        self.broken.get_or_insert(broken);
    }

    fn breaks_if(&mut self, seen: bool, promise: &'static str, what: impl FnOnce() -> String) {
        if seen {
            self.breaks(Broken::new(promise, what()));
        }
    }

    fn watch_mut(&mut self) -> &mut Watch {
        self.watch.change()
    }

    /// A commit was carried out, or refused.
    pub(super) fn watch_commit(
        &mut self,
        before: &StoreModel,
        commit: &Commit,
        reply: &Result<StoreReply, PortError>,
    ) {
        if let Err(error) = reply {
            let refused = matches!(error.kind, ErrorKind::Invalid | ErrorKind::Conflict);
            // A copy of an older commit is refused, and nobody waits for that.
            let newest = before
                .applied()
                .shard(commit.shard)
                .is_some_and(|stored| stored.commit_seq < commit.seq);
            self.breaks_if(refused && newest, "settle", || {
                format!("a commit is refused: {error}")
            });
            return;
        }
        let (old, store) = (before.applied(), self.store.clone());
        let new = store.applied();
        let task = |tables: &Tables| tables.task(&self.task).cloned();
        let (old_task, new_task) = (task(old), task(new));
        if let Some(old_task) = &old_task {
            let changed = new_task.as_ref().map(|task| task.state) != Some(old_task.state);
            self.breaks_if(
                old_task.state.is_terminal() && changed,
                "cancel_final",
                || format!("the task leaves its terminal state {:?}", old_task.state),
            );
        }
        let was_ending = old_task
            .as_ref()
            .is_some_and(|task| task.state == TaskState::Cancelling || task.state.is_terminal());
        for node in 0..self.scope.batches.len() {
            let old_node = node_record(old, self, node);
            if let Some(new_node) = node_record(new, self, node) {
                self.watch_node(node, old_node.as_ref(), &new_node, was_ending);
                if let Some(old_node) = &old_node {
                    self.watch_loss(node, old_node, &new_node, commit.next.0);
                }
                self.watch_artifacts(node, old_node.as_ref(), &new_node, old, new);
            }
        }
        if new_task.is_some_and(|task| task.state == TaskState::Finished) {
            for (node, all) in self.scope.batches.iter().enumerate() {
                let all = u64::from(*all);
                let found = node_record(new, self, node);
                let whole = found.as_ref().is_some_and(|record| {
                    record.state == NodeState::Finished
                        && record.accepted == all
                        && record.totals.get("n").is_some_and(|n| n.count == all)
                });
                self.breaks_if(!whole, "effect_once", || {
                    format!("the task is finished with {found:?}")
                });
            }
        }
    }

    fn watch_node(
        &mut self,
        node: usize,
        old: Option<&NodeRecord>,
        new: &NodeRecord,
        was_ending: bool,
    ) {
        let old_token = old.map_or(Token(0), |old| old.lease_no);
        let name = Scope::node_id(node);
        self.breaks_if(new.lease_no < old_token, "single_owner", || {
            format!("{name}: token {} follows token {old_token}", new.lease_no)
        });
        self.breaks_if(new.failures > 0, "retry_bounded", || {
            format!("{name}: a failure is counted, and no handler failed")
        });
        if let Some(old) = old {
            self.breaks_if(
                old.state.is_terminal() && old.state != new.state,
                "cancel_final",
                || format!("{name} leaves its terminal state {:?}", old.state),
            );
        }
        // A checkpoint is the number of its batch: that many are accepted behind it.
        let behind = new
            .checkpoint
            .as_ref()
            .and_then(|json| json.decode::<u64>().ok());
        self.breaks_if(
            behind.is_some_and(|n| n != new.checkpoint_batches || n > new.accepted),
            "resume_point",
            || {
                format!(
                    "{name}: checkpoint of batch {behind:?} with {} behind it and {} accepted",
                    new.checkpoint_batches, new.accepted
                )
            },
        );
        let Some(grant) = new.grant.as_ref().filter(|_| new.lease_no != old_token) else {
            return;
        };
        let acknowledged = self.watch.cancel_acknowledged;
        self.breaks_if(was_ending || acknowledged, "cancel_final", || {
            format!(
                "{name}: token {} is granted though the task ends",
                new.lease_no
            )
        });
        if let Some(parent) = node.checked_sub(1) {
            let store = self.store.clone();
            let parent = node_record(store.applied(), self, parent);
            let ended = parent.is_some_and(|parent| parent.state == NodeState::Finished);
            self.breaks_if(!ended, "start_rule", || {
                format!("{name} is granted before its parent finished")
            });
        }
        let granted = Granted {
            holder: (grant.worker_id.clone(), grant.incarnation),
            accepted: new.accepted,
            checkpoint: new.checkpoint.clone(),
        };
        let watch = self.watch_mut();
        watch.grants.insert((node, new.lease_no), granted);
    }

    /// A grant may be lost only when its holder is silent, and everything that could speak for it was
    /// folded.
    fn watch_loss(&mut self, node: usize, old: &NodeRecord, new: &NodeRecord, next: u64) {
        let Some(grant) = old.grant.as_ref().filter(|_| new.losses > old.losses) else {
            return;
        };
        let (token, budget) = (old.lease_no, self.scope.budget);
        // With these an event may be missing, which is a loss at once.
        let missing = budget.delays + budget.losses + budget.doubles;
        let complete = missing == 0 && !budget.crash_of_worker();
        let holder = self.worker_named(Some(grant.worker_id.as_str()));
        let hand = holder.and_then(|at| self.workers[at].process.as_ref());
        let hand = hand.filter(|hand| hand.incarnation == Some(grant.incarnation));
        let lives = hand
            .and_then(|hand| hand.leases.get(&(node, token)))
            .is_some_and(|lease| lease.until.0 > self.now && !lease.told_fenced);
        self.breaks_if(complete && lives, "single_owner", || {
            format!("token {token} is taken from a holder that lives and may go on")
        });
        // What came after the stream's end was asked for came at this very moment, unless a pause is
        // left for in between.
        let crashes = budget.crash_of_worker() || budget.crash_of_coordinator();
        let one_moment = !budget.pause() || budget.delays + budget.losses == 0 && !crashes;
        let unread = self.broker.entries(super::SHARD).any(|entry| {
            let early = usize::try_from(entry.offset.0).ok();
            let early = early.and_then(|offset| self.log.get(offset));
            let early = early.is_some_and(|(_, at)| *at < self.now);
            let speaks = entry.message.is_ok_and(|envelope| {
                *envelope.sender.id == *grant.worker_id.as_str()
                    && envelope.node_id.as_ref() == Some(&old.node_id)
                    && envelope.lease_no == Some(token)
            });
            entry.offset.0 >= next && early && speaks
        });
        self.breaks_if(one_moment && unread, "single_owner", || {
            format!("token {token} is taken though the stream holds news of it")
        });
    }

    fn watch_artifacts(
        &mut self,
        node: usize,
        old: Option<&NodeRecord>,
        new: &NodeRecord,
        old_tables: &Tables,
        new_tables: &Tables,
    ) {
        let (task, id) = (self.task.clone(), new.node_id.clone());
        let before = old_tables.artifacts(&task, &id).count();
        let mut numbers = 0;
        let current = old.filter(|old| old.grant.is_some());
        let current = current.map(|old| old.lease_no);
        for (place, artifact) in new_tables.artifacts(&task, &id).enumerate() {
            numbers += 1;
            let (number, uid) = (artifact.number, &artifact.batch_uid);
            self.breaks_if(
                number != numbers || uid.as_str() != format!("b{number}"),
                "effect_once",
                || format!("n{}: batch {uid} is accepted as number {number}", node + 1),
            );
            let fresh = place >= before;
            self.breaks_if(
                fresh && current != Some(artifact.token),
                "single_owner",
                || {
                    format!(
                        "n{}: batch {uid} is accepted under token {}, current is {current:?}",
                        node + 1,
                        artifact.token
                    )
                },
            );
        }
        self.breaks_if(numbers != new.accepted, "effect_once", || {
            format!(
                "n{}: {} batches are counted, {numbers} are there",
                node + 1,
                new.accepted
            )
        });
    }

    /// A client is answered.
    pub(super) fn watch_reply(&mut self, reply: &Reply) {
        let store = self.store.clone();
        let task = store.synced().task(&self.task);
        if !reply.ok {
            return self.breaks(Broken::new(
                "no_lost_task",
                format!("the client is told {:?}", reply.error),
            ));
        }
        self.breaks_if(task.is_none(), "no_lost_task", || {
            "the submission is acknowledged, and the store has no such task".to_owned()
        });
        if reply.state == Some(TaskState::Cancelling) || reply.state == Some(TaskState::Cancelled) {
            let ends = task.is_some_and(|task| {
                task.state == TaskState::Cancelling || task.state.is_terminal()
            });
            self.breaks_if(!ends, "cancel_final", || {
                "the cancel is acknowledged before it is in the store".to_owned()
            });
            self.watch_mut().cancel_acknowledged = true;
        }
    }

    /// A command leaves: what it rests on must be in the store.
    pub(super) fn watch_mail(&mut self, envelope: &Envelope) {
        let (Some(node), Some(token)) = (&envelope.node_id, envelope.lease_no) else {
            return;
        };
        let store = self.store.clone();
        let stored = store.applied().node(&self.task, node);
        let stored = stored.map_or(Token(0), |record| record.lease_no);
        let is_start = matches!(envelope.body, Body::TaskStart(_));
        self.breaks_if(is_start && token > stored, "single_owner", || {
            format!("START of token {token} leaves before its grant is in the store")
        });
    }

    pub(super) fn watch_begin(&mut self, at: usize, hand: &Hand, spec: &RunSpec) {
        let (node, token) = (place(&spec.node_id), spec.token);
        self.breaks_if(!hand.handlers.is_empty(), "capacity", || {
            format!("w{}: a second handler begins in one slot", at + 1)
        });
        let start = self.workers[at].starts;
        let again = !self.watch_mut().began.insert((at, start, node, token));
        self.breaks_if(again, "single_owner", || {
            format!("w{}: token {token} begins a second time", at + 1)
        });
        let granted = self.watch.grants.get(&(node, token));
        let holder = granted.map(|granted| &granted.holder);
        let me = (Scope::worker_id(at), hand.incarnation);
        let mine = holder.is_some_and(|(id, inc)| *id == me.0 && Some(*inc) == me.1);
        let granted_to = format!("{holder:?}");
        self.breaks_if(!mine, "single_owner", || {
            format!("{me:?} begins token {token}, granted to {granted_to}")
        });
        let granted = self.watch.grants.get(&(node, token));
        let same = granted.is_some_and(|granted| {
            granted.accepted == spec.accepted && granted.checkpoint == spec.checkpoint
        });
        self.breaks_if(!same, "resume_point", || {
            format!(
                "token {token} begins behind {} batches at {:?}; its grant said otherwise",
                spec.accepted, spec.checkpoint
            )
        });
        self.watch_lease(hand, node, token);
    }

    /// A handler goes on: its worker must believe in its lease, and have reason to.
    fn watch_lease(&mut self, hand: &Hand, node: usize, token: Token) {
        let lease = hand.leases.get(&(node, token));
        let lapsed = lease.is_none_or(|lease| lease.until.0 <= self.now);
        self.breaks_if(lapsed, "single_owner", || {
            format!("token {token} goes on although its lease has lapsed")
        });
        let told = lease.is_some_and(|lease| lease.told_fenced);
        self.breaks_if(told, "single_owner", || {
            format!("token {token} goes on although its worker was told that it is fenced")
        });
    }

    /// A handler is given work.
    pub(super) fn watch_work(&mut self, hand: &Hand, run: RunId, command: &RunCommand) {
        let Some(handler) = hand.handlers.get(&run) else {
            return;
        };
        let (node, token) = (handler.node, handler.token);
        self.watch_lease(hand, node, token);
        let RunCommand::Process {
            payload,
            checkpoint,
            ..
        } = command
        else {
            return;
        };
        let number: u32 = payload.decode().unwrap_or(0);
        let behind = self.watch.grants.get(&(node, token));
        let behind = behind.map_or(0, |granted| granted.accepted);
        self.breaks_if(u64::from(number) <= behind, "resume_point", || {
            format!("token {token} processes b{number}, accepted before it was granted")
        });
        let given: Option<u32> = checkpoint.as_ref().and_then(|json| json.decode().ok());
        let saves = self.watch.saves.iter();
        let mut earlier = saves.filter(|save| save.node == node && save.token < token);
        let due = earlier
            .clone()
            .any(|save| save.acknowledged && save.batch == number);
        let known = earlier.any(|save| Some(save.batch) == given);
        self.breaks_if(
            due && given.is_none() || given.is_some() && (given != Some(number) || !known),
            "resume_point",
            || format!("token {token} gets checkpoint {given:?} for b{number}"),
        );
    }

    pub(super) fn watch_saving(&mut self, node: usize, token: Token, batch: u32) {
        self.watch_mut().saves.push(Save {
            node,
            token,
            batch,
            acknowledged: false,
        });
    }

    pub(super) fn watch_saved(&mut self, node: usize, token: Token, batch: u32) {
        let saves = self.watch_mut().saves.iter_mut().rev();
        for save in saves {
            if (save.node, save.token, save.batch) == (node, token, batch) {
                save.acknowledged = true;
                return;
            }
        }
    }

    /// A worker learns which grants are current.
    pub(super) fn watch_looked(
        &mut self,
        process: Process,
        result: &Result<StoreReply, PortError>,
        asked: Option<&StoreRequest>,
    ) {
        let Process::Worker(at) = process else { return };
        for (node, current, _) in looked(result, asked) {
            if let Some(hand) = &mut self.workers[at].process {
                for ((of, token), lease) in &mut hand.change().leases {
                    lease.told_fenced |= *of == node && current != Some(*token);
                }
            }
        }
    }

    /// What the look at grants led to: the heartbeats that accept STARTs.
    pub(super) fn watch_accepted(
        &mut self,
        process: Process,
        calls_before: usize,
        result: &Result<StoreReply, PortError>,
        asked: Option<&StoreRequest>,
    ) {
        let new = self.calls(process).get(calls_before..).unwrap_or_default();
        let mut accepted = Vec::new();
        for call in new {
            if let At::Transport(TransportRequest::Append { envelope, .. }) = &call.at
                && let Body::Heartbeat(heartbeat) = &envelope.body
            {
                let runs = heartbeat.runs.iter();
                accepted.extend(runs.map(|beat| (place(&beat.node_id), beat.token)));
            }
        }
        for (node, current, cancelled) in looked(result, asked) {
            for (_, token) in accepted.iter().filter(|(of, _)| *of == node) {
                self.breaks_if(current != Some(*token), "single_owner", || {
                    format!("token {token} is accepted, but the store said {current:?}")
                });
                self.breaks_if(cancelled, "cancel_final", || {
                    format!("token {token} is accepted, but the store said that it is cancelled")
                });
            }
        }
    }

    /// A worker hears that a message of its stands in the stream.
    pub(super) fn watch_confirmed(
        &mut self,
        process: Process,
        done: bool,
        envelope: Option<&Envelope>,
    ) {
        let now = self.now;
        let (Process::Worker(at), true, Some(envelope)) = (process, done, envelope) else {
            return;
        };
        let Body::Heartbeat(heartbeat) = &envelope.body else {
            return;
        };
        let until = Mono(envelope.ts_ms.cast_unsigned() + LEASE_TTL_MS);
        let (start, watch) = (self.workers[at].starts, self.watch.clone());
        let Some(hand) = &mut self.workers[at].process else {
            return;
        };
        let hand = hand.change();
        for beat in &heartbeat.runs {
            let of = (place(&beat.node_id), beat.token);
            let began = watch.began.contains(&(at, start, of.0, of.1));
            if began && !hand.leases.contains_key(&of) {
                continue; // Its handler is closed.
            }
            let lease = hand.leases.entry(of).or_insert(Lease {
                until,
                told_fenced: false,
            });
            // What has lapsed is not revived.
            if lease.until.0 > now {
                lease.until = lease.until.max(until);
            }
        }
    }

    /// A worker reads that runs of it are fenced.
    pub(super) fn watch_read(
        &mut self,
        process: Process,
        result: &Result<TransportReply, PortError>,
    ) {
        let (Process::Worker(at), Ok(TransportReply::Entries { entries, .. })) = (process, result)
        else {
            return;
        };
        let Some(hand) = &mut self.workers[at].process else {
            return;
        };
        let incarnation = hand.incarnation;
        for envelope in entries
            .iter()
            .filter_map(|entry| entry.message.as_ref().ok())
        {
            let (Some(node), Some(token)) = (&envelope.node_id, envelope.lease_no) else {
                continue;
            };
            if envelope.to_incarnation != incarnation {
                continue;
            }
            let fenced = matches!(&envelope.body, Body::TaskCancel(cancel)
                if cancel.reason == CancelReason::Fenced);
            if let Some(lease) = hand.change().leases.get_mut(&(place(node), token)) {
                lease.told_fenced |= fenced;
            }
        }
    }
}

/// Each node that was asked about: its current token, and whether it is to end.
fn looked(
    result: &Result<StoreReply, PortError>,
    asked: Option<&StoreRequest>,
) -> Vec<(usize, Option<Token>, bool)> {
    let (Ok(StoreReply::Grants { grants, .. }), Some(StoreRequest::ReadGrants { nodes, .. })) =
        (result, asked)
    else {
        return Vec::new();
    };
    let nodes = nodes.iter().map(|(_, node)| place(node));
    nodes
        .zip(grants)
        .map(|(node, view)| {
            let token = view.as_ref().and_then(|view| view.token);
            (
                node,
                token,
                view.as_ref().is_some_and(|view| view.cancelled),
            )
        })
        .collect()
}
