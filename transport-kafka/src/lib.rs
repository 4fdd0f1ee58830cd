//! FlowKit's transport on Apache Kafka.
