//! `flowkit sim`: the engine under injected faults, on every core.

use flowkit_sim::plan::Plan;
use flowkit_sim::runner::{self, Options, ReplayReport, RunReport, Tier};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::ops::Range;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::colours;
use super::failure::{Ending, Failure, Outcome};
use super::interrupt::Interrupt;
use super::output::{eputln, put, putln};
use super::sim_args::{PlanArgs, SimCommand};
use super::table::{counted, thousands};

/// Seeds that one thread takes at once.
const fn chunk(tier: Tier) -> u64 {
    match tier {
        Tier::Zero => 32,
        Tier::One => 4,
    }
}

/// So many seeds meet every kind of fault.
const fn telling(tier: Tier) -> u64 {
    match tier {
        Tier::Zero => 5_000,
        Tier::One => 1_000,
    }
}

/// Failures after which a run stops.
const FAILURES_MAX: usize = 10;
/// Time between two plain progress lines.
const LINES_INTERVAL: Duration = Duration::from_secs(10);

pub(crate) fn run(command: &SimCommand) -> Outcome {
    match command {
        SimCommand::Run {
            tier,
            seeds,
            minutes,
            from,
            twice_every,
            shape,
            json,
        } => {
            let mut options = Options::default();
            options.twice_every = *twice_every;
            options.shape = *shape;
            let amount = Amount {
                seeds: *seeds,
                minutes: *minutes,
                from: *from,
                options,
            };
            // Listens to Ctrl-C; the seeds have threads of their own.
            super::on_runtime(async { seeds_of(*tier, &amount, *json) })
        }
        SimCommand::Replay {
            tier,
            what,
            verbose,
            html,
            json,
        } => {
            let plan = plan_of(*tier, what)?;
            if let Some(path) = html {
                write(path, &runner::page_of(*tier, &plan))?;
            }
            Ok(replay(*tier, &plan, *verbose, *json))
        }
        SimCommand::Shrink {
            tier,
            what,
            out,
            json,
        } => shrink(*tier, &plan_of(*tier, what)?, out.as_deref(), *json),
    }
}

/// The plan that is asked for.
fn plan_of(tier: Tier, what: &PlanArgs) -> Result<Plan, Failure> {
    let (seed, file) = (what.seed.unwrap_or_default(), what.plan.as_deref());
    let Some(path) = file else {
        return Ok(tier.plan(seed));
    };
    let shown = path.display();
    let text = std::fs::read_to_string(path)
        .map_err(|e| Failure::input(format!("cannot read the plan {shown}: {e}")))?;
    let plan: Plan = serde_json::from_str(&text)
        .map_err(|e| Failure::input(format!("{shown} is no plan: {e}")))?;
    let wrong = plan.faults_of_form();
    if wrong.is_empty() {
        return Ok(match tier {
            Tier::Zero => plan,
            Tier::One => plan.fit_hosts(),
        });
    }
    Err(Failure::input(format!(
        "{shown}: {} in the plan:\n  - {}",
        counted(wrong.len()),
        wrong.join("\n  - ")
    )))
}

/// How many seeds, and which.
struct Amount {
    seeds: Option<u64>,
    minutes: Option<f64>,
    from: u64,
    options: Options,
}

fn seeds_of(tier: Tier, amount: &Amount, json: bool) -> Outcome {
    let from = amount.from;
    let end = match amount.seeds {
        Some(count) => from
            .checked_add(count)
            .ok_or_else(|| Failure::input("--from plus --seeds is beyond 2^64"))?,
        None => u64::MAX,
    };
    let time = amount
        .minutes
        .map(|minutes| Duration::try_from_secs_f64(minutes * 60.0));
    let time = time.transpose();
    let time = time.map_err(|e| Failure::input(format!("--minutes: {e}")))?;
    let interrupt = Interrupt::listen();
    let total = all_cores(tier, from..end, time, amount.options, interrupt.clone());
    if json {
        putln!("{}", total.json());
    } else {
        put!("{}", total.text());
    }
    // A fault that never strikes proves nothing.
    Ok(if interrupt.is_raised() {
        Ending::Interrupted
    } else if total.is_ok() {
        Ending::Finished
    } else {
        Ending::Failed
    })
}

/// How many seeds; `u64::MAX` = as many as there is time for.
fn count_of(seeds: &Range<u64>) -> u64 {
    if seeds.end == u64::MAX {
        u64::MAX
    } else {
        seeds.end - seeds.start
    }
}

/// Runs the seeds on every core and adds the reports up.
fn all_cores(
    tier: Tier,
    seeds: Range<u64>,
    time: Option<Duration>,
    options: Options,
    interrupt: Interrupt,
) -> Total {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let shared = Shared {
        tier,
        options,
        next: AtomicU64::new(seeds.start),
        end: seeds.end,
        // A time beyond the clock's end is none.
        until: time.and_then(|time| Instant::now().checked_add(time)),
        enough: AtomicBool::new(false),
        interrupt,
        view: Mutex::new(View::new(count_of(&seeds))),
        total: Mutex::new(Total::new(tier, seeds.start, cores)),
    };
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| shared.work());
        }
    });
    let Shared { view, total, .. } = shared;
    lock(&view).bar.finish_and_clear();
    let mut total = lock(&total).clone();
    total.failures.sort_by_key(|failure| failure.seed);
    total
}

struct Shared {
    tier: Tier,
    options: Options,
    next: AtomicU64,
    end: u64,
    until: Option<Instant>,
    /// So many failures that more would teach nothing.
    enough: AtomicBool,
    /// What was found until then is told.
    interrupt: Interrupt,
    view: Mutex<View>,
    total: Mutex<Total>,
}

impl Shared {
    fn work(&self) {
        while !self.enough.load(Ordering::Relaxed) && !self.interrupt.is_raised() {
            let chunk = chunk(self.tier);
            let start = self.next.fetch_add(chunk, Ordering::Relaxed);
            if start >= self.end {
                return;
            }
            let chunk = start..self.end.min(start.saturating_add(chunk));
            let before = thread_time();
            let report = runner::run(self.tier, chunk, &self.options, &mut |_| {});
            let spent = thread_time().saturating_sub(before);
            let found = report.failures.clone();
            let mut total = lock(&self.total);
            total.add(report, spent);
            if total.failures.len() >= FAILURES_MAX {
                self.enough.store(true, Ordering::Relaxed);
            }
            lock(&self.view).show(&total, &found);
            drop(total);
            // After the first chunk: a run of no seeds would prove nothing.
            if self.until.is_some_and(|until| Instant::now() >= until) {
                return;
            }
        }
    }
}

/// Processor time of this thread: what a core-second is, however busy the machine.
fn thread_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Live progress on standard error.
struct View {
    bar: ProgressBar,
    terminal: bool,
    of: u64,
    last_line: Instant,
}

impl View {
    fn new(of: u64) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let bar = if terminal {
            ProgressBar::new(of)
        } else {
            ProgressBar::hidden()
        };
        // With a time and no number nobody knows how many there will be.
        let template = if of == u64::MAX {
            "{pos} seeds  {msg}".to_owned()
        } else {
            format!("{} {{pos}}/{{len}} seeds  {{msg}}", colours::bar())
        };
        if let Ok(style) = ProgressStyle::with_template(&template) {
            bar.set_style(style.progress_chars("━╸─"));
        }
        Self {
            bar,
            terminal,
            of,
            last_line: Instant::now(),
        }
    }

    fn show(&mut self, total: &Total, found: &[runner::Failure]) {
        for failure in found {
            // At once: whoever watches need not wait for the end of a long run.
            let line = format!("BROKEN {}  {}", failure.promise, failure.replay);
            self.bar.suspend(|| eputln!("{line}"));
        }
        let rates = total.rates();
        self.bar.set_position(total.taken());
        self.bar.set_message(rates.clone());
        if !self.terminal && self.last_line.elapsed() >= LINES_INTERVAL {
            self.last_line = Instant::now();
            if self.of == u64::MAX {
                eputln!("{} seeds  {rates}", total.taken());
            } else {
                eputln!("{}/{} seeds  {rates}", total.taken(), self.of);
            }
        }
    }
}

/// The reports of all chunks, added up.
#[derive(Clone)]
struct Total {
    tier: Tier,
    first_seed: u64,
    cores: usize,
    started: Instant,
    seeds: u64,
    passed_over: u64,
    failures: Vec<runner::Failure>,
    faulted_task_lives: u64,
    /// Processor time of all threads together.
    core_time: Duration,
    virtual_ms: u64,
    fired: BTreeMap<String, u64>,
    never_fired: Option<Vec<String>>,
    worst_settle_ms: BTreeMap<String, u64>,
    worst_settle_alone_ms: BTreeMap<String, u64>,
    worst_overlap_ms: u64,
}

impl Total {
    fn new(tier: Tier, first_seed: u64, cores: usize) -> Self {
        Self {
            tier,
            first_seed,
            cores,
            started: Instant::now(),
            seeds: 0,
            passed_over: 0,
            failures: Vec::new(),
            faulted_task_lives: 0,
            core_time: Duration::ZERO,
            virtual_ms: 0,
            fired: BTreeMap::new(),
            never_fired: None,
            worst_settle_ms: BTreeMap::new(),
            worst_settle_alone_ms: BTreeMap::new(),
            worst_overlap_ms: 0,
        }
    }

    fn add(&mut self, report: RunReport, core_time: Duration) {
        self.seeds += report.seeds;
        self.passed_over += report.passed_over;
        self.failures.extend(report.failures);
        self.faulted_task_lives += report.faulted_task_lives;
        self.core_time += core_time;
        self.virtual_ms += report.virtual_ms;
        for (family, times) in report.fired {
            *self.fired.entry(family).or_default() += times;
        }
        // What no chunk has seen.
        match &mut self.never_fired {
            None => self.never_fired = Some(report.never_fired),
            Some(never) => never.retain(|family| report.never_fired.contains(family)),
        }
        let worst = &mut self.worst_settle_ms;
        let alone = &mut self.worst_settle_alone_ms;
        for (mine, theirs) in [
            (worst, report.worst_settle_ms),
            (alone, report.worst_settle_alone_ms),
        ] {
            for (family, settled) in theirs {
                let worst = mine.entry(family).or_default();
                *worst = settled.max(*worst);
            }
        }
        self.worst_overlap_ms = self.worst_overlap_ms.max(report.worst_overlap_ms);
    }

    /// Seeds run or passed over.
    fn taken(&self) -> u64 {
        self.seeds + self.passed_over
    }

    fn never_fired(&self) -> &[String] {
        self.never_fired.as_deref().unwrap_or_default()
    }

    fn seeds_per_s(&self) -> f64 {
        self.seeds as f64 / self.started.elapsed().as_secs_f64().max(1e-9)
    }

    /// Every promise held, and of so many seeds that it tells something every fault struck.
    fn is_ok(&self) -> bool {
        let silent = self.seeds >= telling(self.tier) && !self.never_fired().is_empty();
        self.failures.is_empty() && !silent
    }

    fn lives_per_core_s(&self) -> f64 {
        self.faulted_task_lives as f64 / self.core_time.as_secs_f64().max(1e-3)
    }

    /// Virtual time of one core's runs per real time.
    fn ratio(&self) -> f64 {
        self.virtual_ms as f64 / 1_000.0 / self.core_time.as_secs_f64().max(1e-3)
    }

    fn rates(&self) -> String {
        format!(
            "{:.0} seeds/s, {:.0} faulted task lives per core-second, {} broken promises",
            self.seeds_per_s(),
            self.lives_per_core_s(),
            self.failures.len()
        )
    }

    fn json(&self) -> Value {
        json!({
            "tier": self.tier.number(),
            "ok": self.is_ok(),
            "first_seed": self.first_seed,
            "seeds": self.seeds,
            "passed_over": self.passed_over,
            "cores": self.cores,
            "elapsed_ms": self.started.elapsed().as_millis() as u64,
            "seeds_per_s": self.seeds_per_s(),
            "faulted_task_lives": self.faulted_task_lives,
            "faulted_task_lives_per_core_s": self.lives_per_core_s(),
            "virtual_ms": self.virtual_ms,
            "virtual_per_real_time": self.ratio(),
            "fired": self.fired,
            "never_fired": self.never_fired(),
            "worst_settle_ms": self.worst_settle_ms,
            "worst_settle_alone_ms": self.worst_settle_alone_ms,
            "worst_overlap_ms": self.worst_overlap_ms,
            "failures": self.failures,
        })
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for failure in &self.failures {
            text.push_str(&format!(
                "\nBROKEN {} at {} ms: {}\n  {}\n",
                failure.promise, failure.at_ms, failure.explanation, failure.replay
            ));
        }
        text.push_str(
            "\nfault, times it struck, ms from the end of faults until all was settled at most: \
             in any seed, in seeds with no other fault\n",
        );
        let calm = self.worst_settle_alone_ms.get("none").map(|_| ("none", 0));
        let fired = self.fired.iter().map(|(family, times)| (&**family, *times));
        for (family, times) in calm.into_iter().chain(fired) {
            let shown = |of: &BTreeMap<String, u64>| {
                of.get(family)
                    .map_or_else(|| "-".to_owned(), u64::to_string)
            };
            let any = shown(&self.worst_settle_ms);
            let alone = shown(&self.worst_settle_alone_ms);
            text.push_str(&format!("  {family:22} {times:>10} {any:>8} {alone:>8}\n"));
        }
        text.push_str(&format!(
            "\nseeds {} to {} on tier {}: {}\n{} of virtual time, {:.0} times real time on each core; \
             {} kinds of fault, longest overlap {} ms\n",
            self.first_seed,
            self.first_seed + self.taken().saturating_sub(1),
            self.tier,
            self.rates(),
            hours(self.virtual_ms),
            self.ratio(),
            self.fired.len(),
            self.worst_overlap_ms
        ));
        if self.passed_over > 0 {
            text.push_str(&format!(
                "{} seeds run, {} of another shape passed over\n",
                self.seeds, self.passed_over
            ));
        }
        let never = self.never_fired();
        if !never.is_empty() {
            text.push_str(&format!("never fired: {}\n", never.join(", ")));
        }
        text
    }
}

fn hours(ms: u64) -> String {
    format!("{} h", thousands(ms / 3_600_000))
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let failed = |e| Failure::input(format!("cannot write {}: {e}", path.display()));
    std::fs::write(path, text).map_err(failed)
}

/// Makes a failing plan small and prints it as a test.
fn shrink(tier: Tier, plan: &Plan, out: Option<&Path>, json: bool) -> Outcome {
    let size = |plan: &Plan| {
        format!(
            "{} faults, {}, {} actions, {} tasks",
            plan.faults.len(),
            match &plan.calls {
                Some(calls) => format!("{} calls that go wrong", calls.len()),
                None if plan.rates.is_quiet() => "no calls that go wrong".to_owned(),
                None => "any call may go wrong".to_owned(),
            },
            plan.actions.len(),
            plan.tasks.len()
        )
    };
    eputln!("{}", size(plan));
    let mut shown = Instant::now();
    let shrunk = runner::shrink(tier, plan, &mut |plan, runs| {
        if shown.elapsed() >= Duration::from_secs(1) {
            shown = Instant::now();
            eputln!("{runs} runs: {}", size(plan));
        }
    });
    let Some(shrunk) = shrunk else {
        eputln!("every promise held: there is nothing to shrink");
        if json {
            putln!("{}", json!({"failed": false}));
        }
        return Ok(Ending::Finished);
    };
    eputln!("{} runs: {}", shrunk.runs, size(&shrunk.plan));
    if let Some(path) = out {
        write(path, &format!("{:#}\n", json!(shrunk.plan)))?;
    }
    if json {
        let test = runner::test_of(&shrunk);
        let found = json!({"failed": true, "plan": shrunk.plan, "runs": shrunk.runs, "test": test});
        putln!("{found}");
    } else {
        put!("{}", runner::test_of(&shrunk));
    }
    Ok(Ending::Failed)
}

fn replay(tier: Tier, plan: &Plan, verbose: bool, json: bool) -> Ending {
    let ReplayReport {
        plan,
        rows,
        verdict,
        ..
    } = runner::replay_plan(tier, plan, verbose);
    let ending = if verdict.holds() {
        Ending::Finished
    } else {
        Ending::Failed
    };
    if json {
        let failures = verdict.failures.iter().map(|failure| {
            json!({
                "promise": failure.promise,
                "at_ms": failure.at_ms,
                "explanation": failure.explanation,
            })
        });
        let failures: Vec<Value> = failures.collect();
        let trace: Vec<String> = rows.into_iter().map(|row| row.to_string()).collect();
        let holds = verdict.holds();
        putln!(
            "{}",
            json!({"plan": plan, "holds": holds, "failures": failures, "trace": trace,
                "trace_hash": format!("{:016x}", verdict.trace_hash)})
        );
        return ending;
    }
    putln!("{}", json!(plan));
    for row in rows {
        putln!("{row}");
    }
    for failure in &verdict.failures {
        putln!(
            "BROKEN {} at {} ms: {}",
            failure.promise,
            failure.at_ms,
            failure.explanation
        );
    }
    if verdict.holds() {
        putln!("every promise held");
    }
    putln!("trace hash {:016x}", verdict.trace_hash);
    ending
}
