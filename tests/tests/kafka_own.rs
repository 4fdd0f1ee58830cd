//! What only the transport on a real Apache Kafka has to show.

use flowkit_core::id::{Incarnation, Offset, ShardId};
use flowkit_core::message::{Body, Envelope, Sender, SenderRole};
use flowkit_core::port::{Entry, Stream, Transport, TransportReply, TransportRequest};
use flowkit_tests::{run, servers};
use flowkit_transport_kafka::{KafkaSettings, KafkaTransport, OpenError};
use std::sync::Arc;
use std::time::Duration;

const STREAM: Stream = Stream::Shard(ShardId(0));

fn settings(stem: &str) -> KafkaSettings {
    KafkaSettings::new(&servers::kafka()).topic_prefix(&servers::fresh_name(stem))
}

async fn open(settings: &KafkaSettings) -> KafkaTransport {
    let opened = KafkaTransport::connect(settings.clone()).await;
    opened.unwrap_or_else(|error| panic!("{error}"))
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
fn topics_of_another_deployment_are_refused_with_the_cure() {
    run(async {
        let settings = settings("partitions").shards(2);
        drop(open(&settings).await);
        let error = KafkaTransport::connect(settings.clone().shards(3)).await;
        let Err(OpenError::Topic { topic, .. }) = &error else {
            panic!("{error:?}");
        };
        assert!(topic.ends_with(".shards.v1"), "{topic}");
        let text = error.map(|_| ()).expect_err("refused").to_string();
        assert!(text.contains("partitions 2, but 3 is needed"), "{text}");
    });
}

#[test]
fn brokers_that_are_not_there_are_named_in_time() {
    run(async {
        let settings = KafkaSettings::new("127.0.0.1:1").broker_timeout(Duration::from_secs(2));
        let error = KafkaTransport::connect(settings)
            .await
            .expect_err("nobody listens");
        let text = error.to_string();
        assert!(
            text.contains("127.0.0.1:1") && text.contains("is it running"),
            "{text}"
        );
    });
}

#[test]
fn a_password_is_in_no_error_and_no_debug_text() {
    run(async {
        let settings = KafkaSettings::new("127.0.0.1:1")
            .property("sasl.password", "hunter2hunter2")
            .property("security.protocol", "nonsense");
        let shown = format!("{settings:?}");
        let error = KafkaTransport::connect(settings)
            .await
            .expect_err("refused");
        let error = format!("{error} {error:?}");
        assert!(
            !shown.contains("hunter2") && !error.contains("hunter2"),
            "{shown} {error}"
        );
    });
}

#[test]
fn appends_that_are_asked_for_in_a_burst_stand_in_that_order_each_once() {
    const COUNT: u64 = 10_000;
    run(async {
        let transport = open(&settings("burst")).await;
        // Each is polled once where it is made, as the drivers do; then all are awaited.
        let mut calls: Vec<_> = (0..COUNT)
            .map(|n| Box::pin(append(&transport, n)))
            .collect();
        for call in &mut calls {
            let once = std::future::poll_fn(|cx| {
                let _ = call.as_mut().poll(cx);
                std::task::Poll::Ready(())
            });
            once.await;
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
        let transport = open(&settings("dropped")).await;
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
        let transport = open(&settings("readers")).await;
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
