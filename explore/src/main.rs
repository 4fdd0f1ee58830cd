//! `cargo xtask explore`: visits every state of a scope.

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use flowkit_explore::{Limits, Outcome, SCOPES, Scope, search};

/// Visits every state of small scopes of the real machines.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask explore", bin_name = "cargo xtask explore")]
struct Arguments {
    /// The scopes, by name.
    #[arg(long)]
    scope: Vec<String>,
    /// Most states per scope.
    #[arg(long, default_value_t = 20_000_000)]
    states_max: usize,
    /// Longest time per scope.
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
    /// Threads.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Print the scopes.
    #[arg(long)]
    list: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.list {
        for scope in SCOPES {
            println!("{:18} {}", scope.name, scope.about);
        }
        return ExitCode::SUCCESS;
    }
    // An assertion of a machine is a finding, told with the way to it.
    std::panic::set_hook(Box::new(|_| {}));
    let limits = Limits {
        states_max: arguments.states_max,
        time_max: Duration::from_secs_f64(arguments.minutes * 60.0),
        threads: arguments.threads,
    };
    let mut ok = true;
    for name in &arguments.scope {
        let Some(scope) = Scope::named(name) else {
            eprintln!("error: no scope is called `{name}`; --list shows all");
            return ExitCode::from(2);
        };
        let outcome = search(scope, limits, Default::default());
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
