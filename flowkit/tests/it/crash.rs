//! Crash proof on the real process: `flowkit demo --data` is killed with SIGKILL at random moments
//! and started again until it finishes; what it then says must equal a run that nobody disturbed.

use super::common::{Ran, Tree, flowkit, totals};
use serde_json::Value;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Kills that count: the process was alive when the signal was sent.
const KILLS: u32 = 30;
/// Files; enough that an undisturbed run takes many times as long as a process start.
const FILES: usize = 6_000;

/// A small generator with a printed seed, so that a failure can be tried again.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        // splitmix64
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit.max(1)
    }
}

fn start(tree: &Tree, data: &Path) -> Child {
    flowkit()
        .arg("demo")
        .arg(tree.path())
        .arg("--data")
        .arg(data)
        .arg("--json")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("flowkit starts")
}

fn finish(child: Child) -> Value {
    let ran = Ran::from(child.wait_with_output().expect("flowkit ends"));
    let answer = ran.expect_code(0).json();
    assert_eq!(answer["status"], "finished", "{answer}");
    answer
}

/// One number of every node.
fn of_nodes(answer: &Value, key: &str) -> Vec<(String, u64)> {
    let nodes = answer["nodes"].as_object().expect("nodes");
    let number = |node: &Value| {
        node[key]
            .as_u64()
            .unwrap_or_else(|| panic!("{key}: {node}"))
    };
    nodes
        .iter()
        .map(|(name, node)| (name.clone(), number(node)))
        .collect()
}

#[test]
fn killed_at_random_moments_the_demo_still_counts_every_batch_once() {
    let fresh = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("a clock")
        .as_nanos();
    let seed = match std::env::var("FLOWKIT_CRASH_SEED") {
        Ok(text) => text.parse().expect("FLOWKIT_CRASH_SEED is a number"),
        Err(_) => fresh as u64,
    };
    println!("seed {seed}; again with FLOWKIT_CRASH_SEED={seed}");
    let mut random = Random(seed);

    let tree = Tree::with_files(FILES);
    let state = tempfile::tempdir().expect("a temporary folder");
    let started = Instant::now();
    let reference = finish(start(&tree, &state.path().join("undisturbed")));
    let undisturbed = started.elapsed();
    assert_eq!(totals(&reference), tree.totals);
    assert_eq!(reference["unreadable"], 0);

    let (mut kills, mut rounds, mut extra_grants) = (0, 0, 0);
    while kills < KILLS {
        rounds += 1;
        let data = state.path().join(format!("round-{rounds}"));
        let answer = loop {
            let mut child = start(&tree, &data);
            // The one sleep: the random moment of the kill.
            let most = u64::try_from(undisturbed.as_micros()).expect("a short run");
            std::thread::sleep(Duration::from_micros(random.below(most)));
            if child.try_wait().expect("a child").is_some() {
                break finish(child);
            }
            // SIGKILL on Unix: no handler runs, nothing is flushed.
            child.kill().expect("killed");
            let status = child.wait().expect("a dead child");
            if status.signal().is_none() {
                // It ended by itself between the look and the kill.
                break finish(child);
            }
            kills += 1;
        };
        let context = format!("seed {seed}, round {rounds}: {answer}");
        assert_eq!(totals(&answer), tree.totals, "{context}");
        for key in ["by_extension", "unreadable"] {
            assert_eq!(answer[key], reference[key], "{key}, {context}");
        }
        let batches = of_nodes(&answer, "batches");
        assert_eq!(batches, of_nodes(&reference, "batches"), "{context}");
        // A killed process is no failed attempt of the handler.
        assert!(
            of_nodes(&answer, "attempts").iter().all(|(_, n)| *n == 1),
            "{context}"
        );
        extra_grants += of_nodes(&answer, "grants")
            .iter()
            .map(|(_, n)| n - 1)
            .sum::<u64>();
    }
    println!("{kills} kills in {rounds} tasks; {extra_grants} grants were made anew");
    // Otherwise every kill missed the work, and the test has shown nothing.
    assert!(extra_grants > 0, "no kill hit a running node (seed {seed})");
}
