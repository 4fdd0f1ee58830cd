//! Settings of the coordinator machine.

use serde::{Deserialize, Serialize};

use super::limits::Limits;
use crate::function::Functions;
use crate::id::ClientId;

/// Settings of one coordinator. Times are in milliseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Config {
    /// Names this start of this coordinator; never used by another start.
    pub owner: ClientId,
    /// Seed for commit ids and jitter.
    pub seed: u64,
    /// Shards of the deployment.
    pub shards: u32,
    /// Inbox partitions of the deployment.
    pub inboxes: u32,
    /// Length of the lease on a shard; default 5 s.
    pub shard_lease_ttl_ms: u64,
    /// Length of a worker's lease; default 60 s.
    pub lease_ttl_ms: u64,
    /// Declared clock rate error in parts per million; default 500.
    pub clock_rate_error_ppm: u64,
    /// Time for cancelled handlers to end; default 30 s.
    pub cancel_grace_ms: u64,
    /// A START without an answer for this long is granted anew; default 5 s.
    pub accept_timeout_ms: u64,
    /// First wait before a command is sent again; doubles up to 5 s. Default 500 ms.
    pub resend_backoff_ms: u64,
    /// First wait before a failed port call is repeated; doubles up to 2 s. Default 50 ms.
    pub retry_backoff_ms: u64,
    /// Most records per commit; default 512.
    pub commit_records_max: usize,
    /// Longest time a folded change waits for company before its commit begins; default 1 ms.
    pub commit_delay_ms: u64,
    /// Most tasks that are not settled; default 1,000,000.
    pub tasks_in_flight_max: usize,
    /// How long a finished task is kept once it is settled; for ever if absent, the default.
    pub retention_finished_ms: Option<u64>,
    /// The same for a task that failed, was cancelled or was set aside.
    pub retention_failed_ms: Option<u64>,
    /// How often an owner looks for tasks whose retention has ended; default 60 s.
    pub sweep_interval_ms: u64,
    /// The store applies before it syncs, and worker processes share this one's fate (embedded).
    pub applies_before_sync: bool,
    /// Every grant found at the first load belongs to a dead process (embedded: a file lock says
    /// that no other process is alive).
    pub predecessors_dead: bool,
    /// The coordinator functions and detectors that it knows; default the built-in ones. Not part
    /// of what is written down of a configuration.
    #[serde(skip)]
    pub functions: Functions,
    /// What may run at once, and how often something may start; default: no limit. With more than one
    /// shard no owner knows all that runs: there must be none.
    pub limits: Limits,
}

impl Config {
    /// The defaults for one coordinator.
    #[must_use]
    pub fn new(owner: ClientId, seed: u64) -> Self {
        Self {
            owner,
            seed,
            shards: 1,
            inboxes: 1,
            shard_lease_ttl_ms: 5_000,
            lease_ttl_ms: 60_000,
            clock_rate_error_ppm: 500,
            cancel_grace_ms: 30_000,
            accept_timeout_ms: 5_000,
            resend_backoff_ms: 500,
            retry_backoff_ms: 50,
            commit_records_max: 512,
            commit_delay_ms: 1,
            tasks_in_flight_max: 1_000_000,
            retention_finished_ms: None,
            retention_failed_ms: None,
            sweep_interval_ms: 60_000,
            applies_before_sync: false,
            predecessors_dead: false,
            functions: Functions::default(),
            limits: Limits::default(),
        }
    }

    /// How long past its ttl a lease is believed: `max(1 s, 2 x rate error x ttl)`.
    #[must_use]
    pub const fn lease_margin_ms(&self) -> u64 {
        let drift = self
            .lease_ttl_ms
            .saturating_mul(2 * self.clock_rate_error_ppm)
            / 1_000_000;
        if drift > 1_000 { drift } else { 1_000 }
    }
}
