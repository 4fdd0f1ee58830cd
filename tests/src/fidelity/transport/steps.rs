//! The generator: what may be asked of a transport, and what others may put into its streams.

use flowkit_core::id::{Epoch, Incarnation, Offset, ShardId, Token};
use flowkit_core::message::{
    Artifact, BatchOk, Body, Envelope, ErrorReply, Heartbeat, MESSAGE_BYTES_MAX, Reply, ReplyError,
    RunBeat, Sender, SenderRole, TaskFailed,
};
use flowkit_core::port::Stream;
use flowkit_core::record::TaskState;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::records::{batch_uid, id, json, node_id, task_id};

/// Shards and inboxes of the deployment.
pub(super) const SHARDS: u32 = 2;
pub(super) const INBOXES: u32 = 2;

/// Its streams.
pub(super) const STREAMS: [Stream; 5] = [
    Stream::Shard(ShardId(0)),
    Stream::Shard(ShardId(1)),
    Stream::Inbox(0),
    Stream::Inbox(1),
    Stream::Announcements,
];

/// Streams that it does not have.
const WRONG: [Stream; 4] = [
    Stream::Shard(ShardId(SHARDS)),
    Stream::Shard(ShardId(u32::MAX)),
    Stream::Inbox(INBOXES),
    Stream::Inbox(u32::MAX),
];

#[derive(Clone, Debug)]
pub(super) enum Step {
    Append(Stream, Message),
    /// Each is asked for before the one before it is answered.
    Burst(Vec<(Stream, Message)>),
    /// Another program's bytes.
    Foreign(Stream, Foreign),
    Read {
        stream: Stream,
        from: From,
        limit: u32,
        wait_ms: u64,
    },
    /// Goes on where the last read of the stream ended.
    Follow {
        stream: Stream,
        limit: u32,
    },
    /// A read that waits at the end is woken by an append.
    Awaited(Stream, Message),
    /// A read that waits at the end is dropped.
    Dropped(Stream),
    Bounds(Stream),
    Forget(Stream, From),
    /// The client's process ends, and another one goes on.
    Reopen,
}

/// An offset, by where the log is.
#[derive(Clone, Copy, Debug)]
pub(super) enum From {
    Start(u64),
    BeforeEnd(u64),
    BehindEnd(u64),
    At(u64),
}

impl From {
    pub(super) fn offset(self, (start, end): (Offset, Offset)) -> Offset {
        Offset(match self {
            Self::Start(n) => start.0 + n,
            Self::BeforeEnd(n) => end.0.saturating_sub(n),
            Self::BehindEnd(n) => end.0 + n,
            Self::At(offset) => offset,
        })
    }
}

/// A message of any size.
#[derive(Clone, Debug)]
pub(super) enum Message {
    Small(Box<Envelope>),
    /// Encoded, it has as many bytes as a message may have, less these.
    Below(usize),
    /// Encoded, it has so many bytes too many.
    Above(usize),
}

impl Message {
    pub(super) fn envelope(&self) -> Arc<Envelope> {
        match self {
            Self::Small(envelope) => Arc::new((**envelope).clone()),
            Self::Below(bytes) => Arc::new(sized(MESSAGE_BYTES_MAX - bytes)),
            Self::Above(bytes) => Arc::new(sized(MESSAGE_BYTES_MAX + bytes)),
        }
    }
}

/// A message of so many bytes.
fn sized(bytes: usize) -> Envelope {
    let mut message = Envelope::new(sender("w", 1), 0, Body::SlotFree);
    message.corr_id = Some("".into());
    let frame = message.encode().map_or(0, |encoded| encoded.len());
    message.corr_id = Some("x".repeat(bytes - frame).into());
    message
}

/// What another program may write.
#[derive(Clone, Debug)]
pub(super) enum Foreign {
    Message(Box<Envelope>),
    Bytes(Vec<u8>),
    /// The start of a message.
    Cut(Box<Envelope>, prop::sample::Index),
    /// Of another version.
    Version(u32),
    /// Of a kind that is known, with a payload that is not its own.
    Payload,
    TooLarge,
}

impl Foreign {
    pub(super) fn bytes(&self) -> Vec<u8> {
        let encoded = |envelope: &Envelope| envelope.encode().unwrap_or_default();
        match self {
            Self::Message(envelope) => encoded(envelope),
            Self::Bytes(bytes) => bytes.clone(),
            Self::Cut(envelope, at) => {
                let mut bytes = encoded(envelope);
                bytes.truncate(at.index(bytes.len()));
                bytes
            }
            Self::Version(version) => text(*version, "SLOT_FREE"),
            Self::Payload => text(1, "BATCH_OK"),
            Self::TooLarge => vec![b' '; MESSAGE_BYTES_MAX + 1],
        }
    }
}

fn text(version: u32, kind: &str) -> Vec<u8> {
    format!(
        r#"{{"v":{version},"msg_type":"event","kind":"{kind}","sender":{{"role":"worker","id":"w"}},"payload":7}}"#
    )
    .into_bytes()
}

fn sender(id: &str, incarnation: u64) -> Sender {
    Sender {
        role: SenderRole::Worker,
        id: id.into(),
        incarnation: Incarnation(incarnation),
    }
}

fn body() -> impl Strategy<Value = Body> {
    let words = || ".{0,12}".prop_map(Arc::<str>::from);
    let value = || {
        prop::sample::select(&[
            "null",
            r#"{"a":[1,2.50,-0.0,1e400],"ü":"\u0000\ud83e\udd80"}"#,
            "18446744073709551616",
            r#" { "spaced" : true } "#,
            r#""""#,
        ])
        .prop_map(json)
    };
    let beat = any::<[u64; 3]>().prop_map(|[token, batches, in_batch_ms]| RunBeat {
        task_id: task_id("任务"),
        node_id: node_id("n"),
        token: Token(token),
        batches,
        in_batch_ms,
    });
    let artifact = prop_oneof![
        value().prop_map(Artifact::Inline),
        any::<u64>().prop_map(Artifact::Staged),
    ];
    let batch = (words(), value(), option::of(artifact), option::of(value())).prop_map(
        |(name, metric, artifact, checkpoint)| BatchOk {
            batch_uid: batch_uid("u \" é"),
            metrics: BTreeMap::from([(name, metric)]),
            artifact,
            checkpoint,
            cursor: Some(BTreeMap::from([(node_id("n"), u64::MAX)])),
            result: None,
        },
    );
    let reply = (any::<bool>(), words(), vec(words(), 0..3)).prop_map(|(ok, message, faults)| {
        let error = ErrorReply {
            kind: ReplyError::InvalidGraph,
            message,
            faults,
        };
        Reply {
            ok,
            state: ok.then_some(TaskState::Running),
            failure: None,
            error: (!ok).then_some(error),
        }
    });
    let failed = (words(), words(), option::of(any::<u64>())).prop_map(
        |(reason_code, error, retry_after_ms)| TaskFailed {
            batch_uid: None,
            reason_code,
            permanent: false,
            error,
            retry_after_ms,
        },
    );
    prop_oneof![
        2 => Just(Body::SlotFree),
        1 => vec(beat, 0..4).prop_map(|runs| Body::Heartbeat(Heartbeat { runs })),
        2 => batch.prop_map(Body::BatchOk),
        1 => reply.prop_map(Body::Reply),
        1 => failed.prop_map(Body::TaskFailed),
        1 => (words(), value()).prop_map(|(word, payload)| Body::Unknown {
            msg_type: word.clone(),
            kind: format!("NEW {word}").into(),
            payload,
        }),
    ]
}

fn envelope() -> impl Strategy<Value = Box<Envelope>> {
    let address = (".{0,8}", any::<u64>(), option::of(".{0,8}"), any::<bool>());
    let numbers = (any::<i64>(), option::of(any::<u64>()), any::<u32>());
    (address, numbers, body(), any::<u64>()).prop_map(
        |((from, incarnation, to, full), (ts_ms, seq, slots), body, nonce)| {
            let mut message = Envelope::new(sender(&from, incarnation), ts_ms, body);
            message.to = to.map(Arc::from);
            message.seq = seq;
            if full {
                message.to_incarnation = Some(Incarnation(incarnation));
                message.corr_id = Some("corr \u{7f}".into());
                message.task_id = Some(task_id("任务"));
                message.node_id = Some(node_id("a/b"));
                message.step_type = Some(id("count"));
                message.attempt_epoch = Some(Epoch(slots));
                message.lease_no = Some(Token(nonce));
                message.free_slots = Some(slots);
            }
            Box::new(message.identified(nonce))
        },
    )
}

fn message() -> impl Strategy<Value = Message> {
    prop_oneof![
        100 => envelope().prop_map(Message::Small),
        1 => prop::sample::select(&[0_usize, 1, 500_000][..]).prop_map(Message::Below),
        1 => prop::sample::select(&[1_usize, 70_000, 3_000_000][..]).prop_map(Message::Above),
    ]
}

fn foreign() -> impl Strategy<Value = Foreign> {
    prop_oneof![
        4 => envelope().prop_map(Foreign::Message),
        2 => vec(any::<u8>(), 0..20).prop_map(Foreign::Bytes),
        2 => (envelope(), any::<prop::sample::Index>()).prop_map(|(m, at)| Foreign::Cut(m, at)),
        1 => prop::sample::select(&[0_u32, 2, u32::MAX][..]).prop_map(Foreign::Version),
        1 => Just(Foreign::Payload),
        1 => Just(Foreign::TooLarge),
    ]
}

/// Most often one of the first, so that logs grow.
fn stream() -> impl Strategy<Value = Stream> {
    prop_oneof![
        40 => Just(STREAMS[0]),
        30 => prop::sample::select(&STREAMS[1..]),
    ]
}

fn any_stream() -> impl Strategy<Value = Stream> {
    prop_oneof![
        20 => stream(),
        1 => prop::sample::select(&WRONG[..]),
    ]
}

fn from() -> impl Strategy<Value = From> {
    prop_oneof![
        3 => (0..4_u64).prop_map(From::Start),
        6 => (0..12_u64).prop_map(From::BeforeEnd),
        2 => (1..4_u64).prop_map(From::BehindEnd),
        1 => prop::sample::select(&[0, 1 << 40, (1 << 63) - 1, 1 << 63, u64::MAX][..])
            .prop_map(From::At),
    ]
}

fn limit() -> impl Strategy<Value = u32> {
    prop_oneof![
        4 => 0..6_u32,
        1 => Just(1_000),
        1 => Just(u32::MAX),
    ]
}

pub(super) fn step() -> impl Strategy<Value = Step> {
    let wait_ms = prop_oneof![4 => Just(0), 1 => 1..6_u64];
    prop_oneof![
        24 => (any_stream(), message()).prop_map(|(stream, m)| Step::Append(stream, m)),
        6 => vec((any_stream(), message()), 2..12).prop_map(Step::Burst),
        4 => (stream(), foreign()).prop_map(|(stream, foreign)| Step::Foreign(stream, foreign)),
        20 => (any_stream(), from(), limit(), wait_ms)
            .prop_map(|(stream, from, limit, wait_ms)| Step::Read { stream, from, limit, wait_ms }),
        16 => (stream(), limit()).prop_map(|(stream, limit)| Step::Follow { stream, limit }),
        3 => (stream(), message()).prop_map(|(stream, m)| Step::Awaited(stream, m)),
        1 => stream().prop_map(Step::Dropped),
        10 => any_stream().prop_map(Step::Bounds),
        3 => (any_stream(), from()).prop_map(|(stream, from)| Step::Forget(stream, from)),
        1 => Just(Step::Reopen),
    ]
}
