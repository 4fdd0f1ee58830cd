//! Proves that the pure crates are pure: nothing in their dependency trees can do I/O, read a
//! clock or draw entropy, and the core builds for a target that has none of these.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use crate::run::{Outcome, cargo, output, root, step};

/// A target without clock, entropy or I/O.
const WASM: &str = "wasm32-unknown-unknown";

/// Crates that bring an I/O runtime, a server's driver or entropy.
const IMPURE: [&str; 8] = [
    "tokio",
    "rdkafka",
    "mongodb",
    "getrandom",
    "mio",
    "async-std",
    "smol",
    "reqwest",
];

/// What nobody compiles who uses FlowKit on one machine.
const SERVER_DRIVERS: [&str; 2] = ["rdkafka", "mongodb"];

pub(crate) fn run() -> Outcome {
    println!("\n== purity: dependency trees");
    for (package, banned) in [
        ("flowkit-core", &IMPURE[..]),
        ("flowkit-memory", &IMPURE[..]),
        ("flowkit", &SERVER_DRIVERS[..]),
    ] {
        let tree = output(cargo().args([
            "tree", "-p", package, "-e", "normal", "--prefix", "none", "--format", "{p}",
        ]))?;
        let found = names(&tree, banned);
        if !found.is_empty() {
            return Err(format!(
                "{package} depends on {}: `cargo tree -p {package} -e normal -i NAME` shows through what",
                found.join(", ")
            ));
        }
        println!("{package}: none of {}", banned.join(", "));
    }
    // A program that brings its own store and wants no command must compile too.
    step(
        "facade without features",
        cargo().args(["check", "-p", "flowkit", "--lib", "--no-default-features"]),
    )?;
    install_target()?;
    step(
        "core for wasm32",
        cargo().args(["build", "-p", "flowkit-core", "--target", WASM]),
    )
}

/// rustup installs the pinned toolchain's targets by itself only where it is allowed to.
fn install_target() -> Outcome {
    let sysroot = output(
        Command::new("rustc")
            .current_dir(root())
            .args(["--print", "sysroot"]),
    )?;
    let library = Path::new(sysroot.trim()).join("lib/rustlib").join(WASM);
    if library.is_dir() {
        return Ok(());
    }
    let mut rustup = Command::new("rustup");
    rustup.current_dir(root()).args(["target", "add", WASM]);
    step("target for wasm32", &mut rustup)
        .map_err(|e| format!("{e}; without rustup, install the target {WASM} by hand"))
}

/// The banned crates among the lines `name v1.2.3 …` of a tree.
fn names(tree: &str, banned: &[&str]) -> Vec<String> {
    let present: BTreeSet<&str> = tree
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    let hits = banned.iter().filter(|name| present.contains(*name));
    hits.map(|name| (*name).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::{IMPURE, names};

    #[test]
    fn a_banned_crate_anywhere_in_the_tree_is_found_by_its_whole_name() {
        let tree = "flowkit-core v0.1.0 (/x)\nserde v1.0.0\ngetrandom v0.4.3\ntokio-util v1.0.0\n";
        assert_eq!(names(tree, &IMPURE), ["getrandom"]);
        assert!(names("flowkit-core v0.1.0\nserde v1.0.0\n", &IMPURE).is_empty());
    }
}
