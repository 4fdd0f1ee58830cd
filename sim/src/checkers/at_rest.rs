//! `at_rest`: once faults are over, shards come to rest with their owners: none changes hands any
//! more.

use super::{Judge, View};
use crate::history::What;
use crate::plan::Fault;

const NAME: &str = "at_rest";

#[derive(Debug, Default)]
pub(super) struct AtRest {
    /// Faults are over, and no process has come or gone since then.
    quiet_since: Option<u64>,
}

impl Judge for AtRest {
    fn event(&mut self, view: &mut View<'_>) {
        match &view.event.what {
            What::Healed => self.quiet_since = Some(view.event.at),
            What::Process { .. } => {
                self.quiet_since = self.quiet_since.map(|_| view.event.at);
            }
            What::EpochRaised { shard, .. } => {
                let Some(since) = self.quiet_since else {
                    return;
                };
                let world = &view.plan.world;
                // Peers are forgotten after two leases, and what is owned is kept for two; twice at most.
                let rest = (6 * world.shard_lease_ttl_ms + 500) * 1_000 + world.slack_us();
                let refuses = |fault: &Fault| {
                    matches!(
                        fault,
                        Fault::RefuseCommit { .. }
                            | Fault::RefuseBatches { .. }
                            | Fault::RefuseTask { .. }
                    )
                };
                // A commit that is refused makes its owner read everything again.
                if view.event.at >= since + rest && !view.plan.faults.iter().any(refuses) {
                    let what = format!("shard {shard} changes hands long after faults were over");
                    view.broken(NAME, what);
                }
            }
            _ => {}
        }
    }
}
