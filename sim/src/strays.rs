//! Messages of nobody, which nobody should trip over: what a fault puts into streams beside entries that are no
//! messages at all.

use flowkit_core::id::{BatchUid, Incarnation, NodeId, ShardId, TaskId, Token, WorkerId};
use flowkit_core::json::Json;
use flowkit_core::message::{
    BatchOk, Body, CancelReason, Counts, Envelope, ErrorReply, Metrics, Reply, ReplyError, Sender,
    SenderRole, TaskCancel, TaskDone, WorkerOffline,
};
use flowkit_core::port::Stream;
use std::sync::Arc;

use crate::plan::Plan;

/// A token that no run ever gets.
const NEVER: Token = Token(1_000_000);
/// No process start has it.
const NOBODYS: Incarnation = Incarnation(7);

/// The strays of a plan by their streams: a shard's, every inbox, the announcements. Each has an
/// identity of its own, from `nonce` on.
#[must_use]
pub fn strays(plan: &Plan, shard: u32, mut nonce: u64) -> Vec<(Stream, Vec<Envelope>)> {
    let task = plan.tasks.first().map_or("none", |task| &task.id);
    let shard = Stream::Shard(ShardId(shard.min(plan.world.shards - 1)));
    let mut all = vec![(shard, for_owners(task))];
    let workers = || plan.world.workers.iter().map(|worker| worker.id.as_str());
    let inboxes = (0..plan.world.inboxes).map(Stream::Inbox);
    all.extend(inboxes.map(|inbox| (inbox, for_workers_and_clients(task, workers()))));
    all.push((Stream::Announcements, for_every_owner()));
    for stray in all.iter_mut().flat_map(|(_, strays)| strays) {
        *stray = stray.clone().identified(nonce);
        nonce += 1;
    }
    all
}

/// Under a token that was never given, and of a kind that is not known.
fn for_owners(task: &str) -> Vec<Envelope> {
    let done = Body::TaskDone(TaskDone {
        metrics: Metrics::new(),
        result: None,
        counts: Counts::default(),
        last_batch: None,
    });
    let mut bodies = vec![done, of_the_future()];
    bodies.extend(BatchUid::new("stray").ok().map(|batch_uid| {
        Body::BatchOk(BatchOk {
            batch_uid,
            metrics: Metrics::new(),
            artifact: None,
            checkpoint: None,
            cursor: None,
            result: None,
        })
    }));
    let about_a_run = |body| about_a_run(SenderRole::Worker, task, body);
    bodies.into_iter().map(about_a_run).collect()
}

/// An answer to a question that nobody asked, a kind that is not known, and for every worker the end of
/// a run that it never had, as it is and for an earlier start of it.
fn for_workers_and_clients<'w>(
    task: &str,
    workers: impl Iterator<Item = &'w str>,
) -> Vec<Envelope> {
    let answer = Body::Reply(Reply {
        ok: false,
        state: None,
        failure: None,
        error: Some(ErrorReply {
            kind: ReplyError::InvalidGraph,
            message: Arc::from("a stray"),
            faults: Vec::new(),
        }),
    });
    let mut answer = about_a_run(SenderRole::Coordinator, task, answer);
    answer.corr_id = Some(Arc::from("never asked"));
    let mut all = vec![answer];
    for worker in workers {
        for incarnation in [None, Some(NOBODYS)] {
            let cancel = Body::TaskCancel(TaskCancel {
                reason: CancelReason::Fenced,
                grace_ms: 0,
            });
            for body in [cancel, of_the_future()] {
                let mut stray = about_a_run(SenderRole::Coordinator, task, body);
                stray.to = Some(Arc::from(worker));
                stray.to_incarnation = incarnation;
                all.push(stray);
            }
        }
    }
    all
}

/// The leaving of a worker that never came, and a kind that is not known.
fn for_every_owner() -> Vec<Envelope> {
    let mut bodies = vec![of_the_future()];
    bodies.extend(WorkerId::new("nobody").ok().map(|worker_id| {
        Body::WorkerOffline(WorkerOffline {
            worker_id,
            incarnation: NOBODYS,
        })
    }));
    let all = bodies.into_iter();
    all.map(|body| Envelope::new(nobody(SenderRole::Worker), 0, body))
        .collect()
}

fn of_the_future() -> Body {
    Body::Unknown {
        msg_type: Arc::from("event"),
        kind: Arc::from("FROM_THE_FUTURE"),
        payload: Json::null(),
    }
}

fn nobody(role: SenderRole) -> Sender {
    Sender {
        role,
        id: Arc::from("nobody"),
        incarnation: NOBODYS,
    }
}

fn about_a_run(role: SenderRole, task: &str, body: Body) -> Envelope {
    let mut envelope = Envelope::new(nobody(role), 0, body);
    envelope.task_id = TaskId::new(task).ok();
    envelope.node_id = NodeId::new("scan").ok();
    envelope.lease_no = Some(NEVER);
    envelope.seq = Some(1);
    envelope
}
