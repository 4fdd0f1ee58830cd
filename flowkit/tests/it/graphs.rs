//! `flowkit graph check` and `flowkit run`: faults listed at once, failures recorded.

use super::common::{Ran, run};
use serde_json::{Value, json};
use std::fs;

/// Writes a graph file and runs a command on it.
fn with_graph(before: &[&str], graph: &[u8], after: &[&str]) -> Ran {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("graph.json");
    fs::write(&file, graph).expect("written");
    let file = file.to_str().expect("UTF-8");
    run(before.iter().chain([&file]).chain(after))
}

fn run_graph(graph: &Value) -> Ran {
    with_graph(&["run"], graph.to_string().as_bytes(), &["--json"])
}

#[test]
fn a_good_graph_passes_the_check() {
    let graph = json!({"nodes": [
        {"node_id": "a", "type": "echo"},
        {"node_id": "b", "type": "echo", "depends_on": ["a"]},
    ]});
    let ran = with_graph(&["graph", "check"], graph.to_string().as_bytes(), &[]).expect_code(0);
    assert!(ran.stdout.contains("2 nodes"), "{}", ran.stdout);
}

#[test]
fn every_fault_is_listed_at_once_with_its_place() {
    let graph = json!({"nodes": [
        {"node_id": "a", "type": "echo", "depends_on": ["missing"], "retry_policy": {"max": 0}},
        {"node_id": "b", "type": "echo", "fan_in": "some"},
        {"node_id": "b", "type": "echo", "colour": "red"},
    ]});
    for command in [&["graph", "check"][..], &["run"]] {
        let ran = with_graph(command, graph.to_string().as_bytes(), &[]).expect_code(2);
        for part in [
            "missing",
            "nodes[0].retry_policy.max",
            "fan_in",
            "colour",
            "nodes[2]",
        ] {
            assert!(ran.stderr.contains(part), "{part}: {}", ran.stderr);
        }
    }
}

#[test]
fn a_role_that_nobody_has_is_a_fault() {
    let graph = json!({"nodes": [{"node_id": "a", "type": "mesure"}]});
    for command in [&["graph", "check"][..], &["run"]] {
        let ran = with_graph(command, graph.to_string().as_bytes(), &[]).expect_code(2);
        assert!(ran.stderr.contains("mesure"), "{}", ran.stderr);
        assert!(ran.stderr.contains("measure"), "the cure: {}", ran.stderr);
    }
}

#[test]
fn what_is_no_json_is_told_with_line_and_column() {
    for text in [
        &b"{\"nodes\": [\n  oops\n]}"[..],
        b"",
        b"\xff\xfe\x00",
        b"[1,2",
        b"\"text\"",
    ] {
        for command in [&["graph", "check"][..], &["run"]] {
            let ran = with_graph(command, text, &[]).expect_code(2);
            assert!(ran.stderr.contains("graph.json"), "{}", ran.stderr);
        }
    }
    let ran = with_graph(&["graph", "check"], b"{\"nodes\": [\n  oops\n]}", &[]).expect_code(2);
    assert!(ran.stderr.contains("line 2"), "{}", ran.stderr);
}

#[test]
fn a_refused_graph_is_told_as_json_where_that_is_asked_for() {
    for command in [&["graph", "check"][..], &["run"], &["submit"]] {
        for (text, fault) in [
            (&b"{}"[..], "`nodes` is missing"),
            (b"", "is empty"),
            (b"\xef\xbb\xbf{}", "byte order mark"),
            (b"[", "is not JSON"),
        ] {
            let ran = with_graph(command, text, &["--json"]).expect_code(2);
            let said = ran.json();
            assert_eq!(said["ok"], false, "{said}");
            let first = said["faults"][0].as_str().expect("a fault");
            assert!(
                first.contains(fault) && ran.stderr.contains(fault),
                "{ran:?}"
            );
        }
    }
}

#[test]
fn yaml_and_what_is_far_too_large_are_told_to_be_no_graph_files() {
    let folder = tempfile::tempdir().expect("a folder");
    let yaml = folder.path().join("g.yaml");
    fs::write(&yaml, "nodes:\n- node_id: a\n").expect("written");
    let ran = run(["graph".as_ref(), "check".as_ref(), yaml.as_os_str()]).expect_code(2);
    assert!(ran.stderr.contains("graphs are JSON files"), "{ran:?}");
    // It has no end.
    let ran = run(["run", "/dev/zero"]).expect_code(2);
    assert!(ran.stderr.contains("is larger than"), "{ran:?}");
}

#[test]
fn a_graph_file_that_is_not_there_is_bad_input() {
    let ran = run(["run", "/no/such/graph.json"]).expect_code(2);
    assert!(ran.stderr.contains("/no/such/graph.json"), "{}", ran.stderr);
}

#[test]
fn a_failing_handler_fails_the_task_and_skips_what_depends_on_it() {
    let graph = json!({"nodes": [
        {"node_id": "bad", "type": "fail",
         "io": {"input_inline": {"permanent": true, "reason_code": "no_luck", "error": "alas"}}},
        {"node_id": "after", "type": "echo", "depends_on": ["bad"]},
    ]});
    let answer = run_graph(&graph).expect_code(1).json();
    assert_eq!(answer["status"], "failed");
    assert_eq!(
        answer["failure"],
        json!({"node": "bad", "reason_code": "no_luck", "error": "alas"})
    );
    assert_eq!(answer["nodes"]["after"]["state"], "skipped");
}

#[test]
fn a_handler_that_panics_is_a_recorded_failure_and_is_tried_again() {
    let node = |times: Value| {
        json!({"nodes": [{
            "node_id": "p", "type": "fail", "retry_policy": {"max": 3, "backoff_sec": 0},
            "io": {"input_inline": {"panic": true, "error": "out of cheese", "times": times}},
        }]})
    };
    let ran = run_graph(&node(json!(2)));
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert_eq!(ran.json()["nodes"]["p"]["attempts"], 3, "{ran:?}");

    let ran = run_graph(&node(Value::Null));
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let answer = ran.json();
    assert_eq!(answer["failure"]["reason_code"], "panic");
    let error = answer["failure"]["error"].as_str().expect("a text");
    assert!(error.contains("out of cheese"), "{error}");
}

#[test]
fn a_chain_runs_in_order_and_its_result_is_shown() {
    let tree = super::common::Tree::with_files(70);
    let graph = json!({"nodes": [
        {"node_id": "find", "type": "scan", "io": {"input_inline": {
            "dir": tree.path().to_str().expect("UTF-8"), "batch_size": 10}}},
        {"node_id": "count", "type": "measure", "depends_on": ["find"], "io": {
            "start_when": "first_batch",
            "input_inline": {"input_adapter": "pull.from_artifacts.rechunk:size", "input_args": {
                "from_nodes": ["find"], "size": 4, "meta_list_key": "entries"}}}},
        {"node_id": "sum", "type": "summarize", "depends_on": ["count"], "io": {"input_inline": {
            "input_adapter": "pull.from_artifacts", "input_args": {"from_nodes": ["count"]}}}},
    ]});
    let answer = run_graph(&graph).expect_code(0).json();
    let [files, lines, words, bytes] = tree.totals;
    let sums = json!({"files": files, "lines": lines, "words": words, "bytes": bytes,
        "unreadable": 0});
    assert_eq!(answer["nodes"]["sum"]["result"], sums, "{answer}");
    assert_eq!(answer["nodes"]["find"]["batches"], 7);
    // Chunks never span two artifacts: 10 = 4 + 4 + 2.
    assert_eq!(answer["nodes"]["count"]["batches"], 21);
}

#[test]
fn vars_come_from_the_command_line_and_are_shown() {
    let graph = json!({"nodes": [
        {"node_id": "add", "type": "coordinator_fn",
         "io": {"fn": "vars.incr", "fn_args": {"key": "n.x", "by": 2}}},
        {"node_id": "no", "type": "echo", "depends_on": ["add"],
         "when": {"var": "n.x", "op": "lt", "value": 3}},
    ]});
    let graph = graph.to_string();
    let options = ["--vars", r#"{"n":{"x":1}}"#, "--var", "tag=a b", "--json"];
    let answer = with_graph(&["run"], graph.as_bytes(), &options)
        .expect_code(0)
        .json();
    assert_eq!(answer["vars"], json!({"n": {"x": 3}, "tag": "a b"}));
    assert_eq!(answer["nodes"]["no"]["state"], "skipped");
    for (option, value) in [("--var", "$a=1"), ("--var", "x"), ("--vars", "[1]")] {
        let ran = with_graph(&["run"], graph.as_bytes(), &[option, value]).expect_code(2);
        assert!(ran.stderr.contains("var"), "{}", ran.stderr);
    }
}
