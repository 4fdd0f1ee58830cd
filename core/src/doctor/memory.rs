//! Does a worker's memory grow without end?

use super::{Check, Finding};
use crate::why::span;

/// Samples that it takes to say anything.
const SAMPLES_MIN: usize = 8;
/// Growth that is worth a word, in bytes.
const GROWTH_MIN: u64 = 64 * 1024 * 1024;

/// Judges samples of `(age in milliseconds, bytes)`, oldest first. Grown means: the least of the
/// newest quarter is by half (and 64 MiB) above the most of the oldest quarter. A peak is no growth.
#[must_use]
pub fn memory_growth(worker: &str, samples: &[(u64, u64)]) -> Option<Finding> {
    let quarter = samples.len() / 4;
    if samples.len() < SAMPLES_MIN || quarter == 0 {
        return None;
    }
    let before = samples[..quarter].iter().map(|(_, bytes)| *bytes).max()?;
    let now = samples[samples.len() - quarter..]
        .iter()
        .map(|(_, bytes)| *bytes)
        .min()?;
    let grown = now > before.saturating_add(GROWTH_MIN) && now > before.saturating_add(before / 2);
    if !grown {
        return None;
    }
    let mib = |bytes: u64| bytes / (1024 * 1024);
    let since = samples.first().map_or(0, |(age, _)| *age);
    Some(Finding::new(
        Check::Memory,
        worker,
        format!(
            "its memory grew from {} to {} MiB within {}",
            mib(before),
            mib(now),
            span(since)
        ),
        "let handlers give back what a run took in `cleanup`, keep no batch after its `process`, \
         and look with a memory profiler",
    ))
}
