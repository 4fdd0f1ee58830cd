//! `flowkit sim`: plans from files, and failing ones made small.

use crate::common::flowkit;
use serde_json::{Value, json};
use std::fs;
use std::process::Output;

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

/// Runs seeds of tier 0.
fn run(arguments: &[&str]) -> Output {
    let mut command = flowkit();
    command.args(["sim", "run", "--tier", "0"]).args(arguments);
    command.output().expect("it runs")
}

#[test]
fn a_run_tells_its_speed_and_the_slowest_recovery_from_each_fault() {
    let seeds = ["--seeds", "300", "--twice-every", "0"];
    let output = run(&[&seeds[..], &["--json"]].concat());
    assert!(output.status.success(), "{output:?}");
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(
        (&report["ok"], &report["seeds"]),
        (&json!(true), &json!(300))
    );
    for speed in ["seeds_per_s", "faulted_task_lives_per_core_s", "virtual_ms"] {
        assert!(report[speed].as_f64() > Some(0.0), "{speed}: {report}");
    }
    assert!(
        report["virtual_per_real_time"].as_f64() > Some(1.0),
        "{report}"
    );
    let cell = |of: &str, family: &str| {
        let settled = report[of][family].as_u64();
        settled.map_or_else(|| "-".to_owned(), |ms| ms.to_string())
    };
    let output = run(&seeds);
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).expect("text");
    let rows: Vec<Vec<&str>> = text
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    for (family, times) in [
        ("none", "0"),
        ("crash", &*report["fired"]["crash"].to_string()),
    ] {
        let (any, alone) = ("worst_settle_ms", "worst_settle_alone_ms");
        let (any, alone) = (cell(any, family), cell(alone, family));
        assert_ne!(any, "-", "{family}: {report}");
        assert!(
            rows.contains(&vec![family, times, &any, &alone]),
            "{family}: {text}"
        );
    }
    assert!(text.contains("seeds 0 to 299 on tier 0: "), "{text}");
    let ratio = text.split(" times real time").next().expect("a part");
    let ratio = ratio.rsplit(' ').next().expect("a word");
    assert!(ratio.parse::<u64>().expect("a number") > 1, "{text}");
}

#[test]
fn a_run_of_no_seed_is_an_error_that_says_what_to_do() {
    let shape = ["--seeds", "20", "--shape", "9x9", "--json"];
    for (arguments, part) in [
        (&["--seeds", "0"][..], "invalid value '0' for '--seeds <N>'"),
        (&shape[..4], "of 20 from 0 on none has a plan of shape 9x9"),
        (&shape[..4], "the first 1000 from there have 1x1, 1x2, "),
        (&shape, "no seed was run"),
    ] {
        let output = run(arguments);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {errors}");
        assert!(errors.contains(part), "{part}: {errors}");
    }
    let report: Value = serde_json::from_slice(&run(&shape).stdout).expect("JSON");
    let told = (&report["ok"], &report["seeds"], &report["passed_over"]);
    assert_eq!(told, (&json!(false), &json!(0), &json!(20)));
}

#[test]
fn behind_the_last_seed_there_is_none_and_the_run_ends() {
    let from = (u64::MAX - 16).to_string();
    let output = run(&["--from", &from, "--seeds", "16", "--json"]);
    assert!(output.status.success(), "{output:?}");
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(report["seeds"], 16);
}

#[test]
fn a_healthy_run_is_drawn_with_its_runs_batches_leases_and_messages() {
    let folder = tempfile::tempdir().expect("a folder");
    for tier in ["0", "1"] {
        let page = folder.path().join(tier);
        let output = flowkit()
            .args(["sim", "replay", "--tier", tier, "--seed", "4", "--html"])
            .arg(&page)
            .output()
            .expect("it runs");
        assert!(output.status.success(), "{output:?}");
        let page = fs::read_to_string(&page).expect("written");
        for part in [
            "<rect class=run ",
            "<rect class=batch ",
            "<rect class=lease ",
            "<circle ",
            "<line class=commit ",
            "<line class=healed ",
            "Every promise held.",
        ] {
            assert!(page.contains(part), "tier {tier}: {part}");
        }
        assert!(!page.contains("class=bad"), "tier {tier}");
    }
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
            command.args(["sim", "replay", "--tier", tier, "--seed", "4"]);
            let output = command.output().expect("it runs");
            assert!(output.status.success(), "{output:?}");
            output.stdout
        };
        let first = history();
        let shown = String::from_utf8_lossy(&first);
        assert!(
            shown.contains(" BATCH_OK "),
            "tier {tier}: there is a history"
        );
        assert!(
            first == history(),
            "tier {tier}: two processes, two histories"
        );
    }
}
