//! How large the numbers of a plan may be, so that no run overflows or fills the memory.

use super::{ClientFault, Fault, GraphPlan, Plan, TroubleKind, When};

/// Longest time of anything: a day, in milliseconds.
const TIME_MS_MAX: u64 = 86_400_000;
/// Longest time of one message, and of a sync: a minute, in microseconds.
const LATENCY_US_MAX: u64 = 60_000_000;
/// Furthest that clocks may be off.
const CLOCK_MS_MAX: u64 = 1_000_000_000_000_000;
/// Most that a clock may run too fast or too slow, in parts per million: half of true time.
const RATE_PPM_MAX: u64 = 500_000;
/// Most turns in 1,000 that are left to others: with all of them nobody would ever go on.
const YIELD_PERMILLE_MAX: u64 = 900;
/// Most processes, shards, inboxes, clients of each kind, and most nodes that a worker runs at once.
const COUNT_MAX: u64 = 256;
/// Most tasks, and most nodes of all tasks together.
const NODES_MAX: u64 = 1_000;
/// Most actions, faults, and troubles of a script.
const LIST_MAX: u64 = 10_000;
/// Most items that all sources together have, over all their batches and attempts.
const ITEMS_MAX: u64 = 1_000_000;
/// Longest work of all tasks, one after the other: 400 days, in milliseconds.
const WORK_MS_MAX: u64 = 400 * TIME_MS_MAX;

/// Faults of the numbers of a plan, one sentence each.
pub(super) fn check(plan: &Plan, wrong: &mut Vec<String>) {
    let mut numbers = Numbers { wrong };
    numbers.world(plan);
    numbers.lists(plan);
    for (at, task) in plan.tasks.iter().enumerate().take(NODES_MAX as usize) {
        numbers.graph(&format!("tasks[{at}].graph"), &task.graph);
        let delay_ms = task.options.start_delay_ms;
        numbers.time(&format!("tasks[{at}].options.start_delay_ms"), delay_ms);
    }
    for (at, action) in plan.actions.iter().enumerate() {
        numbers.when(&format!("actions[{at}]"), action.when);
        if let super::ActionKind::Cancel {
            grace_ms: Some(grace_ms),
            ..
        } = action.kind
        {
            numbers.time(&format!("actions[{at}].grace_ms"), grace_ms);
        }
        if let super::ActionKind::Pause { for_ms, .. } = action.kind {
            numbers.time(&format!("actions[{at}].for_ms"), for_ms);
        }
    }
    for (at, fault) in plan.faults.iter().enumerate() {
        numbers.fault(&format!("faults[{at}]"), fault);
    }
    let works = plan.tasks.iter().map(|task| task.graph.work_ms());
    let work = works.fold(0_u64, u64::saturating_add);
    numbers.at_most("tasks: their work in ms", work, WORK_MS_MAX);
}

struct Numbers<'w> {
    wrong: &'w mut Vec<String>,
}

impl Numbers<'_> {
    fn at_most(&mut self, name: &str, number: u64, most: u64) {
        if number > most {
            self.wrong
                .push(format!("{name}: {number} is too much; at most {most}"));
        }
    }

    fn positive(&mut self, name: &str, number: u64, most: u64) {
        if number == 0 {
            self.wrong.push(format!("{name}: must not be 0"));
        }
        self.at_most(name, number, most);
    }

    fn time(&mut self, name: &str, ms: u64) {
        self.at_most(name, ms, TIME_MS_MAX);
    }

    fn world(&mut self, plan: &Plan) {
        let world = &plan.world;
        for (name, count) in [
            ("coordinators", world.coordinators),
            ("shards", world.shards),
            ("inboxes", world.inboxes),
            ("clients", world.clients),
        ] {
            self.positive(&format!("world.{name}"), u64::from(count), COUNT_MAX);
        }
        for (name, most) in [
            ("tasks_in_flight_max", world.tasks_in_flight_max),
            ("dedup_cache_size", world.dedup_cache_size),
        ] {
            let most = most.map_or(1, u64::from);
            self.positive(&format!("world.{name}"), most, ITEMS_MAX);
        }
        let dedup_ttl_ms = world.dedup_ttl_ms.unwrap_or(1);
        self.positive("world.dedup_ttl_ms", dedup_ttl_ms, TIME_MS_MAX);
        // A machine that is to wake every 0 ms never sleeps.
        for (name, ms) in [
            ("lease_ttl_ms", world.lease_ttl_ms),
            ("hb_interval_ms", world.hb_interval_ms),
            ("announce_interval_ms", world.announce_interval_ms),
            ("shard_lease_ttl_ms", world.shard_lease_ttl_ms),
            ("accept_timeout_ms", world.accept_timeout_ms),
            ("db_cancel_poll_ms", world.db_cancel_poll_ms),
            ("call_timeout_ms", world.call_timeout_ms),
            ("sweep_interval_ms", world.sweep_interval_ms),
        ] {
            self.positive(&format!("world.{name}"), ms, TIME_MS_MAX);
        }
        self.time("world.cancel_grace_ms", world.cancel_grace_ms);
        self.time("world.slack_ms", world.slack_ms);
        self.time("heal_ms", plan.heal_ms);
        for (name, us) in [
            ("latency_us_min", world.latency_us_min),
            ("latency_us_max", world.latency_us_max),
            ("sync_us", world.sync_us),
        ] {
            self.at_most(&format!("world.{name}"), us, LATENCY_US_MAX);
        }
        let yields = u64::from(world.yield_permille);
        self.at_most("world.yield_permille", yields, YIELD_PERMILLE_MAX);
        let ppm = world.clock_rate_error_ppm;
        self.at_most("world.clock_rate_error_ppm", ppm, RATE_PPM_MAX);
        for (at, clock) in world.clocks.iter().enumerate() {
            let name = |field: &str| format!("world.clocks[{at}].{field}");
            let drift = clock.drift_ppm.unsigned_abs();
            self.at_most(&name("drift_ppm"), drift, RATE_PPM_MAX);
            self.at_most(&name("mono_offset_ms"), clock.mono_offset_ms, CLOCK_MS_MAX);
            let wall = clock.wall_offset_ms.unsigned_abs();
            self.at_most(&name("wall_offset_ms"), wall, CLOCK_MS_MAX);
        }
        for (at, worker) in world.workers.iter().enumerate() {
            let name = format!("world.workers[{at}].capacity");
            self.positive(&name, u64::from(worker.capacity), COUNT_MAX);
        }
    }

    fn lists(&mut self, plan: &Plan) {
        let nodes: usize = plan.tasks.iter().map(|task| task.graph.nodes.len()).sum();
        for (name, length, most) in [
            ("world.workers", plan.world.workers.len(), COUNT_MAX),
            ("world.clocks", plan.world.clocks.len(), LIST_MAX),
            ("tasks", plan.tasks.len(), NODES_MAX),
            ("tasks: nodes of all of them", nodes, NODES_MAX),
            ("actions", plan.actions.len(), LIST_MAX),
            ("faults", plan.faults.len(), LIST_MAX),
        ] {
            self.at_most(name, length as u64, most);
        }
        let nodes = plan.tasks.iter().flat_map(|task| &task.graph.nodes);
        let items = nodes.map(|node| {
            let script = &node.script;
            u64::from(script.batches)
                .saturating_mul(u64::from(script.items).saturating_add(1))
                .saturating_mul(u64::from(script.checkpoints).saturating_add(1))
                .saturating_mul(u64::from(node.retry_max.max(1)))
        });
        let items = items.fold(0, u64::saturating_add);
        let name = "tasks: batches x items x checkpoints x retry_max of all nodes";
        self.at_most(name, items, ITEMS_MAX);
    }

    fn graph(&mut self, at: &str, graph: &GraphPlan) {
        for (index, node) in graph.nodes.iter().enumerate().take(NODES_MAX as usize) {
            let name = |field: &str| format!("{at}.nodes[{index}].{field}");
            self.at_most(&name("retry_max"), u64::from(node.retry_max), ITEMS_MAX);
            self.time(&name("backoff_ms"), node.backoff_ms);
            let script = &node.script;
            self.time(&name("script.init_ms"), script.init_ms);
            self.time(&name("script.batch_ms"), script.batch_ms);
            self.time(&name("script.finalize_ms"), script.finalize_ms);
            let items = u64::from(script.items);
            self.at_most(&name("script.items"), items, ITEMS_MAX);
            let saves = u64::from(script.checkpoints);
            self.at_most(&name("script.checkpoints"), saves, LIST_MAX);
            let troubles = script.trouble.len() as u64;
            self.at_most(&name("script.trouble"), troubles, LIST_MAX);
            for trouble in &script.trouble {
                if let TroubleKind::Slow { ms } | TroubleKind::RetryAfter { ms } = trouble.kind {
                    self.time(&name("script.trouble"), ms);
                }
            }
        }
    }

    fn when(&mut self, at: &str, when: When) {
        if let When::At { ms } = when {
            self.time(&format!("{at}.when"), ms);
        }
    }

    fn fault(&mut self, at: &str, fault: &Fault) {
        if let Some(when) = fault.when() {
            self.when(at, when);
        }
        match fault {
            Fault::Crash { down_ms, .. } | Fault::PowerLoss { down_ms, .. } => {
                self.time(&format!("{at}.down_ms"), *down_ms);
            }
            Fault::Stall { for_ms, .. }
            | Fault::Hold { for_ms, .. }
            | Fault::Partition { for_ms, .. }
            | Fault::RefuseWrites { for_ms, .. }
            | Fault::Away { for_ms, .. } => self.time(&format!("{at}.for_ms"), *for_ms),
            Fault::Slow {
                for_ms, extra_ms, ..
            } => {
                self.time(&format!("{at}.for_ms"), *for_ms);
                self.time(&format!("{at}.extra_ms"), *extra_ms);
            }
            Fault::Shutdown {
                grace_ms, down_ms, ..
            } => {
                self.time(&format!("{at}.grace_ms"), *grace_ms);
                self.time(&format!("{at}.down_ms"), *down_ms);
            }
            Fault::WallStep { by_ms, .. } | Fault::StoreClock { by_ms, .. } => {
                self.time(&format!("{at}.by_ms"), by_ms.unsigned_abs());
            }
            Fault::Client { what, .. } => match what {
                ClientFault::Crash { down_ms } => self.time(&format!("{at}.down_ms"), *down_ms),
                ClientFault::Stall { for_ms }
                | ClientFault::Partition { for_ms, .. }
                | ClientFault::Hold { for_ms, .. } => {
                    self.time(&format!("{at}.for_ms"), *for_ms);
                }
                ClientFault::WallStep { by_ms } => {
                    self.time(&format!("{at}.by_ms"), by_ms.unsigned_abs());
                }
            },
            Fault::RefuseCommit { .. }
            | Fault::RefuseBatches { .. }
            | Fault::RefuseTask { .. }
            | Fault::Poison { .. }
            | Fault::InboxLost { .. }
            | Fault::LogLost { .. }
            | Fault::MachinePanic { .. }
            | Fault::Gone { .. }
            | Fault::Twin { .. }
            | Fault::Rot { .. } => {}
        }
    }
}
