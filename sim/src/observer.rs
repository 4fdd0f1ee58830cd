//! Takes down what happens: history, committed state, trace hash, counters; asks the checkers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::checkers::{Broken, Judges};
use crate::history::{Change, Event, Life, Place, Step, What};
use crate::ledger::{Fact, Ledger};
use crate::plan::{Call, Logical, Plan};
use crate::trace::Trace;
use flowkit_core::message::{Body, Envelope};
use flowkit_core::port::Stream;
use flowkit_core::record::TaskState;

/// Everything that outlives a run.
#[derive(Debug)]
pub(crate) struct Observer {
    pub(crate) plan: Arc<Plan>,
    pub(crate) ledger: Ledger,
    pub(crate) trace: Trace,
    pub(crate) judges: Judges,
    pub(crate) broken: Vec<Broken>,
    /// How often each fault fired, by family.
    pub(crate) fired: BTreeMap<&'static str, u64>,
    /// Calls that went wrong by the plan's rates, and how.
    pub(crate) struck: BTreeMap<Call, &'static str>,
    /// How often each logical event happened.
    pub(crate) counts: BTreeMap<Logical, u64>,
    /// Logical events since the world last looked.
    pub(crate) fresh: Vec<(Logical, u64)>,
    /// Processes that live, by host and generation.
    living: BTreeSet<(u32, u32)>,
    /// Kept only for a replay.
    pub(crate) history: Option<Vec<Event>>,
}

impl Observer {
    pub(crate) fn new(plan: &Plan, keep_history: bool) -> Self {
        Self {
            plan: Arc::new(plan.clone()),
            ledger: Ledger::default(),
            trace: Trace::new(),
            judges: Judges::new(plan),
            broken: Vec::new(),
            fired: BTreeMap::new(),
            struck: BTreeMap::new(),
            counts: BTreeMap::new(),
            fresh: Vec::new(),
            living: BTreeSet::new(),
            history: keep_history.then(Vec::new),
        }
    }

    pub(crate) fn fire(&mut self, family: &'static str) {
        *self.fired.entry(family).or_default() += 1;
    }

    /// A fault struck a single call.
    pub(crate) fn strike(&mut self, call: Call, family: &'static str) {
        self.struck.insert(call, family);
        self.fire(family);
    }

    /// A call goes wrong by the plan's rates; whether that strikes anybody shows later.
    pub(crate) fn call_goes_wrong(&mut self, call: Call, family: &'static str) {
        self.struck.insert(call, family);
    }

    /// Whether a process lives.
    pub(crate) fn lives(&self, place: Place) -> bool {
        self.living.contains(&(place.host, place.generation))
    }

    /// Whether the task of a message is in the store.
    fn is_known(&self, envelope: &Envelope) -> bool {
        let task = envelope.task_id.as_ref();
        task.is_some_and(|id| {
            self.ledger
                .tasks
                .get(id)
                .is_some_and(|task| task.fact.is_some())
        })
    }

    pub(crate) fn logical(&mut self, what: Logical) {
        let count = self.counts.entry(what).or_default();
        *count += 1;
        self.fresh.push((what, *count));
    }

    /// A commit was applied: brings the ledger up to date and tells the checkers.
    pub(crate) fn committed(&mut self, at: u64, commit: CommitSeen, undoable: bool) {
        let changes = self.ledger.commit(commit.seq, commit.facts, undoable);
        self.logical(Logical::Committed);
        for change in &changes {
            match change {
                Change::Node { old, new, .. } => {
                    let old_token = old.as_ref().map_or(0, |old| old.token.0);
                    if new.holder.is_some() && new.token.0 > old_token {
                        self.logical(Logical::Granted);
                    }
                    let ended = old.as_ref().is_some_and(|old| old.state.is_terminal());
                    if new.state.is_terminal() && !ended {
                        self.logical(Logical::NodeEnded);
                    }
                }
                Change::Task { old, new, .. } => {
                    let before = old.as_ref().map(|old| old.state);
                    let cancelled =
                        matches!(new.state, TaskState::Cancelling | TaskState::Cancelled);
                    if cancelled
                        && !matches!(before, Some(TaskState::Cancelling | TaskState::Cancelled))
                    {
                        self.logical(Logical::Cancelling);
                        if before == Some(TaskState::Running) {
                            self.fire("cancel_of_running");
                        }
                    }
                    if new.state == TaskState::Paused && before == Some(TaskState::Running) {
                        self.fire("pause_of_running");
                    }
                }
                Change::Artifact { .. } => self.logical(Logical::Accepted),
                Change::Tombstone { .. } => self.fire("swept"),
                Change::Removed { .. } => {}
            }
        }
        self.note(
            at,
            What::Committed {
                host: commit.host,
                epoch: commit.epoch,
                seq: commit.seq,
                next: commit.next,
                changes,
            },
        );
    }

    /// Takes an event down and shows it to the checkers.
    pub(crate) fn note(&mut self, at: u64, what: What) {
        self.hash(at, &what);
        match &what {
            What::Appended {
                stream: Stream::Shard(_),
                envelope,
                ..
            } => match envelope.body {
                Body::BatchOk(_) => self.logical(Logical::BatchSent),
                Body::TaskDone(_) => self.logical(Logical::DoneSent),
                Body::Heartbeat(_) => self.logical(Logical::Beat),
                Body::Submit(_) if self.is_known(envelope) => self.fire("submitted_again"),
                _ => {}
            },
            What::Handler { step, .. } => match step {
                Step::Begin => self.logical(Logical::Began),
                Step::Process { .. } => self.logical(Logical::Processing),
                _ => {}
            },
            What::EpochRaised { .. } => self.logical(Logical::Takeover),
            What::Process { place, what } => {
                let process = (place.host, place.generation);
                match what {
                    Life::Started => self.living.insert(process),
                    Life::Crashed | Life::Stopped => self.living.remove(&process),
                    Life::Stalled | Life::Resumed | Life::Asked { .. } => false,
                };
            }
            _ => {}
        }
        let event = Event { at, what };
        self.judges
            .event(&self.plan, &self.ledger, &event, &mut self.broken);
        if let Some(history) = &mut self.history {
            history.push(event);
        }
    }

    fn hash(&mut self, at: u64, what: &What) {
        let trace = &mut self.trace;
        match what {
            What::Appended {
                stream,
                offset,
                envelope,
            } => {
                let stream = match stream {
                    Stream::Shard(shard) => u64::from(shard.0),
                    Stream::Inbox(inbox) => 1_000 + u64::from(*inbox),
                    Stream::Announcements => 2_000,
                };
                trace
                    .event(at, 1, stream)
                    .number(offset.0)
                    .number(envelope.dedup_id.0)
                    .number(envelope.seq.unwrap_or(0))
                    .text(envelope.body.kind());
            }
            What::Committed {
                host,
                epoch,
                seq,
                next,
                changes,
                ..
            } => {
                trace
                    .event(at, 2, u64::from(*host))
                    .number(*epoch)
                    .number(*seq)
                    .number(next.0);
                for change in changes {
                    match change {
                        Change::Task { new, .. } => trace.number(new.state as u64),
                        Change::Node { node, new, .. } => trace
                            .text(node.as_str())
                            .number(new.state as u64)
                            .number(new.token.0)
                            .number(new.last_seq)
                            .number(new.accepted),
                        Change::Artifact { node, fact, .. } => trace
                            .text(node.as_str())
                            .text(fact.uid.as_str())
                            .number(fact.number),
                        Change::Tombstone { task, .. } => trace.text(task.as_str()),
                        Change::Removed { removal, .. } => trace.text(removal.task_id().as_str()),
                    };
                }
            }
            What::Refused { host, kind, .. } => {
                trace.event(at, 3, u64::from(*host)).number(*kind as u64);
            }
            What::Undone { changes } => {
                trace.event(at, 4, changes.len() as u64);
            }
            What::Released { host, shard } => {
                trace.event(at, 17, u64::from(*host)).number(shard.0.into());
            }
            What::EpochRaised { host, epoch, .. } => {
                trace.event(at, 5, u64::from(*host)).number(*epoch);
            }
            What::Registered {
                place, incarnation, ..
            } => {
                trace
                    .event(at, 6, u64::from(place.host))
                    .number(incarnation.0);
            }
            What::GrantsRead { place, nodes } => {
                trace
                    .event(at, 7, u64::from(place.host))
                    .number(nodes.len() as u64);
            }
            What::ToldFenced {
                place, node, token, ..
            } => {
                trace
                    .event(at, 14, u64::from(place.host))
                    .text(node.as_str())
                    .number(token.0);
            }
            What::Kept {
                node, token, uid, ..
            } => {
                trace
                    .event(at, 16, token.0)
                    .text(node.as_str())
                    .text(uid.as_str());
            }
            What::Staged {
                node, token, uid, ..
            } => {
                trace
                    .event(at, 30, token.0)
                    .text(node.as_str())
                    .text(uid.as_str());
            }
            What::BodiesSwept { task } => {
                trace.event(at, 31, 0).text(task.as_str());
            }
            What::Handler { run, step } => {
                let tag = match step {
                    Step::Begin => 0,
                    Step::Process { .. } => 1,
                    Step::Checkpoint { .. } => 2,
                    Step::CheckpointSaved { .. } => 3,
                    Step::Processed { .. } => 4,
                    Step::Failed { .. } => 5,
                    Step::Finalize => 6,
                    Step::Finalized => 7,
                    Step::Cancel { .. } => 8,
                    Step::Abort => 9,
                    Step::Closed => 10,
                    Step::Lost => 11,
                    Step::Hook { .. } => 12,
                    Step::CleansUp => 13,
                };
                trace
                    .event(at, 8, u64::from(run.place.host))
                    .number(tag)
                    .text(run.node.as_str())
                    .number(run.token.0);
                if let Step::Process { uid, .. } = step {
                    trace.text(uid.as_str());
                }
            }
            What::Denied { client, ask, .. } => {
                trace
                    .event(at, 22, u64::from(*client))
                    .number(ask_tag(*ask));
            }
            What::Looks { client, task, .. } => {
                trace.event(at, 32, u64::from(*client)).text(task.as_str());
            }
            What::Shown { client, task, .. } => {
                trace.event(at, 33, u64::from(*client)).text(task.as_str());
            }
            What::Failed { client, ask, .. } => {
                trace
                    .event(at, 19, u64::from(*client))
                    .number(ask_tag(*ask));
            }
            What::Asked { client, ask, .. } => {
                trace.event(at, 9, u64::from(*client)).number(ask_tag(*ask));
            }
            What::Answered {
                client, ask, reply, ..
            } => {
                trace
                    .event(at, 10, u64::from(*client))
                    .number(ask_tag(*ask))
                    .number(u64::from(reply.ok));
            }
            What::Process { place, what } => {
                trace
                    .event(at, 11, u64::from(place.host))
                    .number(life_tag(*what));
            }
            What::Client { client, what } => {
                trace
                    .event(at, 18, u64::from(*client))
                    .number(life_tag(*what));
            }
            What::Fault { text } => {
                trace.event(at, 12, 0).text(text);
            }
            What::Healed => {
                trace.event(at, 13, 0);
            }
            What::Broke => {
                trace.event(at, 21, 0);
            }
            What::LogLost { shard, from, end } => {
                trace
                    .event(at, 20, u64::from(shard.0))
                    .number(from.0)
                    .number(end.0);
            }
            What::StoreClock { by_ms } => {
                trace.event(at, 15, by_ms.unsigned_abs());
            }
            What::Rotten { task } => {
                trace.event(at, 28, 0).text(task.as_str());
            }
        }
    }
}

fn life_tag(life: Life) -> u64 {
    match life {
        Life::Started => 0,
        Life::Crashed => 1,
        Life::Stopped => 2,
        Life::Stalled => 3,
        Life::Resumed => 4,
        Life::Asked { .. } => 5,
    }
}

fn ask_tag(ask: crate::history::Ask) -> u64 {
    use crate::history::Ask;
    match ask {
        Ask::Submit => 0,
        Ask::SubmitOther => 1,
        Ask::Cancel { .. } => 2,
        Ask::Wait => 3,
        Ask::Pause => 4,
        Ask::Resume => 5,
    }
}

/// A commit as the store saw it.
#[derive(Debug)]
pub(crate) struct CommitSeen {
    pub(crate) host: u32,
    pub(crate) epoch: u64,
    pub(crate) seq: u64,
    pub(crate) next: flowkit_core::id::Offset,
    pub(crate) facts: Vec<Fact>,
}
