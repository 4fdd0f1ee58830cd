//! `flowkit demo`: the right numbers, and going on with what is unfinished.

use super::common::{Tree, flowkit, run, totals, wait_for};
use serde_json::json;
use std::ffi::OsStr;
use std::process::Stdio;

fn demo<'a>(tree: &'a Tree, more: &[&'a OsStr]) -> Vec<&'a OsStr> {
    let mut arguments = vec![
        OsStr::new("demo"),
        tree.path().as_os_str(),
        OsStr::new("--json"),
    ];
    arguments.extend(more);
    arguments
}

#[test]
fn every_regular_file_counts_hidden_ones_too_and_links_do_not() {
    let mut tree = Tree::with_files(150);
    tree.file(".hidden/.rc", b"one two\tthree\x0bfour\x0cfive\rsix\n");
    tree.file("empty.txt", b"");
    tree.file("no-newline.md", b"two words");
    let target = tree.file("a/target.rs", b"x\n");
    std::os::unix::fs::symlink(&target, tree.path().join("link.rs")).expect("a link");
    std::os::unix::fs::symlink(tree.path(), tree.path().join("loop")).expect("a link");

    let answer = run(demo(&tree, &[])).expect_code(0).json();

    assert_eq!(answer["status"], "finished");
    assert_eq!(totals(&answer), tree.totals);
    let extensions = answer["by_extension"].as_object().expect("an object");
    let files: Vec<_> = extensions
        .iter()
        .map(|(name, counts)| (name.clone(), counts["files"].as_u64().expect("a number")))
        .collect();
    assert_eq!(
        files,
        tree.extensions.clone().into_iter().collect::<Vec<_>>()
    );
    assert_eq!(answer["unreadable"], 0);
    // 154 paths in batches of 64, each cut into chunks of 16.
    assert_eq!(
        answer["nodes"],
        json!({
            "scan": {"batches": 3, "attempts": 1, "grants": 1},
            "measure": {"batches": 10, "attempts": 1, "grants": 1},
            "summarize": {"batches": 10, "attempts": 1, "grants": 1},
        })
    );
}

#[test]
fn an_empty_folder_finishes_with_zero() {
    let tree = Tree::new();
    let answer = run(demo(&tree, &[])).expect_code(0).json();
    assert_eq!(answer["status"], "finished");
    assert_eq!(totals(&answer), [0; 4]);
    assert_eq!(answer["nodes"]["scan"]["batches"], 0);
}

#[test]
fn without_json_there_is_a_table_and_one_worker_is_enough() {
    let tree = Tree::with_files(60);
    let path = tree.path().as_os_str();
    let one = ["demo", "--workers", "1"].map(OsStr::new);
    let ran = run(one.into_iter().chain([path])).expect_code(0);
    let total = ran.stdout.lines().find(|line| line.starts_with("total"));
    let cells: Vec<u64> = total
        .expect("a line of totals")
        .split_whitespace()
        .skip(1)
        .map(|cell| cell.replace(',', "").parse().expect("a number"))
        .collect();
    assert_eq!(cells, tree.totals);
    for node in ["scan", "measure", "summarize"] {
        assert!(ran.stdout.contains(node), "{}", ran.stdout);
        assert!(ran.stderr.contains(node), "progress lines: {}", ran.stderr);
    }
}

#[test]
fn the_data_folder_is_left_out_even_inside_the_folder_it_reads() {
    let tree = Tree::with_files(40);
    let data = tree.path().join("state/data");
    for _ in 0..2 {
        let answer = run(demo(&tree, &[OsStr::new("--data"), data.as_os_str()]))
            .expect_code(0)
            .json();
        assert_eq!(totals(&answer), tree.totals);
    }
}

#[test]
fn a_finished_task_is_followed_by_a_new_one() {
    let mut tree = Tree::with_files(30);
    let state = tempfile::tempdir().expect("a temporary folder");
    let data = state.path().as_os_str().to_owned();
    let first = run(demo(&tree, &[OsStr::new("--data"), &data]))
        .expect_code(0)
        .json();
    tree.file("new.txt", b"one more\n");
    let second = run(demo(&tree, &[OsStr::new("--data"), &data]))
        .expect_code(0)
        .json();
    assert_ne!(first["task_id"], second["task_id"]);
    assert_eq!(totals(&second), tree.totals);
}

#[test]
fn ctrl_c_ends_with_130_and_the_same_command_goes_on() {
    let tree = Tree::with_files(20_000);
    let state = tempfile::tempdir().expect("a temporary folder");
    let data = state.path().as_os_str().to_owned();
    let arguments = demo(&tree, &[OsStr::new("--data"), &data]);
    let child = flowkit()
        .args(&arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("flowkit starts");
    let mut child = child;
    wait_for(&mut child, "running");
    let killed = std::process::Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status()
        .expect("kill");
    assert!(killed.success());
    let output = child.wait_with_output().expect("flowkit ends");
    let stopped: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(output.status.code(), Some(130), "{stopped}");
    assert_eq!(stopped["status"], "running", "{stopped}");

    let answer = run(&arguments).expect_code(0).json();
    assert_eq!(answer["task_id"], stopped["task_id"]);
    assert_eq!(totals(&answer), tree.totals);
    // A stop is neither a failed attempt nor a lost batch.
    assert_eq!(answer["nodes"]["measure"]["attempts"], 1);
}
