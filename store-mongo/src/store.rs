//! The store: which request is whose.

use async_trait::async_trait;
use flowkit_core::port::{ErrorKind, PortError, Store, StoreReply, StoreRequest};
use flowkit_core::record::ScratchRecord;
use mongodb::bson::Document;
use mongodb::{Client, Collection, Database};
use std::fmt;
use std::sync::Arc;

use crate::sessions::Sessions;
use crate::{MongoSettings, OpenError, commit, keys, open, side};

/// A store on MongoDB. Cheap to clone.
#[derive(Clone)]
pub struct MongoStore {
    mongo: Arc<Mongo>,
}

pub(crate) struct Mongo {
    pub(crate) client: Client,
    pub(crate) database: Database,
    pub(crate) operation_timeout: std::time::Duration,
    pub(crate) sessions: Sessions,
}

impl fmt::Debug for MongoStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MongoStore")
            .field("database", &self.mongo.database.name())
            .finish_non_exhaustive()
    }
}

impl MongoStore {
    /// Connects, and sees that the server and the database are what FlowKit needs; makes the
    /// collections and indexes that are not there.
    ///
    /// # Errors
    /// [`OpenError`], each with its cure.
    pub async fn connect(settings: MongoSettings) -> Result<Self, OpenError> {
        let (client, database) = open::connect(&settings).await?;
        let mongo = Mongo {
            client,
            database,
            operation_timeout: settings.operation_timeout,
            sessions: Sessions::default(),
        };
        Ok(Self {
            mongo: Arc::new(mongo),
        })
    }
}

#[async_trait]
impl Store for MongoStore {
    async fn call(&self, request: StoreRequest) -> Result<StoreReply, PortError> {
        let mongo = self.mongo.clone();
        // The driver's futures must not be dropped half way: a caller that gives up leaves the
        // request to itself.
        let timeout = mongo.operation_timeout;
        let call = tokio::spawn(async move { mongo.carry_out(request).await });
        let unknown = |detail: String| Err(PortError::new(ErrorKind::Unknown, "mongodb", detail));
        match tokio::time::timeout(timeout, call).await {
            Ok(Ok(outcome)) => outcome,
            // The runtime is ending.
            Ok(Err(error)) => unknown(error.to_string()),
            Err(_) => unknown(format!("no answer within {} ms", timeout.as_millis())),
        }
    }
}

impl Mongo {
    pub(crate) fn collection(&self, name: &str) -> Collection<Document> {
        self.database.collection(name)
    }

    async fn carry_out(&self, request: StoreRequest) -> Result<StoreReply, PortError> {
        use StoreRequest as Ask;
        match request {
            Ask::Commit(commit) => commit::commit(self, &commit).await,
            Ask::Sync { .. } => Err(PortError::new(
                ErrorKind::Unsupported,
                "sync",
                "every commit is durable at its reply",
            )),
            Ask::Deployment { propose } => self.deployment(propose).await,
            Ask::AcquireShard {
                shard,
                owner,
                ttl_ms,
            } => self.acquire(shard, &owner, ttl_ms).await,
            Ask::ReleaseShard { shard, owner } => self.release(shard, &owner).await,
            Ask::ReadShard { shard } => self.shard_or_zero(shard).await,
            Ask::RaiseEpoch {
                shard,
                owner,
                epoch,
                commit_seq,
            } => self.raise(shard, &owner, (epoch, commit_seq)).await,
            Ask::LoadTasks {
                shard,
                after,
                limit,
            } => self.load_tasks(shard, after, limit).await,
            Ask::LookupTasks { tasks } => self.lookup(&tasks).await,
            Ask::ReadWorkers => self.workers().await,
            Ask::RegisterWorker { .. } => match side::worker_of(request) {
                Some(worker) => self.register(worker).await,
                None => unreachable!("a registration has a worker"),
            },
            Ask::ReadGrants { worker_id, nodes } => self.grants(&worker_id, &nodes).await,
            Ask::ReadAccepted {
                task_id,
                node_id,
                after,
                limit,
            } => self.accepted(&task_id, &node_id, after, limit).await,
            Ask::ReadArtifacts {
                task_id,
                node_id,
                after,
                limit,
            } => self.artifacts(&task_id, &node_id, after, limit).await,
            Ask::TakeScratch {
                task_id,
                node_id,
                token,
            } => {
                self.take_scratch(&keys::node(&task_id, &node_id), token)
                    .await
            }
            Ask::PutScratch {
                task_id,
                node_id,
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
                self.put_scratch(&keys::node(&task_id, &node_id), &record)
                    .await
            }
            Ask::StageArtifact { .. } => self.stage(request).await,
            Ask::ReadTask { task_id } => self.read_task(&task_id).await,
            Ask::ListTasks { after, limit } => self.list_tasks(after, limit).await,
            Ask::ReadExpired {
                shard,
                failed,
                age_ms,
                after,
                limit,
            } => self.expired((shard, failed), age_ms, after, limit).await,
            Ask::ReadRemains { task_id } => self.remains(&task_id).await,
            Ask::ReadStaged { after, limit } => self.staged_tasks(after, limit).await,
            Ask::SweepStaged {
                task_id,
                after,
                limit,
            } => self.sweep_staged(&task_id, after.as_ref(), limit).await,
            Ask::ActiveRuns { worker_id } => self.active_runs(&worker_id).await,
        }
    }
}
