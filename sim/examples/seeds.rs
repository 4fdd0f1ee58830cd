//! Runs seeds from the command line: `cargo run --release -p flowkit-sim --example seeds FROM COUNT`.

use flowkit_sim::tier0;

fn main() {
    if std::env::args().nth(1).as_deref() == Some("small") {
        let report = tier0::replay_plan(&flowkit_sim::plan::Plan::small(), false);
        for row in &report.rows {
            println!("{row}");
        }
        println!(
            "{}",
            serde_json::to_string_pretty(&report.verdict.failures).unwrap_or_default()
        );
        return;
    }
    let mut args = std::env::args().skip(1);
    let mut number = || args.next().and_then(|text| text.parse::<u64>().ok());
    let from = number().unwrap_or(0);
    match number() {
        Some(count) => {
            let mut options = tier0::Options::default();
            options.failures_max = number().map_or(10, |n| usize::try_from(n).unwrap_or(10));
            let report = tier0::run(from..from + count, &options, &mut |_| {});
            println!(
                "{}",
                serde_json::to_string_pretty(&report).unwrap_or_default()
            );
        }
        None => {
            let report = tier0::replay(from, std::env::var_os("VERBOSE").is_some());
            println!(
                "{}",
                serde_json::to_string(&report.plan).unwrap_or_default()
            );
            for row in &report.rows {
                println!("{row}");
            }
            println!(
                "{}",
                serde_json::to_string_pretty(&report.verdict.failures).unwrap_or_default()
            );
        }
    }
}
