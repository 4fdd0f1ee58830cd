//! `at_rest`: once faults are over, shards come to rest with their owners: none changes hands any
//! more, and one that is handed over does not lie idle until a lease lapses.

use std::collections::{BTreeMap, BTreeSet};

use flowkit_core::id::{ClientId, ShardId};
use flowkit_core::message::Body;
use flowkit_core::port::Stream;

use super::{Judge, View};
use crate::history::{Life, What};
use crate::plan::{Fault, LATE_TIMEOUTS_MAX, Plan};

const NAME: &str = "at_rest";

#[derive(Debug, Default)]
pub(super) struct AtRest {
    /// Faults are over, and no process has come or gone since then.
    quiet_since: Option<u64>,
    /// Hosts of coordinators that are alive.
    alive: BTreeSet<u32>,
    /// When each coordinator announced itself for the second time, and last.
    heard: BTreeMap<ClientId, (Option<u64>, u64)>,
    /// Hosts that took shards over last.
    owners: BTreeMap<ShardId, u32>,
    /// Shards that their owners gave back in quiet times, and when.
    idle: BTreeMap<ShardId, u64>,
}

impl Judge for AtRest {
    fn event(&mut self, view: &mut View<'_>) {
        let at = view.event.at;
        match &view.event.what {
            What::Healed => self.quiet_since = Some(at),
            // The new machine takes its shards over.
            What::Broke => {
                self.quiet_since = self.quiet_since.map(|_| at);
                self.idle.clear();
            }
            What::Process { place, what } => {
                self.quiet_since = self.quiet_since.map(|_| at);
                self.idle.clear();
                match what {
                    Life::Started if place.host < view.plan.world.coordinators => {
                        self.alive.insert(place.host);
                    }
                    Life::Crashed | Life::Stopped => {
                        self.alive.remove(&place.host);
                    }
                    _ => {}
                }
            }
            What::Appended {
                stream: Stream::Announcements,
                envelope,
                ..
            } => {
                if let Body::CoordinatorOnline(online) = &envelope.body {
                    let heard = self.heard.entry(online.owner.clone());
                    heard
                        .and_modify(|(second, last)| {
                            second.get_or_insert(at);
                            *last = at;
                        })
                        .or_insert((None, at));
                }
            }
            What::Released { host, shard }
                if self.owners.get(shard) == Some(host) && self.agreed(view.plan, at) =>
            {
                self.idle.insert(*shard, at);
            }
            What::EpochRaised { host, shard, .. } => {
                self.owners.insert(*shard, *host);
                let idle = self.idle.remove(shard);
                let Some(since) = self.quiet_since else {
                    return;
                };
                // A commit that is refused makes its owner read everything again.
                if view.plan.faults.iter().any(Fault::is_refusal) {
                    return;
                }
                if at >= since + rest_ms(view.plan) * 1_000 {
                    let what = format!("shard {shard} changes hands long after faults were over");
                    view.broken(NAME, what);
                }
                let idle_ms = idle.map_or(0, |idle| (at - idle) / 1_000);
                if idle_ms > handed_over_ms(view.plan) {
                    let what =
                        format!("shard {shard} was handed over and lay idle for {idle_ms} ms");
                    view.broken(NAME, what);
                }
            }
            _ => {}
        }
    }
}

impl AtRest {
    /// Every coordinator has the same view of who is there, and none waits longer than it has a
    /// reason for.
    fn agreed(&self, plan: &Plan, at: u64) -> bool {
        let (world, lease_us) = (&plan.world, plan.world.shard_lease_ttl_ms * 1_000);
        // After a call that failed the longest wait is 2.5 s; without an answer it fails late. Calls
        // do not fail where processes only come and go.
        let only_crashes = plan.faults.iter().all(|f| matches!(f, Fault::Crash { .. }));
        let failed_ms = if plan.rates.is_quiet() && only_crashes {
            0
        } else {
            world.call_timeout_ms + 2_500
        };
        let quiet_us = (500 + failed_ms + late_ms(plan) + world.slack_ms) * 1_000;
        let quiet = self.quiet_since.is_some_and(|since| at >= since + quiet_us);
        // A peer counts when it was heard twice, until it was silent for two leases.
        let known_us = 2 * way_us(plan);
        let heard = self.heard.values();
        // The release was decided one way ago, and the last word of a dead peer was heard a way later.
        let slow = if plan.world.slow_permille > 0 { 20 } else { 1 };
        let unsure_us = ((1 + slow) * way_us(plan)).max(10_000);
        let counted = heard.filter(|(_, last)| last + 2 * lease_us + unsure_us > at);
        let mut counts = counted.map(|(second, _)| second.is_some_and(|at2| at2 + known_us < at));
        quiet && counts.clone().count() == self.alive.len() && counts.all(|known| known)
    }
}

/// The time after which owners stay what they are.
fn rest_ms(plan: &Plan) -> u64 {
    // Peers are forgotten after two leases, and what is owned is kept for two; twice at most.
    let leases = 6 + ghost_leases(plan);
    // A call that was lost as faults ended is given up a time-out later; until then its caller waits.
    let world = &plan.world;
    let lost_ms = world.call_timeout_ms;
    leases * world.shard_lease_ttl_ms + 500 + lost_ms + late_ms(plan) + world.slack_ms
}

/// The longest time from an owner's word that it gives a shard back until the next one has it.
fn handed_over_ms(plan: &Plan) -> u64 {
    let world = &plan.world;
    // Who should have it looks ten times per lease, give or take a fiftieth. A look that just missed
    // the release is answered; the next one is a probe and the lease, then the shard's record is read
    // and its epoch raised: eight ways in all, and two for the news that it should have it.
    let look_ms = world.shard_lease_ttl_ms * 3 / 25 + 2;
    let look_ms = look_ms + look_ms * world.clock_rate_error_ppm / 1_000_000;
    // One that looks in between may take it, and gives it back: four ways and another look.
    2 * look_ms + 14 * way_us(plan) / 1_000 + 1
}

/// The longest way of a message; on hosts that take turns it waits for some.
fn way_us(plan: &Plan) -> u64 {
    plan.world.latency_us_max + plan.world.slack_us()
}

/// What a dead peer said may arrive late: it is counted in for two leases more.
fn ghost_leases(plan: &Plan) -> u64 {
    let said_late = plan.rates.append_twice > 0 || plan.rates.append_overtaken > 0;
    2 * u64::from(said_late)
}

/// A renewal on its way when faults ended may arrive behind a release.
fn late_ms(plan: &Plan) -> u64 {
    let world = &plan.world;
    let late = plan.rates.store_late > 0 || ghost_leases(plan) > 0;
    // So are messages that were slow when faults ended.
    let slow = u64::from(world.slow_permille > 0) * 20 * world.latency_us_max / 1_000;
    u64::from(late) * LATE_TIMEOUTS_MAX * world.call_timeout_ms + slow
}
