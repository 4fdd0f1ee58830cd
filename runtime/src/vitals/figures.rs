//! Counts and times of calls.

use std::collections::BTreeMap;

/// Upper bounds of a [`Histogram`]'s buckets, in milliseconds; what is longer is in no bucket.
pub const SECONDS: [u64; 14] = [
    1, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 10_000, 60_000, 600_000, 3_600_000,
];

/// Times, counted in fixed buckets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Histogram {
    /// How many were at most as long as each bound of [`SECONDS`], and longer than the one before.
    pub buckets: [u64; SECONDS.len()],
    /// All of them.
    pub count: u64,
    /// Their sum in milliseconds.
    pub sum_ms: u64,
}

impl Histogram {
    /// Counts one.
    pub(crate) fn add(&mut self, ms: u64) {
        self.count += 1;
        self.sum_ms = self.sum_ms.saturating_add(ms);
        let at = SECONDS.partition_point(|bound| *bound < ms);
        if let Some(bucket) = self.buckets.get_mut(at) {
            *bucket += 1;
        }
    }
}

/// Calls to a port by the name of the request: those that were answered, and those that were not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Calls {
    /// Answered, with their times.
    pub answered: BTreeMap<&'static str, Histogram>,
    /// Failed, whatever the kind of error.
    pub failed: BTreeMap<&'static str, u64>,
}

impl Calls {
    pub(crate) fn ended(&mut self, name: &'static str, ms: u64, ok: bool) {
        if ok {
            self.answered.entry(name).or_default().add(ms);
        } else {
            *self.failed.entry(name).or_default() += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_in_the_first_bucket_that_holds_it() {
        let mut times = Histogram::default();
        for ms in [0, 1, 2, 3_600_000, 3_600_001] {
            times.add(ms);
        }
        assert_eq!(
            (times.buckets[0], times.buckets[1], times.buckets[13]),
            (2, 1, 1)
        );
        assert_eq!((times.count, times.sum_ms), (5, 7_200_004));
    }
}
