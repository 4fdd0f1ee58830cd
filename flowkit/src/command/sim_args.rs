//! What `flowkit sim` is asked for.

use clap::{Args, Subcommand};
use flowkit_sim::runner::{Shape, Tier};
use std::path::PathBuf;

/// Which plan.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub(crate) struct PlanArgs {
    /// The plan of a seed.
    #[arg(long, value_name = "S")]
    pub(crate) seed: Option<u64>,
    /// The plan of a file (JSON), as `flowkit sim shrink --out FILE` keeps it.
    #[arg(long, value_name = "FILE")]
    pub(crate) plan: Option<PathBuf>,
}

fn tier(text: &str) -> Result<Tier, String> {
    match text {
        "0" => Ok(Tier::Zero),
        "1" => Ok(Tier::One),
        _ => Err("there are tiers 0 and 1".to_owned()),
    }
}

/// `flowkit sim …`.
#[derive(Debug, Subcommand)]
pub(crate) enum SimCommand {
    /// Run seeds and judge every promise in each.
    ///
    /// Exit code 1 and a replay line if a promise broke or a seed did not repeat exactly; exit code 1, too,
    /// if a kind of fault never struck in 5,000 seeds of tier 0, or 1,000 of tier 1 (of all shapes): it proves
    /// nothing.
    /// Exit code 2 if no seed was run.
    Run {
        /// 0 = the machines, exact in time and fastest; 1 = whole processes on a simulated network.
        #[arg(long, value_name = "0|1", value_parser = tier, default_value = "0")]
        tier: Tier,
        /// How many seeds; with --shape, those that are passed over count too.
        #[arg(long, value_name = "N", required_unless_present = "minutes",
            value_parser = clap::value_parser!(u64).range(1..))]
        seeds: Option<u64>,
        /// Stop after so many minutes (each core ends the seeds that it has begun).
        #[arg(long, value_name = "M")]
        minutes: Option<f64>,
        /// The first seed.
        #[arg(long, value_name = "S", default_value_t = 0)]
        from: u64,
        /// Run one of so many seeds twice and compare all that happened; 0 = none.
        #[arg(long, value_name = "N", default_value_t = 32)]
        twice_every: u64,
        /// Run only the seeds whose plan has so many coordinators and workers (for instance 2x4).
        #[arg(long, value_name = "CxW")]
        shape: Option<Shape>,
        /// Print one JSON object on standard output.
        #[arg(long)]
        json: bool,
    },
    /// Run one seed, or the plan of a file, and print its trace.
    Replay {
        /// 0 = the machines, exact in time and fastest; 1 = whole processes on a simulated network.
        #[arg(long, value_name = "0|1", value_parser = tier, default_value = "0")]
        tier: Tier,
        #[command(flatten)]
        what: PlanArgs,
        /// Show reads and checks too.
        #[arg(long)]
        verbose: bool,
        /// Write the run to this file as a page to look at, too.
        #[arg(long, value_name = "FILE")]
        html: Option<PathBuf>,
        /// Print one JSON object on standard output.
        #[arg(long)]
        json: bool,
    },
    /// Reduce a failing plan to what it takes to break the promise, and print it as a test.
    Shrink {
        /// The tier on which it fails.
        #[arg(long, value_name = "0|1", value_parser = tier, default_value = "0")]
        tier: Tier,
        #[command(flatten)]
        what: PlanArgs,
        /// Write the small plan to this file, too.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// Print one JSON object on standard output.
        #[arg(long)]
        json: bool,
    },
}
