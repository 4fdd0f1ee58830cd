//! The models are true to the real servers: generated sequences on both, every answer compared.

mod kafka_instance;
mod kafka_topics;
mod mongo_instance;

use flowkit_tests::fidelity::{Budget, conclude, store, transport};
use std::time::Duration;

/// Sequences under way at once. A server's time goes into waiting for its disk.
const AT_ONCE: usize = 6;

#[test]
fn the_model_of_the_store_is_true_to_mongodb() {
    let budget = Budget::of_environment(AT_ONCE);
    let outcome = store::compare(budget, store::Shape::SERVER, mongo_instance::open);
    conclude("MongoDB", budget, &outcome);
}

#[test]
fn the_model_of_the_broker_is_true_to_kafka() {
    let budget = Budget::of_environment(AT_ONCE);
    let (shards, inboxes) = transport::DEPLOYMENT;
    let open = async || kafka_instance::open(shards, inboxes).await;
    let outcome = transport::compare(budget, Duration::from_secs(20), open);
    conclude("Kafka", budget, &outcome);
}
