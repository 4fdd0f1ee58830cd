//! Where Kafka is, and how it is used.

use rdkafka::ClientConfig;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// Settings of a [`KafkaTransport`](crate::KafkaTransport).
#[derive(Clone)]
#[non_exhaustive]
pub struct KafkaSettings {
    /// Brokers as `host:port`, joined by commas.
    pub bootstrap: String,
    /// Prefix of the topics; default `flowkit`.
    pub topic_prefix: String,
    /// Shards of the deployment: partitions of the shards' topic; default 1.
    pub shards: u32,
    /// Inboxes of the deployment: partitions of the inboxes' topic; default 16.
    pub inboxes: u32,
    /// Replicas of topics that are created; default: the brokers' own default.
    pub replication_factor: Option<i32>,
    /// How long messages are kept, at least: longer than the longest outage. Default 7 days.
    pub retention: Duration,
    /// Longest wait for brokers when connecting, and for each question to them; default 10 s.
    pub broker_timeout: Duration,
    /// Properties for the client as librdkafka names them (TLS, SASL); never shown.
    pub properties: BTreeMap<String, String>,
}

impl KafkaSettings {
    /// Defaults for brokers.
    #[must_use]
    pub fn new(bootstrap: &str) -> Self {
        Self {
            bootstrap: bootstrap.to_owned(),
            topic_prefix: "flowkit".to_owned(),
            shards: 1,
            inboxes: 16,
            replication_factor: None,
            retention: Duration::from_secs(7 * 24 * 3_600),
            broker_timeout: Duration::from_secs(10),
            properties: BTreeMap::new(),
        }
    }

    /// Sets the prefix of the topics.
    #[must_use]
    pub fn topic_prefix(mut self, prefix: &str) -> Self {
        prefix.clone_into(&mut self.topic_prefix);
        self
    }

    /// Sets the number of shards.
    #[must_use]
    pub fn shards(mut self, shards: u32) -> Self {
        self.shards = shards;
        self
    }

    /// Sets the number of inboxes.
    #[must_use]
    pub fn inboxes(mut self, inboxes: u32) -> Self {
        self.inboxes = inboxes;
        self
    }

    /// Sets the longest wait for brokers.
    #[must_use]
    pub fn broker_timeout(mut self, timeout: Duration) -> Self {
        self.broker_timeout = timeout;
        self
    }

    /// Sets a property of the client, such as `security.protocol`.
    #[must_use]
    pub fn property(mut self, name: &str, value: &str) -> Self {
        self.properties.insert(name.to_owned(), value.to_owned());
        self
    }

    /// What every client of this transport is configured with.
    pub(crate) fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.bootstrap);
        config.set("client.id", "flowkit");
        config.set("reconnect.backoff.ms", "50");
        config.set("reconnect.backoff.max.ms", "1000");
        config.set("socket.keepalive.enable", "true");
        for (name, value) in &self.properties {
            config.set(name, value);
        }
        config
    }
}

impl fmt::Debug for KafkaSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&String> = self.properties.keys().collect();
        f.debug_struct("KafkaSettings")
            .field("bootstrap", &self.bootstrap)
            .field("topic_prefix", &self.topic_prefix)
            .field("shards", &self.shards)
            .field("inboxes", &self.inboxes)
            .field("properties", &names)
            .finish_non_exhaustive()
    }
}
