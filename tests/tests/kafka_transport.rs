//! The transport on a real Apache Kafka passes the suite.

mod kafka_instance;
mod kafka_topics;

flowkit_tests::transport_conformance!(kafka, kafka_instance::open(3, 16));
