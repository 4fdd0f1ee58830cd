//! Named schedules of several shards: coordinators share them, and take each other's place.

use flowkit_sim::plan::{Fault, Plan};

use crate::pieces::{at, crash};
use crate::tiers::{FINISHED, holds};

/// Two coordinators and two shards, for long enough that shares settle.
fn two_shards() -> Plan {
    let mut plan = Plan::small();
    plan.world.shards = 2;
    plan.heal_ms = 60_000;
    // Something to wait for, so that the run does not end before.
    plan.actions[0].when = at(58_000);
    plan
}

#[test]
fn coordinators_share_the_shards() {
    let ran = holds(&two_shards(), &[], &["h0 … TAKEOVER", FINISHED]);
    ran.tells(&["h1 … TAKEOVER", FINISHED]);
    // Whoever was first gave one up, once, and nothing was tossed about afterwards.
    assert_eq!(ran.rows("TAKEOVER"), [3, 3]);
}

#[test]
fn a_coordinator_that_dies_is_replaced_within_the_shard_lease_and_gets_its_share_back() {
    let plan = two_shards().with(crash(0, at(30_000), 15_000));
    let ttl = plan.world.shard_lease_ttl_ms;
    let ran = holds(&plan, &["crash"], &["h0 … *** Crashed", FINISHED]);
    for ms in ran.lasts(&["*** Crashed", "h1 … TAKEOVER"]) {
        assert!(ms <= ttl + 1_000, "it was replaced after {ms} ms");
    }
    for ms in ran.lasts(&["*** Crashed", "h1 … TAKEOVER", "h0 … TAKEOVER"]) {
        assert!(ms > 15_000, "it had a share again after {ms} ms");
    }
    assert_eq!(
        ran.rows("TAKEOVER"),
        [5, 5],
        "one replaces it, one gives back"
    );
}

#[test]
fn a_coordinator_that_stops_in_order_is_replaced_at_once() {
    let plan = two_shards().with(Fault::Shutdown {
        host: 0,
        when: at(30_000),
        grace_ms: 100,
        down_ms: 20_000,
    });
    let story = ["h0 … *** Asked", "h1 … TAKEOVER"];
    for ms in holds(&plan, &["shutdown"], &story).lasts(&story) {
        assert!(ms < 500, "it was replaced after {ms} ms");
    }
}
