//! One history out of what Kafka, MongoDB, the processes' journals and the onlookers say.
//!
//! Onlookers and journals know the time of what they note. Kafka's times are cut to milliseconds,
//! and MongoDB's come from a coarse clock: both are not *after* what happened. A commit is also not
//! before the messages that it folds, nor before the commits ahead of it. So each event gets the
//! latest such bound, and what must come before an event that a process noted does come before it.

use flowkit_core::id::{NodeId, Offset, ShardId, TaskId, Token, WorkerId};
use flowkit_core::port::{Record, Stream};
use flowkit_sim::judge::{Place, Run, Seen, Step};
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::journal::{Entry, Line, RunKey};
use crate::oplog::{Write, Written};

/// How long a write may be invisible to a read of another process: the server shows what a majority
/// has written to disk.
const VISIBLE_US: u64 = 1_000_000;

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
    /// Messages of each stream, in order.
    pub(crate) streams: Vec<Vec<(u64, Seen)>>,
    pub(crate) writes: Vec<Written>,
    pub(crate) journals: Vec<Told>,
    pub(crate) outside: Vec<(u64, Seen)>,
}

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
    let mut items = merged.items;
    items.sort_by_key(|item| (item.at, item.rank, item.order));
    let history = items.into_iter();
    let history = history.map(|item| (item.at.saturating_sub(start_us), item.seen));
    (history.collect(), merged.misfits)
}

/// A node's token, and the number of writes after which it stood.
type Held = (usize, Option<Token>);

#[derive(Debug, Default)]
struct Merged {
    items: Vec<Item>,
    misfits: Vec<String>,
    /// Offset and time of each message of a shard.
    appended: BTreeMap<ShardId, Vec<(Offset, u64)>>,
    /// When each write happened.
    written_at: Vec<u64>,
    /// Tokens of each node, in order.
    tokens: BTreeMap<(TaskId, NodeId), Vec<Held>>,
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
                    self.grants(n + 1, &records);
                    Seen::Committed {
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

    fn grants(&mut self, after: usize, records: &[Record]) {
        for record in records {
            if let Record::Node(node) = record {
                let token = node.grant.as_ref().map(|_| node.lease_no);
                let key = (node.task_id.clone(), node.node_id.clone());
                self.tokens.entry(key).or_default().push((after, token));
            }
        }
    }

    /// The token of a node after so many writes.
    fn token(&self, node: &(TaskId, NodeId), writes: usize) -> Option<Token> {
        let tokens = self.tokens.get(node)?;
        let before = tokens.partition_point(|(after, _)| *after <= writes);
        tokens[before.checked_sub(1)?].1
    }

    /// After how many writes a read saw what it saw: the first time that fits.
    fn read_after(
        &self,
        asked: u64,
        answered: u64,
        nodes: &[(TaskId, NodeId)],
        tokens: &[Option<Token>],
    ) -> Option<usize> {
        let first = asked.saturating_sub(VISIBLE_US);
        let first = self.written_at.partition_point(|at| *at < first);
        let last = self.written_at.partition_point(|at| *at <= answered);
        (first..=last).find(|writes| {
            let mut pairs = nodes.iter().zip(tokens);
            pairs.all(|(node, token)| self.token(node, *writes) == *token)
        })
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
                    if runs.insert(key, run.clone()).is_some() {
                        let what = format!("{place:?} began a token twice: {run:?}");
                        self.misfits.push(what);
                    }
                    let step = Step::Begin;
                    self.add(at, 2, order, Seen::Handler { run, step });
                }
                Entry::Step { run, step } => {
                    // A run that was ended before its handler was called is only closed.
                    if let Some(run) = runs.get(&run).cloned() {
                        self.add(at, 2, order, Seen::Handler { run, step });
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
                    tokens,
                } => match self.read_after(asked_us, at, &nodes, &tokens) {
                    Some(writes) => {
                        let begin = writes.checked_sub(1).map_or(0, |n| self.written_at[n]);
                        let end = self.written_at.get(writes).copied().unwrap_or(u64::MAX);
                        let at = asked_us.max(begin).min(end);
                        let order = 2 * writes as u64 + 1;
                        self.add(at, 1, order, Seen::GrantsRead { place, nodes });
                    }
                    None => self.misfits.push(format!(
                        "{place:?} read grants that never stood so between {asked_us} and {at}: \
                         {nodes:?} {tokens:?}"
                    )),
                },
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
        let read = |tokens| Line {
            at_us: 2_000,
            what: Entry::Grants {
                asked_us: 1_000,
                nodes: vec![node.clone()],
                tokens,
            },
        };
        let (seen, misfits) = history(sources(Vec::new(), Vec::new(), vec![read(vec![None])]), 0);
        assert_eq!((names(&seen), misfits.len()), (vec!["read".to_owned()], 0));
        let never = read(vec![Some(Token(3))]);
        let (seen, misfits) = history(sources(Vec::new(), Vec::new(), vec![never]), 0);
        assert_eq!((seen.len(), misfits.len()), (0, 1));
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
