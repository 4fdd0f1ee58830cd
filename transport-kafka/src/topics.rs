//! The topics: created if they are not there, and checked if they are.

use flowkit_core::message::MESSAGE_BYTES_MAX;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

use crate::consumer::Consumers;
use crate::error::{of_settings, text_of};
use crate::log::Context;
use crate::off_thread::OffThread;
use crate::transport::Place;
use crate::{KafkaSettings, OpenError, fit};

/// Room for everything around a message.
pub(crate) const OVERHEAD_BYTES: usize = 64 * 1024;
/// Time between two looks for topics that were just created.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// Replicas of a topic where there are enough brokers.
const REPLICAS: usize = 3;

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

    fn names(&self) -> [String; 3] {
        [
            self.shards.clone(),
            self.inboxes.clone(),
            self.announcements.clone(),
        ]
    }
}

/// What the brokers say about themselves.
struct Found {
    brokers: usize,
    /// Partitions of each topic that is there.
    partitions: BTreeMap<String, usize>,
}

/// The conversation with the brokers before a transport is used.
pub(crate) struct Opening<'a> {
    pub(crate) settings: &'a KafkaSettings,
    pub(crate) topics: &'a Topics,
    pub(crate) consumers: &'a Consumers,
    pub(crate) context: &'a Context,
}

impl Opening<'_> {
    /// Makes the topics that are not there, and sees that those that are fit.
    pub(crate) async fn ensure(&self) -> Result<(), OpenError> {
        let mut found = self.look().await?;
        // Nobody needs the right to create what is there.
        let missing: Vec<(&str, u32)> = self
            .topics
            .with_partitions(self.settings)
            .into_iter()
            .filter(|(topic, _)| !found.partitions.contains_key(*topic))
            .collect();
        let admin = admin(self.settings, self.context)?;
        if !missing.is_empty() {
            self.create(&admin, &missing, found.brokers).await?;
            let deadline = Instant::now() + self.settings.broker_timeout;
            // A topic that was just created is not known to every broker at once.
            while found.partitions.len() < self.topics.names().len() && Instant::now() < deadline {
                tokio::time::sleep(LOOK_INTERVAL).await;
                found = self.look().await?;
            }
        }
        fit::check_partitions(self.settings, self.topics, &found.partitions)?;
        self.check_configs(&admin).await?;
        if !missing.is_empty() {
            self.await_leaders().await;
        }
        Ok(())
    }

    async fn look(&self) -> Result<Found, OpenError> {
        let (asker, timeout) = (self.consumers.asker().clone(), self.settings.broker_timeout);
        let names = self.topics.names();
        let asked = tokio::task::spawn_blocking(move || {
            let mut brokers = 0;
            let mut topics = Vec::new();
            for name in names {
                let metadata = asker.fetch_metadata(Some(&name), timeout)?;
                brokers = metadata.brokers().len();
                for topic in metadata.topics() {
                    let error = topic.error().map(RDKafkaErrorCode::from);
                    topics.push((topic.name().to_owned(), topic.partitions().len(), error));
                }
            }
            Ok::<_, KafkaError>((brokers, topics))
        });
        let asked = asked
            .await
            .map_err(|error| OpenError::Settings(error.to_string()))?;
        let (brokers, topics) = asked.map_err(|error| self.unreachable(&error))?;
        let mut partitions = BTreeMap::new();
        for (topic, count, error) in topics {
            match error {
                None if count > 0 => {
                    partitions.insert(topic, count);
                }
                Some(
                    code @ (RDKafkaErrorCode::TopicAuthorizationFailed
                    | RDKafkaErrorCode::InvalidTopic),
                ) => return Err(refused(&topic, code)),
                // Not there, or not yet.
                _ => {}
            }
        }
        Ok(Found {
            brokers,
            partitions,
        })
    }

    async fn create(
        &self,
        admin: &Admin,
        missing: &[(&str, u32)],
        brokers: usize,
    ) -> Result<(), OpenError> {
        let settings = self.settings;
        let retention_ms = settings.retention.as_millis().to_string();
        let bytes_max = (MESSAGE_BYTES_MAX + OVERHEAD_BYTES).to_string();
        let default = i32::try_from(brokers.clamp(1, REPLICAS)).unwrap_or(1);
        let replicas = settings.replication_factor.unwrap_or(default);
        let new: Vec<NewTopic<'_>> = missing
            .iter()
            .map(|(name, partitions)| {
                let partitions = i32::try_from(*partitions).unwrap_or(i32::MAX);
                let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(replicas))
                    .set("cleanup.policy", "delete")
                    .set("retention.ms", &retention_ms)
                    .set("retention.bytes", "-1")
                    .set("max.message.bytes", &bytes_max)
                    // Times are for people; a sender's clock must not make the broker drop what it
                    // sends.
                    .set("message.timestamp.type", "LogAppendTime");
                if replicas >= 3 {
                    // What is acknowledged outlives the loss of any one broker.
                    topic.set("min.insync.replicas", "2")
                } else {
                    topic
                }
            })
            .collect();
        let made = admin.create_topics(&new, &self.options()).await;
        for outcome in made.map_err(|error| self.unreachable(&error))? {
            match outcome {
                // Another process was faster.
                Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((topic, code)) => return Err(refused(&topic, code)),
            }
        }
        Ok(())
    }

    async fn check_configs(&self, admin: &Admin) -> Result<(), OpenError> {
        let names = self.topics.names();
        let resources = names.each_ref().map(|name| ResourceSpecifier::Topic(name));
        let described = admin.describe_configs(&resources, &self.options()).await;
        let described = described.map_err(|error| self.unreachable(&error))?;
        for (outcome, topic) in described.into_iter().zip(&names) {
            let config = outcome.map_err(|code| refused(topic, code))?;
            let values: BTreeMap<&str, &str> = config
                .entries
                .iter()
                .filter_map(|entry| Some((entry.name.as_str(), entry.value.as_deref()?)))
                .collect();
            fit::check_config(self.settings, topic, &values)?;
        }
        Ok(())
    }

    /// A partition that was just created has its leader a moment later. What is not there in time is
    /// left to the calls, which are tried again.
    async fn await_leaders(&self) {
        let deadline = Instant::now() + self.settings.broker_timeout;
        for (topic, partitions) in self.topics.with_partitions(self.settings) {
            for partition in 0..partitions {
                let place = Place {
                    topic: topic.to_owned(),
                    partition: i32::try_from(partition).unwrap_or(i32::MAX),
                };
                while self.consumers.bounds(&place).await.is_err() && Instant::now() < deadline {
                    tokio::time::sleep(LOOK_INTERVAL).await;
                }
            }
        }
    }

    fn options(&self) -> AdminOptions {
        AdminOptions::new()
            .request_timeout(Some(self.settings.broker_timeout))
            .operation_timeout(Some(self.settings.broker_timeout))
    }

    fn unreachable(&self, error: &KafkaError) -> OpenError {
        let bootstrap = self.settings.bootstrap.clone();
        if let Some(reason) = self.context.login_refused() {
            return OpenError::Credentials { bootstrap, reason };
        }
        let text = self.settings.without_values(&text_of(error));
        OpenError::Unreachable {
            bootstrap,
            protocol: self.settings.protocol().to_owned(),
            reason: match self.context.last() {
                Some(last) => format!("{text} ({last})"),
                None => text,
            },
        }
    }
}

type Admin = OffThread<AdminClient<Context>>;

/// Makes the client that creates and describes topics.
fn admin(settings: &KafkaSettings, context: &Context) -> Result<Admin, OpenError> {
    let made = settings.client().create_with_context(context.clone());
    made.map(OffThread::new)
        .map_err(|error| of_settings(settings, &error))
}

fn refused(topic: &str, code: RDKafkaErrorCode) -> OpenError {
    OpenError::Refused {
        topic: topic.to_owned(),
        reason: code.to_string(),
    }
}
