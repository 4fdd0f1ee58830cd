//! What Kafka or its topics may be that they should not: each is named with its cure, and nothing
//! secret is shown.

mod kafka_topics;

use flowkit_core::id::{Incarnation, Offset, ShardId};
use flowkit_core::message::{Body, Envelope, Sender, SenderRole};
use flowkit_core::port::{ErrorKind, Stream, Transport, TransportRequest};
use flowkit_tests::{run, servers};
use flowkit_transport_kafka::{KafkaSettings, KafkaTransport, OpenError};
use kafka_topics::Topics;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use std::sync::Arc;
use std::time::Duration;

const SECRET: &str = "hunter2";

#[test]
fn topics_of_another_deployment_are_refused_with_the_cure() {
    run(async {
        let topics = Topics::fresh("partitions");
        let opened = KafkaTransport::connect(topics.settings().shards(2)).await;
        drop(opened.unwrap_or_else(|error| panic!("{error}")));
        let error = KafkaTransport::connect(topics.settings().shards(3)).await;
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
            text.contains("127.0.0.1:1")
                && text.contains("is it running")
                && text.contains("security.protocol plaintext"),
            "{text}"
        );
    });
}

#[test]
fn a_password_is_in_no_error_and_no_debug_text() {
    run(async {
        let nobody = KafkaSettings::new("127.0.0.1:1").broker_timeout(Duration::from_millis(300));
        for (settings, named) in [
            (
                nobody.clone().property("security.protocol", "nonsense"),
                "security.protocol",
            ),
            // Mistyped: the client would show the value of what it does not know.
            (
                nobody.clone().property("sasl.pasword", SECRET),
                "sasl.pasword",
            ),
            (nobody.clone().property("acks", SECRET), "acks"),
            (
                nobody
                    .clone()
                    .property("security.protocol", "sasl_plaintext"),
                "127.0.0.1:1",
            ),
        ] {
            let settings = settings
                .property("sasl.mechanism", "PLAIN")
                .property("sasl.username", "somebody")
                .property("sasl.password", SECRET);
            let shown = format!("{settings:?}");
            let error = KafkaTransport::connect(settings)
                .await
                .expect_err("refused");
            let error = format!("{error} {error:?}");
            assert!(error.contains(named), "{error}");
            assert!(
                !format!("{shown} {error}").contains(SECRET),
                "{shown} {error}"
            );
        }
    });
}

#[test]
fn a_topic_that_somebody_made_otherwise_is_refused_with_the_cure() {
    run(async {
        for (name, value, part) in [
            ("cleanup.policy", "compact", "cleanup.policy=delete"),
            ("retention.ms", "60000", "longest outage"),
            ("retention.bytes", "1000000", "retention.bytes=-1"),
            ("max.message.bytes", "1048576", "raise it"),
        ] {
            let topics = Topics::fresh("made");
            let admin: AdminClient<DefaultClientContext> =
                topics.client().create().expect("a client");
            let topic = topics.name("shards");
            let new = NewTopic::new(&topic, 1, TopicReplication::Fixed(1)).set(name, value);
            let made = admin.create_topics([&new], &AdminOptions::new()).await;
            made.expect("an answer")[0].as_ref().expect("made");
            let error = KafkaTransport::connect(topics.settings()).await;
            let error = error.expect_err(name).to_string();
            assert!(error.contains(&topic) && error.contains(part), "{error}");
        }
    });
}

/// The broker's listener knows no logins.
#[test]
fn a_login_where_none_is_known_is_refused_with_the_cure() {
    run(async {
        let settings = KafkaSettings::new(&servers::kafka())
            .broker_timeout(Duration::from_secs(3))
            .property("security.protocol", "sasl_plaintext")
            .property("sasl.mechanism", "PLAIN")
            .property("sasl.username", "somebody")
            .property("sasl.password", SECRET);
        let error = KafkaTransport::connect(settings).await;
        let error = error.expect_err("no login is known");
        assert!(matches!(error, OpenError::Credentials { .. }), "{error:?}");
        let told = format!("{error} {error:?}");
        for part in [&*servers::kafka(), "sasl.password", "security.protocol"] {
            assert!(told.contains(part), "{told}");
        }
        assert!(
            !told.contains(SECRET) && !told.contains("somebody"),
            "{told}"
        );
    });
}

/// `Forget`, which Kafka has no use for, among them.
#[test]
fn a_stream_that_the_deployment_does_not_have_is_invalid_for_every_request() {
    run(async {
        let topics = Topics::fresh("streams");
        let settings = topics.settings().shards(2).inboxes(1);
        let transport = KafkaTransport::connect(settings).await;
        let transport = transport.unwrap_or_else(|error| panic!("{error}"));
        let sender = Sender {
            role: SenderRole::Client,
            id: "c".into(),
            incarnation: Incarnation(0),
        };
        let envelope = Arc::new(Envelope::new(sender, 0, Body::SlotFree));
        for stream in [
            Stream::Shard(ShardId(2)),
            Stream::Shard(ShardId(u32::MAX)),
            Stream::Inbox(1),
        ] {
            let before = Offset(0);
            let envelope = envelope.clone();
            for request in [
                TransportRequest::Append { stream, envelope },
                TransportRequest::Read {
                    stream,
                    from: before,
                    limit: 1,
                    wait_ms: 20_000,
                },
                TransportRequest::Bounds { stream },
                TransportRequest::Forget { stream, before },
            ] {
                let told = format!("{request:?}");
                let kind = transport.call(request).await.map_err(|error| error.kind);
                assert_eq!(kind, Err(ErrorKind::Invalid), "{told}");
            }
        }
    });
}
