//! `flowkit worker list|show` on the folder of an earlier run.

use flowkit::EmbeddedStore;
use flowkit_core::id::{TaskId, WorkerId};
use serde_json::json;
use std::fs;

use super::common::{flowkit, run, wait_for};

#[test]
fn workers_of_a_killed_run_are_shown_with_their_runs_and_checkpoints() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).expect("written");
        path.to_str().expect("UTF-8").to_owned()
    };
    let program = file("pager.py", include_str!("../programs/pager.py"));
    let graph = json!({"nodes": [
        {"node_id": "src", "type": "echo", "io": {"input_inline": {"items": ["page", "stop"]}}},
        {"node_id": "p", "type": "pager", "depends_on": ["src"], "io": {"input_inline": {
            "input_adapter": "pull.from_artifacts.rechunk:size",
            "input_args": {"from_node": "src", "size": 1, "meta_list_key": "items"}}}},
        {"node_id": "after", "type": "echo", "depends_on": ["p"],
         "io": {"start_when": "first_batch", "input_inline": {}}},
    ]});
    let graph = file("g.json", &graph.to_string());
    let data = folder.path().join("data");
    let data = data.to_str().expect("UTF-8");
    let pager = format!("pager=python3 '{program}'");
    let mut child = flowkit()
        .args(["run", &graph, "--data", data, "--workers", "1"])
        .args(["--exec", &pager])
        .stderr(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("it starts");
    // Ready as soon as the first batch before it is accepted; there is no slot for it.
    wait_for(&mut child, "after: ready");
    child.kill().expect("it runs");
    child.wait().expect("it is dead");

    let list = run(["worker", "list", "--data", data, "--json"]).expect_code(0);
    let list = list.json();
    assert_eq!(list["workers"][0]["worker_id"], "local-1", "{list}");
    assert_eq!(list["workers"][0]["running"][0], "p", "{list}");
    // The streams went with the process.
    assert!(list["workers"][0]["heard_ms_ago"].is_null(), "{list}");
    let shown = run(["worker", "show", "local-1", "--data", data, "--json"]).expect_code(0);
    let shown = shown.json();
    assert_eq!(shown["runs"][0]["node_id"], "p", "{shown}");
    assert_eq!(shown["runs"][0]["batches"], 1, "{shown}");
    assert_eq!(
        shown["runs"][0]["checkpoint"],
        json!({"page": 1}),
        "{shown}"
    );
    assert_eq!(shown["runs"][0]["token"], 1, "{shown}");
    assert_eq!(shown["incarnation"], 1, "{shown}");
    assert_eq!(shown["unreadable"], serde_json::json!([]), "{shown}");
    let shown = run(["worker", "show", "local-1", "--data", data]).expect_code(0);
    for part in ["local-1: not heard", r#"{"page": 1}"#] {
        assert!(shown.stdout.contains(part), "{}", shown.stdout);
    }
    let none = run(["worker", "show", "nobody", "--data", data]).expect_code(2);
    assert!(
        none.stderr.contains("flowkit worker list"),
        "{}",
        none.stderr
    );
}

#[test]
fn a_damaged_record_costs_its_task_and_is_named_by_all_who_look() {
    let folder = tempfile::tempdir().expect("a folder");
    let (graph, data) = (folder.path().join("g.json"), folder.path().join("data"));
    let text =
        r#"{"nodes": [{"node_id": "s", "type": "sleep", "io": {"input_inline": {"ms": 60000}}}]}"#;
    fs::write(&graph, text).expect("written");
    let (graph, data) = (
        graph.to_str().expect("UTF-8"),
        data.to_str().expect("UTF-8"),
    );
    let mut child = flowkit()
        .args(["run", graph, "--data", data, "--workers", "1"])
        .stderr(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("it starts");
    wait_for(&mut child, "s: running");
    child.kill().expect("it runs");
    child.wait().expect("it is dead");
    let list = run(["task", "list", "--data", data, "--json"]).expect_code(0);
    let id = list.json()["tasks"][0]["task_id"]
        .as_str()
        .expect("an id")
        .to_owned();
    let runtime = tokio::runtime::Runtime::new().expect("threads");
    let damaged = runtime.block_on(async {
        let store = EmbeddedStore::open(data.as_ref()).expect("nobody has it open");
        let task = TaskId::new(&id).expect("an id");
        store.damage(&task, None).await
    });
    assert!(damaged);

    let other = folder.path().join("other.json");
    let text = r#"{"nodes": [{"node_id": "e", "type": "echo"}]}"#;
    fs::write(&other, text).expect("written");
    let other = other.to_str().expect("UTF-8");
    let ran = run(["run", other, "--data", data, "--json"]).expect_code(0);
    assert_eq!(ran.json()["status"], "finished");
    let named = |line: &str| line.contains("unreadable") && line.contains(&id);
    assert!(ran.stderr.lines().any(named), "{}", ran.stderr);
    let shown = run(["worker", "show", "local-1", "--data", data, "--json"]).expect_code(0);
    let shown = shown.json();
    assert_eq!(shown["unreadable"][0]["task_id"], json!(id), "{shown}");
    let list = run(["task", "list", "--data", data, "--json"]).expect_code(0);
    let list = list.json();
    let rows = list["tasks"].as_array().expect("a list");
    let row = rows.iter().find(|row| row["task_id"] == json!(id));
    assert_eq!(row.expect("its row")["status"], "unreadable", "{list}");
    assert_eq!(rows.len(), 2, "{list}");
    let list = run(["task", "list", "--data", data]).expect_code(0);
    let named = |line: &str| line.contains("unreadable") && line.contains(&id);
    assert!(list.stdout.lines().any(named), "{}", list.stdout);
    for look in [["task", "show"].as_slice(), &["why"]] {
        let said = run(look.iter().chain(&[id.as_str(), "--data", data])).expect_code(1);
        for part in [
            "is set aside: a record of it cannot be read",
            "flowkit doctor",
        ] {
            assert!(said.stderr.contains(part), "{look:?}: {}", said.stderr);
        }
    }
    let ill = run(["doctor", "--data", data, "--json"])
        .expect_code(1)
        .json();
    assert_eq!(ill["findings"][0]["check"], "state", "{ill}");
    assert_eq!(
        ill["findings"][0]["subject"],
        json!(format!("task {id}")),
        "{ill}"
    );
}

#[test]
fn a_worker_with_a_damaged_record_ends_with_an_error_and_is_named_by_all_who_look() {
    let folder = tempfile::tempdir().expect("a folder");
    let (graph, data) = (folder.path().join("g.json"), folder.path().join("data"));
    fs::write(&graph, r#"{"nodes": [{"node_id": "e", "type": "echo"}]}"#).expect("written");
    let (graph, data) = (
        graph.to_str().expect("UTF-8"),
        data.to_str().expect("UTF-8"),
    );
    let again = || run(["run", graph, "--data", data, "--workers", "1"]);
    again().expect_code(0);
    let runtime = tokio::runtime::Runtime::new().expect("threads");
    let damaged = runtime.block_on(async {
        let store = EmbeddedStore::open(data.as_ref()).expect("nobody has it open");
        let worker = WorkerId::new("local-1").expect("an id");
        store.damage_worker(&worker).await
    });
    assert!(damaged);

    let ended = again().expect_code(1);
    for part in ["record of worker local-1", "as new as", "another worker_id"] {
        assert!(ended.stderr.contains(part), "{part}: {}", ended.stderr);
    }
    let list = run(["worker", "list", "--data", data, "--json"]).expect_code(0);
    let list = list.json();
    assert_eq!(list["workers"], json!([]), "{list}");
    assert_eq!(list["unreadable"][0]["worker_id"], "local-1", "{list}");
    let list = run(["worker", "list", "--data", data]).expect_code(0);
    assert!(list.stdout.contains("worker local-1"), "{}", list.stdout);
    let shown = run(["worker", "show", "local-1", "--data", data]).expect_code(1);
    assert!(
        shown.stderr.contains("its record cannot be read"),
        "{}",
        shown.stderr
    );
    let ill = run(["doctor", "--data", data, "--json"]).expect_code(1);
    let ill = ill.json();
    assert_eq!(ill["findings"][0]["subject"], "worker local-1", "{ill}");
}
