//! Entries: order, identity, contents.

use flowkit_core::id::{Offset, ShardId};
use flowkit_core::message::{Artifact, BatchOk, Body, Envelope, MESSAGE_BYTES_MAX};
use flowkit_core::port::{ErrorKind, Stream, TransportRequest};
use std::collections::BTreeMap;
use std::sync::Arc;

use super::{LONG_MS, STREAM, append, bounds, message, numbers, read, read_until};
use crate::TransportInstance;
use crate::records::{batch_uid, large_json};

/// One after the other.
pub async fn offsets_count_up_and_entries_come_back_in_order(instance: &mut TransportInstance) {
    let transport = &*instance.transport();
    let (_, end) = bounds(instance, STREAM).await;
    let mut last = None;
    for number in 0..50 {
        let offset = append(transport, STREAM, message(number)).await;
        assert!(last < Some(offset), "{offset} after {last:?}");
        last = Some(offset);
    }
    let (_, new_end) = bounds(instance, STREAM).await;
    let entries = read_until(transport, STREAM, end, new_end).await;
    assert_eq!(numbers(&entries), (0..50).collect::<Vec<u64>>());
    assert!(entries.is_sorted_by(|a, b| a.offset < b.offset));
    assert_eq!(entries.last().map(|e| e.offset), last);
}

/// `limit` is kept, `next` leads on, and any offset is a place to start.
pub async fn a_read_goes_on_where_the_last_one_ended(instance: &mut TransportInstance) {
    let transport = &*instance.transport();
    let (_, start) = bounds(instance, STREAM).await;
    let mut offsets = Vec::new();
    for number in 0..7 {
        offsets.push(append(transport, STREAM, message(number)).await);
    }
    let mut next = start;
    let mut found = Vec::new();
    while found.len() < 7 {
        let page = read(transport, STREAM, next, 3, LONG_MS).await;
        let (entries, after) = page.expect("inside the log");
        assert!(entries.len() <= 3);
        found.extend(numbers(&entries));
        next = after;
    }
    assert_eq!(found, (0..7).collect::<Vec<u64>>());
    let page = read(transport, STREAM, offsets[4], 100, LONG_MS).await;
    let (entries, _) = page.expect("inside the log");
    assert_eq!(entries[0].offset, offsets[4]);
    assert_eq!(numbers(&entries)[0], 4);
}

/// Shards, inboxes and announcements of the same number too.
pub async fn streams_do_not_mix(instance: &mut TransportInstance) {
    let transport = &*instance.transport();
    let streams = [
        Stream::Shard(ShardId(0)),
        Stream::Shard(ShardId(1)),
        Stream::Inbox(0),
        Stream::Inbox(1),
        Stream::Announcements,
    ];
    let mut starts = Vec::new();
    for stream in streams {
        starts.push(bounds(instance, stream).await.1);
    }
    for number in 0..20 {
        for (nth, stream) in (0..).zip(streams) {
            append(transport, stream, message(number * 10 + nth)).await;
        }
    }
    for ((nth, stream), start) in (0..).zip(streams).zip(starts) {
        let (_, end) = bounds(instance, stream).await;
        let entries = read_until(transport, stream, start, end).await;
        let expected: Vec<u64> = (0..20).map(|number| number * 10 + nth).collect();
        assert_eq!(numbers(&entries), expected, "in {stream:?}");
    }
}

/// Many writers; each one's messages keep their order.
pub async fn concurrent_appends_are_each_there_once(instance: &mut TransportInstance) {
    let (_, start) = bounds(instance, STREAM).await;
    let writers = (0..8).map(|writer| {
        let transport = instance.transport();
        tokio::spawn(async move {
            let mut offsets = Vec::new();
            for number in 0..25 {
                let message = message(writer * 1_000 + number);
                offsets.push(append(&*transport, STREAM, message).await);
                tokio::task::yield_now().await;
            }
            offsets
        })
    });
    let writers: Vec<_> = writers.collect();
    let mut offsets: Vec<Offset> = Vec::new();
    for writer in writers {
        offsets.extend(writer.await.expect("a writer does not panic"));
    }
    offsets.sort_unstable();
    let (_, end) = bounds(instance, STREAM).await;
    let entries = read_until(&*instance.transport(), STREAM, start, end).await;
    let stored: Vec<Offset> = entries.iter().map(|entry| entry.offset).collect();
    assert_eq!(stored, offsets);
    let mut by_writer: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    for number in numbers(&entries) {
        by_writer
            .entry(number / 1_000)
            .or_default()
            .push(number % 1_000);
    }
    assert_eq!(by_writer.len(), 8);
    for found in by_writer.into_values() {
        assert_eq!(found, (0..25).collect::<Vec<u64>>());
    }
}

/// Every field, in every script.
pub async fn a_message_comes_back_as_it_was_sent(instance: &mut TransportInstance) {
    let transport = &*instance.transport();
    let sent = message(1);
    let offset = append(transport, STREAM, sent.clone()).await;
    let page = read(transport, STREAM, offset, 1, LONG_MS).await;
    let (entries, next) = page.expect("inside the log");
    assert_eq!(entries[0].message, Ok(sent));
    assert!(next > offset);
}

/// An inline artifact of the largest size travels.
pub async fn a_large_message_comes_back_whole(instance: &mut TransportInstance) {
    let transport = &*instance.transport();
    let body = Body::BatchOk(BatchOk {
        batch_uid: batch_uid("u"),
        metrics: BTreeMap::new(),
        artifact: Some(Artifact::Inline(large_json(900 * 1024))),
        checkpoint: None,
        cursor: None,
        result: None,
    });
    let large = Envelope {
        body,
        ..(*message(1)).clone()
    };
    let large = Arc::new(large.identified(1));
    let offset = append(transport, STREAM, large.clone()).await;
    append(transport, STREAM, message(2)).await;
    let page = read(transport, STREAM, offset, 1, LONG_MS).await;
    let (entries, next) = page.expect("inside the log");
    assert_eq!(entries[0].message, Ok(large));
    let page = read(transport, STREAM, next, 1, LONG_MS).await;
    let (entries, _) = page.expect("inside the log");
    assert_eq!(numbers(&entries), [2]);
}

/// It is handed over as what it is, and the ones behind it are reached.
pub async fn an_undecodable_entry_keeps_its_place(instance: &mut TransportInstance) {
    let transport = instance.transport();
    let first = append(&*transport, STREAM, message(1)).await;
    let appended = instance.append_foreign(STREAM, b"not JSON").await;
    assert_eq!(appended, instance.caps.foreign);
    append(&*transport, STREAM, message(2)).await;
    let (_, end) = bounds(instance, STREAM).await;
    let entries = read_until(&*transport, STREAM, first, end).await;
    let decoded: Vec<bool> = entries.iter().map(|e| e.message.is_ok()).collect();
    if appended {
        assert_eq!(decoded, [true, false, true]);
    } else {
        assert_eq!(decoded, [true, true]);
    }
    assert_eq!(numbers(&entries), [1, 2]);
}

/// It is refused whole, and nothing of it stands in the stream.
pub async fn a_message_over_the_limit_is_invalid(instance: &mut TransportInstance) {
    let transport = &*instance.transport();
    let (_, end) = bounds(instance, STREAM).await;
    let mut large = (*message(1)).clone();
    large.corr_id = Some("x".repeat(MESSAGE_BYTES_MAX).into());
    let request = TransportRequest::Append {
        stream: STREAM,
        envelope: Arc::new(large),
    };
    let refused = instance.call(request).await.map_err(|error| error.kind);
    assert_eq!(refused, Err(ErrorKind::Invalid));
    let offset = append(transport, STREAM, message(2)).await;
    assert_eq!(offset, end);
    let page = read(transport, STREAM, end, 9, LONG_MS).await;
    assert_eq!(numbers(&page.expect("inside the log").0), [2]);
}
