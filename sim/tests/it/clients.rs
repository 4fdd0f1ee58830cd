//! What befalls clients, on hosts of their own: their tasks are none the worse for it.

use flowkit_runtime::task_id_of_key;
use flowkit_sim::plan::{ClientFault, Clock, Fault, Logical, Lost, Plan, Server, When};
use flowkit_sim::runner::{ReplayReport, Tier, replay_plan};

const fn on(what: Logical, nth: u64) -> When {
    When::Event { what, nth }
}

const fn client(when: When, what: ClientFault) -> Fault {
    let client = 0;
    Fault::Client { client, when, what }
}

/// Runs the plan; every promise holds, and the fault took effect.
fn hold(plan: &Plan, fired: &str) -> ReplayReport {
    let report = replay_plan(Tier::One, &plan.clone().fit_hosts(), true);
    let (verdict, rows) = (&report.verdict, report.rows.join("\n"));
    assert!(verdict.holds(), "{:#?}\n{rows}", verdict.failures);
    assert!(
        verdict.fired.contains_key(fired),
        "{fired} never fired\n{rows}"
    );
    report
}

fn rows(report: &ReplayReport, text: &str) -> usize {
    report.rows.iter().filter(|row| row.contains(text)).count()
}

#[test]
fn who_takes_the_place_of_a_dead_client_gets_the_same_task_for_the_same_key() {
    let mut plan = Plan::small();
    plan.tasks[0].id = task_id_of_key("order 17").to_string();
    plan.tasks[0].key = Some("order 17".to_owned());
    // The submission is taken, and nobody is there to hear of it.
    let dies = ClientFault::Crash { down_ms: 300 };
    let report = hold(
        &plan.with(client(on(Logical::Committed, 1), dies)),
        "client_crash",
    );
    assert_eq!(rows(&report, "asks Submit"), 2);
    assert_eq!(rows(&report, "gets Submit"), 1);
    assert_eq!(rows(&report, "gets Wait"), 1);
}

#[test]
fn a_client_may_die_after_each_of_its_requests() {
    for nth in 1..=5 {
        let dies = ClientFault::Crash { down_ms: 100 };
        hold(
            &Plan::small().with(client(When::Effect { nth }, dies)),
            "client_crash",
        );
    }
}

#[test]
fn a_client_that_is_cut_off_while_it_waits_hears_of_the_end_later() {
    for from in [Server::Store, Server::Broker] {
        for lost in [Lost::Requests, Lost::Replies, Lost::Both] {
            let cut = ClientFault::Partition {
                for_ms: 3_000,
                from,
                lost,
            };
            let mut plan = Plan::small();
            plan.tasks[0].graph.nodes[0].script.batch_ms = 500;
            plan.heal_ms = 8_000;
            let plan = plan.with(client(on(Logical::Committed, 1), cut));
            let report = replay_plan(Tier::One, &plan.fit_hosts(), false);
            assert!(report.verdict.holds(), "{:#?}", report.verdict.failures);
            let struck = report.verdict.fired.contains_key("client_partition");
            assert!(
                struck || from == Server::Store,
                "its inbox is at the broker"
            );
        }
    }
}

#[test]
fn a_frozen_client_finds_its_answers_when_it_goes_on() {
    let freezes = ClientFault::Stall { for_ms: 2_500 };
    let report = hold(
        &Plan::small().with(client(on(Logical::Committed, 1), freezes)),
        "client_stall",
    );
    assert_eq!(rows(&report, "*** Resumed"), 1);
}

#[test]
fn a_frozen_client_asks_for_nothing() {
    let freezes = ClientFault::Stall { for_ms: 2_000 };
    let plan = Plan::small().with(client(When::At { ms: 50 }, freezes));
    let report = hold(&plan, "client_stall");
    let place = |text: &str| report.rows.iter().position(|row| row.contains(text));
    let (asks, goes_on) = (place("asks Submit"), place("*** Resumed"));
    assert!(goes_on.is_some() && goes_on < asks, "{goes_on:?} {asks:?}");
}

#[test]
fn clients_clocks_that_are_off_and_jump_change_nothing() {
    let mut plan = Plan::small();
    plan.world.clocks = vec![Clock::default(); 4];
    plan.world.clocks.push(Clock {
        mono_offset_ms: 777_777,
        drift_ppm: 400,
        wall_offset_ms: -10_000,
    });
    let by_ms = -86_400_000;
    let jumps = ClientFault::WallStep { by_ms };
    let report = hold(
        &plan.with(client(on(Logical::Committed, 1), jumps)),
        "client_wall_step",
    );
    assert_eq!(rows(&report, "gets Wait"), 1);
}

#[test]
fn answers_that_are_held_back_come_late_and_count() {
    let hold_back = ClientFault::Hold {
        for_ms: 2_500,
        from: Server::Broker,
    };
    let plan = Plan::small().with(client(on(Logical::Committed, 1), hold_back));
    hold(&plan, "client_hold");
}
