//! Runs seeds from the command line: `seeds TIER FROM COUNT`, or `seeds TIER SEED` for one history.

use flowkit_sim::runner::{self, Tier};

fn main() {
    if std::env::var_os("TRACE").is_some() {
        tracing_subscriber::fmt()
            .without_time()
            .with_ansi(false)
            .with_writer(std::io::stderr)
            .with_env_filter("turmoil=trace")
            .init();
    }
    let args: Vec<u64> = std::env::args()
        .skip(1)
        .filter_map(|arg| arg.parse().ok())
        .collect();
    let (tier, rest) = match args.split_first() {
        Some((0, rest)) => (Tier::Zero, rest),
        Some((1, rest)) => (Tier::One, rest),
        _ => panic!("usage: seeds TIER FROM [COUNT]"),
    };
    match *rest {
        [from, count] => {
            let mut options = runner::Options::default();
            options.twice = std::env::var_os("TWICE").is_some();
            let report = runner::run(tier, from..from + count, &options, &mut |_| {});
            for failure in &report.failures {
                println!("{failure:#?}");
            }
            println!(
                "{} seeds in {} ms, {:.0} lives/s, {} s virtual, never fired {:?}",
                report.seeds,
                report.elapsed_ms,
                report.faulted_task_lives_per_core_s,
                report.virtual_ms / 1_000,
                report.never_fired,
            );
        }
        [seed] => {
            let plan = tier.plan(seed);
            if let Some(b) = std::env::var("BEFORE").ok().and_then(|b| b.parse().ok()) {
                let _ = runner::check(tier, &tier.plan(b), true);
            }
            if std::env::var_os("TWICE").is_some() {
                // The first run of a process must not differ from later ones.
                let _ = runner::replay_plan(tier, &plan, false);
            }
            let report = runner::replay_plan(tier, &plan, std::env::var_os("VERBOSE").is_some());
            for row in &report.rows {
                println!("{row}");
            }
            println!("{:#?}", report.verdict);
        }
        _ => panic!("usage: seeds TIER FROM [COUNT]"),
    }
}
