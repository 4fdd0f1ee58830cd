//! The transport: which request is whose.

use async_trait::async_trait;
use flowkit_core::port::{
    ErrorKind, PortError, Stream, Transport, TransportReply, TransportRequest,
};
use rdkafka::consumer::Consumer as _;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

use crate::consumer::Consumers;
use crate::producer::Producer;
use crate::topics::{self, Topics};
use crate::{KafkaSettings, OpenError};

/// Time between two looks for topics that were just created.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// A transport on Apache Kafka. Cheap to clone.
#[derive(Clone)]
pub struct KafkaTransport {
    inner: Arc<Inner>,
}

struct Inner {
    settings: KafkaSettings,
    topics: Topics,
    producer: Producer,
    consumers: Consumers,
}

/// A partition.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) topic: String,
    pub(crate) partition: i32,
}

impl fmt::Debug for KafkaTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaTransport")
            .field("settings", &self.inner.settings)
            .finish_non_exhaustive()
    }
}

impl KafkaTransport {
    /// Connects; makes the topics that are not there, and sees that those that are fit the
    /// deployment.
    ///
    /// # Errors
    /// [`OpenError`], each with its cure.
    pub async fn connect(settings: KafkaSettings) -> Result<Self, OpenError> {
        let topics = Topics::new(&settings.topic_prefix);
        let consumers = Consumers::new(&settings)?;
        let producer = Producer::new(&settings)?;
        let made = topics::ensure(&settings, &topics).await?;
        await_topics(&settings, &topics, &consumers).await?;
        if made {
            await_leaders(&settings, &topics, &consumers).await;
        }
        Ok(Self {
            inner: Arc::new(Inner {
                settings,
                topics,
                producer,
                consumers,
            }),
        })
    }
}

/// A topic that was just created is not known to every broker at once.
async fn await_topics(
    settings: &KafkaSettings,
    topics: &Topics,
    consumers: &Consumers,
) -> Result<(), OpenError> {
    let deadline = Instant::now() + settings.broker_timeout;
    loop {
        let (asker, timeout) = (consumers.asker().clone(), settings.broker_timeout);
        let asked = tokio::task::spawn_blocking(move || {
            let metadata = asker.fetch_metadata(None, timeout)?;
            let topics = metadata.topics().iter();
            Ok::<_, rdkafka::error::KafkaError>(
                topics
                    .map(|topic| (topic.name().to_owned(), topic.partitions().len()))
                    .collect::<BTreeMap<_, _>>(),
            )
        });
        let found = match asked.await {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => {
                return Err(OpenError::Unreachable {
                    bootstrap: settings.bootstrap.clone(),
                    reason: error.to_string(),
                });
            }
            Err(error) => return Err(OpenError::Settings(error.to_string())),
        };
        let all = [&topics.shards, &topics.inboxes, &topics.announcements];
        let missing = all
            .iter()
            .any(|topic| found.get(*topic).is_none_or(|n| *n == 0));
        if !missing || Instant::now() >= deadline {
            return topics::check_partitions(settings, topics, &found);
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// A partition that was just created has its leader a moment later. What is not there in time is
/// left to the calls, which are tried again.
async fn await_leaders(settings: &KafkaSettings, topics: &Topics, consumers: &Consumers) {
    let deadline = Instant::now() + settings.broker_timeout;
    for (topic, partitions) in topics.with_partitions(settings) {
        for partition in 0..partitions {
            let place = Place {
                topic: topic.to_owned(),
                partition: i32::try_from(partition).unwrap_or(i32::MAX),
            };
            while consumers.bounds(&place).await.is_err() && Instant::now() < deadline {
                tokio::time::sleep(LOOK_INTERVAL).await;
            }
        }
    }
}

impl Inner {
    fn place(&self, stream: Stream) -> Result<Place, PortError> {
        let (topic, partition, partitions) = match stream {
            Stream::Shard(shard) => (&self.topics.shards, shard.0, self.settings.shards),
            Stream::Inbox(inbox) => (&self.topics.inboxes, inbox, self.settings.inboxes),
            Stream::Announcements => (&self.topics.announcements, 0, 1),
        };
        if partition >= partitions.max(1) {
            let detail = format!("{stream:?} is not of this deployment: {topic} has {partitions}");
            return Err(PortError::new(ErrorKind::Invalid, "stream", detail));
        }
        Ok(Place {
            topic: topic.clone(),
            partition: i32::try_from(partition).unwrap_or(i32::MAX),
        })
    }
}

#[async_trait]
impl Transport for KafkaTransport {
    async fn call(&self, request: TransportRequest) -> Result<TransportReply, PortError> {
        let inner = &*self.inner;
        match request {
            TransportRequest::Append { stream, envelope } => {
                let place = inner.place(stream)?;
                let payload = envelope.encode().map_err(|error| {
                    PortError::new(ErrorKind::Invalid, "append", error.to_string())
                })?;
                // No await before this: the order of first polls is the order in the stream.
                let sent = inner
                    .producer
                    .send(&place.topic, place.partition, &payload)?;
                let offset = sent.delivered().await?;
                Ok(TransportReply::Appended { offset })
            }
            TransportRequest::Read {
                stream,
                from,
                limit,
                wait_ms,
            } => {
                let place = inner.place(stream)?;
                let entries = inner
                    .consumers
                    .read(stream, &place, from, limit, wait_ms)
                    .await?;
                let next = entries.last().map_or(from, |entry| entry.offset.next());
                Ok(TransportReply::Entries { entries, next })
            }
            TransportRequest::Bounds { stream } => {
                let place = inner.place(stream)?;
                let (start, end) = inner.consumers.bounds(&place).await?;
                Ok(TransportReply::Bounds { start, end })
            }
            // Kafka has a retention of its own.
            TransportRequest::Forget { .. } => Ok(TransportReply::Done),
        }
    }
}
