//! What the harness says of plans that it cannot run, before it asks for a server.

use std::fs;
use std::process::Command;

use flowkit_sim::plan::{Plan, Rates};

/// The error of a run of this plan file.
fn error_of(text: &str) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    let plan = folder.path().join("plan.json");
    fs::write(&plan, text).expect("written");
    let output = Command::new(env!("CARGO_BIN_EXE_flowkit-chaos"))
        .args(["run", "--seed", "1", "--minutes", "1"])
        .args(["--xtask", "/no/xtask", "--flowkit", "/no/flowkit"])
        .args(["--services", "/no/services", "--out", "/no/out"])
        .arg("--plan")
        .arg(&plan)
        .output()
        .expect("it starts");
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8(output.stderr).expect("text")
}

#[test]
fn a_file_that_is_no_plan_is_named_before_any_server_is_asked_for() {
    let error = error_of("{}");
    assert!(
        error.contains("plan.json is no plan: missing field"),
        "{error}"
    );
}

#[test]
fn all_that_real_processes_cannot_do_is_listed_at_once() {
    let mut plan = Plan::small();
    plan.rates = Rates {
        append_lost: 1,
        ..Rates::default()
    };
    plan.world.embedded = true;
    let error = error_of(&serde_json::to_string(&plan).expect("a plan"));
    for part in ["plan.json: not a plan", "rates:", "world.embedded:"] {
        assert!(error.contains(part), "{part}: {error}");
    }
}
