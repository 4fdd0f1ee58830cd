//! The transport on a real Apache Kafka passes the suite.

use async_trait::async_trait;
use flowkit_core::message::DecodeError;
use flowkit_core::port::{Stream, Transport};
use flowkit_tests::{TransportBackend, TransportCaps, TransportInstance, servers};
use flowkit_transport_kafka::{KafkaSettings, KafkaTransport};
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::producer::{FutureProducer, FutureRecord};
use std::sync::Arc;
use std::time::Duration;

const SHARDS: u32 = 3;
const INBOXES: u32 = 16;

/// Topics of its own; they go when the case is over.
struct Fresh {
    bootstrap: String,
    prefix: String,
}

impl Fresh {
    async fn open(&self) -> Arc<dyn Transport> {
        let settings = KafkaSettings::new(&self.bootstrap)
            .topic_prefix(&self.prefix)
            .shards(SHARDS)
            .inboxes(INBOXES);
        let transport = KafkaTransport::connect(settings).await;
        Arc::new(transport.unwrap_or_else(|error| panic!("{error}")))
    }

    fn client(&self) -> rdkafka::ClientConfig {
        let mut client = rdkafka::ClientConfig::new();
        client.set("bootstrap.servers", &self.bootstrap);
        client
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        let prefix = self.prefix.clone();
        let admin: Result<AdminClient<DefaultClientContext>, _> = self.client().create();
        // The case's runtime is ending: a short one of its own deletes the topics.
        let deleted = std::thread::spawn(move || {
            flowkit_tests::run(async {
                if let Ok(admin) = admin {
                    let topics = ["shards", "inboxes", "announcements"]
                        .map(|topic| format!("{prefix}.{topic}.v1"));
                    let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
                    let _ = admin.delete_topics(&topics, &AdminOptions::new()).await;
                }
            });
        });
        let _ = deleted.join();
    }
}

#[async_trait]
impl TransportBackend for Fresh {
    async fn reopen(&mut self) -> Arc<dyn Transport> {
        self.open().await
    }

    async fn append_undecodable(&mut self, stream: Stream, _: DecodeError) -> bool {
        let (topic, partition) = match stream {
            Stream::Shard(shard) => ("shards", shard.0),
            Stream::Inbox(inbox) => ("inboxes", inbox),
            Stream::Announcements => ("announcements", 0),
        };
        let topic = format!("{}.{topic}.v1", self.prefix);
        let producer: FutureProducer = self.client().create().expect("a producer");
        let record: FutureRecord<'_, (), [u8]> = FutureRecord::to(&topic)
            .partition(i32::try_from(partition).expect("few partitions"))
            .payload(b"no message");
        let sent = producer.send(record, Duration::from_secs(10)).await;
        sent.is_ok()
    }
}

async fn open() -> TransportInstance {
    let fresh = Fresh {
        bootstrap: servers::kafka(),
        prefix: servers::fresh_name("flowkit_transport"),
    };
    let caps = TransportCaps {
        forgets: false,
        durable: true,
        undecodable: true,
    };
    TransportInstance::new(fresh.open().await, caps, Box::new(fresh))
}

flowkit_tests::transport_conformance!(kafka, open());
