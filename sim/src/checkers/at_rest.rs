//! `at_rest`: once faults are over, shards come to rest with their owners: none changes hands any
//! more.

use super::{Judge, View};
use crate::history::What;
use crate::plan::{Fault, LATE_TIMEOUTS_MAX, Plan};

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
                let rest = rest_ms(view.plan) * 1_000;
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

/// The time after which owners stay what they are.
fn rest_ms(plan: &Plan) -> u64 {
    let (world, rates) = (&plan.world, &plan.rates);
    // Peers are forgotten after two leases, and what is owned is kept for two; twice at most.
    let mut leases = 6;
    let mut late = rates.store_late > 0;
    if rates.append_twice > 0 || rates.append_overtaken > 0 {
        // What a dead peer said arrives: it is counted in for two leases more.
        late = true;
        leases += 2;
    }
    // A renewal on its way when faults ended may arrive behind a release.
    let late_ms = u64::from(late) * LATE_TIMEOUTS_MAX * world.call_timeout_ms;
    // A call that was lost as faults ended is given up a time-out later; until then its caller waits.
    let lost_ms = world.call_timeout_ms;
    leases * world.shard_lease_ttl_ms + 500 + lost_ms + late_ms + world.slack_ms
}
