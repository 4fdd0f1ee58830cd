//! Envelopes of every kind, generated.

use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::strategy::Union;
use serde_json::Value;
use std::fmt::Debug;
use std::sync::Arc;

use crate::control::TaskOptions;
use crate::id::{
    BatchUid, ClientId, DedupId, Epoch, Incarnation, NodeId, Role, TaskId, Token, WorkerId,
};
use crate::json::Json;
use crate::message::*;
use crate::record::{Failure, MetricTotal, Number, TaskState};

/// Values of users, compact and not, `null` included.
fn json() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            vec((".{0,5}", inner), 0..4).prop_map(|fields| fields.into_iter().collect()),
        ]
    })
    .prop_flat_map(|value: Value| {
        let pretty = serde_json::to_string_pretty(&value).unwrap_or_default();
        prop_oneof![
            Just(Json::from(value)),
            Just(Json::parse(&pretty).expect("JSON"))
        ]
    })
}

fn text() -> impl Strategy<Value = Arc<str>> {
    ".{0,12}".prop_map(Arc::from)
}

fn id<T: Debug + Clone + 'static>(
    make: fn(String) -> Result<T, crate::id::IdError>,
) -> impl Strategy<Value = T> {
    "[a-z\"\\\\é🦀:. ][a-z0-9$\"\\\\é🦀]{0,20}".prop_map(move |t| make(t).expect("a name"))
}

fn task() -> impl Strategy<Value = TaskId> {
    id(TaskId::new)
}

fn node() -> impl Strategy<Value = NodeId> {
    id(NodeId::new)
}

fn role() -> impl Strategy<Value = Role> {
    id(Role::new)
}

fn one_of<T: Clone + Debug + 'static>(values: &'static [T]) -> impl Strategy<Value = T> {
    prop::sample::select(values)
}

fn number() -> impl Strategy<Value = Number> {
    prop::num::f64::NORMAL.prop_map(Number)
}

fn metrics() -> impl Strategy<Value = Metrics> {
    btree_map(text(), json(), 0..4)
}

fn cursor() -> impl Strategy<Value = Cursor> {
    btree_map(node(), any::<u64>(), 0..4)
}

fn failure() -> impl Strategy<Value = Failure> {
    (node(), text(), text()).prop_map(|(node_id, reason_code, error)| Failure {
        node_id,
        reason_code,
        error,
    })
}

fn total() -> impl Strategy<Value = MetricTotal> {
    (number(), any::<u64>(), number(), number(), number()).prop_map(
        |(sum, count, min, max, last)| MetricTotal {
            sum,
            count,
            min,
            max,
            last,
        },
    )
}

fn source() -> impl Strategy<Value = SourceState> {
    let kept_from = option::of(task());
    (node(), any::<u64>(), any::<bool>(), kept_from).prop_map(
        |(node_id, last, ended, kept_from)| SourceState {
            node_id,
            last,
            ended,
            kept_from,
        },
    )
}

fn reason() -> impl Strategy<Value = CancelReason> {
    one_of(&[
        CancelReason::UserRequest,
        CancelReason::UpstreamFailed,
        CancelReason::TaskFailed,
        CancelReason::Fenced,
        CancelReason::Yield,
        CancelReason::LeaseLapsed,
        CancelReason::Shutdown,
        CancelReason::StoreUnreachable,
    ])
}

fn state() -> impl Strategy<Value = TaskState> {
    one_of(&[
        TaskState::Queued,
        TaskState::Running,
        TaskState::Paused,
        TaskState::Cancelling,
        TaskState::Finished,
        TaskState::Failed,
        TaskState::Cancelled,
        TaskState::Quarantined,
    ])
}

fn reply() -> impl Strategy<Value = Reply> {
    let kind = one_of(&[
        ReplyError::InvalidGraph,
        ReplyError::IdempotencyConflict,
        ReplyError::NotFound,
        ReplyError::NotSettled,
        ReplyError::Swept,
        ReplyError::Unsupported,
        ReplyError::Overloaded,
        ReplyError::Invalid,
    ]);
    let error = (kind, text(), vec(text(), 0..3)).prop_map(|(kind, message, faults)| ErrorReply {
        kind,
        message,
        faults,
    });
    let parts = (
        any::<bool>(),
        option::of(state()),
        option::of(failure()),
        option::of(error),
    );
    parts.prop_map(|(ok, state, failure, error)| Reply {
        ok,
        state,
        failure,
        error,
    })
}

fn start() -> impl Strategy<Value = TaskStart> {
    let adapter = (text(), json()).prop_map(|(name, args)| AdapterSpec { name, args });
    let input = (json(), option::of(adapter), any::<u64>(), json());
    let resume = (
        option::of(json()),
        any::<u64>(),
        cursor(),
        any::<u64>(),
        any::<u64>(),
    );
    let rest = (btree_map(text(), total(), 0..3), vec(source(), 0..3));
    (input, resume, rest).prop_map(
        |(
            (input, adapter, lease_ttl_ms, vars),
            (checkpoint, checkpoint_batches, cursor, cursor_batches, accepted),
            (totals, sources),
        )| TaskStart {
            input,
            adapter,
            lease_ttl_ms,
            checkpoint,
            checkpoint_batches,
            cursor,
            cursor_batches,
            accepted,
            totals,
            vars,
            sources,
        },
    )
}

fn batch_ok() -> impl Strategy<Value = BatchOk> {
    let artifact = prop_oneof![
        json().prop_map(Artifact::Inline),
        any::<u64>().prop_map(Artifact::Staged),
    ];
    let parts = (
        id(BatchUid::new),
        metrics(),
        option::of(artifact),
        option::of(json()),
        option::of(cursor()),
        option::of(json()),
    );
    parts.prop_map(
        |(batch_uid, metrics, artifact, checkpoint, cursor, result)| BatchOk {
            batch_uid,
            metrics,
            artifact,
            checkpoint,
            cursor,
            result,
        },
    )
}

fn heartbeat() -> impl Strategy<Value = Heartbeat> {
    let run = (task(), node(), any::<u64>(), any::<u64>(), any::<u64>()).prop_map(
        |(task_id, node_id, token, batches, in_batch_ms)| RunBeat {
            task_id,
            node_id,
            token: Token(token),
            batches,
            in_batch_ms,
        },
    );
    vec(run, 0..3).prop_map(|runs| Heartbeat { runs })
}

fn done() -> impl Strategy<Value = TaskDone> {
    let counts = any::<(u64, u64, u64)>().prop_map(|(new, skipped, behind_checkpoint)| Counts {
        new,
        skipped,
        behind_checkpoint,
    });
    let parts = (
        metrics(),
        option::of(json()),
        counts,
        option::of(batch_ok()),
    );
    parts.prop_map(|(metrics, result, counts, last_batch)| TaskDone {
        metrics,
        result,
        counts,
        last_batch,
    })
}

fn failed() -> impl Strategy<Value = TaskFailed> {
    let parts = (
        option::of(id(BatchUid::new)),
        text(),
        any::<bool>(),
        text(),
        option::of(any::<u64>()),
    );
    parts.prop_map(
        |(batch_uid, reason_code, permanent, error, retry_after_ms)| TaskFailed {
            batch_uid,
            reason_code,
            permanent,
            error,
            retry_after_ms,
        },
    )
}

fn online() -> impl Strategy<Value = WorkerOnline> {
    let parts = (
        id(WorkerId::new),
        text(),
        vec(role(), 0..3),
        text(),
        any::<u32>(),
        text(),
        any::<u64>(),
        any::<u32>(),
        (any::<u32>(), any::<u64>()),
    );
    parts.prop_map(
        |(worker_id, kind, roles, version, tasks, status, incarnation, inbox, more)| WorkerOnline {
            worker_id,
            kind,
            capabilities: Capabilities { roles },
            version,
            capacity: Capacity { tasks },
            status,
            incarnation: Incarnation(incarnation),
            inbox,
            abandoned: more.0,
            announce_interval_ms: more.1,
        },
    )
}

fn options() -> impl Strategy<Value = TaskOptions> {
    (any::<i32>(), any::<u64>(), option::of(text())).prop_map(
        |(priority, start_delay_ms, limit_key)| TaskOptions {
            priority,
            start_delay_ms,
            limit_key,
        },
    )
}

fn control() -> impl Strategy<Value = ControlTask> {
    (any::<u64>(), text(), any::<u32>()).prop_map(|(control_no, reason, inbox)| ControlTask {
        control_no,
        reason,
        inbox,
    })
}

/// One strategy for every kind, the unknown one last.
pub(super) fn bodies() -> Vec<BoxedStrategy<Body>> {
    let refusal = one_of(&[
        RefusalReason::Busy,
        RefusalReason::Draining,
        RefusalReason::NoHandler,
        RefusalReason::NotCurrent,
        RefusalReason::StoreUnreachable,
    ]);
    let release = one_of(&[
        ReleaseReason::Shutdown,
        ReleaseReason::Yield,
        ReleaseReason::StoreUnreachable,
        ReleaseReason::LeaseLapsed,
        ReleaseReason::Fenced,
    ]);
    vec![
        (json(), json(), option::of(text()), options(), any::<u32>())
            .prop_map(|(graph, vars, idempotency_key, options, inbox)| {
                Body::Submit(Submit {
                    graph,
                    vars,
                    idempotency_key,
                    options,
                    inbox,
                })
            })
            .boxed(),
        (text(), option::of(any::<u64>()), any::<u32>())
            .prop_map(|(reason, grace_ms, inbox)| {
                Body::CancelTask(CancelTask {
                    reason,
                    grace_ms,
                    inbox,
                })
            })
            .boxed(),
        any::<u32>()
            .prop_map(|inbox| Body::WaitTask(WaitTask { inbox }))
            .boxed(),
        control().prop_map(Body::PauseTask).boxed(),
        control().prop_map(Body::ResumeTask).boxed(),
        (task(), vec(node(), 0..3), any::<bool>(), any::<u32>())
            .prop_map(|(of, from, all, inbox)| {
                Body::RerunTask(RerunTask {
                    of,
                    from,
                    all,
                    inbox,
                })
            })
            .boxed(),
        reply().prop_map(Body::Reply).boxed(),
        start().prop_map(|s| Body::TaskStart(Box::new(s))).boxed(),
        (reason(), any::<u64>())
            .prop_map(|(reason, grace_ms)| Body::TaskCancel(TaskCancel { reason, grace_ms }))
            .boxed(),
        vec(source(), 0..3)
            .prop_map(|sources| Body::InputReady(InputReady { sources }))
            .boxed(),
        refusal
            .prop_map(|reason| Body::TaskRefused(TaskRefused { reason }))
            .boxed(),
        heartbeat().prop_map(Body::Heartbeat).boxed(),
        batch_ok().prop_map(Body::BatchOk).boxed(),
        done().prop_map(Body::TaskDone).boxed(),
        failed().prop_map(Body::TaskFailed).boxed(),
        reason()
            .prop_map(|reason| Body::Cancelled(Cancelled { reason }))
            .boxed(),
        release
            .prop_map(|reason| Body::TaskReleased(TaskReleased { reason }))
            .boxed(),
        Just(Body::SlotFree).boxed(),
        online().prop_map(Body::WorkerOnline).boxed(),
        (id(WorkerId::new), any::<u64>())
            .prop_map(|(worker_id, incarnation)| {
                Body::WorkerOffline(WorkerOffline {
                    worker_id,
                    incarnation: Incarnation(incarnation),
                })
            })
            .boxed(),
        id(ClientId::new)
            .prop_map(|owner| Body::CoordinatorOnline(CoordinatorOnline { owner }))
            .boxed(),
        id(ClientId::new)
            .prop_map(|owner| Body::CoordinatorOffline(CoordinatorOffline { owner }))
            .boxed(),
        (text(), "[A-Z]{0,3}", json())
            .prop_map(|(msg_type, kind, payload)| Body::Unknown {
                msg_type,
                kind: Arc::from(kind),
                payload,
            })
            .boxed(),
    ]
}

/// Any envelope.
pub(super) fn envelopes() -> impl Strategy<Value = Envelope> {
    let role_of_sender = one_of(&[
        SenderRole::Client,
        SenderRole::Coordinator,
        SenderRole::Worker,
    ]);
    let sender =
        (role_of_sender, text(), any::<u64>()).prop_map(|(role, id, incarnation)| Sender {
            role,
            id,
            incarnation: Incarnation(incarnation),
        });
    let address = (
        sender,
        option::of(text()),
        option::of(any::<u64>().prop_map(Incarnation)),
        option::of(text()),
        any::<u64>().prop_map(DedupId),
    );
    let subject = (
        option::of(task()),
        option::of(node()),
        option::of(role()),
        option::of(any::<u32>().prop_map(Epoch)),
        option::of(any::<u64>().prop_map(Token)),
    );
    let rest = (
        option::of(any::<u64>()),
        (option::of(any::<u32>()), option::of(any::<u64>())),
        any::<i64>(),
        Union::new(bodies()),
    );
    (address, subject, rest).prop_map(
        |(
            (sender, to, to_incarnation, corr_id, dedup_id),
            (task_id, node_id, step_type, attempt_epoch, lease_no),
            (seq, (free_slots, slots_no), ts_ms, body),
        )| Envelope {
            sender,
            to,
            to_incarnation,
            corr_id,
            dedup_id,
            task_id,
            node_id,
            step_type,
            attempt_epoch,
            lease_no,
            seq,
            free_slots,
            slots_no,
            ts_ms,
            body,
        },
    )
}
