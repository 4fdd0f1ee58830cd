//! The topics: created if they are not there, and checked if they are.

use flowkit_core::message::MESSAGE_BYTES_MAX;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use std::collections::BTreeMap;

use crate::{KafkaSettings, OpenError};

/// Room for everything around a message.
const OVERHEAD_BYTES: usize = 64 * 1024;

/// Names of the three topics.
#[derive(Clone, Debug)]
pub(crate) struct Topics {
    pub(crate) shards: String,
    pub(crate) inboxes: String,
    pub(crate) announcements: String,
}

impl Topics {
    pub(crate) fn new(prefix: &str) -> Self {
        Self {
            shards: format!("{prefix}.shards.v1"),
            inboxes: format!("{prefix}.inboxes.v1"),
            announcements: format!("{prefix}.announcements.v1"),
        }
    }

    pub(crate) fn with_partitions(&self, settings: &KafkaSettings) -> [(&str, u32); 3] {
        [
            (&self.shards, settings.shards.max(1)),
            (&self.inboxes, settings.inboxes.max(1)),
            (&self.announcements, 1),
        ]
    }
}

/// Makes the topics that are not there, and sees that those that are fit. True if one was made.
pub(crate) async fn ensure(settings: &KafkaSettings, topics: &Topics) -> Result<bool, OpenError> {
    let admin: AdminClient<DefaultClientContext> = settings
        .client()
        .create()
        .map_err(|error| OpenError::Settings(without_values(settings, &error)))?;
    let options = AdminOptions::new()
        .request_timeout(Some(settings.broker_timeout))
        .operation_timeout(Some(settings.broker_timeout));
    let unreachable = |error: KafkaError| OpenError::Unreachable {
        bootstrap: settings.bootstrap.clone(),
        reason: without_values(settings, &error),
    };
    let retention_ms = settings.retention.as_millis().to_string();
    let bytes_max = (MESSAGE_BYTES_MAX + OVERHEAD_BYTES).to_string();
    let wanted = topics.with_partitions(settings);
    let new = wanted.map(|(name, partitions)| {
        let replicas = settings.replication_factor.unwrap_or(-1);
        let partitions = i32::try_from(partitions).unwrap_or(i32::MAX);
        NewTopic::new(name, partitions, TopicReplication::Fixed(replicas))
            .set("cleanup.policy", "delete")
            .set("retention.ms", &retention_ms)
            .set("max.message.bytes", &bytes_max)
            // Times are for people; a sender's clock must not make the broker drop what it sends.
            .set("message.timestamp.type", "LogAppendTime")
    });
    let made = admin
        .create_topics(&new, &options)
        .await
        .map_err(unreachable)?;
    let mut any = false;
    for outcome in made {
        match outcome {
            Ok(_) => any = true,
            Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((topic, code)) => {
                let reason = code.to_string();
                return Err(OpenError::Refused { topic, reason });
            }
        }
    }
    check_configs(settings, &admin, &options, &wanted).await?;
    Ok(any)
}

async fn check_configs(
    settings: &KafkaSettings,
    admin: &AdminClient<DefaultClientContext>,
    options: &AdminOptions,
    wanted: &[(&str, u32); 3],
) -> Result<(), OpenError> {
    let resources = wanted.map(|(name, _)| ResourceSpecifier::Topic(name));
    let described = admin.describe_configs(&resources, options).await;
    let described = described.map_err(|error| OpenError::Unreachable {
        bootstrap: settings.bootstrap.clone(),
        reason: without_values(settings, &error),
    })?;
    for (outcome, (topic, _)) in described.into_iter().zip(wanted) {
        let config = outcome.map_err(|code| OpenError::Refused {
            topic: (*topic).to_owned(),
            reason: code.to_string(),
        })?;
        let values: BTreeMap<&str, &str> = config
            .entries
            .iter()
            .filter_map(|entry| Some((entry.name.as_str(), entry.value.as_deref()?)))
            .collect();
        check_config(settings, topic, &values)?;
    }
    Ok(())
}

/// Whether an existing topic keeps what is written to it.
fn check_config(
    settings: &KafkaSettings,
    topic: &str,
    values: &BTreeMap<&str, &str>,
) -> Result<(), OpenError> {
    let differs = |what, found: &str, wanted: String, cure| {
        Err(OpenError::Topic {
            topic: topic.to_owned(),
            what,
            found: found.to_owned(),
            wanted,
            cure,
        })
    };
    let policy = values.get("cleanup.policy").copied().unwrap_or("delete");
    if policy.contains("compact") {
        let cure = "compaction would drop messages; set cleanup.policy=delete";
        return differs("cleanup.policy", policy, "delete".to_owned(), cure);
    }
    let retention = values
        .get("retention.ms")
        .and_then(|v| v.parse::<i64>().ok());
    let wanted = i64::try_from(settings.retention.as_millis()).unwrap_or(i64::MAX);
    if let Some(found) = retention
        && found >= 0
        && found < wanted
    {
        let cure = "messages must outlive the longest outage; raise it";
        return differs(
            "retention.ms",
            &found.to_string(),
            format!("at least {wanted}"),
            cure,
        );
    }
    let bytes = values
        .get("max.message.bytes")
        .and_then(|v| v.parse::<usize>().ok());
    if let Some(found) = bytes
        && found < MESSAGE_BYTES_MAX
    {
        let cure = "large messages would be refused; raise it";
        let wanted = format!("at least {MESSAGE_BYTES_MAX}");
        return differs("max.message.bytes", &found.to_string(), wanted, cure);
    }
    Ok(())
}

/// Whether a topic has the partitions that the deployment was created with.
pub(crate) fn check_partitions(
    settings: &KafkaSettings,
    topics: &Topics,
    found: &BTreeMap<String, usize>,
) -> Result<(), OpenError> {
    for (topic, wanted) in topics.with_partitions(settings) {
        let found = found.get(topic).copied().unwrap_or(0);
        if found != wanted as usize {
            return Err(OpenError::Topic {
                topic: topic.to_owned(),
                what: "partitions",
                found: found.to_string(),
                wanted: wanted.to_string(),
                cure: "the number is fixed when a deployment is created; use another topic_prefix, \
                       or the deployment's own database",
            });
        }
    }
    Ok(())
}

/// An error's text without any value of the properties: one of them may be a password.
fn without_values(settings: &KafkaSettings, error: &KafkaError) -> String {
    let mut text = error.to_string();
    for value in settings.properties.values().filter(|value| value.len() > 3) {
        text = text.replace(value.as_str(), "…");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_that_would_forget_is_refused_with_the_cure() {
        let settings = KafkaSettings::new("k:1");
        for (name, value, part) in [
            ("cleanup.policy", "compact", "cleanup.policy=delete"),
            ("retention.ms", "1000", "longest outage"),
            ("max.message.bytes", "1000", "raise it"),
        ] {
            let values = BTreeMap::from([(name, value)]);
            let error = check_config(&settings, "t", &values).expect_err(name);
            assert!(error.to_string().contains(part), "{error}");
        }
        let values = BTreeMap::from([("cleanup.policy", "delete"), ("retention.ms", "-1")]);
        assert!(check_config(&settings, "t", &values).is_ok());
    }

    #[test]
    fn partitions_must_be_those_of_the_deployment() {
        let settings = KafkaSettings::new("k:1").shards(4);
        let topics = Topics::new("p");
        let found = BTreeMap::from([
            ("p.shards.v1".to_owned(), 2),
            ("p.inboxes.v1".to_owned(), 16),
            ("p.announcements.v1".to_owned(), 1),
        ]);
        let text = check_partitions(&settings, &topics, &found).expect_err("2, not 4");
        assert!(text.to_string().contains("partitions 2, but 4"), "{text}");
    }
}
