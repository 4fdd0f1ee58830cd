//! The features of the guide on a real Kafka and MongoDB.

mod fleet_ground;
mod kafka_topics;

use fleet_ground::Fleet;

async fn open() -> Fleet {
    Fleet::open()
}

flowkit_tests::guide_conformance!(fleet, open());
