//! The transport: which request is whose.

use async_trait::async_trait;
use flowkit_core::port::{
    ErrorKind, PortError, Stream, Transport, TransportReply, TransportRequest,
};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::consumer::{Consumers, Wanted};
use crate::log::Context;
use crate::producer::Producer;
use crate::topics::{Opening, Topics};
use crate::{KafkaSettings, OpenError};

/// A transport on Apache Kafka. Cheap to clone.
#[derive(Clone)]
pub struct KafkaTransport {
    inner: Arc<Inner>,
}

struct Inner {
    settings: KafkaSettings,
    context: Context,
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
        settings.check_tls()?;
        let transport = Self::unchecked(settings)?;
        let inner = &transport.inner;
        let opening = Opening {
            settings: &inner.settings,
            topics: &inner.topics,
            consumers: &inner.consumers,
            context: &inner.context,
        };
        opening.ensure().await?;
        Ok(transport)
    }

    /// A transport that takes its topics as they are.
    fn unchecked(settings: KafkaSettings) -> Result<Self, OpenError> {
        let context = Context::new(&settings);
        Ok(Self {
            inner: Arc::new(Inner {
                topics: Topics::new(&settings.topic_prefix),
                producer: Producer::new(&settings, &context)?,
                consumers: Consumers::new(&settings, &context)?,
                context,
                settings,
            }),
        })
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
                let wanted = Wanted {
                    stream,
                    place,
                    from,
                    limit: limit.max(1) as usize,
                    wait: Duration::from_millis(wait_ms),
                };
                let (entries, next) = inner.consumers.read(wanted).await?;
                Ok(TransportReply::Entries { entries, next })
            }
            TransportRequest::Bounds { stream } => {
                let place = inner.place(stream)?;
                let (start, end) = inner.consumers.bounds(&place).await?;
                Ok(TransportReply::Bounds { start, end })
            }
            // Kafka has a retention of its own.
            TransportRequest::Forget { stream, .. } => {
                inner.place(stream)?;
                Ok(TransportReply::Done)
            }
        }
    }
}

#[cfg(test)]
mod tests;
