//! The models are true to the real servers: generated sequences on both, every answer compared.

mod kafka_instance;
mod kafka_topics;
mod mongo_instance;

use flowkit_tests::fidelity::{Budget, conclude, store, transport};
use std::time::Duration;

/// Sequences under way at once. A server's time goes into waiting for its disk.
const AT_ONCE: usize = 6;
/// Seeds that showed a difference once: what it was. Each difference has a named test as well, since
/// a change of the generator makes another sequence of a seed.
const REGRESSIONS: [(u64, &str); 1] = [(695_704_909_631, "grants of a task with a rotten body")];

#[test]
fn the_model_of_the_store_is_true_to_mongodb() {
    let compare = |budget| store::compare(budget, store::Shape::SERVER, mongo_instance::open);
    let budget = Budget::of_environment(AT_ONCE);
    for (seed, what) in REGRESSIONS {
        let once = Budget {
            operations: 1,
            seed,
            at_once: 1,
            ..budget
        };
        if let Err(difference) = compare(once) {
            panic!("again, {what}: {difference}");
        }
    }
    conclude("MongoDB", budget, &compare(budget));
}

#[test]
fn the_model_of_the_broker_is_true_to_kafka() {
    let budget = Budget::of_environment(AT_ONCE);
    let (shards, inboxes) = transport::DEPLOYMENT;
    let open = async || kafka_instance::open(shards, inboxes).await;
    let outcome = transport::compare(budget, Duration::from_secs(20), open);
    conclude("Kafka", budget, &outcome);
}
