//! Kafka's part of the ceiling: every message is appended by one idempotent producer and read once.

use futures_util::stream::{FuturesUnordered, StreamExt};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{Consumer as _, StreamConsumer};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{Message, Offset, TopicPartitionList};

use super::Share;
use crate::Outcome;
use crate::census::Census;
use crate::deployment::Deployment;

/// Messages on their way at once.
const IN_FLIGHT: usize = 10_000;
/// One for the events and requests, one for the commands and replies of each worker and client.
const PARTITIONS: i32 = 4;

pub(super) struct Run {
    topic: String,
    producer: FutureProducer,
    consumer: StreamConsumer,
    /// Messages of each kind per node, and one of them.
    kinds: Vec<(Share, Vec<u8>)>,
    nodes: u64,
}

impl Run {
    pub(super) async fn prepare(
        deployment: &Deployment,
        census: &Census,
        nodes: u64,
    ) -> Outcome<Self> {
        let topic = format!("{}.ceiling", deployment.name);
        let admin: AdminClient<DefaultClientContext> = deployment.kafka().create()?;
        let new = NewTopic::new(&topic, PARTITIONS, TopicReplication::Fixed(1))
            .set("message.timestamp.type", "LogAppendTime");
        for made in admin.create_topics([&new], &AdminOptions::new()).await? {
            made.map_err(|(topic, code)| format!("{topic}: {code}"))?;
        }
        let producer: FutureProducer = deployment
            .kafka()
            .set("enable.idempotence", "true")
            // What gives most messages per second.
            .set("linger.ms", "2")
            .create()?;
        let consumer: StreamConsumer = deployment
            .kafka()
            .set("group.id", &topic)
            .set("enable.auto.commit", "false")
            .set("fetch.queue.backoff.ms", "5")
            .create()?;
        let mut all = TopicPartitionList::new();
        for partition in 0..PARTITIONS {
            all.add_partition_offset(&topic, partition, Offset::Beginning)?;
        }
        consumer.assign(&all)?;
        let kinds = census.messages.iter();
        let kinds = kinds.map(|m| (Share::of(m.per_node), vec![b'x'; m.mean_bytes as usize]));
        Ok(Self {
            topic,
            producer,
            consumer,
            kinds: kinds.collect(),
            nodes,
        })
    }

    pub(super) async fn run(mut self) -> Outcome {
        let (sum, counted) = tokio::sync::oneshot::channel();
        let consumer = self.consumer;
        let read = tokio::spawn(async move {
            let mut expected = u64::MAX;
            let (mut read, mut counted) = (0, counted);
            while read < expected {
                tokio::select! {
                    message = consumer.recv() => {
                        let message = message?;
                        std::hint::black_box(message.payload());
                        read += 1;
                    }
                    all = &mut counted, if expected == u64::MAX => expected = all?,
                }
            }
            Outcome::Ok(())
        });
        let mut sent = 0;
        let mut on_the_way = FuturesUnordered::new();
        for node in 0..self.nodes {
            for (number, (share, payload)) in self.kinds.iter_mut().enumerate() {
                for _ in 0..share.next() {
                    let partition = i32::try_from(number)? % PARTITIONS;
                    let record: FutureRecord<'_, (), [u8]> = FutureRecord::to(&self.topic)
                        .partition(partition)
                        .payload(payload);
                    let delivery = self.producer.send_result(record).map_err(|(e, _)| e)?;
                    on_the_way.push(delivery);
                    sent += 1;
                }
            }
            while on_the_way.len() > IN_FLIGHT
                && let Some(delivered) = on_the_way.next().await
            {
                delivered?.map_err(|(error, _)| error)?;
            }
            if node % 64 == 0 {
                tokio::task::yield_now().await;
            }
        }
        while let Some(delivered) = on_the_way.next().await {
            delivered?.map_err(|(error, _)| error)?;
        }
        let _ = sum.send(sent);
        read.await?
    }
}
