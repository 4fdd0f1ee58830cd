//! Settings, with the keys and defaults of the worker guide. Times are in seconds where the key
//! ends in `_sec`, else in milliseconds; fractions of a second are allowed.

use flowkit_core::coordinator::Limits;
use serde::{Deserialize, Serialize};
use std::time::Duration;

macro_rules! setters {
    ($($(#[$doc:meta])* $key:ident: $type:ty),* $(,)?) => {$(
        $(#[$doc])*
        #[must_use]
        pub fn $key(mut self, value: $type) -> Self {
            self.$key = value;
            self
        }
    )*};
}

/// Settings of one worker.
///
/// ```
/// use flowkit_runtime::WorkerSettings;
/// let settings = WorkerSettings::default().hb_interval_sec(5.0).dedup_cache_size(1_000);
/// # let _ = settings;
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct WorkerSettings {
    /// The worker's version, for people; default `2.0.0`.
    pub worker_version: String,
    /// What the worker takes the length of the deployment's leases for; by default it takes what
    /// coordinators say. Theirs counts in any case; if this is another, the worker says so.
    pub lease_ttl_sec: Option<f64>,
    /// Time between heartbeats of a run; default 20.
    pub hb_interval_sec: f64,
    /// Time between announcements; default 60.
    pub announce_interval_sec: f64,
    /// Most remembered message identities; default 10,000.
    pub dedup_cache_size: usize,
    /// How long one is remembered; default 3,600,000.
    pub dedup_ttl_ms: u64,
    /// How often a reader looks for input that it was not woken for; default 300.
    pub pull_poll_ms_default: u64,
    /// Longest time between such looks while there is nothing; default 4,000.
    pub pull_empty_backoff_ms_max: u64,
    /// How often the grants of active runs are read; default 500.
    pub db_cancel_poll_ms: u64,
    /// `rechunk` demands its `meta_list_key`; default false.
    pub strict_input_adapters: bool,
    /// Time for running batches to end when the worker stops; default 30.
    pub shutdown_grace_sec: f64,
}

impl Default for WorkerSettings {
    fn default() -> Self {
        Self {
            worker_version: "2.0.0".to_owned(),
            lease_ttl_sec: None,
            hb_interval_sec: 20.0,
            announce_interval_sec: 60.0,
            dedup_cache_size: 10_000,
            dedup_ttl_ms: 3_600_000,
            pull_poll_ms_default: 300,
            pull_empty_backoff_ms_max: 4_000,
            db_cancel_poll_ms: 500,
            strict_input_adapters: false,
            shutdown_grace_sec: 30.0,
        }
    }
}

impl WorkerSettings {
    setters! {
        /// Sets the worker's version.
        worker_version: String,
        /// Sets what the worker takes the length of the deployment's leases for.
        lease_ttl_sec: Option<f64>,
        /// Sets the time between heartbeats.
        hb_interval_sec: f64,
        /// Sets the time between announcements.
        announce_interval_sec: f64,
        /// Sets the size of the dedup cache.
        dedup_cache_size: usize,
        /// Sets the time to live of its entries.
        dedup_ttl_ms: u64,
        /// Sets how often a reader looks for input that it was not woken for.
        pull_poll_ms_default: u64,
        /// Sets the longest time between such looks.
        pull_empty_backoff_ms_max: u64,
        /// Sets how often grants of active runs are read.
        db_cancel_poll_ms: u64,
        /// Makes `rechunk` demand its `meta_list_key`.
        strict_input_adapters: bool,
        /// Sets the time for running batches to end when the worker stops.
        shutdown_grace_sec: f64,
    }

    /// Adds one sentence for each value that is impossible, with its key.
    pub fn faults(&self, faults: &mut Vec<String>) {
        let bytes = self.worker_version.len();
        if bytes > VERSION_BYTES_MAX {
            // It travels in every announcement.
            faults.push(format!(
                "worker_version: must be at most {VERSION_BYTES_MAX} bytes, not {bytes}"
            ));
        }
        if let Some(lease_ttl_sec) = self.lease_ttl_sec {
            lease("lease_ttl_sec", lease_ttl_sec, faults);
        }
        seconds("hb_interval_sec", self.hb_interval_sec, faults);
        seconds("announce_interval_sec", self.announce_interval_sec, faults);
        grace("shutdown_grace_sec", self.shutdown_grace_sec, faults);
        positive("dedup_cache_size", self.dedup_cache_size as u64, faults);
        positive("dedup_ttl_ms", self.dedup_ttl_ms, faults);
        let poll_max_ms = u64::from(flowkit_core::graph::adapter::POLL_MS_MAX);
        for (key, ms) in [
            ("pull_poll_ms_default", self.pull_poll_ms_default),
            ("pull_empty_backoff_ms_max", self.pull_empty_backoff_ms_max),
        ] {
            if !(1..=poll_max_ms).contains(&ms) {
                faults.push(format!(
                    "{key}: must be from 1 to 86,400,000 milliseconds, not {ms}"
                ));
            }
        }
        positive("db_cancel_poll_ms", self.db_cancel_poll_ms, faults);
        if self.pull_empty_backoff_ms_max < self.pull_poll_ms_default {
            faults.push(format!(
                "pull_empty_backoff_ms_max: must be pull_poll_ms_default, which is {}, or more, not {}",
                self.pull_poll_ms_default, self.pull_empty_backoff_ms_max
            ));
        }
    }

    pub(crate) fn shutdown_grace_ms(&self) -> u64 {
        millis(self.shutdown_grace_sec)
    }

    pub(crate) fn apply(&self, config: &mut flowkit_core::worker::Config) {
        config.worker_version = self.worker_version.as_str().into();
        config.lease_ttl_ms = self.lease_ttl_sec.map(millis);
        config.hb_interval_ms = millis(self.hb_interval_sec);
        config.announce_interval_ms = millis(self.announce_interval_sec);
        config.dedup_cache_size = self.dedup_cache_size;
        config.dedup_ttl_ms = self.dedup_ttl_ms;
        config.pull_poll_ms = self.pull_poll_ms_default;
        config.pull_empty_backoff_ms_max = self.pull_empty_backoff_ms_max;
        config.db_cancel_poll_ms = self.db_cancel_poll_ms;
        config.strict_input_adapters = self.strict_input_adapters;
    }
}

/// Settings of one coordinator.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct CoordinatorSettings {
    /// Time for cancelled handlers to end; default 30.
    pub cancel_grace_sec: f64,
    /// Length of a worker's lease, one value for a deployment; default 60.
    pub lease_ttl_sec: f64,
    /// Length of the lease on a shard; default 5.
    pub shard_lease_ttl_sec: f64,
    /// Most tasks that are not settled; default 1,000,000.
    pub tasks_in_flight_max: usize,
    /// What may run at once, and how often something may start; default: no limit. The deployment
    /// must have one shard, and all of its coordinators the same limits.
    pub limits: Limits,
    /// How long a finished task is kept once nothing of it runs any more; 0, the default: for ever.
    pub retention_finished_sec: f64,
    /// How long a task that failed or was cancelled is kept; 0, the default: for ever.
    pub retention_failed_sec: f64,
    /// How often a coordinator looks for tasks whose retention has ended; default 60.
    pub sweep_interval_sec: f64,
}

impl Default for CoordinatorSettings {
    fn default() -> Self {
        Self {
            cancel_grace_sec: 30.0,
            lease_ttl_sec: 60.0,
            shard_lease_ttl_sec: 5.0,
            tasks_in_flight_max: 1_000_000,
            limits: Limits::default(),
            retention_finished_sec: 0.0,
            retention_failed_sec: 0.0,
            sweep_interval_sec: 60.0,
        }
    }
}

impl CoordinatorSettings {
    setters! {
        /// Sets the time for cancelled handlers to end.
        cancel_grace_sec: f64,
        /// Sets the length of a worker's lease.
        lease_ttl_sec: f64,
        /// Sets the length of the lease on a shard.
        shard_lease_ttl_sec: f64,
        /// Sets the most tasks that are not settled.
        tasks_in_flight_max: usize,
        /// Sets what may run at once, and how often something may start.
        limits: Limits,
        /// Sets how long finished tasks are kept.
        retention_finished_sec: f64,
        /// Sets how long tasks that failed, were cancelled or set aside are kept.
        retention_failed_sec: f64,
        /// Sets how often a coordinator looks for tasks whose retention has ended.
        sweep_interval_sec: f64,
    }

    /// Adds one sentence for each value that is impossible, with its key.
    pub fn faults(&self, faults: &mut Vec<String>) {
        grace("cancel_grace_sec", self.cancel_grace_sec, faults);
        retention(
            "retention_finished_sec",
            self.retention_finished_sec,
            faults,
        );
        retention("retention_failed_sec", self.retention_failed_sec, faults);
        seconds("sweep_interval_sec", self.sweep_interval_sec, faults);
        lease("lease_ttl_sec", self.lease_ttl_sec, faults);
        lease("shard_lease_ttl_sec", self.shard_lease_ttl_sec, faults);
        positive(
            "tasks_in_flight_max",
            self.tasks_in_flight_max as u64,
            faults,
        );
        let limits = self.limits.faults();
        faults.extend(limits.iter().map(|fault| format!("limits: {fault}")));
    }

    pub(crate) fn apply(&self, config: &mut flowkit_core::coordinator::Config) {
        config.cancel_grace_ms = millis(self.cancel_grace_sec);
        config.lease_ttl_ms = millis(self.lease_ttl_sec);
        config.shard_lease_ttl_ms = millis(self.shard_lease_ttl_sec);
        config.tasks_in_flight_max = self.tasks_in_flight_max;
        config.limits = self.limits.clone();
        config.retention_finished_ms = kept_ms(self.retention_finished_sec);
        config.retention_failed_ms = kept_ms(self.retention_failed_sec);
        config.sweep_interval_ms = millis(self.sweep_interval_sec);
    }
}

const MAX_SEC: f64 = 86_400.0;
/// Longest version of a worker, in bytes.
const VERSION_BYTES_MAX: usize = 200;

fn seconds(key: &str, value: f64, faults: &mut Vec<String>) {
    // NaN is in no range.
    if !(0.001..=MAX_SEC).contains(&value) {
        faults.push(format!(
            "{key}: must be from 0.001 to 86,400 seconds, not {value}"
        ));
    }
}

/// A lease that is shorter than what it takes to renew it is never held: nothing would ever run.
const LEASE_MIN_SEC: f64 = 0.01;

fn lease(key: &str, value: f64, faults: &mut Vec<String>) {
    if !(LEASE_MIN_SEC..=MAX_SEC).contains(&value) {
        faults.push(format!(
            "{key}: must be from {LEASE_MIN_SEC} to 86,400 seconds, not {value}"
        ));
    }
}

fn grace(key: &str, value: f64, faults: &mut Vec<String>) {
    if !(0.0..=MAX_SEC).contains(&value) {
        faults.push(format!(
            "{key}: must be from 0 to 86,400 seconds, not {value}"
        ));
    }
}

/// A hundred years: longer is for ever.
const RETENTION_MAX_SEC: f64 = 100.0 * 366.0 * MAX_SEC;

fn retention(key: &str, value: f64, faults: &mut Vec<String>) {
    if value != 0.0 && !(0.001..=RETENTION_MAX_SEC).contains(&value) {
        faults.push(format!(
            "{key}: must be 0 (for ever) or from 0.001 to 3,162,240,000 seconds, not {value}"
        ));
    }
}

/// A retention in milliseconds; none for ever.
fn kept_ms(seconds: f64) -> Option<u64> {
    // NaN is refused before; here it is for ever, which loses nothing.
    let kept = seconds > 0.0;
    kept.then(|| {
        let kept = Duration::from_secs_f64(seconds.min(RETENTION_MAX_SEC));
        crate::clock::millis(kept).max(1)
    })
}

fn positive(key: &str, value: u64, faults: &mut Vec<String>) {
    if value == 0 {
        faults.push(format!("{key}: must be 1 or more, not 0"));
    }
}

fn millis(seconds: f64) -> u64 {
    crate::clock::millis(Duration::from_secs_f64(seconds.clamp(0.0, MAX_SEC)))
}

/// Every fault of a worker or coordinator that was to be built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot be built: {}", faults.join("; "))]
#[non_exhaustive]
pub struct BuildError {
    /// One sentence each, with the key or role it is about.
    pub faults: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_is_listed_at_once() {
        let settings = WorkerSettings::default()
            .hb_interval_sec(f64::NAN)
            .announce_interval_sec(-1.0)
            .dedup_ttl_ms(0)
            .pull_empty_backoff_ms_max(1);
        let mut faults = Vec::new();
        settings.faults(&mut faults);
        assert_eq!(faults.len(), 4, "{faults:?}");
        let mut faults = Vec::new();
        WorkerSettings::default().faults(&mut faults);
        CoordinatorSettings::default().faults(&mut faults);
        assert!(faults.is_empty(), "{faults:?}");
    }

    /// Every key of `T` has another value than its default in `given`, and no key is left out.
    fn as_given<T>(given: &serde_json::Value) -> T
    where
        T: Default + Serialize + serde::de::DeserializeOwned,
    {
        let defaults = serde_json::to_value(T::default()).unwrap();
        for (key, default) in defaults.as_object().unwrap() {
            let value = given
                .get(key)
                .unwrap_or_else(|| panic!("{key} is not given"));
            assert_ne!(value, default, "{key}");
        }
        serde_json::from_value(given.clone()).unwrap()
    }

    #[test]
    fn every_key_of_a_worker_reaches_its_machine() {
        let settings: WorkerSettings = as_given(&serde_json::json!({
            "worker_version": "9.1",
            "lease_ttl_sec": 1.009,
            "hb_interval_sec": 1.001,
            "announce_interval_sec": 1.002,
            "dedup_cache_size": 1_003,
            "dedup_ttl_ms": 1_004,
            "pull_poll_ms_default": 1_005,
            "pull_empty_backoff_ms_max": 1_006,
            "db_cancel_poll_ms": 1_007,
            "strict_input_adapters": true,
            "shutdown_grace_sec": 1.008,
        }));
        let worker = flowkit_core::id::WorkerId::new("w").unwrap();
        let fresh = flowkit_core::worker::Config::new(worker, Vec::new(), 1, 1);
        let mut config = fresh.clone();
        settings.apply(&mut config);
        let mut expected = fresh;
        expected.worker_version = "9.1".into();
        expected.lease_ttl_ms = Some(1_009);
        expected.hb_interval_ms = 1_001;
        expected.announce_interval_ms = 1_002;
        expected.dedup_cache_size = 1_003;
        expected.dedup_ttl_ms = 1_004;
        expected.pull_poll_ms = 1_005;
        expected.pull_empty_backoff_ms_max = 1_006;
        expected.db_cancel_poll_ms = 1_007;
        expected.strict_input_adapters = true;
        assert_eq!(config, expected);
        assert_eq!(settings.shutdown_grace_ms(), 1_008);
    }

    #[test]
    fn every_key_of_a_coordinator_reaches_its_machine() {
        let settings: CoordinatorSettings = as_given(&serde_json::json!({
            "cancel_grace_sec": 1.001,
            "lease_ttl_sec": 1.002,
            "shard_lease_ttl_sec": 1.003,
            "tasks_in_flight_max": 1_004,
            "limits": {"running_max": 1_005},
            "retention_finished_sec": 1.006,
            "retention_failed_sec": 1.007,
            "sweep_interval_sec": 1.008,
        }));
        let owner = flowkit_core::id::ClientId::new("c").unwrap();
        let mut config = flowkit_core::coordinator::Config::new(owner.clone(), 1);
        settings.apply(&mut config);
        let mut expected = flowkit_core::coordinator::Config::new(owner, 1);
        expected.cancel_grace_ms = 1_001;
        expected.lease_ttl_ms = 1_002;
        expected.shard_lease_ttl_ms = 1_003;
        expected.tasks_in_flight_max = 1_004;
        expected.limits = Limits::default().all(1_005);
        expected.retention_finished_ms = Some(1_006);
        expected.retention_failed_ms = Some(1_007);
        expected.sweep_interval_ms = 1_008;
        let text = |config| serde_json::to_value(config).unwrap();
        assert_eq!(text(&config), text(&expected));
    }

    #[test]
    fn a_retention_that_makes_no_sense_is_refused_and_0_is_for_ever() {
        for value in [-1.0, f64::NAN, f64::INFINITY, 1e12, 0.000_1] {
            let mut faults = Vec::new();
            let settings = CoordinatorSettings::default();
            settings
                .retention_finished_sec(value)
                .retention_failed_sec(value)
                .faults(&mut faults);
            assert_eq!(faults.len(), 2, "{value}: {faults:?}");
            assert!(
                faults[0].starts_with("retention_finished_sec: "),
                "{faults:?}"
            );
        }
        let owner = flowkit_core::id::ClientId::new("c").unwrap();
        let mut config = flowkit_core::coordinator::Config::new(owner, 1);
        let settings = CoordinatorSettings::default().retention_failed_sec(0.5);
        settings.apply(&mut config);
        assert_eq!(config.retention_finished_ms, None);
        assert_eq!(config.retention_failed_ms, Some(500));
    }

    #[test]
    fn fractions_of_seconds_mean_what_they_say() {
        let settings = CoordinatorSettings::default().lease_ttl_sec(0.25);
        let owner = flowkit_core::id::ClientId::new("c").unwrap();
        let mut config = flowkit_core::coordinator::Config::new(owner, 1);
        settings.apply(&mut config);
        assert_eq!(config.lease_ttl_ms, 250);
    }
}
