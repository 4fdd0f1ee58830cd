//! `flowkit sim`: plans from files, and failing ones made small.

use crate::common::flowkit;
use serde_json::{Value, json};
use std::fs;

/// A plan that breaks a promise: no worker has the roles that its graph needs.
fn failing() -> Value {
    let output = flowkit()
        .args(["sim", "replay", "--tier", "0", "--seed", "11"])
        .output()
        .expect("it runs");
    let text = String::from_utf8(output.stdout).expect("text");
    let mut plan: Value = serde_json::from_str(text.lines().next().expect("a plan")).expect("JSON");
    plan["world"]["embedded"] = json!(false);
    for worker in plan["world"]["workers"].as_array_mut().expect("workers") {
        worker["roles"] = json!(["nothing"]);
    }
    plan
}

#[test]
fn a_failing_plan_of_a_file_is_shrunk_and_fails_again_when_replayed() {
    let folder = tempfile::tempdir().expect("a folder");
    let (large, small) = (folder.path().join("large"), folder.path().join("small"));
    fs::write(&large, failing().to_string()).expect("written");
    let shrink = flowkit()
        .args(["sim", "shrink", "--plan"])
        .arg(&large)
        .arg("--out")
        .arg(&small)
        .output()
        .expect("it runs");
    assert_eq!(shrink.status.code(), Some(1), "{shrink:?}");
    let test = String::from_utf8(shrink.stdout).expect("text");
    assert!(
        test.contains("#[test]\nfn settle_holds_with_seed_11()"),
        "{test}"
    );
    let plan: Value =
        serde_json::from_str(&fs::read_to_string(&small).expect("there")).expect("JSON");
    assert_eq!(plan["faults"], json!([]));
    let replay = flowkit()
        .args(["sim", "replay", "--tier", "0", "--plan"])
        .arg(&small)
        .output()
        .expect("it runs");
    assert_eq!(replay.status.code(), Some(1));
    let said = String::from_utf8(replay.stdout).expect("text");
    assert!(said.contains("BROKEN settle"), "{said}");
}

#[test]
fn a_file_that_is_no_plan_is_named_with_what_is_wrong() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("plan.json");
    fs::write(&file, r#"{"seed": 1}"#).expect("written");
    for (path, part) in [
        (file.as_path(), "missing field"),
        (folder.path(), "cannot read"),
    ] {
        let output = flowkit()
            .args(["sim", "replay", "--tier", "0", "--plan"])
            .arg(path)
            .output()
            .expect("it runs");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{errors}");
        assert!(errors.contains(part), "{errors}");
    }
}

#[test]
fn a_run_may_be_bounded_by_time() {
    let output = flowkit()
        .args(["sim", "run", "--tier", "0", "--minutes", "0.01", "--json"])
        .output()
        .expect("it runs");
    assert!(output.status.success(), "{output:?}");
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert!(report["seeds"].as_u64() > Some(0), "{report}");
}

#[test]
fn a_replay_can_be_looked_at() {
    let folder = tempfile::tempdir().expect("a folder");
    let (plan, page) = (folder.path().join("plan"), folder.path().join("run.html"));
    fs::write(&plan, failing().to_string()).expect("written");
    let output = flowkit()
        .args(["sim", "replay", "--tier", "0", "--plan"])
        .arg(&plan)
        .arg("--html")
        .arg(&page)
        .output()
        .expect("it runs");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let page = fs::read_to_string(&page).expect("written");
    for part in [
        "<svg",
        "settle broken at",
        "host 0",
        "class=fault",
        "class=bad",
    ] {
        assert!(page.contains(part), "{part}");
    }
    // One file, whole in itself.
    assert!(
        !page.contains("http") && !page.contains("src="),
        "nothing is fetched"
    );
}

#[test]
fn a_seed_has_the_same_history_in_every_process() {
    for tier in ["0", "1"] {
        let history = || {
            let mut command = flowkit();
            // Logs show real time.
            command.env("RUST_LOG", "off");
            command.args(["sim", "replay", "--tier", tier, "--seed", "71"]);
            let output = command.output().expect("it runs");
            assert!(output.status.success(), "{output:?}");
            output.stdout
        };
        let first = history();
        assert!(first.len() > 1_000, "tier {tier}: there is a history");
        assert!(
            first == history(),
            "tier {tier}: two processes, two histories"
        );
    }
}
