//! The one writer: a thread that owns every change of the file.
//!
//! It takes all waiting jobs, applies them in one transaction and answers. What has to be durable
//! at its reply, and every `Sync`, waits for a flush; at most one flush runs at a time, on a thread
//! of its own, so that applying goes on while the disk syncs. All who wait when a flush ends share
//! the next one.

mod commit;
mod flush;
mod opened;
mod prepared;
mod side;
mod sweep;

pub(crate) use commit::{decode_shard, zero_shard};
pub(crate) use prepared::Prepared;

use flowkit_core::id::{BatchUid, ClientId, NodeId, ShardId, TaskId, Token};
use flowkit_core::json::Json;
use flowkit_core::port::{PortError, StagedKey, StoreReply};
use flowkit_core::record::{DeploymentRecord, ScratchRecord, WorkerRecord};
use redb::{Database, Durability, ReadableDatabase};
use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use tokio::sync::oneshot;

use crate::disk::Behind;
use crate::error::Stop;
use crate::shared::{Shared, cause_of_panic};
use flush::{Flush, Then, Waiter};
use opened::Opened;

/// Where the answer goes.
pub(crate) type Reply = oneshot::Sender<Result<StoreReply, PortError>>;

/// A change of the file, or a wish for durability.
#[derive(Debug)]
pub(crate) enum Work {
    Commit(Box<Prepared>),
    Sync {
        shard: ShardId,
    },
    RaiseEpoch {
        shard: ShardId,
        owner: ClientId,
        read: (u64, u64),
    },
    Deployment {
        propose: DeploymentRecord,
    },
    Register {
        worker: WorkerRecord,
    },
    TakeScratch {
        task: TaskId,
        node: NodeId,
        token: Token,
    },
    PutScratch {
        task: TaskId,
        node: NodeId,
        record: ScratchRecord,
    },
    Stage {
        task: TaskId,
        node: NodeId,
        uid: BatchUid,
        token: Token,
        body: Json,
    },
    SweepStaged {
        task: TaskId,
        after: Option<StagedKey>,
        limit: u32,
    },
    /// Makes a record undecodable.
    #[cfg(any(test, feature = "testing"))]
    Damage {
        table: crate::format::Table,
        key: Vec<u8>,
    },
    /// Puts a row of any bytes.
    #[cfg(any(test, feature = "testing"))]
    Plant {
        table: crate::format::Table,
        key: Vec<u8>,
        value: Vec<u8>,
    },
}

impl Work {
    /// About how many bytes it writes.
    fn bytes(&self) -> usize {
        match self {
            Self::Commit(prepared) => prepared.len(),
            Self::Stage { body, .. } => body.len(),
            Self::PutScratch { record, .. } => record.checkpoint.len(),
            _ => 0,
        }
    }

    /// Whether its reply waits for the disk.
    const fn durable(&self) -> bool {
        !matches!(self, Self::Commit(_))
    }
}

/// What the writer is told.
#[derive(Debug)]
enum Message {
    Job(Work, Reply),
    /// The flush that ran has ended.
    Flushed,
    Stop,
}

/// What became of a job in its transaction.
enum Outcome {
    /// Answered as soon as it is applied.
    Applied(Result<StoreReply, PortError>),
    /// Answered once it is durable.
    Durable(Then),
}

/// What may be applied and not yet durable; beyond, commits wait for the disk.
const UNSYNCED_COMMITS_MAX: u32 = 256;
/// The same, in bytes of their records.
const UNSYNCED_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Hands jobs to the writer; ends it when dropped.
#[derive(Debug)]
pub(crate) struct WriterHandle {
    inbox: mpsc::Sender<Message>,
    threads: Vec<JoinHandle<()>>,
}

impl WriterHandle {
    /// Starts the writer and its flusher.
    pub(crate) fn start(shared: Arc<Shared>, behind: Arc<Behind>) -> io::Result<Self> {
        let (inbox, messages) = mpsc::channel();
        let (flusher, flushes) = mpsc::channel();
        let flushed = inbox.clone();
        let flush_shared = shared.clone();
        let flush_thread = thread::Builder::new()
            .name("flowkit-store-flush".to_owned())
            .spawn(move || {
                flush::run(&flush_shared, &behind, &flushes, || {
                    // The writer may be gone already.
                    let _ = flushed.send(Message::Flushed);
                });
            })?;
        let mut writer = Writer {
            shared,
            inbox: messages,
            flusher,
            queue: VecDeque::new(),
            waiting: Vec::new(),
            unsynced: 0,
            unsynced_bytes: 0,
            flushing: false,
            stopping: false,
        };
        let write_thread = thread::Builder::new()
            .name("flowkit-store-write".to_owned())
            .spawn(move || writer.run())?;
        Ok(Self {
            inbox,
            threads: vec![write_thread, flush_thread],
        })
    }

    /// Queues a job. If the writer is gone the reply is dropped.
    pub(crate) fn submit(&self, work: Work, reply: Reply) {
        let _ = self.inbox.send(Message::Job(work, reply));
    }
}

impl Drop for WriterHandle {
    fn drop(&mut self) {
        let _ = self.inbox.send(Message::Stop);
        for thread in self.threads.drain(..) {
            // A panic of either was caught and noted by the thread itself.
            let _ = thread.join();
        }
    }
}

struct Writer {
    shared: Arc<Shared>,
    inbox: mpsc::Receiver<Message>,
    flusher: mpsc::Sender<Flush>,
    queue: VecDeque<(Work, Reply)>,
    /// Who waits for the next flush.
    waiting: Vec<Waiter>,
    /// Transactions applied since the last flush began.
    unsynced: u32,
    /// Bytes of their records, about.
    unsynced_bytes: usize,
    flushing: bool,
    stopping: bool,
}

impl Writer {
    fn run(&mut self) {
        let mut jobs = Vec::new();
        while self.next_jobs(&mut jobs) {
            let ended = catch_unwind(AssertUnwindSafe(|| self.carry_out(&mut jobs)));
            let cause = match ended {
                Ok(Ok(())) => continue,
                Ok(Err(Stop::Store(error))) => error.to_string(),
                Ok(Err(Stop::Answer(error))) => error.to_string(),
                Err(panic) => cause_of_panic(&*panic),
            };
            // Set before the replies are dropped: their callers look here.
            self.shared.failure.set(&cause);
            jobs.clear();
            self.waiting.clear();
            // Nothing is applied or flushed any more: there is nothing left to wait for.
            self.queue.clear();
            (self.unsynced, self.unsynced_bytes) = (0, 0);
        }
    }

    /// Waits for something to do; false at the end.
    fn next_jobs(&mut self, jobs: &mut Vec<(Work, Reply)>) -> bool {
        loop {
            let full = self.flushing && self.is_full();
            let flush = !self.flushing && self.wants_flush();
            if !full && (flush || !self.queue.is_empty()) {
                while let Ok(message) = self.inbox.try_recv() {
                    self.take(message);
                }
                jobs.extend(self.queue.drain(..));
                return true;
            }
            if self.stopping && !full {
                return false;
            }
            match self.inbox.recv() {
                Ok(message) => self.take(message),
                Err(_) => return false,
            }
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            // After a failure nothing is applied; the dropped reply says so.
            Message::Job(..) if self.shared.failure.check("").is_err() => {}
            Message::Job(work, reply) => self.queue.push_back((work, reply)),
            Message::Flushed => self.flushing = false,
            Message::Stop => self.stopping = true,
        }
    }

    fn wants_flush(&self) -> bool {
        !self.waiting.is_empty() || self.is_full()
    }

    fn is_full(&self) -> bool {
        self.unsynced >= UNSYNCED_COMMITS_MAX || self.unsynced_bytes >= UNSYNCED_BYTES_MAX
    }

    fn carry_out(&mut self, jobs: &mut Vec<(Work, Reply)>) -> Result<(), Stop> {
        let wanted = self.wants_flush() || jobs.iter().any(|(work, _)| work.durable());
        let flush = wanted && !self.flushing;
        let outcomes = self.apply(jobs, flush)?;
        for ((_, reply), outcome) in jobs.drain(..).zip(outcomes) {
            match outcome {
                // The caller may have gone away.
                Outcome::Applied(result) => drop(reply.send(result)),
                Outcome::Durable(then) => self.waiting.push(Waiter { reply, then }),
            }
        }
        if flush {
            let snapshot = self.shared.db.begin_read()?;
            let flush = Flush {
                snapshot: Arc::new(snapshot),
                waiters: std::mem::take(&mut self.waiting),
            };
            (self.unsynced, self.unsynced_bytes) = (0, 0);
            self.flushing = true;
            // It lives as long as this sender.
            let _ = self.flusher.send(flush);
        }
        Ok(())
    }

    /// Applies the jobs in one transaction; with `flush`, also closes an epoch.
    fn apply(&mut self, jobs: &[(Work, Reply)], flush: bool) -> Result<Vec<Outcome>, Stop> {
        let only_sync = jobs
            .iter()
            .all(|(work, _)| matches!(work, Work::Sync { .. }));
        let dirty = self.unsynced > 0;
        if only_sync && !(flush && dirty) {
            let syncs = jobs.iter().map(|(work, _)| match work {
                Work::Sync { shard } => Outcome::Durable(Then::Synced(*shard)),
                _ => unreachable!("only syncs"),
            });
            return Ok(syncs.collect());
        }
        let db: &Database = &self.shared.db;
        let mut transaction = db.begin_write()?;
        if !flush {
            transaction.set_durability(Durability::None)?;
        }
        let mut open = Opened::new(&transaction);
        let outcomes = jobs
            .iter()
            .map(|(work, _)| match self.job(&mut open, work) {
                Ok(outcome) => Ok(outcome),
                Err(Stop::Answer(error)) => Ok(Outcome::Applied(Err(error))),
                Err(stop) => Err(stop),
            })
            .collect::<Result<Vec<_>, _>>()?;
        let wrote = open.wrote();
        drop(open);
        if wrote || (flush && dirty) {
            transaction.commit()?;
            self.unsynced += 1;
            self.unsynced_bytes += jobs.iter().map(|(work, _)| work.bytes()).sum::<usize>();
        } else {
            transaction.abort()?;
        }
        Ok(outcomes)
    }

    fn job(&self, open: &mut Opened<'_>, work: &Work) -> Result<Outcome, Stop> {
        let reply = match work {
            Work::Commit(prepared) => {
                return Ok(Outcome::Applied(Ok(commit::commit(open, prepared)?)));
            }
            Work::Sync { shard } => return Ok(Outcome::Durable(Then::Synced(*shard))),
            Work::RaiseEpoch { shard, owner, read } => {
                let now_ms = self.shared.clock.mono_ms();
                let holds = |shard, owner: &_| self.shared.leases.holds(now_ms, shard, owner);
                commit::raise_epoch(open, holds, *shard, owner, *read)?
            }
            Work::Deployment { propose } => side::deployment(open, *propose)?,
            Work::Register { worker } => side::register(open, worker)?,
            Work::TakeScratch { task, node, token } => {
                side::take_scratch(open, task, node, *token)?
            }
            Work::PutScratch { task, node, record } => side::put_scratch(open, task, node, record)?,
            Work::Stage {
                task,
                node,
                uid,
                token,
                body,
            } => side::stage(open, task, node, (uid, *token), body)?,
            Work::SweepStaged { task, after, limit } => {
                sweep::staged(open, task, after.as_ref(), *limit)?
            }
            #[cfg(any(test, feature = "testing"))]
            Work::Damage { table, key } => side::damage(open, *table, key)?,
            #[cfg(any(test, feature = "testing"))]
            Work::Plant { table, key, value } => side::plant(open, *table, key, value)?,
        };
        Ok(Outcome::Durable(Then::Reply(reply)))
    }
}
