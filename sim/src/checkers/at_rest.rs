//! `at_rest`: once faults are over, shards come to rest with their owners: none changes hands again
//! and again.

use std::collections::BTreeMap;

use flowkit_core::id::ShardId;

use super::{Judge, View};
use crate::history::What;

const NAME: &str = "at_rest";
/// Changes that may follow from what coordinators learn late of each other.
const CHANGES_MAX: u32 = 1;

#[derive(Debug, Default)]
pub(super) struct AtRest {
    healed_at: Option<u64>,
    changes: BTreeMap<ShardId, u32>,
}

impl Judge for AtRest {
    fn event(&mut self, view: &mut View<'_>) {
        match &view.event.what {
            What::Healed => self.healed_at = Some(view.event.at),
            What::EpochRaised { shard, .. } => {
                let Some(healed) = self.healed_at else { return };
                let world = &view.plan.world;
                // Peers are forgotten after two leases; what is owned is kept for a few.
                let rest = (10 * world.shard_lease_ttl_ms + 5_000) * 1_000 + world.slack_us();
                if view.event.at < healed + rest {
                    return;
                }
                let changes = self.changes.entry(*shard).or_default();
                *changes += 1;
                if *changes > CHANGES_MAX {
                    let what = format!("shard {shard} changes hands long after faults were over");
                    view.broken(NAME, what);
                }
            }
            _ => {}
        }
    }
}
