//! `flowkit sim`: the engine under injected faults, on every core.

mod total;

use flowkit_sim::plan::Plan;
use flowkit_sim::runner::{self, Options, ReplayReport, Shape, Tier};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use std::collections::BTreeSet;
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
use super::table::counted;
use total::Total;

/// Seeds that one thread takes at once.
const fn chunk(tier: Tier) -> u64 {
    match tier {
        Tier::Zero => 32,
        Tier::One => 4,
    }
}

/// Seeds whose shapes are told to who asked for one that there is not.
const SHAPES_OF: u64 = 1_000;
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
    } else if total.seeds > 0 {
        put!("{}", total.text());
    }
    ending(tier, amount, &total, interrupt.is_raised())
}

/// How a run of seeds ended.
fn ending(tier: Tier, amount: &Amount, total: &Total, interrupted: bool) -> Outcome {
    if interrupted {
        Ok(Ending::Interrupted)
    } else if total.seeds == 0 {
        Err(Failure::input(none_run(tier, amount, total.taken())))
    } else if total.is_ok() {
        Ok(Ending::Finished)
    } else {
        Ok(Ending::Failed)
    }
}

/// Why no seed was run, which proves nothing, and what to do.
fn none_run(tier: Tier, amount: &Amount, passed_over: u64) -> String {
    let from = amount.from;
    let Some(shape) = amount.options.shape else {
        return format!("no seed was run: there is none from {from} on; give another --from");
    };
    let shown = |coordinators, workers| format!("{coordinators}x{workers}");
    let seen = from..from.saturating_add(SHAPES_OF);
    let seen = seen.map(|seed| Shape::of(&tier.plan(seed)));
    let seen: BTreeSet<_> = seen.map(|s| (s.coordinators, s.workers)).collect();
    let seen: Vec<String> = seen.into_iter().map(|(c, w)| shown(c, w)).collect();
    format!(
        "no seed was run: of {passed_over} from {from} on none has a plan of shape {}; \
         the first {SHAPES_OF} from there have {}: ask for one of these, or for more seeds",
        shown(shape.coordinators, shape.workers),
        seen.join(", ")
    )
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
        total: Mutex::new(Total::new(tier, options.shape, seeds.start, cores)),
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
    /// The first of so many seeds (or of those that are left), which no other thread takes.
    fn take(&self, chunk: u64) -> Option<u64> {
        // Adding alone would begin again at 0 behind the last number.
        let behind = |start: u64| (start < self.end).then(|| start.saturating_add(chunk));
        let taken = self
            .next
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, behind);
        taken.ok()
    }

    fn work(&self) {
        while !self.enough.load(Ordering::Relaxed) && !self.interrupt.is_raised() {
            let chunk = chunk(self.tier);
            let Some(start) = self.take(chunk) else {
                return;
            };
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
            // After the first chunk: a run of no seeds proves nothing.
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
        self.bar.set_position(total.taken());
        self.bar.set_message(total.rates());
        if !self.terminal && self.last_line.elapsed() >= LINES_INTERVAL {
            self.last_line = Instant::now();
            eputln!("{}", total.progress(self.of));
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn amount(shape: Option<Shape>) -> Amount {
        let mut options = Options::default();
        options.shape = shape;
        Amount {
            seeds: Some(32),
            minutes: None,
            from: 0,
            options,
        }
    }

    /// A run of so many seeds in which every fault struck.
    fn total(seeds: u64) -> Total {
        let mut report = runner::run(Tier::Zero, 0..0, &Options::default(), &mut |_| {});
        report.seeds = seeds;
        report.never_fired.clear();
        let mut total = Total::new(Tier::Zero, None, 0, 1);
        total.add(report, Duration::ZERO);
        total
    }

    #[test]
    fn a_run_ends_well_only_if_seeds_were_run_and_every_promise_held() {
        let ending = |total: &Total, interrupted| {
            let outcome = ending(Tier::Zero, &amount(None), total, interrupted);
            outcome.map_err(|failure| failure.to_string())
        };
        assert_eq!(ending(&total(32), false), Ok(Ending::Finished));
        assert_eq!(ending(&total(32), true), Ok(Ending::Interrupted));
        let mut broken = total(32);
        broken.failures.push(runner::Failure {
            seed: 5,
            promise: "settle".to_owned(),
            explanation: "not settled".to_owned(),
            at_ms: 1,
            replay: runner::replay_line(Tier::Zero, 5),
        });
        assert_eq!(ending(&broken, false), Ok(Ending::Failed));
        let none = ending(&total(0), false).expect_err("it proves nothing");
        assert!(none.contains("no seed was run"), "{none}");
    }
}
