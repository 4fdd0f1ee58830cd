//! Tests of the models as ports of one process.

use super::*;
use flowkit_core::id::{Incarnation, Offset, ShardId};
use flowkit_core::message::{Body, Envelope, Sender, SenderRole};
use flowkit_core::port::{
    ErrorKind, Store, StoreReply, StoreRequest, Stream, Transport, TransportReply, TransportRequest,
};
use std::future::Future;

const SHARD: Stream = Stream::Shard(ShardId(0));

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime needs nothing but memory")
        .block_on(future)
}

fn append(stream: Stream, nonce: u64) -> TransportRequest {
    let sender = Sender {
        role: SenderRole::Worker,
        id: Arc::from("w"),
        incarnation: Incarnation(1),
    };
    TransportRequest::Append {
        stream,
        envelope: Arc::new(Envelope::new(sender, 0, Body::SlotFree).identified(nonce)),
    }
}

fn read(stream: Stream, from: u64, wait_ms: u64) -> TransportRequest {
    TransportRequest::Read {
        stream,
        from: Offset(from),
        limit: 10,
        wait_ms,
    }
}

#[test]
fn the_memory_store_reads_its_clock_for_every_call() {
    run(async {
        let now = Arc::new(std::sync::atomic::AtomicU64::new(0));
        let clock = now.clone();
        let clock: Clock = Arc::new(move || clock.load(std::sync::atomic::Ordering::Relaxed));
        let store = MemoryStore::over(crate::StoreModel::durable(), clock);
        let acquire = |owner: &str| StoreRequest::AcquireShard {
            shard: ShardId(0),
            owner: owner.parse().expect("an id"),
            ttl_ms: 100,
        };
        let held = |reply| match reply {
            Ok(StoreReply::Lease(lease)) => lease.held,
            other => panic!("no lease: {other:?}"),
        };
        assert!(held(store.call(acquire("a")).await));
        assert!(!held(store.call(acquire("b")).await));
        now.store(100, std::sync::atomic::Ordering::Relaxed);
        assert!(held(store.call(acquire("b")).await));
    });
}

#[test]
fn a_full_shard_stream_refuses_until_its_owner_forgets() {
    run(async {
        let limits = LocalLimits {
            shard_entries_max: 2,
            ..LocalLimits::default()
        };
        let transport = LocalTransport::with_limits(limits);
        for nonce in 0..2 {
            transport.call(append(SHARD, nonce)).await.expect("room");
        }
        let refused = transport.call(append(SHARD, 2)).await;
        assert_eq!(refused.expect_err("no room").kind, ErrorKind::Retry);
        let forget = TransportRequest::Forget {
            stream: SHARD,
            before: Offset(1),
        };
        transport.call(forget).await.expect("always");
        let appended = transport.call(append(SHARD, 2)).await;
        let offset = Offset(2);
        assert_eq!(appended, Ok(TransportReply::Appended { offset }));
    });
}

#[test]
fn a_shared_stream_drops_its_oldest_and_ignores_forget() {
    run(async {
        let limits = LocalLimits {
            shared_entries_max: 2,
            ..LocalLimits::default()
        };
        let transport = LocalTransport::with_limits(limits);
        let inbox = Stream::Inbox(0);
        for nonce in 0..3 {
            transport.call(append(inbox, nonce)).await.expect("room");
        }
        let forget = TransportRequest::Forget {
            stream: inbox,
            before: Offset(3),
        };
        transport.call(forget).await.expect("always");
        let bounds = transport
            .call(TransportRequest::Bounds { stream: inbox })
            .await;
        let (start, end) = (Offset(1), Offset(3));
        assert_eq!(bounds, Ok(TransportReply::Bounds { start, end }));
        let late = transport.call(read(inbox, 0, 0)).await;
        assert_eq!(late.expect_err("it is gone").kind, ErrorKind::Invalid);
    });
}

#[test]
fn a_stream_starts_where_it_is_told() {
    run(async {
        let transport = LocalTransport::new().starting_at(SHARD, Offset(40));
        let appended = transport.call(append(SHARD, 1)).await;
        let offset = Offset(40);
        assert_eq!(appended, Ok(TransportReply::Appended { offset }));
    });
}

#[test]
fn every_waiting_reader_of_a_stream_is_woken_and_no_other() {
    run(async {
        let transport = Arc::new(LocalTransport::new());
        let wait = |stream, wait_ms| {
            let transport = transport.clone();
            tokio::spawn(async move { transport.call(read(stream, 0, wait_ms)).await })
        };
        let readers = [wait(SHARD, 60_000), wait(SHARD, 60_000)];
        let other = wait(Stream::Inbox(3), 10);
        tokio::task::yield_now().await;
        transport.call(append(SHARD, 1)).await.expect("room");
        for reader in readers {
            let reply = reader.await.expect("no panic").expect("entries");
            let TransportReply::Entries { entries, .. } = reply else {
                panic!("not entries: {reply:?}");
            };
            assert_eq!(entries.len(), 1);
        }
        let reply = other.await.expect("no panic").expect("entries");
        let (entries, next) = (Vec::new(), Offset(0));
        assert_eq!(reply, TransportReply::Entries { entries, next });
    });
}
