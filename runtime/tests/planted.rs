//! Planted bugs in the handling of a run's child processes: each must be seen by a check that holds without it.
//!
//! The processes are the operating system's own, so no simulation judges them. A child that a bug lets live
//! ends by itself a while after its check has given it up.
#![cfg(unix)]

use flowkit_core::planted::{Bug, Reach, plant, times_struck};
use flowkit_runtime::{ChildProcess, RunContext};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{ChildStdout, Command};

/// What takes no time must happen within this.
const SOON: Duration = Duration::from_secs(3);

/// A shell that says `ready` and does this; its output is held by it and its children.
async fn start(cx: &RunContext, script: &str) -> (ChildProcess, BufReader<ChildStdout>) {
    let mut command = Command::new("sh");
    let script = format!("echo ready; {script}");
    let mut child = cx
        .spawn(command.args(["-c", &script]).stdout(Stdio::piped()))
        .expect("sh starts");
    let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
    let mut line = String::new();
    stdout.read_line(&mut line).await.expect("it speaks");
    assert_eq!(line, "ready\n");
    (child, stdout)
}

/// Nobody holds the other end any more.
async fn all_gone(stdout: &mut BufReader<ChildStdout>) -> bool {
    let mut rest = String::new();
    let end = stdout.read_to_string(&mut rest);
    tokio::time::timeout(SOON, end).await.is_ok()
}

/// A child's own child goes with it.
async fn a_group_ends_with_its_leader() -> bool {
    let (cx, _control) = RunContext::for_test();
    let (mut child, mut stdout) = start(&cx, "sleep 9 & exit").await;
    child.wait().await;
    all_gone(&mut stdout).await
}

/// A child that is ended may end in order.
async fn a_child_is_asked_first() -> bool {
    let (cx, _control) = RunContext::for_test();
    let file = cx.temp_dir().expect("a folder").join("asked");
    let file = file.to_str().expect("UTF-8");
    let script = format!(
        "trap 'echo yes > {file}; exit' TERM; echo set; for i in $(seq 90); do sleep 0.1; done"
    );
    let (mut child, mut stdout) = start(&cx, &script).await;
    stdout
        .read_line(&mut String::new())
        .await
        .expect("its trap is set");
    child.end(SOON).await;
    std::path::Path::new(file).exists()
}

/// One that does not want to is made to.
async fn a_stubborn_child_is_killed() -> bool {
    let (cx, _control) = RunContext::for_test();
    let script = "trap '' TERM; echo set; for i in $(seq 90); do sleep 0.1; done";
    let (mut child, mut stdout) = start(&cx, script).await;
    stdout
        .read_line(&mut String::new())
        .await
        .expect("its trap is set");
    let ended = child.end(Duration::from_millis(50));
    tokio::time::timeout(SOON, ended).await.is_ok()
}

/// Children of a run that nobody closes go when it is dropped.
async fn a_dropped_run_takes_its_children_along() -> bool {
    let (cx, control) = RunContext::for_test();
    let (child, mut stdout) = start(&cx, "sleep 9").await;
    drop((cx, control, child));
    all_gone(&mut stdout).await
}

/// A filter ends on the end of its input.
async fn a_waited_for_child_reads_the_end_of_its_input() -> bool {
    let (cx, _control) = RunContext::for_test();
    let (mut child, _stdout) = start(&cx, "exec cat").await;
    tokio::time::timeout(SOON, child.wait()).await.is_ok()
}

async fn holds(bug: Bug) -> bool {
    match bug {
        Bug::GroupSpared => a_group_ends_with_its_leader().await,
        Bug::TermSkipped => a_child_is_asked_first().await,
        Bug::KillUnsent => a_stubborn_child_is_killed().await,
        Bug::ChildKept => a_dropped_run_takes_its_children_along().await,
        Bug::StdinHeld => a_waited_for_child_reads_the_end_of_its_input().await,
        other => panic!("{other:?} has no check here"),
    }
}

#[tokio::test]
async fn every_bug_about_children_is_seen_and_its_check_holds_without_it() {
    let children = |bug: &&Bug| bug.reach() == Reach::Children;
    let bugs: Vec<Bug> = Bug::ALL.iter().filter(children).copied().collect();
    assert!(bugs.len() >= 5);
    for bug in bugs {
        plant(None);
        assert!(holds(bug).await, "{}: fails without the bug", bug.name());
        plant(Some(bug));
        let seen = !holds(bug).await;
        assert!(times_struck() > 0, "{} decided nothing", bug.name());
        assert!(seen, "{} survives", bug.name());
    }
}
