//! Plans from seeds, by swarm: each seed switches whole families of faults off and draws its
//! weights wide, so that rare mixtures come up and no family hides another.

use flowkit_core::coordinator::Limits;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::workload::task;
use super::{
    Action, ActionKind, Clock, Fault, Leaving, Logical, Lost, Plan, Rates, Server, TroubleKind,
    When, WorkerPlan, World,
};

/// The draws of one seed: a stream of its own for each concern, so that concerns neither disturb each
/// other nor go together (two with one stream would draw the same numbers).
#[derive(Debug)]
pub(super) struct Streams {
    seed: u64,
    /// A bit for each concern that has its stream.
    given: u128,
}

impl Streams {
    pub(super) fn of_seed(seed: u64) -> Self {
        Self { seed, given: 0 }
    }

    /// The stream of a concern, once.
    ///
    /// # Panics
    /// If another concern has it.
    pub(super) fn of(&mut self, concern: u8) -> Draw {
        let bit = 1_u128 << concern;
        assert!(self.given & bit == 0, "stream {concern} is another's");
        self.given |= bit;
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(u64::from(concern));
        Draw(rng)
    }
}

/// Draws for one concern.
#[derive(Debug)]
pub(super) struct Draw(ChaCha8Rng);

impl Draw {
    /// Uniform in `low..=high`.
    pub(super) fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.0.next_u64() % (high - low + 1)
    }

    pub(super) fn small(&mut self, low: u32, high: u32) -> u32 {
        low + self.0.next_u32() % (high - low + 1)
    }

    /// True so many times in 100.
    pub(super) fn percent(&mut self, times: u32) -> bool {
        self.small(0, 99) < times
    }

    pub(super) fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.0.next_u32() as usize % of.len()]
    }

    /// Mostly small, sometimes large.
    pub(super) fn wide(&mut self, low: u64, high: u64) -> u64 {
        let span = high - low;
        let scale = self.between(0, 3);
        low + self.between(0, (span >> (scale * 2)).max(1).min(span.max(1)))
    }
}

/// The plan of a seed.
pub(super) fn plan(seed: u64) -> Plan {
    let streams = &mut Streams::of_seed(seed);
    let mut plan = first_runs(streams);
    super::reruns::add(&mut streams.of(30), &mut plan);
    super::reruns::retention(&mut streams.of(31), &mut plan);
    super::corners::no_hang_behind_a_refusal(&mut plan);
    plan
}

fn first_runs(streams: &mut Streams) -> Plan {
    let mut draw = streams.of(1);
    let world = world(&mut draw);
    let mut draw = streams.of(2);
    let tasks = (0..draw.small(1, 3)).map(|n| task(&mut draw, n, &world));
    let mut plan = Plan {
        seed: streams.seed,
        tasks: tasks.collect(),
        world,
        actions: Vec::new(),
        faults: Vec::new(),
        rates: Rates::default(),
        calls: None,
        heal_ms: 0,
    };
    let span = streams.of(3).between(3_000, 15_000);
    plan.heal_ms = span;
    super::corners::task(&mut streams.of(6), &mut plan);
    super::large::task(&mut streams.of(60), &mut plan);
    actions(&mut streams.of(4), &mut plan, span);
    faults(&mut streams.of(5), &mut plan, span);
    super::corners::stalls(&mut streams.of(7), &mut plan, span);
    super::corners::store_clock(&mut streams.of(9), &mut plan);
    super::corners::refused_task(&mut streams.of(10), &mut plan);
    super::corners::gone(&mut streams.of(8), &mut plan, span);
    super::corners::cables(&mut streams.of(11), &mut plan, span);
    super::corners::inboxes(&mut streams.of(12), &mut plan, span);
    super::corners::unheard_goodbye(&mut streams.of(25), &mut plan);
    super::corners::logs(&mut streams.of(55), &mut plan, span);
    super::corners::losses(&mut streams.of(24), &mut plan);
    super::corners::rotten(&mut streams.of(78), &mut plan, span);
    super::corners::refused_writes(&mut streams.of(84), &mut plan, span);
    super::flow::add(&mut streams.of(16), &mut plan);
    super::operated::pauses(&mut streams.of(85), &mut plan, span);
    super::operated::options(&mut streams.of(17), &mut plan);
    super::operated::limits(&mut streams.of(18), &mut plan);
    super::operated::crowd(&mut streams.of(19), &mut plan);
    super::operated::caches(&mut streams.of(42), &mut plan);
    plan.world.prompt_restarts = streams.of(61).percent(50);
    super::hooks::troubles(&mut streams.of(40), &mut plan, span);
    super::hooks::marks(&mut streams.of(41), &mut plan);
    super::adapters::readers(&mut streams.of(68), &mut plan);
    super::adapters::strict(&mut streams.of(69), &mut plan);
    super::hooks::named(&mut streams.of(70), &mut plan);
    super::flow::leaks(&mut streams.of(71), &mut plan);
    super::adapters::inputs(&mut streams.of(74), &mut plan);
    super::flow::overflows(&mut streams.of(80), &mut plan);
    super::flow::detectors(&mut streams.of(81), &mut plan);
    super::adapters::listless(&mut streams.of(83), &mut plan);
    // Last: what needs several things to come together is not to be disturbed by others.
    super::rare::late_confirmations(&mut streams.of(13), &mut plan);
    super::rare::blocked(&mut streams.of(14), &mut plan);
    super::rare::shards_at_rest(&mut streams.of(15), &mut plan);
    super::rare::unheard_cancel(&mut streams.of(72), &mut plan);
    super::rare::late_pauses(&mut streams.of(73), &mut plan);
    super::rare::lost_bodies(&mut streams.of(75), &mut plan);
    super::rare::full_worker(&mut streams.of(77), &mut plan);
    super::rare::shared_role(&mut streams.of(82), &mut plan);
    plan
}

/// The plan of a seed for hosts on a network: the same, with servers that also restart.
pub(super) fn for_hosts(seed: u64) -> Plan {
    let streams = &mut Streams::of_seed(seed);
    let mut plan = first_runs(streams);
    let mut draw = streams.of(20);
    for fault in &mut plan.faults {
        if let Fault::Away { how, .. } = fault {
            *how = *draw.pick(&[Leaving::Frozen, Leaving::Stopped, Leaving::Killed]);
        }
    }
    super::flow::broken(&mut streams.of(62), &mut plan);
    super::hosts::library(&mut streams.of(21), &mut plan);
    super::hosts::silence(&mut streams.of(22), &mut plan);
    super::reruns::add(&mut streams.of(30), &mut plan);
    super::reruns::retention(&mut streams.of(31), &mut plan);
    super::hosts::clients(&mut streams.of(23), &mut plan);
    super::hosts::client_clocks(&mut streams.of(56), &mut plan);
    super::hosts::yields(&mut streams.of(57), &mut plan);
    super::hosts::looks(&mut streams.of(76), &mut plan);
    super::corners::no_hang_behind_a_refusal(&mut plan);
    plan
}

/// A clock that is off: by how far it may be and how fast it may run.
pub(super) fn clock(draw: &mut Draw) -> Clock {
    let drift = 400;
    Clock {
        mono_offset_ms: draw.between(0, 1_000_000),
        drift_ppm: i64::try_from(draw.between(0, 2 * drift)).unwrap_or(0) - 400,
        wall_offset_ms: i64::try_from(draw.between(0, 20_000)).unwrap_or(0) - 10_000,
    }
}

fn world(draw: &mut Draw) -> World {
    let embedded = draw.percent(15);
    let lease_ttl_ms = draw.between(1_500, 5_000);
    let roles = ["scan", "measure", "summarize"];
    let count = draw.small(1, 4);
    let mut workers: Vec<WorkerPlan> = (0..count)
        .map(|n| {
            let mut mine: Vec<String> = roles
                .iter()
                .filter(|_| draw.percent(60))
                .map(|&role| role.to_owned())
                .collect();
            if mine.is_empty() || draw.percent(40) {
                mine = roles.iter().map(|&role| role.to_owned()).collect();
            }
            WorkerPlan {
                id: format!("w{n}"),
                roles: mine,
                capacity: *draw.pick(&[1, 1, 1, 2, 2, 3]),
            }
        })
        .collect();
    for role in roles {
        if !workers.iter().any(|w| w.roles.iter().any(|r| r == role)) {
            workers[0].roles.push(role.to_owned());
        }
    }
    let coordinators = if embedded {
        1
    } else {
        *draw.pick(&[1, 2, 2, 2, 3])
    };
    let fast = embedded || draw.percent(50);
    let clocks = (0..coordinators + count).map(|_| clock(draw)).collect();
    World {
        coordinators,
        workers,
        embedded,
        shards: if embedded || draw.percent(85) {
            1
        } else {
            draw.small(2, 3)
        },
        inboxes: draw.small(1, 3),
        clients: draw.small(1, 2),
        lease_ttl_ms,
        hb_interval_ms: lease_ttl_ms / draw.between(3, 5),
        announce_interval_ms: draw.between(1_000, 6_000),
        shard_lease_ttl_ms: draw.between(800, 3_000),
        accept_timeout_ms: draw.between(800, 3_000),
        cancel_grace_ms: draw.between(100, 3_000),
        db_cancel_poll_ms: *draw.pick(&[100, 500, 500, 2_000, 60_000]),
        clock_rate_error_ppm: 500,
        clocks,
        latency_us_min: if embedded { 1 } else { 100 },
        latency_us_max: match (embedded, fast) {
            (true, _) => 20,
            (_, true) => draw.between(300, 2_000),
            _ => draw.between(2_000, 40_000),
        },
        slow_permille: if embedded || draw.percent(50) {
            0
        } else {
            draw.small(1, 50)
        },
        sync_us: draw.between(200, 10_000),
        yield_permille: super::usual_yields(),
        call_timeout_ms: draw.between(300, 1_500),
        slack_ms: 0,
        limits: Limits::default(),
        prompt_restarts: false,
        tasks_in_flight_max: None,
        dedup_cache_size: None,
        dedup_ttl_ms: None,
        strict_adapters: false,
        retention_finished_ms: None,
        retention_failed_ms: None,
        sweep_interval_ms: 60_000,
    }
}

/// A moment within the part of a run in which things happen.
pub(super) fn moment(draw: &mut Draw, span: u64) -> When {
    const EVENTS: [Logical; 10] = [
        Logical::Granted,
        Logical::Began,
        Logical::Processing,
        Logical::BatchSent,
        Logical::Accepted,
        Logical::DoneSent,
        Logical::NodeEnded,
        Logical::Cancelling,
        Logical::Takeover,
        Logical::Committed,
    ];
    match draw.small(0, 2) {
        0 => When::At {
            ms: draw.between(0, span * 9 / 10),
        },
        1 => When::At {
            ms: draw.between(0, span / 3),
        },
        _ => When::Event {
            what: *draw.pick(&EVENTS),
            nth: draw.wide(1, 20),
        },
    }
}

pub(super) fn actions(draw: &mut Draw, plan: &mut Plan, span: u64) {
    let clients = plan.world.clients;
    for (index, graph) in plan.tasks.iter().map(|task| &task.graph).enumerate() {
        let task = u32::try_from(index).unwrap_or(0);
        let submitted = draw.between(0, span / 4);
        let client = draw.small(0, clients - 1);
        plan.actions.push(Action {
            when: When::At { ms: submitted },
            client,
            kind: ActionKind::Submit { task },
        });
        if draw.percent(15) {
            plan.actions.push(Action {
                when: When::At {
                    ms: draw.between(0, span),
                },
                client: draw.small(0, clients - 1),
                kind: ActionKind::Submit { task },
            });
        }
        if draw.percent(8) {
            plan.actions.push(Action {
                when: When::At {
                    ms: draw.between(submitted, span),
                },
                client,
                kind: ActionKind::SubmitOther { task },
            });
        }
        let hangs = graph.nodes.iter().any(|node| {
            let mut trouble = node.script.trouble.iter();
            trouble.any(|t| t.kind == TroubleKind::Hangs)
        });
        if hangs || draw.percent(20) {
            let when = moment(draw, span);
            plan.actions.push(Action {
                when,
                client: draw.small(0, clients - 1),
                kind: ActionKind::Cancel {
                    task,
                    grace_ms: if draw.percent(50) {
                        None
                    } else {
                        Some(draw.wide(0, 2_000))
                    },
                },
            });
        }
    }
}

/// How many faults of one family a plan has: none, a few, or a hail.
fn how_many(draw: &mut Draw) -> u32 {
    match draw.small(0, 9) {
        0..=4 => 0,
        5..=7 => draw.small(1, 2),
        8 => draw.small(2, 4),
        _ => draw.small(4, 8),
    }
}

fn faults(draw: &mut Draw, plan: &mut Plan, span: u64) {
    // One seed in twelve runs without any: the baseline of what faults must not break.
    if draw.percent(8) {
        return;
    }
    let hosts = plan.hosts();
    let embedded = plan.world.embedded;
    let lease = plan.world.lease_ttl_ms;
    let first_worker = if embedded { 0 } else { plan.world.coordinators };
    for _ in 0..how_many(draw) {
        let host = draw.small(0, hosts - 1);
        let when = if draw.percent(50) {
            When::Effect {
                nth: draw.wide(1, 600),
            }
        } else {
            moment(draw, span)
        };
        plan.faults.push(Fault::Crash {
            host,
            when,
            down_ms: draw.wide(0, 3 * lease),
            new_id: !embedded && host >= first_worker && draw.percent(15),
        });
    }
    for _ in 0..how_many(draw) {
        plan.faults.push(Fault::Stall {
            host: draw.small(0, hosts - 1),
            when: moment(draw, span),
            for_ms: draw.wide(10, 3 * lease),
        });
    }
    for _ in 0..how_many(draw).min(2) {
        plan.faults.push(Fault::Shutdown {
            host: draw.small(0, hosts - 1),
            when: moment(draw, span),
            grace_ms: draw.wide(0, 3_000),
            down_ms: draw.wide(0, 3_000),
        });
    }
    for _ in 0..how_many(draw) {
        let step = i64::try_from(draw.between(0, 200_000)).unwrap_or(0) - 100_000;
        plan.faults.push(Fault::WallStep {
            host: draw.small(0, hosts - 1),
            when: moment(draw, span),
            by_ms: step,
        });
    }
    for _ in 0..how_many(draw).min(2) {
        plan.faults.push(Fault::Poison {
            when: moment(draw, span),
            shard: draw.small(0, plan.world.shards - 1),
        });
    }
    if draw.percent(8) {
        plan.faults.push(Fault::RefuseCommit {
            nth: draw.wide(1, 60),
        });
    }
    if draw.percent(4) {
        let task = draw.small(0, u32::try_from(plan.tasks.len() - 1).unwrap_or(0));
        let node = draw.pick(&plan.tasks[task as usize].graph.nodes).id.clone();
        plan.faults.push(Fault::RefuseBatches { task, node });
    }
    if !embedded {
        network(draw, plan, span, first_worker);
    }
}

/// What only processes on a network meet.
fn network(draw: &mut Draw, plan: &mut Plan, span: u64, first_worker: u32) {
    let hosts = plan.hosts();
    let lease = plan.world.lease_ttl_ms;
    for _ in 0..how_many(draw) {
        plan.faults.push(Fault::Partition {
            host: draw.small(0, hosts - 1),
            when: moment(draw, span),
            for_ms: draw.wide(10, 3 * lease),
            from: *draw.pick(&[Server::Store, Server::Broker]),
            lost: *draw.pick(&[Lost::Requests, Lost::Replies, Lost::Both]),
        });
    }
    for server in [Server::Store, Server::Broker] {
        for _ in 0..how_many(draw).min(2) {
            plan.faults.push(Fault::Away {
                server,
                when: moment(draw, span),
                for_ms: draw.wide(10, 2 * lease),
                how: Leaving::default(),
            });
        }
        for _ in 0..how_many(draw).min(2) {
            plan.faults.push(Fault::Slow {
                server,
                when: moment(draw, span),
                for_ms: draw.wide(10, 2 * lease),
                extra_ms: draw.wide(1, 1_000),
            });
        }
    }
    if draw.percent(10) {
        plan.faults.push(Fault::Twin {
            host: draw.small(first_worker, hosts - 1),
            when: moment(draw, span),
        });
    }
    let mut rate = |high: u64| {
        if draw.percent(40) {
            u32::try_from(draw.wide(1, high)).unwrap_or(0)
        } else {
            0
        }
    };
    plan.rates = Rates {
        append_refused: rate(60),
        append_lost: rate(100),
        append_twice: rate(200),
        append_overtaken: rate(60),
        confirm_late: rate(100),
        confirm_lost: rate(60),
        read_lost: rate(60),
        store_refused: rate(100),
        store_lost: rate(60),
        store_reply_lost: rate(100),
        store_late: rate(60),
        client_reply_lost: rate(300),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "stream 5 is another's")]
    fn no_two_concerns_draw_from_one_stream() {
        let mut streams = Streams::of_seed(1);
        streams.of(4);
        streams.of(5);
        streams.of(5);
    }

    #[test]
    fn functions_and_pauses_come_together_and_each_without_the_other() {
        let mut seen = [[0_u32; 2]; 2];
        for seed in 0..400 {
            let plan = plan(seed);
            let pauses = |action: &Action| matches!(action.kind, ActionKind::Pause { .. });
            let paused = plan.actions.iter().any(pauses);
            let mut nodes = plan.tasks.iter().flat_map(|task| &task.graph.nodes);
            let functions = nodes.any(|node| node.function.is_some());
            seen[usize::from(paused)][usize::from(functions)] += 1;
        }
        assert!(
            seen.as_flattened().iter().all(|times| *times > 20),
            "{seen:?}"
        );
    }
}
