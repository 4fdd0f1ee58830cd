//! Planted bugs in the handling of a run's child processes, folder and programs: each must be seen by a check
//! that holds without it.
//!
//! The processes are the operating system's own, so no simulation judges them. A child that a bug lets live
//! ends by itself a while after its check has given it up.
#![cfg(unix)]

use flowkit_core::planted::{Bug, Reach, plant, times_struck};
use flowkit_runtime::{
    Batch, BatchResult, CancelReason, ChildProcess, Exec, Handler, HandlerError, Json, RunContext,
};
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

/// The folder of a run that nobody closes goes when it is dropped.
async fn a_dropped_run_takes_its_folder_along() -> bool {
    let (cx, control) = RunContext::for_test();
    let folder = cx.temp_dir().expect("a folder");
    drop((cx, control));
    let gone = !folder.exists();
    let _ = std::fs::remove_dir_all(folder);
    gone
}

/// What a program that says these lines of its first batch makes of two.
async fn two_batches(says: &str) -> [Result<BatchResult<Json>, HandlerError>; 2] {
    let script = format!(
        r#"read -r hello; read -r batch; {says}
        read -r batch; echo '{{"kind":"result","batch_uid":"b"}}'; read -r line"#
    );
    let exec = Exec::new("sh", ["-c", &script]);
    let (cx, control) = RunContext::for_test();
    let mut run = exec.init(&cx).await.expect("sh starts");
    let mut results = Vec::new();
    for uid in ["a", "b"] {
        control.begin_batch(uid);
        let batch = Batch::new(uid, Json::null());
        results.push(exec.process(&cx, &mut run, batch).await);
    }
    control.run_cleanups().await;
    results.try_into().expect("two")
}

/// A second result is of no batch, least of all of the next one.
async fn a_second_result_fails_the_next_batch() -> bool {
    let twice = r#"for i in 1 2; do echo '{"kind":"result","batch_uid":"a","artifact":1}'; done"#;
    let [first, second] = two_batches(twice).await;
    assert!(first.is_ok(), "{first:?}");
    second.is_err()
}

/// A batch whose checkpoint cannot be kept fails.
async fn a_checkpoint_that_is_refused_fails_its_batch() -> bool {
    let says = r#"printf '{"kind":"checkpoint","batch_uid":"a","value":"%070000d"}\n' 7
        echo '{"kind":"result","batch_uid":"a"}'"#;
    let [first, _] = two_batches(says).await;
    first.is_err()
}

/// A program that reads hears of its cancel long before the signal.
async fn a_program_is_told_of_its_cancel() -> bool {
    let script = r#"read -r hello; read -r batch; echo '{"kind":"progress","done":1}'
        read -r cancel; echo '{"kind":"cancelled"}'; read -r line"#;
    let exec = Exec::new("sh", ["-c", script]);
    let (cx, control) = RunContext::for_test();
    let mut run = exec.init(&cx).await.expect("sh starts");
    let batch = Batch::new("test-batch", Json::null());
    let heard = {
        let mut process = std::pin::pin!(exec.process(&cx, &mut run, batch));
        tokio::select! {
            result = &mut process => panic!("it waits: {result:?}"),
            () = at_work(&cx) => {}
        }
        control.cancel(CancelReason::UserRequest, 10 * SOON);
        tokio::time::timeout(SOON, process).await
    };
    control.run_cleanups().await;
    heard.is_ok()
}

async fn at_work(cx: &RunContext) {
    while cx.progress().done == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn holds(bug: Bug) -> bool {
    match bug {
        Bug::GroupSpared => a_group_ends_with_its_leader().await,
        Bug::TermSkipped => a_child_is_asked_first().await,
        Bug::KillUnsent => a_stubborn_child_is_killed().await,
        Bug::ChildKept => a_dropped_run_takes_its_children_along().await,
        Bug::StdinHeld => a_waited_for_child_reads_the_end_of_its_input().await,
        Bug::FolderKept => a_dropped_run_takes_its_folder_along().await,
        Bug::StaleResult => a_second_result_fails_the_next_batch().await,
        Bug::RefusalPassedOver => a_checkpoint_that_is_refused_fails_its_batch().await,
        Bug::CancelUnsaid => a_program_is_told_of_its_cancel().await,
        other => panic!("{other:?} has no check here"),
    }
}

#[tokio::test]
async fn every_bug_about_children_is_seen_and_its_check_holds_without_it() {
    let children = |bug: &&Bug| bug.reach() == Reach::Children;
    let bugs: Vec<Bug> = Bug::ALL.iter().filter(children).copied().collect();
    assert!(bugs.len() >= 9);
    for bug in bugs {
        plant(None);
        assert!(holds(bug).await, "{}: fails without the bug", bug.name());
        plant(Some(bug));
        let seen = !holds(bug).await;
        assert!(times_struck() > 0, "{} decided nothing", bug.name());
        assert!(seen, "{} survives", bug.name());
    }
}
