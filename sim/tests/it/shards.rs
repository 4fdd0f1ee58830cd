//! Named schedules of several shards: coordinators share them, and take each other's place.

use flowkit_sim::plan::{Fault, Plan};

use crate::scenarios::{at, crash, hold, rows};

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
    let report = hold(&two_shards(), &[]);
    // Whoever was first gave one up, once, and nothing was tossed about afterwards.
    assert_eq!(rows(&report, "TAKEOVER"), 3);
    let by = |host: &str| {
        let mut rows = report.rows.iter();
        rows.any(|row| row.contains(host) && row.contains("TAKEOVER"))
    };
    assert!(by(" h0 ") && by(" h1 "));
}

#[test]
fn a_coordinator_that_dies_is_replaced_within_the_shard_lease_and_gets_its_share_back() {
    let plan = two_shards().with(crash(0, at(30_000), 15_000));
    let ttl = plan.world.shard_lease_ttl_ms;
    let report = hold(&plan, &["crash"]);
    let takeovers: Vec<u64> = report
        .rows
        .iter()
        .filter(|row| row.contains("TAKEOVER"))
        .map(|row| {
            let ms = row.trim_start().split('.').next().unwrap_or_default();
            ms.parse().expect("a row begins with its time")
        })
        .filter(|at| *at > 30_000)
        .collect();
    assert_eq!(
        takeovers.len(),
        2,
        "one replaces it, one gives back: {takeovers:?}"
    );
    assert!(takeovers[0] <= 30_000 + ttl + 1_000, "{takeovers:?}");
    assert!(takeovers[1] > 45_000, "{takeovers:?}");
}

#[test]
fn a_coordinator_that_stops_in_order_is_replaced_at_once() {
    let plan = two_shards().with(Fault::Shutdown {
        host: 0,
        when: at(30_000),
        grace_ms: 100,
        down_ms: 20_000,
    });
    let report = hold(&plan, &["shutdown"]);
    let replaced = report.rows.iter().any(|row| {
        let ms = row.trim_start().split('.').next().unwrap_or_default();
        let ms: u64 = ms.parse().unwrap_or(0);
        row.contains("TAKEOVER") && (30_000..30_000 + 500).contains(&ms)
    });
    assert!(replaced, "{}", report.rows.join("\n"));
}
