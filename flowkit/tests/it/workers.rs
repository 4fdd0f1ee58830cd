//! `flowkit worker list|show` on the folder of an earlier run.

use std::fs;

use super::common::{flowkit, run, wait_for};

#[test]
fn workers_of_a_killed_run_are_shown_with_their_runs_and_checkpoints() {
    let folder = tempfile::tempdir().expect("a folder");
    let graph = folder.path().join("g.json");
    fs::write(
        &graph,
        r#"{"nodes": [{"node_id": "s", "type": "sleep", "io": {"input_inline": {"ms": 60000}}}]}"#,
    )
    .expect("written");
    let data = folder.path().join("data");
    let data = data.to_str().expect("UTF-8");
    let graph = graph.to_str().expect("UTF-8");
    let mut child = flowkit()
        .args(["run", graph, "--data", data, "--workers", "1"])
        .stderr(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("it starts");
    wait_for(&mut child, "s: running");
    child.kill().expect("it runs");
    child.wait().expect("it is dead");

    let list = run(["worker", "list", "--data", data, "--json"]).expect_code(0);
    let list = list.json();
    assert_eq!(list["workers"][0]["worker_id"], "local-1", "{list}");
    assert_eq!(list["workers"][0]["running"][0], "s", "{list}");
    // The streams went with the process.
    assert!(list["workers"][0]["heard_ms_ago"].is_null(), "{list}");
    let shown = run(["worker", "show", "local-1", "--data", data, "--json"]).expect_code(0);
    let shown = shown.json();
    assert_eq!(shown["runs"][0]["node_id"], "s", "{shown}");
    assert_eq!(shown["runs"][0]["token"], 1, "{shown}");
    assert_eq!(shown["incarnation"], 1, "{shown}");
    assert_eq!(shown["unreadable"], serde_json::json!([]), "{shown}");
    let shown = run(["worker", "show", "local-1", "--data", data]).expect_code(0);
    assert!(
        shown.stdout.contains("local-1: not heard"),
        "{}",
        shown.stdout
    );
    let none = run(["worker", "show", "nobody", "--data", data]).expect_code(2);
    assert!(
        none.stderr.contains("flowkit worker list"),
        "{}",
        none.stderr
    );
}
