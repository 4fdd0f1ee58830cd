//! What only the transport on a real Apache Kafka has to show.

mod kafka_topics;

use flowkit_core::id::{Incarnation, Offset, ShardId};
use flowkit_core::message::{Body, Envelope, MESSAGE_BYTES_MAX, Sender, SenderRole};
use flowkit_core::port::{Entry, ErrorKind, Stream, Transport, TransportReply, TransportRequest};
use flowkit_tests::run;
use flowkit_transport_kafka::KafkaTransport;
use futures_util::FutureExt;
use kafka_topics::Topics;
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};
use std::sync::Arc;
use std::time::Duration;

const STREAM: Stream = Stream::Shard(ShardId(0));

/// A transport on topics of its own.
async fn open(stem: &str) -> (Topics, KafkaTransport) {
    let topics = Topics::fresh(stem);
    let opened = KafkaTransport::connect(topics.settings()).await;
    (topics, opened.unwrap_or_else(|error| panic!("{error}")))
}

fn message(number: u64) -> Arc<Envelope> {
    let sender = Sender {
        role: SenderRole::Worker,
        id: "w".into(),
        incarnation: Incarnation(1),
    };
    let mut message = Envelope::new(sender, 0, Body::SlotFree);
    message.seq = Some(number);
    Arc::new(message.identified(number))
}

async fn append(transport: &KafkaTransport, number: u64) -> Offset {
    let request = TransportRequest::Append {
        stream: STREAM,
        envelope: message(number),
    };
    match transport.call(request).await {
        Ok(TransportReply::Appended { offset }) => offset,
        other => panic!("{other:?}"),
    }
}

async fn read(transport: &KafkaTransport, from: Offset, wait_ms: u64) -> (Vec<Entry>, Offset) {
    let request = TransportRequest::Read {
        stream: STREAM,
        from,
        limit: 1_000,
        wait_ms,
    };
    match transport.call(request).await {
        Ok(TransportReply::Entries { entries, next }) => (entries, next),
        other => panic!("{other:?}"),
    }
}

fn numbers(entries: &[Entry]) -> Vec<u64> {
    let number = |entry: &Entry| entry.message.as_ref().ok().and_then(|message| message.seq);
    entries.iter().filter_map(number).collect()
}

#[test]
fn appends_that_are_asked_for_in_a_burst_stand_in_that_order_each_once() {
    const COUNT: u64 = 10_000;
    run(async {
        let (_topics, transport) = open("burst").await;
        // Each is polled once where it is made, as the drivers do; then all are awaited.
        let mut calls = Vec::new();
        for number in 0..COUNT {
            let mut call = Box::pin(append(&transport, number));
            // A fast broker answers before the poll ends.
            let at_once = (&mut call).now_or_never();
            calls.push((call, at_once));
        }
        for ((call, at_once), at) in calls.into_iter().zip(0..) {
            let offset = match at_once {
                Some(offset) => offset,
                None => call.await,
            };
            assert_eq!(offset, Offset(at));
        }
        let mut next = Offset(0);
        let mut found = Vec::new();
        while (found.len() as u64) < COUNT {
            let (entries, after) = read(&transport, next, 20_000).await;
            assert!(after > next, "no progress at {next}");
            found.extend(numbers(&entries));
            next = after;
        }
        assert_eq!(found, (0..COUNT).collect::<Vec<_>>());
        let (none, _) = read(&transport, next, 0).await;
        assert!(none.is_empty(), "{} more", none.len());
    });
}

#[test]
fn a_read_that_is_dropped_half_way_loses_nothing() {
    run(async {
        let (_topics, transport) = open("dropped").await;
        append(&transport, 1).await;
        let (_, next) = read(&transport, Offset(0), 20_000).await;
        for number in 2..12 {
            let waiting = read(&transport, next, 20_000);
            let dropped = tokio::time::timeout(Duration::from_millis(number), waiting).await;
            assert!(dropped.is_err(), "nothing was there");
        }
        append(&transport, 2).await;
        let (entries, _) = read(&transport, next, 20_000).await;
        assert_eq!(numbers(&entries), [2]);
    });
}

#[test]
fn two_readers_of_one_stream_each_get_everything() {
    run(async {
        let (_topics, transport) = open("readers").await;
        for number in 0..5 {
            append(&transport, number).await;
        }
        let all = async |transport: &KafkaTransport| {
            let (mut found, mut next) = (Vec::new(), Offset(0));
            while found.len() < 5 {
                let (entries, after) = read(transport, next, 20_000).await;
                found.extend(numbers(&entries));
                next = after;
            }
            found
        };
        let (one, other) = futures_util::future::join(all(&transport), all(&transport)).await;
        assert_eq!(
            (one.as_slice(), other.as_slice()),
            (&[0, 1, 2, 3, 4][..], &[0, 1, 2, 3, 4][..])
        );
    });
}

#[test]
fn a_message_of_the_largest_size_comes_back_and_a_larger_one_is_invalid() {
    run(async {
        let (_topics, transport) = open("large").await;
        let sized = |extra: usize| {
            let mut message = (*message(1)).clone();
            message.corr_id = Some("".into());
            let room = MESSAGE_BYTES_MAX - message.encode().expect("small").len();
            // Not compressible to nothing, were there compression.
            let text: String = (0..room + extra)
                .map(|n| char::from(b'a' + (n * n % 23) as u8))
                .collect();
            message.corr_id = Some(text.into());
            Arc::new(message)
        };
        let call = async |envelope| {
            let stream = STREAM;
            let request = TransportRequest::Append { stream, envelope };
            transport.call(request).await
        };
        let largest = sized(0);
        let appended = call(largest.clone()).await;
        assert_eq!(appended, Ok(TransportReply::Appended { offset: Offset(0) }));
        let refused = call(sized(1)).await.expect_err("over the limit");
        assert_eq!(refused.kind, ErrorKind::Invalid);
        let (entries, _) = read(&transport, Offset(0), 20_000).await;
        assert_eq!(entries[0].message, Ok(largest));
    });
}

/// A producer inside a transaction that has put one message into the stream.
async fn in_transaction(topics: &Topics) -> FutureProducer {
    let mut client = topics.client();
    client.set("transactional.id", topics.name("transactions"));
    let foreign: FutureProducer = client.create().expect("a producer");
    // Its calls block: they have a thread of their own.
    let begun = tokio::task::spawn_blocking(move || {
        foreign.init_transactions(Duration::from_secs(20))?;
        foreign.begin_transaction()?;
        Ok::<_, rdkafka::error::KafkaError>(foreign)
    });
    let foreign = begun.await.expect("no panic").expect("begun");
    let topic = topics.name("shards");
    let record: FutureRecord<'_, (), [u8]> =
        FutureRecord::to(&topic).partition(0).payload(b"no message");
    let sent = foreign.send(record, Duration::from_secs(20)).await;
    sent.expect("sent");
    foreign
}

async fn end(transport: &KafkaTransport) -> Offset {
    match transport
        .call(TransportRequest::Bounds { stream: STREAM })
        .await
    {
        Ok(TransportReply::Bounds { end, .. }) => end,
        other => panic!("{other:?}"),
    }
}

/// Leases expire by the end: one below an acknowledged heartbeat would end a lease that is held.
#[test]
fn the_end_is_behind_every_acknowledged_append_even_inside_a_foreign_transaction() {
    run(async {
        let (topics, transport) = open("open_transaction").await;
        let foreign = in_transaction(&topics).await;
        let appended = append(&transport, 1).await;
        assert_eq!(end(&transport).await, appended.next());
        // Readers wait for the transaction; nothing is skipped meanwhile.
        let (none, next) = read(&transport, Offset(0), 100).await;
        assert_eq!((numbers(&none), next), (vec![], Offset(0)));
        let aborted =
            tokio::task::spawn_blocking(move || foreign.abort_transaction(Duration::from_secs(20)));
        aborted.await.expect("no panic").expect("aborted");
        let (entries, _) = read(&transport, Offset(0), 20_000).await;
        assert_eq!(numbers(&entries), [1]);
    });
}

#[test]
fn offsets_without_an_entry_at_the_end_of_the_log_are_passed() {
    run(async {
        let (topics, transport) = open("gap").await;
        let foreign = in_transaction(&topics).await;
        let aborted =
            tokio::task::spawn_blocking(move || foreign.abort_transaction(Duration::from_secs(20)));
        aborted.await.expect("no panic").expect("aborted");
        // What was undone, and the mark that says so, which may be written a little later.
        let began = std::time::Instant::now();
        while end(&transport).await < Offset(2) {
            assert!(began.elapsed() < Duration::from_secs(30), "no mark");
        }
        let end = end(&transport).await;
        assert_eq!(end, Offset(2));
        for wait_ms in [0, 100] {
            let (none, next) = read(&transport, Offset(0), wait_ms).await;
            assert_eq!((numbers(&none), next), (vec![], end), "wait {wait_ms}");
        }
        assert_eq!(append(&transport, 1).await, end);
        // From before the gap, and from behind it.
        for from in [Offset(0), end] {
            let (entries, next) = read(&transport, from, 20_000).await;
            assert_eq!((numbers(&entries), next), (vec![1], end.next()));
        }
    });
}
