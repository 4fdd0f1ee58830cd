//! `cargo xtask check`: all that can be judged without running tests. Every step runs even when
//! an earlier one failed, so that one call shows all there is to mend.

use crate::run::{Outcome, cargo, step};
use crate::{licences, purity, tidy};

type Step = (&'static str, fn() -> Outcome);

pub(crate) fn run() -> Outcome {
    let steps: [Step; 7] = [
        ("format", format),
        ("tidy", tidy::run),
        ("licences", licences::run),
        ("purity", purity::run),
        ("clippy", clippy),
        ("docs", docs),
        ("fuzz targets", fuzz),
    ];
    let mut failed = Vec::new();
    for (name, step) in steps {
        if let Err(message) = step() {
            eprintln!("error: {message}");
            failed.push(name);
        }
    }
    if failed.is_empty() {
        println!("\ncheck: ok");
        Ok(())
    } else {
        Err(format!("check failed: {}", failed.join(", ")))
    }
}

fn format() -> Outcome {
    let workspace = step("format", cargo().args(["fmt", "--all", "--check"]))
        .map_err(|e| format!("{e}; `cargo fmt --all` mends it"));
    // A workspace of its own.
    let fuzz = ["fmt", "--manifest-path", "fuzz/Cargo.toml"];
    let fuzz = step("format of fuzz/", cargo().args(fuzz).arg("--check"))
        .map_err(|e| format!("{e}; `cargo {}` mends it", fuzz.join(" ")));
    workspace.and(fuzz)
}

fn clippy() -> Outcome {
    step(
        "clippy",
        cargo().args([
            "clippy",
            "--workspace",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ]),
    )?;
    // What no default feature builds.
    step(
        "clippy of optional features",
        cargo().args([
            "clippy",
            "-p",
            "flowkit",
            "-p",
            "flowkit-observe",
            "--features",
            "flowkit/fleet,flowkit/otel,flowkit/sim",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ]),
    )
}

fn docs() -> Outcome {
    step(
        "docs",
        cargo()
            .args(["doc", "--workspace", "--no-deps"])
            .env("RUSTDOCFLAGS", "-D warnings"),
    )
}

/// Nobody but `cargo xtask fuzz` builds them, and that needs a nightly toolchain.
fn fuzz() -> Outcome {
    let check = ["check", "--locked", "--manifest-path", "fuzz/Cargo.toml"];
    step("fuzz targets", cargo().args(check))
        .map_err(|e| format!("{e}; `cargo update -p flowkit-fuzzed --manifest-path fuzz/Cargo.toml` if the lock file is old"))
}
