//! `cargo xtask explore`: visits every state of a scope.

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use flowkit_explore::{Limits, Outcome, Planted, SCOPES, Scope, search};

/// Visits every state of small scopes of the real machines.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask explore", bin_name = "cargo xtask explore")]
struct Arguments {
    /// The scopes, by name; without one, all that take less than a minute.
    #[arg(long)]
    scope: Vec<String>,
    /// Most states per scope.
    #[arg(long, default_value_t = 20_000_000)]
    states_max: usize,
    /// Most states of one level: they are kept whole, about 20 KB each.
    #[arg(long, default_value_t = 300_000)]
    level_max: usize,
    /// Longest time per scope.
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
    /// Threads; all of this machine's if absent.
    #[arg(long)]
    threads: Option<usize>,
    /// Plant each known bug in turn and look for it.
    #[cfg(feature = "planted-bugs")]
    #[arg(long)]
    mutants: bool,
    /// Only this bug.
    #[cfg(feature = "planted-bugs")]
    #[arg(long)]
    only: Option<String>,
    /// Print the shortest way to each bug.
    #[cfg(feature = "planted-bugs")]
    #[arg(long)]
    traces: bool,
    /// Print the scopes.
    #[arg(long)]
    list: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.list {
        for scope in SCOPES {
            let small = if scope.is_small { " (small)" } else { "" };
            println!("{:18} {}{small}", scope.name, scope.about);
        }
        return ExitCode::SUCCESS;
    }
    // An assertion of a machine is a finding, told with the way to it.
    std::panic::set_hook(Box::new(|panic| {
        if std::thread::current().name() == Some("main") {
            eprintln!("{panic}");
        }
    }));
    let limits = Limits {
        states_max: arguments.states_max,
        level_max: arguments.level_max,
        time_max: Duration::from_secs_f64(arguments.minutes * 60.0),
        threads: arguments.threads.unwrap_or_else(|| {
            std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
        }),
    };
    #[cfg(feature = "planted-bugs")]
    if arguments.mutants {
        return mutants(arguments.only.as_deref(), limits, arguments.traces);
    }
    let mut ok = true;
    let small = SCOPES.iter().filter(|scope| scope.is_small);
    let small: Vec<String> = small.map(|scope| scope.name.to_owned()).collect();
    let names = if arguments.scope.is_empty() {
        &small
    } else {
        &arguments.scope
    };
    for name in names {
        let Some(scope) = Scope::named(name) else {
            eprintln!("error: no scope is called `{name}`; --list shows all");
            return ExitCode::from(2);
        };
        let outcome = search(scope, limits, Planted::default());
        print(scope, &outcome);
        ok &= outcome.counterexample.is_none();
    }
    if ok {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

#[expect(clippy::cast_precision_loss, reason = "a rate for people")]
fn print(scope: &Scope, outcome: &Outcome) {
    let seconds = outcome.elapsed.as_secs_f64();
    println!(
        "{}: {} states, {} transitions, depth {}, {} ends, {} runs to the end, {seconds:.1} s, {:.0} states/s",
        scope.name,
        outcome.states,
        outcome.transitions,
        outcome.depth,
        outcome.ends,
        outcome.settles,
        outcome.states as f64 / seconds.max(0.001),
    );
    match &outcome.counterexample {
        Some(found) => {
            println!("{}: {}", scope.name, found.broken);
            for (number, step) in found.steps.iter().enumerate() {
                println!("{:4}  {step}", number + 1);
            }
        }
        None if outcome.left == 0 => println!("complete: every state of the scope was visited"),
        None => println!(
            "not complete: {} states of the frontier were left",
            outcome.left
        ),
    }
}

/// Plants each bug in turn. Not all of them can show in a scope: see the guide.
#[cfg(feature = "planted-bugs")]
fn mutants(only: Option<&str>, limits: Limits, traces: bool) -> ExitCode {
    use flowkit_explore::mutants::{Bug, Reach, SCOPES_OF_BUGS, SURVIVORS, hunt};

    let mut killed = 0;
    let mut all = 0;
    let mut as_expected = true;
    // A bug in a driver cannot strike where only machines run.
    let in_machines = |bug: &&Bug| bug.reach() == Reach::Machines;
    for bug in Bug::ALL.iter().filter(in_machines) {
        if only.is_some_and(|only| only != bug.name()) {
            continue;
        }
        all += 1;
        let Some((scope, outcome)) = hunt(*bug, SCOPES_OF_BUGS, limits) else {
            let known = SURVIVORS.contains(&bug.name());
            as_expected &= known;
            let note = if known { "" } else { ", and must not" };
            println!("{:22} survived{note}", bug.name());
            continue;
        };
        killed += 1;
        if SURVIVORS.contains(&bug.name()) {
            as_expected = false;
            println!("{:22} is found: it is no survivor", bug.name());
        }
        if let Some(found) = outcome.counterexample {
            let steps = found.steps.len();
            println!(
                "{:22} {:12} {steps:3} steps  {}",
                bug.name(),
                scope.name,
                found.broken
            );
            for (number, step) in found.steps.iter().enumerate().filter(|_| traces) {
                println!("{:4}  {step}", number + 1);
            }
        }
    }
    println!("{killed} of {all} killed");
    match only {
        Some(name) if all == 0 => {
            eprintln!("error: no bug of the machines is called `{name}`");
            ExitCode::from(2)
        }
        _ if as_expected => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}
