//! Reads that wait at the end of a stream.

use flowkit_core::port::{Stream, Transport};
use std::sync::Arc;
use std::time::Duration;

use super::{LONG_MS, STREAM, append, bounds, message, numbers, read};
use crate::TransportInstance;

async fn patient<T>(future: impl Future<Output = T>) -> T {
    // Far beyond any wake-up, far below the wait that is asked for.
    tokio::time::timeout(Duration::from_millis(LONG_MS / 4), future)
        .await
        .expect("nobody woke the reader")
}

fn reader(
    transport: Arc<dyn Transport>,
    stream: Stream,
    from: flowkit_core::id::Offset,
) -> tokio::task::JoinHandle<Vec<u64>> {
    tokio::spawn(async move {
        let page = read(&*transport, stream, from, 10, LONG_MS).await;
        numbers(&page.expect("inside the log").0)
    })
}

/// Not at the end of its wait, and not by another stream.
pub async fn a_waiting_read_is_woken_by_an_append(instance: &mut TransportInstance) {
    let transport = instance.transport();
    for number in 0..20 {
        let (_, end) = bounds(instance, STREAM).await;
        let waiting = reader(transport.clone(), STREAM, end);
        if number % 2 == 0 {
            tokio::task::yield_now().await;
        }
        append(&*transport, Stream::Inbox(7), message(99)).await;
        append(&*transport, STREAM, message(number)).await;
        let found = patient(waiting).await.expect("a reader does not panic");
        assert_eq!(found, [number]);
    }
}

/// A stream may have many readers.
pub async fn every_waiting_reader_is_woken(instance: &mut TransportInstance) {
    let transport = instance.transport();
    let stream = Stream::Inbox(1);
    let (_, end) = bounds(instance, stream).await;
    let readers: Vec<_> = (0..5)
        .map(|_| reader(transport.clone(), stream, end))
        .collect();
    tokio::task::yield_now().await;
    append(&*transport, stream, message(1)).await;
    for waiting in readers {
        let found = patient(waiting).await.expect("a reader does not panic");
        assert_eq!(found, [1]);
    }
}

/// No entries, and the place to read on from.
pub async fn a_wait_that_runs_out_is_empty(instance: &mut TransportInstance) {
    let transport = &*instance.transport();
    let (_, end) = bounds(instance, STREAM).await;
    let page = patient(read(transport, STREAM, end, 10, 20)).await;
    assert_eq!(page, Ok((vec![], end)));
    append(transport, STREAM, message(1)).await;
    let page = patient(read(transport, STREAM, end, 10, 20)).await;
    assert_eq!(numbers(&page.expect("inside the log").0), [1]);
}

/// Also where nothing is there.
pub async fn a_read_that_must_not_wait_returns_at_once(instance: &mut TransportInstance) {
    let transport = &*instance.transport();
    let (_, end) = bounds(instance, STREAM).await;
    let page = patient(read(transport, STREAM, end, 10, 0)).await;
    assert_eq!(page, Ok((vec![], end)));
}

/// Reading takes nothing away.
pub async fn a_dropped_read_leaves_nothing_behind(instance: &mut TransportInstance) {
    let transport = instance.transport();
    let (_, end) = bounds(instance, STREAM).await;
    let waiting = reader(transport.clone(), STREAM, end);
    tokio::task::yield_now().await;
    waiting.abort();
    assert!(waiting.await.is_err_and(|error| error.is_cancelled()));
    append(&*transport, STREAM, message(1)).await;
    let page = patient(read(&*transport, STREAM, end, 10, LONG_MS)).await;
    assert_eq!(numbers(&page.expect("inside the log").0), [1]);
}
