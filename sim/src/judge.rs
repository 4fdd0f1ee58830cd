//! Judges histories that were not simulated: of real processes over real servers.
//!
//! Whoever watched them says what happened, in order of time ([`Judge::saw`]); the same checkers as
//! in a simulation judge it by the same plan. Times are in microseconds since the start of the run.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use flowkit_core::id::{Incarnation, NodeId, Offset, ShardId, TaskId, Token, WorkerId};
use flowkit_core::message::{Envelope, Reply, ReplyError};
use flowkit_core::port::{Record, Stream};
use flowkit_memory::Tables;

use crate::checkers::{Broken, Finish};
use crate::history::What;
pub use crate::history::{Ask, CallError, Life, Place, Run, Shown, Step};
use crate::ledger::Fact;
use crate::observer::{CommitSeen, Observer};
use crate::plan::{Logical, Plan};

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Seen {
    /// A message stands in a stream.
    Appended {
        /// The stream.
        stream: Stream,
        /// Where.
        offset: Offset,
        /// The message.
        envelope: Arc<Envelope>,
    },
    /// A commit was applied.
    Committed {
        /// Its shard.
        shard: ShardId,
        /// Shard epoch of its owner.
        epoch: u64,
        /// Its number.
        seq: u64,
        /// First offset that is not folded in.
        next: Offset,
        /// What it wrote.
        records: Vec<Record>,
    },
    /// A shard was taken over.
    EpochRaised {
        /// The shard.
        shard: ShardId,
        /// Its new epoch.
        epoch: u64,
    },
    /// A worker's record was written.
    Registered {
        /// The process.
        place: Place,
        /// The worker.
        worker: WorkerId,
        /// This start of it.
        incarnation: Incarnation,
    },
    /// A worker's process read the grants of nodes, as they stand.
    GrantsRead {
        /// The process.
        place: Place,
        /// The nodes.
        nodes: Vec<(TaskId, NodeId)>,
    },
    /// A worker's process has read that a token of its is fenced.
    ToldFenced {
        /// The process.
        place: Place,
        /// The task.
        task: TaskId,
        /// The node.
        node: NodeId,
        /// The token.
        token: Token,
    },
    /// A handler's step.
    Handler {
        /// The run.
        run: Arc<Run>,
        /// The step.
        step: Step,
    },
    /// A client sent a request.
    Asked {
        /// The client.
        client: u32,
        /// The task.
        task: TaskId,
        /// For what.
        ask: Ask,
    },
    /// A client got the answer.
    Answered {
        /// The client.
        client: u32,
        /// The task.
        task: TaskId,
        /// To what.
        ask: Ask,
        /// The answer.
        reply: Reply,
    },
    /// A client is about to look at a task.
    Looks {
        /// The client.
        client: u32,
        /// The task.
        task: TaskId,
        /// A number of this look.
        look: u64,
    },
    /// What it was shown.
    Shown {
        /// The client.
        client: u32,
        /// The task.
        task: TaskId,
        /// The number of the look.
        look: u64,
        /// What.
        shown: Shown,
    },
    /// A client's call ended in an error that is no refusal.
    Failed {
        /// The client.
        client: u32,
        /// The task.
        task: TaskId,
        /// For what.
        ask: Ask,
        /// The error.
        error: CallError,
    },
    /// A client was refused, and will ask again.
    Denied {
        /// The client.
        client: u32,
        /// The task.
        task: TaskId,
        /// What it asked for.
        ask: Ask,
        /// Why.
        kind: ReplyError,
    },
    /// A process began, died, froze or went on.
    Process {
        /// The process.
        place: Place,
        /// Which of these.
        what: Life,
    },
    /// Faults are over; from now on everything must settle.
    Healed,
}

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokenPromise {
    /// The promise, by the name in the README.
    pub promise: &'static str,
    /// What was seen.
    pub what: String,
    /// When, in microseconds since the start.
    pub at_us: u64,
}

/// What came of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// Nothing, if all promises held.
    pub broken: Vec<BrokenPromise>,
    /// How often things happened that matter: a run in which little did proves little.
    pub counts: BTreeMap<Logical, u64>,
    /// Longest time that two handlers of one node overlapped, in microseconds.
    pub overlap_us: u64,
}

/// The checkers, at work on one run of a plan.
#[derive(Debug)]
pub struct Judge {
    observer: Observer,
    runs: BTreeMap<(Place, u64), Rc<Run>>,
    shards: BTreeMap<ShardId, Owned>,
}

/// The promise that is broken by two owners of one shard.
const OWNER: &str = "single_owner";

/// A shard as its commits have left it.
#[derive(Debug, Default)]
struct Owned {
    epoch: u64,
    seq: u64,
    next: Offset,
}

impl Judge {
    /// Judges a run of a plan.
    #[must_use]
    pub fn new(plan: &Plan) -> Self {
        Self {
            observer: Observer::new(plan, false),
            runs: BTreeMap::new(),
            shards: BTreeMap::new(),
        }
    }

    /// Something happened. Times must not fall.
    pub fn saw(&mut self, at_us: u64, seen: Seen) {
        let what = match seen {
            Seen::Appended {
                stream,
                offset,
                envelope,
            } => What::Appended {
                stream,
                offset,
                envelope,
            },
            Seen::Committed {
                shard,
                epoch,
                seq,
                next,
                records,
            } => {
                self.in_turn(at_us, shard, epoch, seq, next);
                let commit = CommitSeen {
                    host: 0,
                    epoch,
                    seq,
                    next,
                    facts: records.iter().map(Fact::of).collect(),
                };
                self.observer.committed(at_us, commit, false);
                return;
            }
            Seen::EpochRaised { shard, epoch } => {
                let owned = self.shards.entry(shard).or_default();
                if epoch <= owned.epoch {
                    let what = format!("shard {shard}: epoch {epoch} after {}", owned.epoch);
                    self.observer.broken.push(Broken::new(OWNER, at_us, what));
                }
                owned.epoch = epoch;
                What::EpochRaised {
                    host: 0,
                    shard,
                    epoch,
                }
            }
            Seen::Registered {
                place,
                worker,
                incarnation,
            } => What::Registered {
                place,
                worker,
                incarnation,
            },
            Seen::GrantsRead { place, nodes } => What::GrantsRead {
                place,
                nodes: nodes.into(),
            },
            Seen::ToldFenced {
                place,
                task,
                node,
                token,
            } => What::ToldFenced {
                place,
                task,
                node,
                token,
            },
            Seen::Handler { run, step } => {
                self.step(at_us, &run, step);
                return;
            }
            Seen::Asked { client, task, ask } => What::Asked { client, task, ask },
            Seen::Answered {
                client,
                task,
                ask,
                reply,
            } => What::Answered {
                client,
                task,
                ask,
                reply,
            },
            Seen::Failed {
                client,
                task,
                ask,
                error,
            } => What::Failed {
                client,
                task,
                ask,
                error,
            },
            Seen::Denied {
                client,
                task,
                ask,
                kind,
            } => What::Denied {
                client,
                task,
                ask,
                kind,
            },
            Seen::Looks { client, task, look } => What::Looks { client, task, look },
            Seen::Shown {
                client,
                task,
                look,
                shown,
            } => What::Shown {
                client,
                task,
                look,
                shown,
            },
            Seen::Process { place, what } => {
                self.observer.note(at_us, What::Process { place, what });
                if matches!(what, Life::Crashed | Life::Stopped) {
                    self.died(at_us, place);
                }
                return;
            }
            Seen::Healed => What::Healed,
        };
        self.observer.note(at_us, what);
    }

    /// Commits of a shard come from its newest owner, one by one.
    fn in_turn(&mut self, at_us: u64, shard: ShardId, epoch: u64, seq: u64, next: Offset) {
        let owned = self.shards.entry(shard).or_default();
        let fits = epoch == owned.epoch && seq == owned.seq + 1 && next >= owned.next;
        if !fits {
            let what = format!(
                "shard {shard}: commit {seq} up to {next} under epoch {epoch}, after commit {} up \
                 to {} under epoch {}",
                owned.seq, owned.next, owned.epoch
            );
            self.observer.broken.push(Broken::new(OWNER, at_us, what));
        }
        (owned.seq, owned.next) = (seq, next);
    }

    fn step(&mut self, at_us: u64, run: &Arc<Run>, step: Step) {
        let key = (run.place, run.run_id);
        let shared = self.runs.entry(key);
        let run = shared.or_insert_with(|| Rc::new(Run::clone(run))).clone();
        if matches!(step, Step::Closed | Step::Lost) {
            self.runs.remove(&key);
        }
        self.observer.note(at_us, What::Handler { run, step });
    }

    /// A process takes its runs along.
    fn died(&mut self, at_us: u64, place: Place) {
        let runs = std::mem::take(&mut self.runs);
        let (gone, left) = runs.into_iter().partition(|((at, _), _)| *at == place);
        self.runs = left;
        let gone: BTreeMap<(Place, u64), Rc<Run>> = gone;
        for run in gone.into_values() {
            let step = Step::Lost;
            self.observer.note(at_us, What::Handler { run, step });
        }
    }

    /// The end: whether every client had its last answer in time, and what the store holds.
    #[must_use]
    pub fn finish(self, at_us: u64, settled: bool, tables: &Tables) -> Judgement {
        let mut observer = self.observer;
        let finish = Finish {
            plan: &observer.plan,
            now: at_us,
            settled,
            tables,
            ledger: &observer.ledger,
        };
        observer.judges.finish(&finish, &mut observer.broken);
        let broken = observer.broken.into_iter();
        Judgement {
            broken: broken
                .map(|broken| BrokenPromise {
                    promise: broken.promise,
                    what: broken.what,
                    at_us: broken.at,
                })
                .collect(),
            counts: observer.counts,
            overlap_us: observer.judges.overlap_us(),
        }
    }
}
