//! What happens when brokers fail: on librdkafka's mock of a cluster, which fails on demand.

use flowkit_core::id::{Incarnation, Offset, ShardId};
use flowkit_core::message::{Body, Envelope, Sender, SenderRole};
use flowkit_core::port::{Entry, ErrorKind, PortError, Stream, TransportReply, TransportRequest};
use futures_util::FutureExt;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use std::sync::Arc;
use std::time::Duration;

use crate::producer::QUEUE_MESSAGES_MAX;
use crate::{KafkaSettings, KafkaTransport};

const STREAM: Stream = Stream::Shard(ShardId(0));

type Cluster = MockCluster<'static, DefaultProducerContext>;

/// A cluster of one broker with the topics of one deployment, and a transport on it.
fn open() -> (Cluster, KafkaTransport) {
    let cluster = MockCluster::new(1).expect("a cluster");
    for (topic, partitions) in [("shards", 1), ("inboxes", 16), ("announcements", 1)] {
        let topic = format!("flowkit.{topic}.v1");
        cluster
            .create_topic(&topic, partitions, 1)
            .expect("a topic");
    }
    let settings =
        KafkaSettings::new(&cluster.bootstrap_servers()).broker_timeout(Duration::from_secs(2));
    // The mock cannot describe topics, so they are not checked.
    let transport = KafkaTransport::unchecked(settings).expect("a transport");
    (cluster, transport)
}

fn append(number: u64) -> TransportRequest {
    let sender = Sender {
        role: SenderRole::Worker,
        id: "w".into(),
        incarnation: Incarnation(1),
    };
    let mut message = Envelope::new(sender, 0, Body::SlotFree);
    message.seq = Some(number);
    TransportRequest::Append {
        stream: STREAM,
        envelope: Arc::new(message.identified(number)),
    }
}

fn read(from: u64, wait_ms: u64) -> TransportRequest {
    TransportRequest::Read {
        stream: STREAM,
        from: Offset(from),
        limit: 10,
        wait_ms,
    }
}

async fn call(
    transport: &KafkaTransport,
    request: TransportRequest,
) -> Result<TransportReply, PortError> {
    use flowkit_core::port::Transport as _;
    // Far beyond any bound of the transport's own.
    let patient = tokio::time::timeout(Duration::from_secs(40), transport.call(request));
    patient.await.expect("answered within its bound")
}

/// The first `count` numbers from an offset on, in as many answers as they come in.
async fn numbers(transport: &KafkaTransport, mut from: u64, count: usize) -> Vec<u64> {
    let mut found = Vec::new();
    while found.len() < count {
        match call(transport, read(from, 20_000)).await {
            Ok(TransportReply::Entries { entries, next }) => {
                let number = |entry: &Entry| entry.message.as_ref().ok()?.seq;
                found.extend(entries.iter().filter_map(number));
                from = next.0;
            }
            other => panic!("{other:?}"),
        }
    }
    found
}

#[tokio::test]
async fn a_broker_that_is_away_is_retry_for_questions_and_everything_goes_on_when_it_is_back() {
    let (cluster, transport) = open();
    call(&transport, append(0)).await.expect("appended");
    assert_eq!(numbers(&transport, 0, 1).await, [0]);
    cluster.broker_down(1).expect("down");
    for request in [
        TransportRequest::Bounds { stream: STREAM },
        // With the consumer that is kept, and with one of its own.
        read(1, 100),
        read(0, 100),
        read(0, 0),
    ] {
        let told = format!("{request:?}");
        let error = call(&transport, request).await.expect_err("no broker");
        assert_eq!(error.kind, ErrorKind::Retry, "{told}: {error}");
    }
    let late = tokio::spawn({
        let transport = transport.clone();
        async move { call(&transport, append(1)).await }
    });
    tokio::task::yield_now().await;
    cluster.broker_up(1).expect("up");
    late.await
        .expect("no panic")
        .expect("appended when the broker was back");
    assert_eq!(numbers(&transport, 1, 1).await, [1]);
}

#[tokio::test]
async fn a_producer_that_failed_for_good_is_replaced_and_what_it_held_is_unknown() {
    let (cluster, transport) = open();
    call(&transport, append(0)).await.expect("appended");
    let fatal = RDKafkaRespErr::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER;
    cluster.request_errors(RDKafkaApiKey::Produce, &[fatal]);
    let error = call(&transport, append(1)).await.expect_err("failed");
    assert_eq!(error.kind, ErrorKind::Unknown, "{error}");
    assert!(transport.inner.producer.has_failed(), "{error}");
    call(&transport, append(2)).await.expect("appended");
    assert!(!transport.inner.producer.has_failed());
    assert_eq!(numbers(&transport, 0, 2).await, [0, 2]);
}

#[tokio::test]
async fn an_append_that_the_client_has_no_room_for_did_not_happen() {
    let (cluster, transport) = open();
    call(&transport, append(0)).await.expect("appended");
    cluster.broker_down(1).expect("down");
    let held: Vec<_> = (0..QUEUE_MESSAGES_MAX)
        .map(|_| transport.inner.producer.send("flowkit.shards.v1", 0, b"{}"))
        .collect();
    assert!(held.iter().all(Result::is_ok));
    let refused = call(&transport, append(9)).now_or_never();
    let error = refused.expect("at once").expect_err("no room");
    assert_eq!(error.kind, ErrorKind::Retry, "{error}");
}
