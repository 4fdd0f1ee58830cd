//! What is written beside commits: each request is one conditional write of one document.

use flowkit_core::id::{ClientId, Incarnation, ShardId, Token, WorkerId};
use flowkit_core::json::Json;
use flowkit_core::port::{ErrorKind, LeaseView, PortError, StoreReply, StoreRequest, WorkerList};
use flowkit_core::record::{
    DeploymentRecord, RECORD_VERSION, ScratchRecord, ShardRecord, WorkerRecord,
};
use futures_util::TryStreamExt;
use mongodb::bson::{Document, doc};
use mongodb::error::Error;
use mongodb::options::ReturnDocument;

use crate::commit::is_duplicate;
use crate::error::{Effect, port_error};
use crate::store::Mongo;
use crate::{keys, records, sessions};

/// Tries of a conditional write of a document that others change meanwhile.
const LOOKS_MAX: usize = 5;

impl Mongo {
    pub(crate) async fn deployment(
        &self,
        propose: DeploymentRecord,
    ) -> Result<StoreReply, PortError> {
        let fields = doc! {
            "shards": i64::from(propose.shards), "inboxes": i64::from(propose.inboxes),
        };
        let found = self
            .collection("meta")
            .find_one_and_update(
                doc! { "_id": "deployment" },
                doc! { "$setOnInsert": fields },
            )
            .upsert(true)
            .return_document(ReturnDocument::After)
            .await
            .map_err(|error| port_error("deployment", Effect::Write, &error))?;
        let number = |field, default: u32| {
            let number = found.as_ref().map_or(0, |found| keys::number(found, field));
            u32::try_from(number)
                .ok()
                .filter(|n| *n > 0)
                .unwrap_or(default)
        };
        Ok(StoreReply::Deployment(DeploymentRecord {
            shards: number("shards", propose.shards),
            inboxes: number("inboxes", propose.inboxes),
        }))
    }

    pub(crate) async fn acquire(
        &self,
        shard: ShardId,
        owner: &ClientId,
        ttl_ms: u64,
    ) -> Result<StoreReply, PortError> {
        const OP: &str = "acquire_shard";
        let id = i64::from(shard.0);
        // One operation, whoever holds it: free, lapsed and ours are taken, another's stays as it is.
        let take = vec![
            doc! { "$set": { "seen": "$$NOW", "taken": { "$or": [
                { "$eq": ["$owner", { "$literal": owner.as_str() }] },
                { "$lte": [{ "$ifNull": ["$until", "$$NOW"] }, "$$NOW"] },
            ] } } },
            doc! { "$set": {
                "owner": { "$cond": ["$taken", { "$literal": owner.as_str() }, "$owner"] },
                "until": { "$cond": ["$taken", { "$add": ["$$NOW", keys::int(ttl_ms)] }, "$until"] },
            } },
        ];
        let lease = self
            .collection("leases")
            .find_one_and_update(doc! { "_id": id }, take)
            .upsert(true)
            .return_document(ReturnDocument::After)
            .await
            .map_err(|error| port_error(OP, Effect::Write, &error))?
            .unwrap_or_default();
        if lease.get_bool("taken").unwrap_or(false) {
            return Ok(StoreReply::Lease(LeaseView {
                held: true,
                owner: owner.clone(),
                remaining_ms: ttl_ms,
            }));
        }
        let holder = keys::text(&lease, "owner").and_then(|id| ClientId::new(id).ok());
        let times = (lease.get_datetime("until"), lease.get_datetime("seen"));
        match (holder, times) {
            (Some(owner), (Ok(until), Ok(seen))) => {
                let left = until.timestamp_millis() - seen.timestamp_millis();
                Ok(StoreReply::Lease(LeaseView {
                    held: false,
                    owner,
                    remaining_ms: u64::try_from(left).unwrap_or(0),
                }))
            }
            _ => Err(PortError::new(
                ErrorKind::Corrupt,
                OP,
                "the lease cannot be read",
            )),
        }
    }

    /// Who holds a lease that has not lapsed, and for how long, by the server's clock.
    async fn holder(&self, op: &str, shard: ShardId) -> Result<Option<(ClientId, u64)>, PortError> {
        let pipeline = vec![
            doc! { "$match": { "_id": i64::from(shard.0) } },
            doc! { "$project": {
                "owner": 1, "left": { "$subtract": ["$until", "$$NOW"] },
            } },
        ];
        let failed = |error: Error| port_error(op, Effect::None, &error);
        let mut found = self
            .collection("leases")
            .aggregate(pipeline)
            .await
            .map_err(failed)?;
        let lease = found.try_next().await.map_err(failed)?;
        Ok(lease.and_then(|lease| {
            let owner = ClientId::new(keys::text(&lease, "owner")?).ok()?;
            let left = lease.get_i64("left").ok()?;
            let left = u64::try_from(left).ok().filter(|left| *left > 0)?;
            Some((owner, left))
        }))
    }

    pub(crate) async fn release(
        &self,
        shard: ShardId,
        owner: &ClientId,
    ) -> Result<StoreReply, PortError> {
        let filter = doc! { "_id": i64::from(shard.0), "owner": owner.as_str() };
        self.collection("leases")
            .delete_one(filter)
            .await
            .map_err(|error| port_error("release_shard", Effect::Write, &error))?;
        Ok(StoreReply::Done)
    }

    /// The lease is looked at first, the record is raised by compare-and-set: if the lease changes
    /// hands in between, one of both raises and the other is fenced.
    pub(crate) async fn raise(
        &self,
        shard: ShardId,
        owner: &ClientId,
        (epoch, commit_seq): (u64, u64),
    ) -> Result<StoreReply, PortError> {
        const OP: &str = "raise_epoch";
        let fenced = |detail: &str| Err(PortError::new(ErrorKind::Fenced, OP, detail));
        let holder = self.holder(OP, shard).await?;
        if holder.is_none_or(|(holder, _)| holder != *owner) {
            return fenced("the lease is not the asker's");
        }
        let failed = |error: Error| port_error(OP, Effect::Write, &error);
        let id = doc! { "_id": i64::from(shard.0) };
        let before = self.collection("shards").find_one(id).await;
        self.end_session(&before.map_err(failed)?.unwrap_or_default())
            .await;
        let session = self.client.start_session().await.map_err(failed)?;
        let raised = self
            .collection("shards")
            .find_one_and_update(
                doc! {
                    "_id": i64::from(shard.0),
                    "epoch": keys::int(epoch),
                    "commit_seq": keys::int(commit_seq),
                },
                doc! {
                    "$inc": { "epoch": 1_i64 },
                    "$set": { "session": sessions::id_of(&session) },
                },
            )
            // Behind a commit that was begun meanwhile: then once more, with its end.
            .max_time(self.operation_timeout)
            .upsert(epoch == 0 && commit_seq == 0)
            .return_document(ReturnDocument::After)
            .await;
        match raised {
            Ok(Some(raised)) => {
                let raised = shard_of(shard, &raised);
                self.sessions.keep(shard, raised.epoch, session);
                Ok(StoreReply::Shard(raised))
            }
            Ok(None) => fenced("epoch or commit_seq moved on"),
            Err(error) if is_duplicate(&error) => fenced("epoch or commit_seq moved on"),
            Err(error) => Err(failed(error)),
        }
    }

    /// A shard record, if there is one.
    pub(crate) async fn shard(
        &self,
        op: &str,
        shard: ShardId,
    ) -> Result<Option<ShardRecord>, PortError> {
        let found = self
            .collection("shards")
            .find_one(doc! { "_id": i64::from(shard.0) })
            .await
            .map_err(|error| port_error(op, Effect::None, &error))?;
        Ok(found.map(|found| shard_of(shard, &found)))
    }

    /// The same, all zero if there is none.
    pub(crate) async fn shard_or_zero(&self, shard: ShardId) -> Result<StoreReply, PortError> {
        let found = self.shard("read_shard", shard).await?;
        let zero = || shard_of(shard, &Document::new());
        Ok(StoreReply::Shard(found.unwrap_or_else(zero)))
    }

    pub(crate) async fn register(&self, worker: WorkerRecord) -> Result<StoreReply, PortError> {
        const OP: &str = "register_worker";
        let refused = |detail: String| PortError::new(ErrorKind::Invalid, OP, detail);
        let raised = worker.incarnation;
        let expected = raised.0.saturating_sub(1);
        let fields = doc! {
            "incarnation": keys::int(raised.0),
            "nonce": keys::int(worker.start_nonce),
            "v": i32::from(worker.version),
            "body": records::body(&worker).map_err(refused)?,
        };
        let id = worker.worker_id.as_str();
        let written = self
            .collection("workers")
            .update_one(
                doc! { "_id": id, "incarnation": keys::int(expected) },
                doc! { "$set": fields },
            )
            .upsert(expected == 0)
            .await;
        match written {
            Ok(done) if done.matched_count + u64::from(done.upserted_id.is_some()) > 0 => {
                return Ok(StoreReply::Registered(raised));
            }
            Ok(_) => {}
            Err(error) if is_duplicate(&error) => {}
            Err(error) => return Err(port_error(OP, Effect::Write, &error)),
        }
        let stored = self.find_one(OP, "workers", id).await?.unwrap_or_default();
        let incarnation = keys::number(&stored, "incarnation");
        let repeated =
            incarnation == raised.0 && keys::number(&stored, "nonce") == worker.start_nonce;
        Ok(if repeated {
            StoreReply::Registered(raised)
        } else {
            StoreReply::IncarnationIs(Incarnation(incarnation))
        })
    }

    pub(crate) async fn take_scratch(
        &self,
        key: &str,
        token: Token,
    ) -> Result<StoreReply, PortError> {
        const OP: &str = "take_scratch";
        let own = keys::int(token.0);
        // Numbers of saves begin anew under a new token; what was saved stays.
        let raise = vec![doc! { "$set": {
            "save_no": { "$cond": [{ "$eq": ["$token", own] }, "$save_no", 0_i64] },
            "token": own,
        } }];
        for _ in 0..LOOKS_MAX {
            let before = self
                .collection("scratch")
                .find_one_and_update(doc! { "_id": key, "token": { "$lte": own } }, raise.clone())
                .upsert(true)
                .return_document(ReturnDocument::Before)
                .await;
            match before {
                Ok(None) => return Ok(StoreReply::Scratch(None)),
                Ok(Some(found)) => return Ok(StoreReply::Scratch(scratch_of(&found)?)),
                Err(error) if is_duplicate(&error) => {}
                Err(error) => return Err(port_error(OP, Effect::Write, &error)),
            }
            // A greater token is there, or another one was the first just now.
            let stored = self.find_one(OP, "scratch", key).await?.unwrap_or_default();
            if keys::number(&stored, "token") > token.0 {
                return Err(fenced(OP));
            }
        }
        Err(contended(OP))
    }

    pub(crate) async fn put_scratch(
        &self,
        key: &str,
        record: &ScratchRecord,
    ) -> Result<StoreReply, PortError> {
        const OP: &str = "put_scratch";
        let own = keys::int(record.token.0);
        let save_no = keys::int(record.save_no);
        let may_write = doc! { "_id": key, "$or": [
            { "token": { "$lt": own } },
            { "token": own, "save_no": { "$lte": save_no } },
        ] };
        let fields = doc! {
            "token": own,
            "save_no": save_no,
            "uid": record.batch_uid.as_ref().map(|uid| uid.as_str()),
            "body": record.checkpoint.text(),
        };
        for _ in 0..LOOKS_MAX {
            let written = self
                .collection("scratch")
                .update_one(may_write.clone(), doc! { "$set": fields.clone() })
                .upsert(true)
                .await;
            match written {
                Ok(_) => return Ok(StoreReply::Done),
                Err(error) if is_duplicate(&error) => {}
                Err(error) => return Err(port_error(OP, Effect::Write, &error)),
            }
            let stored = self.find_one(OP, "scratch", key).await?.unwrap_or_default();
            let stored = (
                keys::number(&stored, "token"),
                keys::number(&stored, "save_no"),
            );
            if stored.0 > record.token.0 {
                return Err(fenced(OP));
            }
            // A late copy of an older save; otherwise another one was the first just now.
            if stored > (record.token.0, record.save_no) {
                return Ok(StoreReply::Done);
            }
        }
        Err(contended(OP))
    }

    pub(crate) async fn stage(&self, request: StoreRequest) -> Result<StoreReply, PortError> {
        const OP: &str = "stage_artifact";
        let StoreRequest::StageArtifact {
            task_id,
            node_id,
            batch_uid,
            token,
            body,
        } = request
        else {
            return Err(PortError::new(
                ErrorKind::Unsupported,
                OP,
                "another request",
            ));
        };
        let reads = |error: Error| port_error(OP, Effect::None, &error);
        let id = keys::staged(&task_id, &node_id, &batch_uid, token);
        let accepted = self
            .collection("artifacts")
            .find_one(doc! {
                "node": keys::node(&task_id, &node_id),
                "uid": batch_uid.as_str(),
                "token": keys::int(token.0),
            })
            .projection(doc! { "_id": 1 })
            .await
            .map_err(reads)?;
        if accepted.is_some() {
            let staged = self.find_one(OP, "staged", &id).await?.unwrap_or_default();
            if keys::text(&staged, "body") != Some(body.text()) {
                let detail = "accepted with another body";
                return Err(PortError::new(ErrorKind::Conflict, OP, detail));
            }
            return Ok(StoreReply::Done);
        }
        self.collection("staged")
            .update_one(
                doc! { "_id": &id },
                doc! { "$set": { "task": task_id.as_str(), "body": body.text() } },
            )
            .upsert(true)
            .await
            .map_err(|error| port_error(OP, Effect::Write, &error))?;
        Ok(StoreReply::Done)
    }

    pub(crate) async fn workers(&self) -> Result<StoreReply, PortError> {
        const OP: &str = "read_workers";
        let found = self.find(OP, "workers", doc! {}, 0).await?;
        let mut workers = WorkerList::default();
        for document in &found {
            match records::decode::<WorkerRecord>(document) {
                Ok(worker) => workers.workers.push(worker),
                // One that a newer program wrote: this one has nothing to send it.
                Err(reason) => match WorkerId::new(keys::text(document, "_id").unwrap_or_default())
                {
                    Ok(id) => workers.unreadable.push((id, reason)),
                    Err(_) => tracing::warn!("a worker's record is left out: {reason}"),
                },
            }
        }
        Ok(StoreReply::Workers(workers))
    }
}

/// No try of ours found the document as the one before had left it.
fn contended(op: &str) -> PortError {
    PortError::new(ErrorKind::Retry, op, "others change it all the time")
}

fn fenced(op: &str) -> PortError {
    PortError::new(ErrorKind::Fenced, op, "a greater token was there")
}

fn shard_of(shard: ShardId, document: &Document) -> ShardRecord {
    ShardRecord {
        shard,
        epoch: keys::number(document, "epoch"),
        commit_seq: keys::number(document, "commit_seq"),
        commit_id: keys::number(document, "commit_id"),
        next: flowkit_core::id::Offset(keys::number(document, "next")),
        last_entry: document
            .get_i64("last_entry")
            .ok()
            .map(|id| flowkit_core::id::DedupId(id.cast_unsigned())),
    }
}

fn scratch_of(document: &Document) -> Result<Option<ScratchRecord>, PortError> {
    let Some(uid) = keys::text(document, "uid") else {
        return Ok(None); // Only read so far.
    };
    let corrupt = |detail: String| PortError::new(ErrorKind::Corrupt, "take_scratch", detail);
    let uid = uid
        .parse()
        .map_err(|error| corrupt(format!("batch uid: {error}")))?;
    let checkpoint = Json::parse(keys::text(document, "body").unwrap_or("null"));
    Ok(Some(ScratchRecord {
        token: Token(keys::number(document, "token")),
        save_no: keys::number(document, "save_no"),
        batch_uid: Some(uid),
        checkpoint: checkpoint.map_err(|error| corrupt(error.to_string()))?,
    }))
}

/// The record of a registration.
pub(crate) fn worker_of(request: StoreRequest) -> Option<WorkerRecord> {
    match request {
        StoreRequest::RegisterWorker {
            worker_id,
            expected,
            start_nonce,
            roles,
            capacity,
            inbox,
            worker_version,
        } => Some(WorkerRecord {
            version: RECORD_VERSION,
            worker_id,
            incarnation: expected.next(),
            start_nonce,
            roles,
            capacity,
            inbox,
            worker_version,
        }),
        _ => None,
    }
}
