//! Ready: it really took and confirmed something lately. Each sentence says why not.

use flowkit_core::id::ShardId;
use flowkit_runtime::vitals::{CoordinatorVitals, WorkerVitals};
use std::collections::BTreeMap;

/// A read of the inbox waits 30 s for something to come, and its answer may take 10 s more.
const INBOX_SILENT_MS: u64 = 45_000;
/// With commands waiting, a read is answered at once: one that hears has read by then.
const DEAF_MS: u64 = 5_000;
/// Time that a call may take.
const CALL_MS: u64 = 10_000;
/// A coordinator without a shard asks for leases in this time at least.
const STANDBY_MS: u64 = 30_000;

/// What a look from outside showed of a worker's ports.
#[derive(Clone, Debug)]
pub(crate) struct Look {
    pub(crate) store: Result<(), String>,
    pub(crate) lag: Result<u64, String>,
}

/// Why a worker is not ready; empty if it is.
pub(crate) fn worker(
    vitals: Option<&WorkerVitals>,
    runs: usize,
    stopping: bool,
    look: &Look,
) -> Vec<String> {
    let mut why = Vec::new();
    if stopping {
        why.push("it is stopping".to_owned());
    }
    let Some(vitals) = vitals else {
        why.push("its driver does not answer".to_owned());
        return why;
    };
    if vitals.incarnation.is_none() {
        why.push("it is not registered in the store yet".to_owned());
        return why;
    }
    let ttl = vitals.lease_ttl_ms;
    let store_ms = vitals.store_ok_ms.unwrap_or(vitals.uptime_ms);
    match &look.store {
        Err(error) if store_ms > ttl => why.push(format!(
            "the store was not reached for {} s, a lease is {} s: {error}",
            store_ms / 1_000,
            ttl / 1_000
        )),
        // The machine calls the store away after a few seconds of failures; then it takes nothing.
        _ if !vitals.takes_work && !stopping => {
            why.push("it takes no work: the store does not answer".to_owned());
        }
        _ => {}
    }
    let inbox_ms = vitals.inbox_ms.unwrap_or(vitals.uptime_ms);
    match &look.lag {
        Err(error) => why.push(format!("its inbox cannot be reached: {error}")),
        Ok(lag) if *lag > 0 && inbox_ms > DEAF_MS => why.push(format!(
            "it is deaf: {lag} messages wait in its inbox, and it has read none for {} s",
            inbox_ms / 1_000
        )),
        Ok(_) if inbox_ms > INBOX_SILENT_MS => why.push(format!(
            "it is deaf: no read of its inbox was answered for {} s",
            inbox_ms / 1_000
        )),
        Ok(_) => {}
    }
    let sent_max = vitals.announce_interval_ms.saturating_add(CALL_MS).max(ttl);
    match vitals.sent_ms {
        None => why.push("no message of it was confirmed yet".to_owned()),
        Some(ms) if ms > sent_max => {
            why.push(format!(
                "no message of it was confirmed for {} s",
                ms / 1_000
            ));
        }
        Some(_) => {}
    }
    if runs > 0 && vitals.heartbeat_ms.is_some_and(|ms| ms > ttl) {
        why.push("no heartbeat of its runs was confirmed for a whole lease".to_owned());
    }
    why
}

/// Why a coordinator is not ready; empty if it is. One that owns no shard because others do stands
/// by, and is ready as long as the store answers it.
pub(crate) fn coordinator(
    vitals: Option<&CoordinatorVitals>,
    lags: &BTreeMap<ShardId, Result<u64, String>>,
) -> Vec<String> {
    let Some(vitals) = vitals else {
        return vec!["its driver does not answer".to_owned()];
    };
    let mut why = Vec::new();
    for (shard, owned) in &vitals.shards {
        let ms = owned.renewed_ms.unwrap_or(vitals.uptime_ms);
        if ms > vitals.shard_lease_ttl_ms {
            why.push(format!(
                "its lease on shard {shard} was not renewed for {} ms, it is {} ms long",
                ms, vitals.shard_lease_ttl_ms
            ));
        }
    }
    let standby_ms = vitals.shard_lease_ttl_ms.saturating_mul(2).max(STANDBY_MS);
    let store_ms = vitals.store_ok_ms.unwrap_or(vitals.uptime_ms);
    if vitals.shards.is_empty() && (vitals.store_ok_ms.is_none() || store_ms > standby_ms) {
        why.push("it owns no shard, and the store does not answer".to_owned());
    }
    for (shard, lag) in lags {
        if let Err(error) = lag {
            why.push(format!(
                "the stream of shard {shard} cannot be reached: {error}"
            ));
        }
    }
    why
}
