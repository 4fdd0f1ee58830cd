//! The store itself: each request to where it is carried out.

use async_trait::async_trait;
use flowkit_core::port::{PortError, Store, StoreReply, StoreRequest};
use flowkit_core::record::{RECORD_VERSION, ScratchRecord, WorkerRecord};
use redb::{ReadTransaction, ReadableDatabase, StorageBackend, backends::FileBackend};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use tokio::sync::oneshot;

use crate::clock::Clock;
use crate::error::{OpenError, Stop};
use crate::folder::{Folder, failed};
use crate::open;
use crate::reader;
use crate::scans::Scans;
use crate::shared::{Shared, cause_of_panic};
use crate::sweep;
use crate::writer::{Prepared, Work, WriterHandle};

/// FlowKit's durable store for one machine: one file in one folder, no server.
///
/// See the [crate documentation](crate) for what is durable when.
pub struct EmbeddedStore {
    // Dropped in this order. The last thread to end closes the file, which makes everything durable
    // that was applied; if redb panics then, on a damaged page, that is the end of a thread. What had
    // to be durable was answered before.
    shared: Arc<Shared>,
    scans: Scans,
    pub(crate) writer: WriterHandle,
    _folder: Option<Folder>,
}

impl fmt::Debug for EmbeddedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedStore").finish_non_exhaustive()
    }
}

/// Which state a read looks at.
#[derive(Clone, Copy, Debug)]
enum View {
    /// Everything applied: for the owner, and for what goes with a grant.
    Applied,
    /// Everything durable: for readers whose effects outlive the process.
    Synced,
}

/// The answer to a request, now or later.
enum Answer {
    Now(Result<StoreReply, PortError>),
    Later(
        &'static str,
        oneshot::Receiver<Result<StoreReply, PortError>>,
    ),
}

impl EmbeddedStore {
    /// Whether a folder holds a store. Opens nothing, makes nothing.
    #[must_use]
    pub fn exists(path: &Path) -> bool {
        crate::folder::holds_data(path)
    }

    /// Opens the store in a folder, making both if there is none. Blocks: reads the whole file once
    /// to check it (about 1 ms per MB), and repairs it after a crash.
    ///
    /// # Errors
    /// [`OpenError`] says what is wrong and what to do; a file that exists is never emptied.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let folder = Folder::take(path)?;
        let data = folder.data();
        let backend = |file, path: &Path| -> Result<Box<dyn StorageBackend>, OpenError> {
            let backend = FileBackend::new(file).map_err(std::io::Error::other);
            Ok(Box::new(backend.map_err(failed("open", path))?))
        };
        let file = match folder.open_data()? {
            Some(file) => file,
            None => {
                folder.make_data(|file, path| open::create(backend(file, path)?, path))?;
                let missing = || failed("open", &data)(std::io::ErrorKind::NotFound.into());
                folder.open_data()?.ok_or_else(missing)?
            }
        };
        Self::start(backend(file, &data)?, &data, Some(folder), Clock::system())
    }

    pub(crate) fn start(
        disk: Box<dyn StorageBackend>,
        path: &Path,
        folder: Option<Folder>,
        clock: Clock,
    ) -> Result<Self, OpenError> {
        let (shared, behind) = open::open(disk, path, clock)?;
        let threads = "start a thread for";
        Ok(Self {
            writer: WriterHandle::start(shared.clone(), behind).map_err(failed(threads, path))?,
            scans: Scans::start().map_err(failed(threads, path))?,
            shared,
            _folder: folder,
        })
    }

    /// Ends when the store has failed: a write or a sync went wrong, or a page is damaged.
    ///
    /// From then on every call answers with this error. Nothing is tried again: after a failed sync
    /// nobody knows what is on the disk. The process has to end; opening the store again finds
    /// every commit up to some point at or after the last sync that was answered.
    pub fn fatal(&self) -> impl Future<Output = PortError> + Send + 'static {
        let failure = self.shared.failure.clone();
        async move { failure.wait().await }
    }

    fn answer(&self, request: StoreRequest) -> Answer {
        use StoreRequest as Ask;
        match request {
            Ask::AcquireShard {
                shard,
                owner,
                ttl_ms,
            } => Answer::Now(self.shared.failure.check("acquire_shard").map(|()| {
                let now_ms = self.shared.clock.mono_ms();
                StoreReply::Lease(self.shared.leases.acquire(now_ms, shard, owner, ttl_ms))
            })),
            Ask::ReleaseShard { shard, owner } => {
                self.shared.leases.release(shard, &owner);
                Answer::Now(Ok(StoreReply::Done))
            }
            Ask::ReadShard { shard } => self.read("read_shard", View::Applied, |read| {
                Ok(StoreReply::Shard(reader::shard(read, "read_shard", shard)?))
            }),
            Ask::LookupTasks { tasks } => self.read("lookup_tasks", View::Applied, |read| {
                reader::lookup(read, &tasks)
            }),
            Ask::ReadWorkers => self.read("read_workers", View::Applied, reader::workers),
            Ask::ReadGrants { worker_id, nodes } => {
                self.read("read_grants", View::Applied, |read| {
                    reader::grants(read, &worker_id, &nodes)
                })
            }
            Ask::ReadAccepted {
                task_id,
                node_id,
                after,
                limit,
            } => self.read("read_accepted", View::Applied, |read| {
                reader::accepted(read, (&task_id, &node_id), after, limit)
            }),
            Ask::ReadArtifacts {
                task_id,
                node_id,
                after,
                limit,
            } => self.read("read_artifacts", View::Synced, |read| {
                reader::artifacts(read, (&task_id, &node_id), after, limit)
            }),
            Ask::ReadTask { task_id } => {
                let now_ms = self.shared.clock.wall_ms();
                self.scan("read_task", View::Synced, move |read| {
                    reader::task(read, now_ms, &task_id)
                })
            }
            Ask::LoadTasks {
                shard,
                after,
                limit,
            } => {
                let now_ms = self.shared.clock.wall_ms();
                self.scan("load_tasks", View::Applied, move |read| {
                    reader::load_tasks(read, now_ms, shard, after.as_ref(), limit)
                })
            }
            Ask::ListTasks { after, limit } => self.scan("list_tasks", View::Synced, move |read| {
                reader::list_tasks(read, after.as_ref(), limit)
            }),
            Ask::ActiveRuns { worker_id } => self.scan("active_runs", View::Synced, move |read| {
                reader::active_runs(read, &worker_id)
            }),
            Ask::ReadExpired {
                shard,
                failed,
                age_ms,
                after,
                limit,
            } => {
                let now_ms = self.shared.clock.wall_ms();
                self.scan("read_expired", View::Applied, move |read| {
                    let age_ms = i64::try_from(age_ms).unwrap_or(i64::MAX);
                    let until_ms = now_ms.saturating_sub(age_ms);
                    sweep::expired(read, (shard, failed), until_ms, after.as_ref(), limit)
                })
            }
            Ask::ReadRemains { task_id } => {
                let now_ms = self.shared.clock.wall_ms();
                self.scan("read_remains", View::Applied, move |read| {
                    reader::remains(read, now_ms, &task_id)
                })
            }
            Ask::ReadStaged { after, limit } => {
                self.scan("read_staged", View::Applied, move |read| {
                    sweep::staged_tasks(read, after.as_ref(), limit)
                })
            }
            write => self.write(write),
        }
    }

    /// Hands a request that writes to the writer.
    fn write(&self, request: StoreRequest) -> Answer {
        use StoreRequest as Ask;
        let (op, work) = match request {
            Ask::Commit(commit) => {
                let now_ms = self.shared.clock.wall_ms();
                let prepared = Prepared::new(&commit, now_ms);
                ("commit", Work::Commit(Box::new(prepared)))
            }
            Ask::Sync { shard } => ("sync", Work::Sync { shard }),
            Ask::Deployment { propose } => ("deployment", Work::Deployment { propose }),
            Ask::RaiseEpoch {
                shard,
                owner,
                epoch,
                commit_seq,
            } => {
                let read = (epoch, commit_seq);
                ("raise_epoch", Work::RaiseEpoch { shard, owner, read })
            }
            Ask::RegisterWorker {
                worker_id,
                expected,
                start_nonce,
                roles,
                capacity,
                inbox,
                worker_version,
            } => {
                let worker = WorkerRecord {
                    version: RECORD_VERSION,
                    worker_id,
                    incarnation: expected.next(),
                    start_nonce,
                    roles,
                    capacity,
                    inbox,
                    worker_version,
                };
                ("register_worker", Work::Register { worker })
            }
            Ask::TakeScratch {
                task_id: task,
                node_id: node,
                token,
            } => ("take_scratch", Work::TakeScratch { task, node, token }),
            Ask::PutScratch {
                task_id: task,
                node_id: node,
                token,
                save_no,
                batch_uid,
                checkpoint,
            } => {
                let record = ScratchRecord {
                    token,
                    save_no,
                    batch_uid: Some(batch_uid),
                    checkpoint,
                };
                ("put_scratch", Work::PutScratch { task, node, record })
            }
            Ask::StageArtifact {
                task_id: task,
                node_id: node,
                batch_uid: uid,
                token,
                body,
            } => {
                let work = Work::Stage {
                    task,
                    node,
                    uid,
                    token,
                    body,
                };
                ("stage_artifact", work)
            }
            Ask::SweepStaged {
                task_id: task,
                after,
                limit,
            } => ("sweep_staged", Work::SweepStaged { task, after, limit }),
            read => unreachable!("{read:?} does not write"),
        };
        if let Err(error) = self.shared.failure.check(op) {
            return Answer::Now(Err(error));
        }
        let (reply, answer) = oneshot::channel();
        self.writer.submit(work, reply);
        Answer::Later(op, answer)
    }

    /// Reads at once, on the caller's thread: a few rows, nearly always in memory.
    fn read(
        &self,
        op: &'static str,
        view: View,
        f: impl FnOnce(&ReadTransaction) -> Result<StoreReply, Stop>,
    ) -> Answer {
        Answer::Now(carry_out(&self.shared, op, view, f))
    }

    /// Reads on the thread for scans.
    fn scan(
        &self,
        op: &'static str,
        view: View,
        f: impl FnOnce(&ReadTransaction) -> Result<StoreReply, Stop> + Send + 'static,
    ) -> Answer {
        let (reply, answer) = oneshot::channel();
        let shared = self.shared.clone();
        self.scans.submit(move || {
            // The caller may have gone away.
            let _ = reply.send(carry_out(&shared, op, view, f));
        });
        Answer::Later(op, answer)
    }
}

fn carry_out(
    shared: &Shared,
    op: &'static str,
    view: View,
    f: impl FnOnce(&ReadTransaction) -> Result<StoreReply, Stop>,
) -> Result<StoreReply, PortError> {
    shared.failure.check(op)?;
    let read = || match view {
        View::Applied => f(&shared.db.begin_read()?),
        View::Synced => f(&shared.synced()),
    };
    let cause = match catch_unwind(AssertUnwindSafe(read)) {
        Ok(Ok(reply)) => return Ok(reply),
        Ok(Err(Stop::Answer(error))) => return Err(error),
        Ok(Err(Stop::Store(error))) => error.to_string(),
        Err(panic) => cause_of_panic(&*panic),
    };
    shared.failure.set(&cause);
    Err(shared.failure.error(op))
}

#[async_trait]
impl Store for EmbeddedStore {
    async fn call(&self, request: StoreRequest) -> Result<StoreReply, PortError> {
        match self.answer(request) {
            Answer::Now(result) => result,
            Answer::Later(op, answer) => match answer.await {
                Ok(result) => result,
                // Dropped without an answer: the store has failed.
                Err(_) => Err(self.shared.failure.error(op)),
            },
        }
    }

    fn applies_before_sync(&self) -> bool {
        true
    }
}
