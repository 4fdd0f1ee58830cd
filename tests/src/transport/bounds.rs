//! Where a log begins and ends.

use flowkit_core::id::Offset;
use flowkit_core::port::{ErrorKind, Stream, TransportReply, TransportRequest};

use super::{LONG_MS, STREAM, append, bounds, message, numbers, read, read_until};
use crate::TransportInstance;

/// It exists as soon as it is named.
pub async fn an_unused_stream_is_empty(instance: &mut TransportInstance) {
    for stream in [STREAM, Stream::Inbox(0), Stream::Announcements] {
        let (start, end) = bounds(instance, stream).await;
        assert_eq!(start, end);
    }
}

/// The end is the offset of the next message.
pub async fn bounds_follow_appends(instance: &mut TransportInstance) {
    let transport = &*instance.transport();
    let (start, end) = bounds(instance, STREAM).await;
    let first = append(transport, STREAM, message(1)).await;
    assert_eq!(first, end);
    let last = append(transport, STREAM, message(2)).await;
    let (start_now, end_now) = bounds(instance, STREAM).await;
    assert_eq!(start_now, start);
    assert!(end_now > last);
    let next = append(transport, STREAM, message(3)).await;
    assert!(next >= end_now);
}

/// Whether it may wait or not: waiting would hide another log.
pub async fn a_read_beyond_the_end_is_invalid(instance: &mut TransportInstance) {
    let transport = &*instance.transport();
    append(transport, STREAM, message(1)).await;
    let (_, end) = bounds(instance, STREAM).await;
    for wait_ms in [0, LONG_MS] {
        for ahead in [1, 1_000_000] {
            let beyond = Offset(end.0 + ahead);
            let page = read(transport, STREAM, beyond, 1, wait_ms).await;
            assert_eq!(page, Err(ErrorKind::Invalid));
        }
    }
}

async fn forget(instance: &TransportInstance, before: Offset) {
    let request = TransportRequest::Forget {
        stream: STREAM,
        before,
    };
    assert_eq!(instance.call(request).await, Ok(TransportReply::Done));
}

/// A log with a retention of its own ignores the hint.
pub async fn forgotten_entries_are_gone_or_kept_as_declared(instance: &mut TransportInstance) {
    let transport = instance.transport();
    let (start, _) = bounds(instance, STREAM).await;
    let mut offsets = Vec::new();
    for number in 0..10 {
        offsets.push(append(&*transport, STREAM, message(number)).await);
    }
    forget(instance, offsets[6]).await;
    forget(instance, offsets[3]).await;
    let (start_now, end) = bounds(instance, STREAM).await;
    let early = read(&*transport, STREAM, offsets[0], 1, 0).await;
    if instance.caps.forgets {
        assert_eq!(start_now, offsets[6]);
        assert_eq!(early, Err(ErrorKind::Invalid));
    } else {
        assert_eq!(start_now, start);
        assert_eq!(numbers(&early.expect("it is kept").0), [0]);
    }
    let entries = read_until(&*transport, STREAM, offsets[6], end).await;
    assert_eq!(numbers(&entries), [6, 7, 8, 9]);
}

/// What is not there yet cannot be forgotten.
pub async fn forgetting_never_passes_the_end(instance: &mut TransportInstance) {
    let transport = instance.transport();
    append(&*transport, STREAM, message(1)).await;
    let (_, end) = bounds(instance, STREAM).await;
    forget(instance, Offset(end.0 + 100)).await;
    assert_eq!(bounds(instance, STREAM).await.1, end);
    let offset = append(&*transport, STREAM, message(2)).await;
    assert_eq!(offset, end);
    let page = read(&*transport, STREAM, offset, 1, LONG_MS).await;
    assert_eq!(numbers(&page.expect("inside the log").0), [2]);
}

/// A broker outlives its clients; a transport in the process does not.
pub async fn a_reopened_stream_is_there_or_empty_as_declared(instance: &mut TransportInstance) {
    let transport = instance.transport();
    let (before, _) = bounds(instance, STREAM).await;
    let first = append(&*transport, STREAM, message(1)).await;
    drop(transport);
    instance.reopen().await;
    let (start, end) = bounds(instance, STREAM).await;
    if instance.caps.durable {
        assert_eq!(start, before);
        let entries = read_until(&*instance.transport(), STREAM, first, end).await;
        assert_eq!(numbers(&entries), [1]);
    } else {
        assert_eq!(start, end);
    }
}
