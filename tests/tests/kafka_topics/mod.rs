//! Topics of one case on the real Apache Kafka; they go when the case is over.

use flowkit_tests::servers;
use flowkit_transport_kafka::KafkaSettings;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;

/// Deletes the topics when it is dropped.
pub(crate) struct Topics {
    bootstrap: String,
    prefix: String,
}

impl Topics {
    /// Names that no other case uses.
    pub(crate) fn fresh(stem: &str) -> Self {
        Self {
            bootstrap: servers::kafka(),
            prefix: servers::fresh_name(stem),
        }
    }

    /// For a transport on them.
    pub(crate) fn settings(&self) -> KafkaSettings {
        KafkaSettings::new(&self.bootstrap).topic_prefix(&self.prefix)
    }

    /// For a client beside the transport.
    pub(crate) fn client(&self) -> ClientConfig {
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", &self.bootstrap);
        client
    }

    /// The full name of one: `shards`, `inboxes`, `announcements`.
    pub(crate) fn name(&self, topic: &str) -> String {
        format!("{}.{topic}.v1", self.prefix)
    }
}

impl Drop for Topics {
    fn drop(&mut self) {
        let topics = ["shards", "inboxes", "announcements"].map(|topic| self.name(topic));
        let client = self.client();
        // The case's runtime is ending: a short one of its own deletes the topics.
        let deleted = std::thread::spawn(move || {
            flowkit_tests::run(async {
                let admin: Result<AdminClient<DefaultClientContext>, _> = client.create();
                if let Ok(admin) = admin {
                    let topics = topics.each_ref().map(String::as_str);
                    let _ = admin.delete_topics(&topics, &AdminOptions::new()).await;
                }
            });
        });
        let _ = deleted.join();
    }
}
