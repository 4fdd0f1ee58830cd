//! Where Kafka is, and how it is used.

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::OpenError;

/// Whether the client is built with TLS.
const HAS_TLS: bool = cfg!(feature = "tls");
/// Properties whose values are no secrets.
const PUBLIC: [&str; 3] = ["security.protocol", "sasl.mechanism", "sasl.mechanisms"];

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
    /// Replicas of topics that are created; default: 3, or one per broker if there are fewer. With 3
    /// or more, two of them must have a message before it counts as appended.
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

    /// Sets the replicas of topics that are created.
    #[must_use]
    pub fn replication_factor(mut self, replicas: i32) -> Self {
        self.replication_factor = Some(replicas);
        self
    }

    /// Sets how long messages are kept, at least.
    #[must_use]
    pub fn retention(mut self, retention: Duration) -> Self {
        self.retention = retention;
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
        config.set_log_level(RDKafkaLogLevel::Warning);
        config.set("reconnect.backoff.ms", "50");
        config.set("reconnect.backoff.max.ms", "1000");
        config.set("socket.keepalive.enable", "true");
        for (name, value) in &self.properties {
            config.set(name, value);
        }
        config
    }

    /// How the clients speak to the brokers.
    pub(crate) fn protocol(&self) -> &str {
        let protocol = self.properties.get("security.protocol");
        protocol.map_or("plaintext", String::as_str)
    }

    /// Whether this build can do what the properties ask for.
    pub(crate) fn check_tls(&self) -> Result<(), OpenError> {
        let asks = |(name, value): &(&String, &String)| {
            let value = value.to_ascii_lowercase();
            match name.as_str() {
                "security.protocol" => value == "ssl" || value == "sasl_ssl",
                // Their hashes and requests are OpenSSL's.
                "sasl.mechanism" | "sasl.mechanisms" => {
                    value.starts_with("scram") || value == "oauthbearer"
                }
                other => other.starts_with("ssl."),
            }
        };
        match self.properties.iter().find(asks) {
            Some((property, _)) if !HAS_TLS => Err(OpenError::TlsMissing {
                property: property.clone(),
            }),
            _ => Ok(()),
        }
    }

    /// A text without the value of any property that may be a secret.
    pub(crate) fn without_values(&self, text: &str) -> String {
        let secrets = self.properties.iter();
        let secrets = secrets.filter(|(name, _)| !PUBLIC.contains(&name.as_str()));
        let mut secrets: Vec<&String> = secrets.map(|(_, value)| value).collect();
        secrets.retain(|value| !value.is_empty());
        // One may contain another.
        secrets.sort_by_key(|value| std::cmp::Reverse(value.len()));
        let hide = |text: String, secret: &&String| text.replace(secret.as_str(), "…");
        secrets.iter().fold(text.to_owned(), hide)
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
            .field("replication_factor", &self.replication_factor)
            .field("retention", &self.retention)
            .field("broker_timeout", &self.broker_timeout)
            .field("properties", &names)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_of_any_length_are_hidden_and_public_values_are_not() {
        let settings = KafkaSettings::new("k:1")
            .property("security.protocol", "SASL_SSL")
            .property("sasl.username", "ab")
            .property("sasl.password", "abc")
            .property("client.rack", "");
        assert_eq!(settings.without_values("SASL_SSL abc ab"), "SASL_SSL … …");
        let shown = format!("{settings:?}");
        assert!(!shown.contains("ab\"") && !shown.contains("abc"), "{shown}");
    }

    #[test]
    fn properties_that_need_tls_are_refused_without_it_and_name_the_feature() {
        for (name, value) in [
            ("security.protocol", "SASL_SSL"),
            ("security.protocol", "ssl"),
            ("ssl.ca.location", "ca.pem"),
            ("sasl.mechanism", "SCRAM-SHA-256"),
        ] {
            let checked = KafkaSettings::new("k:1").property(name, value).check_tls();
            assert_eq!(checked.is_ok(), HAS_TLS, "{name}={value}");
            if let Err(error) = checked {
                let text = error.to_string();
                assert!(text.contains(name) && text.contains("`tls`"), "{text}");
            }
        }
        let plain = KafkaSettings::new("k:1").property("security.protocol", "sasl_plaintext");
        assert!(plain.check_tls().is_ok());
    }
}
