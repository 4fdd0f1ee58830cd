//! The process's memory over time: a sample now and then, the newest kept.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Samples kept; with one in ten seconds, an hour.
const SAMPLES_MAX: usize = 360;

/// Resident bytes of this process over time.
#[derive(Debug, Default)]
pub(crate) struct Memory(Mutex<VecDeque<(Instant, u64)>>);

impl Memory {
    /// Takes a sample, where the system tells.
    pub(crate) fn sample(&self) {
        let Some(bytes) = resident_bytes() else {
            return;
        };
        let mut samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if samples.len() == SAMPLES_MAX {
            samples.pop_front();
        }
        samples.push_back((Instant::now(), bytes));
    }

    /// Samples with their ages, oldest first.
    pub(crate) fn samples(&self) -> Vec<(Duration, u64)> {
        let samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let aged = samples.iter().map(|(at, bytes)| (at.elapsed(), *bytes));
        aged.collect()
    }
}

/// Resident bytes of this process; `None` where the system does not tell.
pub(crate) fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_samples_are_kept_and_no_more() {
        let memory = Memory::default();
        for _ in 0..SAMPLES_MAX + 5 {
            memory.sample();
        }
        let samples = memory.samples();
        if resident_bytes().is_some() {
            assert_eq!(samples.len(), SAMPLES_MAX);
            assert!(samples.iter().all(|(_, bytes)| *bytes > 0));
        }
    }
}
