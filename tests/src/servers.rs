//! Where the real servers are that tests run against.
//!
//! `cargo xtask test` brings them up and says where they are; `cargo xtask services up` does it for a
//! single test. A test that needs one fails without it: nothing is skipped.

use std::path::Path;

/// `host:port` of Apache Kafka: `FLOWKIT_KAFKA`, or the one that `cargo xtask services up` started.
///
/// # Panics
/// If there is none.
#[must_use]
pub fn kafka() -> String {
    server("FLOWKIT_KAFKA")
}

/// URI of MongoDB: `FLOWKIT_MONGO`, or the one that `cargo xtask services up` started.
///
/// # Panics
/// If there is none.
#[must_use]
pub fn mongo() -> String {
    server("FLOWKIT_MONGO")
}

fn server(name: &str) -> String {
    if let Ok(value) = std::env::var(name) {
        return value;
    }
    let state = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/services/addresses");
    let text = std::fs::read_to_string(&state).unwrap_or_default();
    let mut lines = text.lines().filter_map(|line| line.split_once('='));
    match lines.find(|(key, _)| *key == name) {
        Some((_, value)) => value.to_owned(),
        None => panic!(
            "{name} is not set and no server of ours is up: `cargo xtask services up` starts one, \
             or `cargo xtask test` runs everything"
        ),
    }
}

/// A name that no other test of this or any other run uses: for databases and topic prefixes.
#[must_use]
pub fn fresh_name(stem: &str) -> String {
    use std::hash::{BuildHasher, RandomState};
    format!(
        "{stem}_{:016x}",
        RandomState::new().hash_one(std::process::id())
    )
}
