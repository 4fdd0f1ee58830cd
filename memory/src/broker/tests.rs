//! Tests of the broker model.

use super::*;
use flowkit_core::id::ShardId;
use flowkit_core::message::{Body, Envelope, Sender, SenderRole};
use flowkit_core::port::ErrorKind;
use std::sync::Arc;

const STREAM: Stream = Stream::Shard(ShardId(0));

fn envelope(nonce: u64) -> Arc<Envelope> {
    let sender = Sender {
        role: SenderRole::Worker,
        id: Arc::from("w"),
        incarnation: flowkit_core::id::Incarnation(1),
    };
    Arc::new(Envelope::new(sender, 0, Body::SlotFree).identified(nonce))
}

fn append(broker: &mut BrokerModel, now_ms: u64, nonce: u64) {
    let request = TransportRequest::Append {
        stream: STREAM,
        envelope: envelope(nonce),
    };
    assert!(matches!(
        broker.apply(now_ms, &request),
        Outcome::Done(Ok(_))
    ));
}

fn read(from: u64, wait_ms: u64) -> TransportRequest {
    TransportRequest::Read {
        stream: STREAM,
        from: Offset(from),
        limit: 10,
        wait_ms,
    }
}

fn read_now(broker: &mut BrokerModel, from: u64) -> Vec<(u64, Option<Arc<Envelope>>)> {
    match broker.apply(0, &read(from, 0)) {
        Outcome::Done(Ok(TransportReply::Entries { entries, .. })) => entries
            .into_iter()
            .map(|e| (e.offset.0, e.message.ok()))
            .collect(),
        other => panic!("not entries: {other:?}"),
    }
}

fn is_invalid(broker: &mut BrokerModel, from: u64) -> bool {
    match broker.apply(0, &read(from, 0)) {
        Outcome::Done(Err(error)) => error.kind == ErrorKind::Invalid,
        _ => false,
    }
}

fn bounds(broker: &mut BrokerModel) -> (u64, u64) {
    match broker.apply(0, &TransportRequest::Bounds { stream: STREAM }) {
        Outcome::Done(Ok(TransportReply::Bounds { start, end })) => (start.0, end.0),
        other => panic!("not bounds: {other:?}"),
    }
}

fn forget(broker: &mut BrokerModel, before: u64) {
    let request = TransportRequest::Forget {
        stream: STREAM,
        before: Offset(before),
    };
    broker.apply(0, &request);
}

#[test]
fn a_read_at_the_end_waits_until_the_stream_grows() {
    let mut broker = BrokerModel::new();
    assert_eq!(broker.apply(0, &read(0, 100)), Outcome::Wait);
    let before = broker.version(STREAM);
    append(&mut broker, 0, 1);
    assert_ne!(broker.version(STREAM), before);
    let Outcome::Done(Ok(TransportReply::Entries { entries, next })) =
        broker.apply(0, &read(0, 100))
    else {
        panic!("it still waits");
    };
    assert_eq!(entries.len(), 1);
    assert_eq!(next, Offset(1));
}

#[test]
fn a_read_that_must_not_wait_is_empty_at_the_end() {
    let mut broker = BrokerModel::new();
    assert_eq!(read_now(&mut broker, 0), []);
}

#[test]
fn reads_outside_the_log_are_invalid_also_when_they_may_wait() {
    let mut broker = BrokerModel::new();
    broker.set_start(STREAM, Offset(5));
    append(&mut broker, 0, 1);
    assert!(is_invalid(&mut broker, 4));
    assert!(is_invalid(&mut broker, 7));
    assert!(matches!(
        broker.apply(0, &read(7, 100)),
        Outcome::Done(Err(_))
    ));
    assert_eq!(read_now(&mut broker, 5), [(5, Some(envelope(1)))]);
}

#[test]
fn forget_moves_the_start_and_never_past_the_end() {
    let mut broker = BrokerModel::new();
    for nonce in 0..3 {
        append(&mut broker, 0, nonce);
    }
    forget(&mut broker, 2);
    assert_eq!(bounds(&mut broker), (2, 3));
    assert!(is_invalid(&mut broker, 1));
    forget(&mut broker, 1);
    assert_eq!(bounds(&mut broker), (2, 3));
    forget(&mut broker, 100);
    assert_eq!(bounds(&mut broker), (3, 3));
    append(&mut broker, 0, 9);
    assert_eq!(read_now(&mut broker, 3), [(3, Some(envelope(9)))]);
}

#[test]
fn a_broker_with_retention_ignores_forget_and_drops_by_age() {
    let mut broker = BrokerModel::new();
    broker.keep_forgotten(true);
    broker.set_retention(Some(100));
    append(&mut broker, 0, 1);
    append(&mut broker, 50, 2);
    forget(&mut broker, 2);
    assert_eq!(bounds(&mut broker), (0, 2));
    append(&mut broker, 120, 3);
    assert_eq!(bounds(&mut broker), (1, 3));
}

#[test]
fn a_duplicate_stands_at_two_offsets() {
    let mut broker = BrokerModel::new();
    append(&mut broker, 0, 1);
    append(&mut broker, 0, 2);
    assert_eq!(broker.duplicate(0, STREAM, Offset(0)), Some(Offset(2)));
    assert_eq!(broker.duplicate(0, STREAM, Offset(7)), None);
    let entries: Vec<Entry> = broker.entries(STREAM).collect();
    assert_eq!(entries[0].message, entries[2].message);
}

#[test]
fn an_undecodable_entry_keeps_its_place() {
    let mut broker = BrokerModel::new();
    append(&mut broker, 0, 1);
    broker.append_undecodable(0, STREAM, DecodeError::Version(9));
    append(&mut broker, 0, 2);
    assert_eq!(
        read_now(&mut broker, 0),
        [(0, Some(envelope(1))), (1, None), (2, Some(envelope(2)))]
    );
}

#[test]
fn a_recreated_stream_starts_over_and_wakes_its_reader() {
    let mut broker = BrokerModel::new();
    append(&mut broker, 0, 1);
    append(&mut broker, 0, 2);
    let before = broker.version(STREAM);
    broker.recreate(STREAM);
    assert_ne!(broker.version(STREAM), before);
    assert_eq!(bounds(&mut broker), (0, 0));
    assert!(is_invalid(&mut broker, 2));
}

#[test]
fn a_truncated_stream_gives_its_offsets_to_others() {
    let mut broker = BrokerModel::new();
    for nonce in 0..3 {
        append(&mut broker, 0, nonce);
    }
    broker.truncate(STREAM, Offset(1));
    assert_eq!(bounds(&mut broker), (0, 1));
    append(&mut broker, 0, 9);
    assert_eq!(read_now(&mut broker, 1), [(1, Some(envelope(9)))]);
}

fn every_request(stream: Stream) -> [TransportRequest; 4] {
    [
        TransportRequest::Append {
            stream,
            envelope: envelope(1),
        },
        TransportRequest::Read {
            stream,
            from: Offset(0),
            limit: 1,
            wait_ms: 0,
        },
        TransportRequest::Bounds { stream },
        TransportRequest::Forget {
            stream,
            before: Offset(0),
        },
    ]
}

#[test]
fn a_stream_that_the_deployment_does_not_have_is_invalid_for_every_request() {
    let mut broker = BrokerModel::of_deployment(2, 1);
    for (stream, is_there) in [
        (Stream::Shard(ShardId(1)), true),
        (Stream::Inbox(0), true),
        (Stream::Announcements, true),
        (Stream::Shard(ShardId(2)), false),
        (Stream::Inbox(1), false),
    ] {
        for request in every_request(stream) {
            let Outcome::Done(reply) = broker.apply(0, &request) else {
                panic!("it waits: {request:?}");
            };
            let kind = reply.map_err(|error| error.kind).err();
            let expected = (!is_there).then_some(ErrorKind::Invalid);
            assert_eq!(kind, expected, "{request:?}");
        }
    }
}
