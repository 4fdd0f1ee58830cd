//! Ids that nobody else makes: client ids, generated worker ids, task ids ordered by time.

use flowkit_core::hash::stable128;
use flowkit_core::id::{ShardId, TaskId};
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::clock::Clock;

/// Random numbers of one process: a seed and a counter, hashed.
#[derive(Debug)]
pub(crate) struct IdSource {
    seed: [u64; 2],
    drawn: AtomicU64,
}

impl IdSource {
    /// Seeded by the operating system.
    pub(crate) fn new() -> Self {
        // `RandomState` is the standard library's own door to the system's randomness.
        let seed = [0_u64, 1].map(|part| RandomState::new().hash_one(part));
        Self::seeded(seed)
    }

    pub(crate) fn seeded(seed: [u64; 2]) -> Self {
        Self {
            seed,
            drawn: AtomicU64::new(0),
        }
    }

    pub(crate) fn random128(&self) -> u128 {
        let counter = self.drawn.fetch_add(1, Ordering::Relaxed);
        stable128(&[
            &self.seed[0].to_le_bytes(),
            &self.seed[1].to_le_bytes(),
            &counter.to_le_bytes(),
        ])
    }

    pub(crate) fn random64(&self) -> u64 {
        (self.random128() >> 64) as u64
    }

    /// `prefix-` and 16 hexadecimal digits.
    pub(crate) fn name(&self, prefix: &str) -> String {
        format!("{prefix}-{:016x}", self.random64())
    }

    /// A task id: 48 bits of time, then 64 random bits, so newer tasks sort behind older ones.
    pub(crate) fn task_id(&self, clock: &Clock) -> TaskId {
        let time = u128::from(clock.wall_ms().unsigned_abs()) & 0xffff_ffff_ffff;
        text_id(time << 64 | u128::from(self.random64()))
    }
}

/// The task id that belongs to an idempotency key: the same key is the same task, everywhere.
#[must_use]
pub fn task_id_of_key(key: &str) -> TaskId {
    let hash = stable128(&[b"idempotency key", key.as_bytes()]);
    text_id(hash & ((1 << 112) - 1))
}

/// The first id of a row that falls into a shard.
pub(crate) fn in_shard(shard: ShardId, shards: u32, mut make: impl FnMut(u64) -> TaskId) -> TaskId {
    // Ids spread evenly: that so many in a row miss does not happen.
    let most = 1_000 * u64::from(shards.max(1));
    let mut number = 0;
    loop {
        let id = make(number);
        if ShardId::of(&id, shards) == shard || number == most {
            return id;
        }
        number += 1;
    }
}

/// 112 bits as 23 characters whose order as text is the order of the numbers.
fn text_id(number: u128) -> TaskId {
    const DIGITS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
    let text: String = (0..23)
        .rev()
        .map(|place| char::from(DIGITS[(number >> (place * 5)) as usize & 31]))
        .collect();
    match TaskId::new(text) {
        Ok(id) => id,
        Err(error) => unreachable!("23 letters and digits are an id: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_key_names_one_task() {
        assert_eq!(task_id_of_key("a"), task_id_of_key("a"));
        assert_ne!(task_id_of_key("a"), task_id_of_key("b"));
    }

    #[test]
    fn an_id_of_the_same_shard_is_found_and_the_same_again() {
        for shard in 0..16 {
            let key = |number| task_id_of_key(&format!("k{number}"));
            let id = in_shard(ShardId(shard), 16, key);
            assert_eq!(ShardId::of(&id, 16), ShardId(shard));
            assert_eq!(in_shard(ShardId(shard), 16, key), id);
        }
        assert_eq!(
            in_shard(ShardId(0), 1, |_| task_id_of_key("k")),
            task_id_of_key("k")
        );
    }

    #[test]
    fn ids_sort_by_their_number_and_never_repeat() {
        assert!(text_id(31) < text_id(32));
        assert!(text_id(1 << 64) > text_id((1 << 64) - 1));
        let ids = IdSource::seeded([1, 2]);
        let clock = Clock::new();
        assert_ne!(ids.task_id(&clock), ids.task_id(&clock));
        assert_ne!(IdSource::new().random64(), IdSource::new().random64());
    }
}
