//! Settings of the worker machine.

use serde::{Deserialize, Serialize};
use std::sync::Arc;

use crate::id::{Role, WorkerId};

/// Settings of one worker. Times are in milliseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Config {
    /// The worker's id; a restart with the same id is the same worker.
    pub worker_id: WorkerId,
    /// Roles it has handlers for.
    pub roles: Vec<Role>,
    /// Nodes it runs at once, all roles together.
    pub capacity: u32,
    /// Drawn at random by each process start: no other start of the id may have it.
    pub start_nonce: u64,
    /// Its version, for people.
    pub worker_version: Arc<str>,
    /// Shards of the deployment.
    pub shards: u32,
    /// Inbox partitions of the deployment.
    pub inboxes: u32,
    /// Time between heartbeats of a run; default 20 s.
    pub hb_interval_ms: u64,
    /// Time between announcements; default 60 s.
    pub announce_interval_ms: u64,
    /// Most remembered message identities; default 10,000.
    pub dedup_cache_size: usize,
    /// How long one is remembered; default one hour.
    pub dedup_ttl_ms: u64,
    /// How often a reader looks for input it was not woken for; default 300 ms.
    pub pull_poll_ms: u64,
    /// Longest time between such looks when there is nothing; default 4 s.
    pub pull_empty_backoff_ms_max: u64,
    /// How often grants of active runs are read; default 500 ms.
    pub db_cancel_poll_ms: u64,
    /// What it takes the length of the deployment's leases for: told apart, it says so. Unchecked if
    /// absent, the default.
    pub lease_ttl_ms: Option<u64>,
    /// `rechunk` demands its `meta_list_key`; default false.
    pub strict_input_adapters: bool,
    /// First wait before a failed port call is repeated; doubles up to 2 s. Default 50 ms.
    pub retry_backoff_ms: u64,
}

impl Config {
    /// The defaults of the worker guide for one worker of one role set.
    #[must_use]
    pub fn new(worker_id: WorkerId, roles: Vec<Role>, capacity: u32, start_nonce: u64) -> Self {
        Self {
            worker_id,
            roles,
            capacity,
            start_nonce,
            worker_version: Arc::from("2.0.0"),
            shards: 1,
            inboxes: 1,
            hb_interval_ms: 20_000,
            announce_interval_ms: 60_000,
            dedup_cache_size: 10_000,
            dedup_ttl_ms: 3_600_000,
            pull_poll_ms: 300,
            pull_empty_backoff_ms_max: 4_000,
            db_cancel_poll_ms: 500,
            lease_ttl_ms: None,
            strict_input_adapters: false,
            retry_backoff_ms: 50,
        }
    }
}
