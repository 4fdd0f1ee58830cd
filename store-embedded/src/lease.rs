//! Leases on shards: in memory, because whoever held one died with the process that had the file.

use flowkit_core::id::{ClientId, ShardId};
use flowkit_core::port::LeaseView;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Every lease, by shard. Times are milliseconds on the store's monotonic clock.
#[derive(Debug, Default)]
pub(crate) struct Leases(Mutex<BTreeMap<ShardId, Lease>>);

#[derive(Debug)]
struct Lease {
    owner: ClientId,
    until_ms: u64,
}

impl Leases {
    /// Takes or renews a lease if it is free, lapsed or `owner`'s.
    pub(crate) fn acquire(
        &self,
        now_ms: u64,
        shard: ShardId,
        owner: ClientId,
        ttl_ms: u64,
    ) -> LeaseView {
        let mut leases = self.lock();
        match leases.get(&shard) {
            Some(lease) if lease.owner != owner && lease.until_ms > now_ms => LeaseView {
                held: false,
                owner: lease.owner.clone(),
                remaining_ms: lease.until_ms - now_ms,
            },
            _ => {
                let lease = Lease {
                    owner: owner.clone(),
                    until_ms: now_ms.saturating_add(ttl_ms),
                };
                leases.insert(shard, lease);
                LeaseView {
                    held: true,
                    owner,
                    remaining_ms: ttl_ms,
                }
            }
        }
    }

    pub(crate) fn release(&self, shard: ShardId, owner: &ClientId) {
        let mut leases = self.lock();
        if leases.get(&shard).is_some_and(|l| l.owner == *owner) {
            leases.remove(&shard);
        }
    }

    pub(crate) fn holds(&self, now_ms: u64, shard: ShardId, owner: &ClientId) -> bool {
        let leases = self.lock();
        let lease = leases.get(&shard);
        lease.is_some_and(|l| l.owner == *owner && l.until_ms > now_ms)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ShardId, Lease>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
