//! One history out of what Kafka, MongoDB, the processes' journals and the onlookers say.
//!
//! Onlookers and journals know the time of what they note. Kafka's times are cut to milliseconds,
//! and MongoDB's come from a coarse clock: both are not *after* what happened. A commit is also not
//! before the messages that it folds, nor before the commits ahead of it. So each event gets the
//! latest such bound, and what must come before an event that a process noted does come before it.

use flowkit_core::id::{NodeId, Offset, ShardId, TaskId, Token, WorkerId};
use flowkit_core::port::{GrantView, Record, Stream};
use flowkit_core::record::TaskState;
use flowkit_sim::judge::{Place, Run, Seen, Step};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::journal::{Entry, Line, RunKey};
use crate::oplog::{Write, Written};

/// How long a write may be invisible to a read of another process: the server shows what a majority
/// has written to disk, and may be frozen in between.
const VISIBLE_US: u64 = 10_000_000;

/// What one process wrote down.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) place: Place,
    pub(crate) worker: WorkerId,
    pub(crate) lines: Vec<Line>,
}

/// What was gathered of one run; all times in microseconds since the Unix epoch.
#[derive(Debug)]
pub(crate) struct Sources {
    /// Entries that are no messages.
    pub(crate) foreign: usize,
    /// Messages of each stream, in order.
    pub(crate) streams: Vec<Vec<(u64, Seen)>>,
    pub(crate) writes: Vec<Written>,
    pub(crate) journals: Vec<Told>,
    pub(crate) outside: Vec<(u64, Seen)>,
}

/// The nodes of a read of grants, and what it returned for each.
type Read = (Vec<(TaskId, NodeId)>, Vec<Option<GrantView>>);

/// An event with its place in the history.
#[derive(Debug)]
struct Item {
    at: u64,
    /// At the same time messages come first, then the store, then what processes noted.
    rank: u8,
    order: u64,
    seen: Seen,
}

/// The history, by time since `start_us`; and what does not fit together.
pub(crate) fn history(sources: Sources, start_us: u64) -> (Vec<(u64, Seen)>, Vec<String>) {
    let mut merged = Merged::default();
    merged.streams(sources.streams);
    merged.writes(sources.writes, &sources.journals);
    for told in sources.journals {
        merged.journal(told);
    }
    for (order, (at, seen)) in (0..).zip(sources.outside) {
        merged.add(at, 2, order, seen);
    }
    for run in merged.accepted.difference(&merged.began) {
        let what = format!("a batch of {run:?} was accepted, and no process began it");
        merged.misfits.push(what);
    }
    let mut items = merged.items;
    items.sort_by_key(|item| (item.at, item.rank, item.order));
    let history = items.into_iter();
    let history = history.map(|item| (item.at.saturating_sub(start_us), item.seen));
    (history.collect(), merged.misfits)
}

/// A grant as reads show it, and the number of writes after which it stood.
type Stood = (usize, Option<GrantView>);

#[derive(Debug, Default)]
struct Merged {
    items: Vec<Item>,
    misfits: Vec<String>,
    /// Offset and time of each message of a shard.
    appended: BTreeMap<ShardId, Vec<(Offset, u64)>>,
    /// When each write happened.
    written_at: Vec<u64>,
    /// Grants of each node, in order.
    grants: BTreeMap<(TaskId, NodeId), Vec<Stood>>,
    /// Nodes of each task: their newest token, and whether they were told to end.
    nodes: BTreeMap<TaskId, BTreeMap<NodeId, (Option<Token>, bool)>>,
    /// Tasks whose runs are to end.
    ending: BTreeSet<TaskId>,
    /// Nodes and tokens that accepted a batch, and those that began.
    accepted: BTreeSet<RunKey>,
    began: BTreeSet<RunKey>,
}

impl Merged {
    fn add(&mut self, at: u64, rank: u8, order: u64, seen: Seen) {
        self.items.push(Item {
            at,
            rank,
            order,
            seen,
        });
    }

    fn streams(&mut self, streams: Vec<Vec<(u64, Seen)>>) {
        for messages in streams {
            let mut last = 0;
            for (at, seen) in messages {
                // Clocks may be set back; a log cannot be.
                last = at.max(last);
                let Seen::Appended { stream, offset, .. } = &seen else {
                    continue;
                };
                let offset = *offset;
                if let Stream::Shard(shard) = stream {
                    self.appended
                        .entry(*shard)
                        .or_default()
                        .push((offset, last));
                }
                self.add(last, 0, offset.0, seen);
            }
        }
    }

    fn writes(&mut self, writes: Vec<Written>, journals: &[Told]) {
        let mut starts: BTreeMap<(WorkerId, u64), Place> = BTreeMap::new();
        for told in journals {
            for line in &told.lines {
                if let Entry::Registering { worker, nonce } = &line.what {
                    starts.insert((worker.clone(), *nonce), told.place);
                }
            }
        }
        let mut last = 0;
        for (n, write) in writes.into_iter().enumerate() {
            last = last.max(write.at_ms * 1_000);
            let seen = match write.what {
                Write::Commit {
                    shard,
                    epoch,
                    seq,
                    next,
                    records,
                } => {
                    last = last.max(self.folded_at(shard, next));
                    self.commit(n + 1, &records);
                    Seen::Committed {
                        shard,
                        epoch,
                        seq,
                        next,
                        records,
                    }
                }
                Write::EpochRaised { shard, epoch } => Seen::EpochRaised { shard, epoch },
                Write::Registered {
                    worker,
                    incarnation,
                    nonce,
                } => match starts.get(&(worker.clone(), nonce)) {
                    Some(place) => Seen::Registered {
                        place: *place,
                        worker,
                        incarnation,
                    },
                    None => {
                        let what = format!("{worker} {incarnation} was registered by no process");
                        self.misfits.push(what);
                        self.written_at.push(last);
                        continue;
                    }
                },
            };
            self.written_at.push(last);
            self.add(last, 1, 2 * (n as u64 + 1), seen);
        }
    }

    /// When the last message before `next` was appended.
    fn folded_at(&self, shard: ShardId, next: Offset) -> u64 {
        let messages = self.appended.get(&shard).map_or(&[][..], Vec::as_slice);
        let below = messages.partition_point(|(offset, _)| *offset < next);
        below.checked_sub(1).map_or(0, |last| messages[last].1)
    }

    /// Grants as they stand after a commit.
    fn commit(&mut self, after: usize, records: &[Record]) {
        let mut touched = BTreeSet::new();
        for record in records {
            match record {
                Record::Task(task) => {
                    let ends = task.state == TaskState::Cancelling || task.state.is_terminal();
                    if ends && self.ending.insert(task.task_id.clone()) {
                        let nodes = self.nodes.get(&task.task_id).into_iter().flatten();
                        let all = nodes.map(|(node, _)| (task.task_id.clone(), node.clone()));
                        touched.extend(all);
                    }
                }
                Record::Node(node) => {
                    let grant = node.grant.as_ref();
                    let token = grant.map(|_| node.lease_no);
                    let told = grant.is_some_and(|grant| grant.cancel.is_some());
                    let nodes = self.nodes.entry(node.task_id.clone()).or_default();
                    nodes.insert(node.node_id.clone(), (token, told));
                    touched.insert((node.task_id.clone(), node.node_id.clone()));
                }
                Record::Artifact(artifact) => {
                    self.accepted.insert(RunKey {
                        task: artifact.task_id.clone(),
                        node: artifact.node_id.clone(),
                        token: artifact.token,
                    });
                }
                Record::Tombstone(_) | Record::Remove(_) => {}
            }
        }
        for (task, node) in touched {
            let stands = self.nodes.get(&task).and_then(|nodes| nodes.get(&node));
            let grant = stands.map(|(token, told)| GrantView {
                token: *token,
                cancelled: *told || self.ending.contains(&task),
                unreadable: false,
            });
            self.grants
                .entry((task, node))
                .or_default()
                .push((after, grant));
        }
    }

    /// The grant of a node after so many writes.
    fn grant(&self, node: &(TaskId, NodeId), writes: usize) -> Option<&GrantView> {
        let grants = self.grants.get(node)?;
        let before = grants.partition_point(|(after, _)| *after <= writes);
        grants[before.checked_sub(1)?].1.as_ref()
    }

    /// After how many writes a read saw a grant. The latest moment at which that stood while the
    /// read was under way; an earlier one only if there is none.
    fn read_after(
        &self,
        asked: u64,
        answered: u64,
        node: &(TaskId, NodeId),
        grant: Option<&GrantView>,
    ) -> Option<usize> {
        let at = |time: u64| self.written_at.partition_point(|at| *at < time);
        let last = self.written_at.partition_point(|at| *at <= answered);
        let first = at(asked.saturating_sub(VISIBLE_US));
        let mut candidates = (first..=last).rev();
        candidates.find(|writes| {
            let stood = self.grant(node, *writes);
            let token = |grant: Option<&GrantView>| grant.and_then(|grant| grant.token);
            let same = token(stood) == token(grant);
            // The store reads nodes first and tasks after them: that a task ends may be seen beside
            // a token of a moment ago, never the other way round.
            let ended_meanwhile = grant.is_some_and(|grant| grant.cancelled)
                && self.grant(node, last).is_some_and(|grant| grant.cancelled);
            // Without a token nothing can begin, whatever else it says.
            stood == grant || (same && (token(grant).is_none() || ended_meanwhile))
        })
    }

    fn grants_read(&mut self, place: Place, asked: u64, answered: u64, read: Read) {
        // A read of several documents sees each of them at a moment of its own.
        for (node, grant) in read.0.into_iter().zip(read.1) {
            let Some(writes) = self.read_after(asked, answered, &node, grant.as_ref()) else {
                self.misfits.push(format!(
                    "{place:?} read a grant that never stood so between {asked} and {answered}: \
                     {node:?} {grant:?}"
                ));
                continue;
            };
            let begin = writes.checked_sub(1).map_or(0, |n| self.written_at[n]);
            let end = self.written_at.get(writes).copied().unwrap_or(u64::MAX);
            let at = asked.max(begin).min(end);
            let seen = Seen::GrantsRead {
                place,
                nodes: vec![node],
            };
            self.add(at, 1, 2 * writes as u64 + 1, seen);
        }
    }

    fn journal(&mut self, told: Told) {
        let Told {
            place,
            worker,
            lines,
        } = told;
        let mut runs: BTreeMap<RunKey, Arc<Run>> = BTreeMap::new();
        for (order, line) in (0..).zip(lines) {
            let at = line.at_us;
            match line.what {
                Entry::Registering { .. } => {}
                Entry::Began {
                    run: key,
                    epoch,
                    checkpoint,
                    accepted,
                } => {
                    let run = Arc::new(Run {
                        place,
                        worker: worker.clone(),
                        run_id: runs.len() as u64,
                        task: key.task.clone(),
                        node: key.node.clone(),
                        token: key.token,
                        epoch,
                        checkpoint,
                        accepted,
                    });
                    self.began.insert(key.clone());
                    if runs.insert(key, run.clone()).is_some() {
                        let what = format!("{place:?} began a token twice: {run:?}");
                        self.misfits.push(what);
                    }
                    let step = Step::Begin;
                    self.add(at, 2, order, Seen::Handler { run, step });
                }
                Entry::Step { run, step } => {
                    // A run that was ended before its handler was called is only ended.
                    let ends = matches!(
                        step,
                        Step::CleansUp | Step::Closed | Step::Abort | Step::Cancel { .. }
                    );
                    match runs.get(&run).cloned() {
                        Some(run) => self.add(at, 2, order, Seen::Handler { run, step }),
                        None if ends => {}
                        None => {
                            let what = format!("{place:?}: {step:?} of {run:?}, which never began");
                            self.misfits.push(what);
                        }
                    }
                }
                Entry::Fenced { run } => {
                    let RunKey { task, node, token } = run;
                    let seen = Seen::ToldFenced {
                        place,
                        task,
                        node,
                        token,
                    };
                    self.add(at, 2, order, seen);
                }
                Entry::Grants {
                    asked_us,
                    nodes,
                    grants,
                } => self.grants_read(place, asked_us, at, (nodes, grants)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flowkit_core::id::Incarnation;
    use flowkit_core::message::{Body, Envelope, Sender, SenderRole};

    const SHARD: ShardId = ShardId(0);

    fn message(offset: u64, at: u64) -> (u64, Seen) {
        let sender = Sender {
            role: SenderRole::Worker,
            id: Arc::from("w"),
            incarnation: Incarnation(1),
        };
        let envelope = Arc::new(Envelope::new(sender, 0, Body::SlotFree));
        let appended = Seen::Appended {
            stream: Stream::Shard(SHARD),
            offset: Offset(offset),
            envelope,
        };
        (at, appended)
    }

    fn commit(at_ms: u64, seq: u64, next: u64) -> Written {
        let what = Write::Commit {
            shard: SHARD,
            epoch: 1,
            seq,
            next: Offset(next),
            records: Vec::new(),
        };
        Written { at_ms, what }
    }

    fn names(history: &[(u64, Seen)]) -> Vec<String> {
        let name = |seen: &Seen| match seen {
            Seen::Appended { offset, .. } => format!("message {offset}"),
            Seen::Committed { seq, .. } => format!("commit {seq}"),
            Seen::GrantsRead { .. } => "read".to_owned(),
            other => format!("{other:?}"),
        };
        history.iter().map(|(_, seen)| name(seen)).collect()
    }

    fn sources(streams: Vec<Vec<(u64, Seen)>>, writes: Vec<Written>, lines: Vec<Line>) -> Sources {
        let told = Told {
            place: Place {
                host: 2,
                generation: 0,
                machine: 0,
            },
            worker: WorkerId::new("w").expect("id"),
            lines,
        };
        Sources {
            foreign: 0,
            streams,
            writes,
            journals: vec![told],
            outside: Vec::new(),
        }
    }

    #[test]
    fn a_commit_comes_after_the_messages_that_it_folds_whatever_its_coarse_clock_says() {
        let streams = vec![vec![
            message(0, 10_000),
            message(1, 19_000),
            message(2, 30_000),
        ]];
        // By their own times both commits would come first.
        let writes = vec![commit(5, 1, 2), commit(4, 2, 2)];
        let (history, misfits) = history(sources(streams, writes, Vec::new()), 0);
        let expected = [
            "message 0",
            "message 1",
            "commit 1",
            "commit 2",
            "message 2",
        ];
        assert_eq!(names(&history), expected);
        assert!(misfits.is_empty(), "{misfits:?}");
    }

    #[test]
    fn a_read_of_grants_that_never_stood_so_does_not_fit() {
        let node = (TaskId::new("t").expect("id"), NodeId::new("n").expect("id"));
        let read = |grants| Line {
            at_us: 2_000,
            what: Entry::Grants {
                asked_us: 1_000,
                nodes: vec![node.clone()],
                grants,
            },
        };
        let (seen, misfits) = history(sources(Vec::new(), Vec::new(), vec![read(vec![None])]), 0);
        assert_eq!((names(&seen), misfits.len()), (vec!["read".to_owned()], 0));
        let grant = GrantView {
            token: Some(Token(3)),
            cancelled: false,
            unreadable: false,
        };
        let never = read(vec![Some(grant)]);
        let (seen, misfits) = history(sources(Vec::new(), Vec::new(), vec![never]), 0);
        assert_eq!((seen.len(), misfits.len()), (0, 1));
    }

    /// Found by seed 897765947560004: the task ended between the store's two looks.
    #[test]
    fn the_end_of_a_task_may_be_seen_beside_a_token_of_a_moment_ago_and_not_the_other_way() {
        let node = (TaskId::new("t").expect("id"), NodeId::new("n").expect("id"));
        let view = |token: Option<u64>, cancelled| {
            let token = token.map(Token);
            Some(GrantView {
                token,
                cancelled,
                unreadable: false,
            })
        };
        let stood = vec![(1, view(Some(1), false)), (2, view(None, true))];
        let merged = Merged {
            written_at: vec![1_000, 2_000],
            grants: BTreeMap::from([(node.clone(), stood)]),
            ..Merged::default()
        };
        let read = |grant: Option<GrantView>, asked, answered| {
            merged.read_after(asked, answered, &node, grant.as_ref())
        };
        assert_eq!(read(view(Some(1), true), 1_900, 2_100), Some(1));
        assert_eq!(
            read(view(Some(1), true), 1_200, 1_400),
            None,
            "not ended yet"
        );
        assert_eq!(
            read(view(Some(2), false), 1_900, 2_100),
            None,
            "never granted"
        );
    }

    #[test]
    fn a_worker_that_no_process_registered_does_not_fit() {
        let what = Write::Registered {
            worker: WorkerId::new("w").expect("id"),
            incarnation: Incarnation(1),
            nonce: 7,
        };
        let written = || {
            vec![Written {
                at_ms: 1,
                what: what.clone(),
            }]
        };
        let line = Line {
            at_us: 1,
            what: Entry::Registering {
                worker: WorkerId::new("w").expect("id"),
                nonce: 7,
            },
        };
        let (seen, misfits) = history(sources(Vec::new(), written(), vec![line]), 0);
        assert_eq!((seen.len(), misfits.len()), (1, 0));
        let (seen, misfits) = history(sources(Vec::new(), written(), Vec::new()), 0);
        assert_eq!((seen.len(), misfits.len()), (0, 1));
    }
}
