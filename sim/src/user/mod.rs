//! A user's own handlers and graphs in the simulated world: see [`Simulation`].

mod outside;
mod piece;
mod report;

pub use outside::{Effect, Outside};
pub use piece::End;
pub use report::{Found, Report};

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use flowkit_core::function::Functions;
use flowkit_core::graph::Graph;
use flowkit_core::json::Json;
use flowkit_runtime::Handler;
use serde_json::Value;

use crate::checkers::Broken;
use crate::outcome::Outcome;
use crate::plan::{Fault, Plan, WorkerPlan};
use crate::tier1;
use piece::{Roles, Theirs};

/// Seeds that are run twice, to see whether handlers do the same in the same world.
const TWICE: u64 = 3;

/// Runs a user's own handlers and graph on simulated hosts, under crashes, partitions, lost and
/// doubled messages, stalls and graceful stops, once per seed.
///
/// The engine is the real one; its servers and its network are simulated, and so is time: an hour
/// passes in milliseconds, and a seed repeats exactly. Handlers keep their code. What they do to the
/// outside world goes to an [`Outside`], which lives through every crash and knows what happened
/// twice:
///
/// ```
/// use flowkit_runtime::{Batch, BatchResult, handler_fn};
/// use flowkit_sim::user::{Outside, Simulation};
/// use serde_json::json;
///
/// let bank = Outside::new("bank");
/// let at = bank.clone();
/// Simulation::new(json!({"nodes": [
///     {"node_id": "pay", "type": "pay", "io": {"input_inline": {"order": 17}}},
/// ]}))
/// .role("pay", move || {
///     let bank = at.clone();
///     handler_fn(move |cx, batch: Batch<serde_json::Value>| {
///         let bank = bank.clone();
///         async move {
///             let order = format!("order {}", batch.payload["order"]);
///             // Without the key, some seed would pay it twice.
///             bank.apply_once(&cx, &cx.idempotency_key(), order).await?;
///             Ok(BatchResult::<()>::new())
///         }
///     })
/// })
/// .outside(&bank)
/// .seeds(0..20)
/// .check();
/// ```
///
/// **What a handler must not do here**: wait for real time, threads or sockets
/// (`spawn_blocking`, `std::thread::sleep`, `tokio::net`), for simulated time does not pass
/// meanwhile; or draw from a clock or from randomness of the system, for then a seed does not repeat.
/// `tokio::time` is simulated. `tokio::select!` needs `biased;` to be repeatable.
#[must_use = "a simulation that is not checked proves nothing"]
#[derive(Debug)]
pub struct Simulation {
    pub(crate) tasks: Vec<Value>,
    pub(crate) roles: Roles,
    pub(crate) outside: Vec<Outside>,
    pub(crate) verify: Option<Verify>,
    pub(crate) cancels_percent: u32,
    pub(crate) functions: Functions,
    seeds: Range<u64>,
    workers: u32,
    capacity: u32,
    pub(crate) patience: Duration,
}

/// What a user requires of the end.
#[derive(Clone)]
pub(crate) struct Verify(pub(crate) Rc<Required>);

type Required = dyn Fn(&End) -> Result<(), String>;

impl Debug for Verify {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Verify")
    }
}

impl Simulation {
    /// Simulates a graph, in the graph format.
    pub fn new(graph: Value) -> Self {
        Self {
            tasks: vec![graph],
            roles: Roles::default(),
            outside: Vec::new(),
            verify: None,
            cancels_percent: 0,
            functions: Functions::default(),
            seeds: 0..100,
            workers: 3,
            capacity: 2,
            patience: Duration::ZERO,
        }
    }

    /// Another task that runs beside.
    pub fn task(mut self, graph: Value) -> Self {
        self.tasks.push(graph);
        self
    }

    /// A role, and how its handler is made. It is made anew for every process: what a handler keeps
    /// in memory is gone with a crash.
    pub fn role<H: Handler>(
        mut self,
        role: impl Into<String>,
        make: impl Fn() -> H + 'static,
    ) -> Self {
        self.roles.add(role.into(), make);
        self
    }

    /// The coordinator functions and detectors that coordinators know; default the built-in ones.
    pub fn functions(mut self, functions: Functions) -> Self {
        self.functions = functions;
        self
    }

    /// An outside system, each of whose effects must happen at most once.
    pub fn outside(mut self, outside: &Outside) -> Self {
        self.outside.push(outside.clone());
        self
    }

    /// What must be true of each task at its end, once every fault has healed. The error is shown.
    pub fn verify(mut self, verify: impl Fn(&End) -> Result<(), String> + 'static) -> Self {
        self.verify = Some(Verify(Rc::new(verify)));
        self
    }

    /// In how many seeds of 100 each task is cancelled at some time; default 0.
    pub fn cancels(mut self, percent: u32) -> Self {
        self.cancels_percent = percent.min(100);
        self
    }

    /// Workers, each with every role; default 3.
    pub fn workers(mut self, workers: u32) -> Self {
        self.workers = workers.clamp(1, 16);
        self
    }

    /// Nodes that a worker runs at once; default 2.
    pub fn capacity(mut self, capacity: u32) -> Self {
        self.capacity = capacity.max(1);
        self
    }

    /// Simulated time that the tasks need for their own work, all of them together, at their
    /// slowest; default none. `settle` waits so much longer after faults have healed. (Waits between
    /// retries are added without being asked for.)
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Which seeds; default 0 to 99. The environment variable `FLOWKIT_SIM_SEED` puts a single one
    /// in their place.
    pub fn seeds(mut self, seeds: Range<u64>) -> Self {
        self.seeds = seeds;
        self
    }

    /// Runs every seed, stops at the first that breaks something, and reports.
    #[must_use]
    pub fn run(self) -> Report {
        let seeds = named_seed().unwrap_or_else(|| self.seeds.clone());
        let mut report = Report::default();
        if let Some(what) = self.roles_missing() {
            report.found = Some(Found::before_any_seed("roles", what));
            return report;
        }
        let simulation = Rc::new(self);
        for seed in seeds.clone() {
            let plan = simulation.plan(seed);
            let (outcome, mut broken) = simulation.play(&plan, false);
            report.strike(&outcome.fired);
            if broken.is_empty() && seed - seeds.start < TWICE {
                let (again, _) = simulation.play(&plan, false);
                if crate::runner::difference(&outcome, &again).is_some() {
                    let what = "two runs of one seed differ: a handler looks at something that is \
                                not simulated (a clock, randomness, a thread, a `select!` that is \
                                not `biased`)";
                    broken.push(Broken::new("determinism", 0, what));
                }
            }
            if let Some(first) = broken.first() {
                report.found = Some(simulation.explain(&plan, first, report.held));
                return report;
            }
            report.hold(&plan);
        }
        report
    }

    /// [`Simulation::run`] as a test.
    ///
    /// # Panics
    /// When a seed breaks something: with what happened, the fewest faults that it takes, and the
    /// line that repeats it. When there was no seed at all.
    #[track_caller]
    pub fn check(self) {
        let report = self.run();
        assert!(report.is_clean(), "{report}");
    }

    /// Types of nodes that no handler is given for would wait for ever.
    fn roles_missing(&self) -> Option<String> {
        let known = self.roles.names();
        let graphs = self.tasks.iter();
        let graphs = graphs.filter_map(|graph| Graph::parse(&Json::from(graph.clone())).ok());
        let nodes = graphs.flat_map(|graph| graph.nodes().to_vec());
        let missing: BTreeSet<String> = nodes
            .filter(|node| node.function.is_none())
            .map(|node| node.role.to_string())
            .filter(|role| !known.contains(role))
            .collect();
        let missing: Vec<String> = missing
            .into_iter()
            .map(|role| format!("no handler for nodes of type `{role}`; add .role(\"{role}\", …)"))
            .collect();
        (!missing.is_empty()).then(|| missing.join("\n"))
    }

    /// The world and the faults of a seed.
    fn plan(&self, seed: u64) -> Plan {
        let mut plan = Plan::for_hosts(seed);
        let coordinators = plan.world.coordinators.clamp(1, 2);
        plan.world.embedded = false;
        plan.world.coordinators = coordinators;
        plan.world.clients = 1;
        // What a test looks at once its task has ended must still be there.
        plan.world.retention_finished_ms = None;
        plan.world.retention_failed_ms = None;
        plan.world.workers = (0..self.workers)
            .map(|n| WorkerPlan {
                id: format!("w{n}"),
                roles: self.roles.names(),
                capacity: self.capacity,
            })
            .collect();
        plan.tasks.clear();
        plan.actions.clear();
        let hosts = plan.hosts();
        // These say what the engine does with what it cannot keep; no handler causes them.
        plan.faults.retain(|fault| !fault.is_refusal());
        plan.faults.retain_mut(|fault| match fault {
            Fault::Poison { .. }
            | Fault::Rot { .. }
            | Fault::Client { .. }
            | Fault::Gone { .. } => false,
            other => {
                other.rehost(|host| host % hosts);
                true
            }
        });
        plan
    }

    /// Plays a plan; what broke.
    fn play(self: &Rc<Self>, plan: &Plan, keep_history: bool) -> (Outcome, Vec<Broken>) {
        for outside in &self.outside {
            outside.begin(plan.seed);
        }
        let theirs = Rc::new(Theirs::new(self.clone(), plan.seed, plan.heal_ms));
        let mut outcome = tier1::play(plan, theirs.clone(), keep_history);
        let mut broken = std::mem::take(&mut outcome.broken);
        broken.extend(self.outside.iter().filter_map(Outside::twice));
        if broken.is_empty() {
            broken.extend(theirs.unmet(outcome.ended_ms));
        }
        (outcome, broken)
    }

    /// Makes the plan as small as it gets and shows what happens.
    fn explain(self: &Rc<Self>, plan: &Plan, first: &Broken, held: u64) -> Found {
        let judge = |plan: &Plan| {
            let (outcome, broken) = self.play(plan, false);
            crate::runner::Judged::of(&outcome, &broken)
        };
        let shrunk = crate::runner::shrink_by(plan, &judge, &mut |_, _| {});
        let repeats = shrunk.is_some();
        let small = shrunk.map_or_else(|| plan.clone(), |shrunk| shrunk.plan);
        let (outcome, broken) = self.play(&small, true);
        let broken = broken
            .into_iter()
            .find(|broken| broken.promise == first.promise);
        let broken = broken.unwrap_or_else(|| first.clone());
        let faults = small.faults.iter().map(|fault| format!("{fault:?}"));
        let struck = outcome.struck.iter();
        let calls = struck.map(|(call, family)| format!("{family}: {call}"));
        let faults = faults.chain(calls).filter(|_| repeats);
        Found {
            seed: plan.seed,
            seeds_before: held,
            promise: broken.promise.to_owned(),
            what: broken.what,
            faults: faults.collect(),
            repeats,
            history: crate::runner::rows_of(&outcome),
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "which seeds are run comes from outside; each run sees its seed only"
)]
fn named_seed() -> Option<Range<u64>> {
    let named = std::env::var("FLOWKIT_SIM_SEED").ok()?;
    match named.parse::<u64>() {
        Ok(seed) => Some(seed..seed.saturating_add(1)),
        // Other seeds than those asked for would prove something else.
        Err(_) => panic!("FLOWKIT_SIM_SEED is {named:?}; set it to a whole number, or not at all"),
    }
}
