//! The suite of every transport.

pub mod bounds;
pub mod order;
pub mod waiting;

use flowkit_core::id::{Epoch, Incarnation, Offset, ShardId, Token};
use flowkit_core::message::{BatchOk, Body, Envelope, Sender, SenderRole};
use flowkit_core::port::{Entry, ErrorKind, Stream, Transport, TransportReply, TransportRequest};
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::TransportInstance;
use crate::records::{batch_uid, id, json, node_id, task_id};

/// The stream that most cases use.
const STREAM: Stream = Stream::Shard(ShardId(0));
/// A wait that no case sees the end of.
const LONG_MS: u64 = 60_000;

/// A message with every field set.
fn message(number: u64) -> Arc<Envelope> {
    let sender = Sender {
        role: SenderRole::Worker,
        id: "wörker".into(),
        incarnation: Incarnation(3),
    };
    let body = Body::BatchOk(BatchOk {
        batch_uid: batch_uid(&format!("u{number}")),
        metrics: BTreeMap::from([("lines".into(), json("12"))]),
        artifact: None,
        checkpoint: Some(json(r#"{"at":"ü"}"#)),
        cursor: None,
        result: Some(json(r#"["ü"]"#)),
    });
    let mut message = Envelope::new(sender, -1, body);
    message.to = Some("c".into());
    message.to_incarnation = Some(Incarnation(1));
    message.corr_id = Some("corr".into());
    message.task_id = Some(task_id("任务"));
    message.node_id = Some(node_id("n"));
    message.step_type = Some(id("count"));
    message.attempt_epoch = Some(Epoch(2));
    message.lease_no = Some(Token(9));
    message.seq = Some(number);
    message.free_slots = Some(0);
    Arc::new(message.identified(number))
}

async fn append(transport: &dyn Transport, stream: Stream, message: Arc<Envelope>) -> Offset {
    let request = TransportRequest::Append {
        stream,
        envelope: message,
    };
    match transport.call(request).await {
        Ok(TransportReply::Appended { offset }) => offset,
        other => panic!("not appended: {other:?}"),
    }
}

async fn read(
    transport: &dyn Transport,
    stream: Stream,
    from: Offset,
    limit: u32,
    wait_ms: u64,
) -> Result<(Vec<Entry>, Offset), ErrorKind> {
    let request = TransportRequest::Read {
        stream,
        from,
        limit,
        wait_ms,
    };
    match transport.call(request).await {
        Ok(TransportReply::Entries { entries, next }) => Ok((entries, next)),
        Ok(other) => panic!("not entries: {other:?}"),
        Err(error) => Err(error.kind),
    }
}

/// Everything from an offset on, page by page; whatever lies between is waited for.
async fn read_until(
    transport: &dyn Transport,
    stream: Stream,
    from: Offset,
    end: Offset,
) -> Vec<Entry> {
    let mut found = Vec::new();
    let mut next = from;
    while next < end {
        let page = read(transport, stream, next, 100, LONG_MS).await;
        let (entries, after) = page.expect("inside the log");
        assert!(after > next, "no progress at {next}");
        found.extend(entries);
        next = after;
    }
    found
}

async fn bounds(instance: &TransportInstance, stream: Stream) -> (Offset, Offset) {
    match instance.call(TransportRequest::Bounds { stream }).await {
        Ok(TransportReply::Bounds { start, end }) => (start, end),
        other => panic!("not bounds: {other:?}"),
    }
}

/// The `seq` of each entry, which cases number their messages by.
fn numbers(entries: &[Entry]) -> Vec<u64> {
    let number = |entry: &Entry| entry.message.as_ref().ok().and_then(|m| m.seq);
    entries.iter().filter_map(number).collect()
}
