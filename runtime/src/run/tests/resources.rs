//! Children and folders of a run, with the test in the place of the worker machine.

use flowkit_core::time::Mono;
use futures_util::FutureExt;
use std::io;
use std::path::PathBuf;
use std::process::Stdio;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{ChildStdout, Command};

use super::*;
use crate::Environment;

/// Ignores SIGTERM and has a child that does, too; both hold standard output open.
const STUBBORN: &str = "trap '' TERM; \
     (trap '' TERM; while :; do sleep 1; done) & \
     echo ready; while :; do sleep 1; done";

fn shell(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]).stdout(Stdio::piped());
    command
}

type Seen = mpsc::UnboundedSender<(BufReader<ChildStdout>, PathBuf)>;

/// Starts a stubborn process and a folder, says so, and never ends.
fn holds(seen: Seen) -> impl Handler {
    handler_fn(move |cx: RunContext, _: Batch<u32>| {
        let seen = seen.clone();
        async move {
            let mut process = cx.spawn(&mut shell(STUBBORN))?;
            let folder = cx.temp_dir()?;
            std::fs::write(folder.join("file"), "text")?;
            let mut stdout = BufReader::new(process.stdout.take().unwrap());
            stdout.read_line(&mut String::new()).await?;
            let _ = seen.send((stdout, folder));
            std::future::pending::<()>().await;
            Ok(BatchResult::of(1))
        }
    })
}

/// Nobody holds the other end any more, so every process of the group is dead.
async fn all_dead(mut stdout: BufReader<ChildStdout>) -> io::Result<()> {
    let mut rest = String::new();
    let end = stdout.read_to_string(&mut rest);
    tokio::time::timeout(Duration::from_secs(30), end).await??;
    Ok(())
}

#[tokio::test]
async fn a_lapsed_run_leaves_no_process_and_no_folder_behind() {
    let (seen, mut started) = mpsc::unbounded_channel();
    let mut machine = start(holds(seen));
    machine.ask(begin("1")).await;
    machine.send(process("b", "1"));
    let (stdout, folder) = started.recv().await.unwrap();
    machine
        .cx
        .raise_cancel(CancelReason::LeaseLapsed, Instant::now());
    machine.send(RunCommand::Abort);
    assert!(matches!(machine.event().await, RunEvent::Failed(_)));
    machine.close().await;
    all_dead(stdout).await.unwrap();
    assert!(!folder.exists());
}

#[tokio::test]
async fn a_run_whose_worker_is_gone_leaves_nothing_behind() {
    let (seen, mut started) = mpsc::unbounded_channel();
    let mut machine = start(holds(seen));
    machine.ask(begin("1")).await;
    machine.send(process("b", "1"));
    let (stdout, folder) = started.recv().await.unwrap();
    drop(machine.commands);
    machine.task.await.unwrap();
    all_dead(stdout).await.unwrap();
    assert!(!folder.exists());
    let over = machine.cx.spawn(&mut shell("true")).unwrap_err();
    assert_eq!(over.to_string(), "cancelled");
    assert_eq!(machine.cx.temp_dir().unwrap_err().to_string(), "cancelled");
}

#[tokio::test]
async fn an_abandoned_handler_loses_what_it_holds_before_its_worker_has_ended() {
    let (cx, _control) = RunContext::for_test();
    let mut process = cx.spawn(&mut shell(STUBBORN)).unwrap();
    let mut stdout = BufReader::new(process.stdout.take().unwrap());
    stdout.read_line(&mut String::new()).await.unwrap();
    cx.resources().abandon();
    assert!(!process.wait().await.success());
    all_dead(stdout).await.unwrap();
}

/// Its process may end before the run's task is polled again.
#[tokio::test]
async fn a_run_that_is_given_up_while_its_children_are_asked_to_end_takes_them_along() {
    let (cx, _control) = RunContext::for_test();
    let mut process = cx.spawn(&mut shell(STUBBORN)).unwrap();
    let mut stdout = BufReader::new(process.stdout.take().unwrap());
    stdout.read_line(&mut String::new()).await.unwrap();
    let mut ending = Box::pin(cx.resources().end_processes(None));
    assert!((&mut ending).now_or_never().is_none());
    cx.resources().abandon();
    all_dead(stdout).await.unwrap();
    // Kept until now: dropped, it kills them itself.
    ending.await;
}

#[tokio::test]
async fn processes_end_first_then_cleanups_newest_first_then_the_folder_goes() {
    struct Ordered(Log);
    impl Handler for Ordered {
        type Run = ();
        type Input = u32;
        type Output = ();
        async fn init(&self, cx: &RunContext) -> Result<(), HandlerError> {
            let folder = cx.temp_dir()?;
            let file = folder.join("ended");
            let script = format!(
                "trap 'echo yes > {}; exit' TERM; echo ready; while :; do sleep 0.01; done",
                file.display()
            );
            let mut process = cx.spawn(&mut shell(&script))?;
            let mut stdout = BufReader::new(process.stdout.take().unwrap());
            stdout.read_line(&mut String::new()).await?;
            for name in ["first", "second"] {
                let (log, file) = (self.0.clone(), file.clone());
                cx.on_cleanup(async move {
                    let text = format!("{name}: process ended {}", file.exists());
                    log.lock().unwrap().push(text);
                });
            }
            Ok(())
        }
        async fn process(
            &self,
            _: &RunContext,
            (): &mut (),
            _: Batch<u32>,
        ) -> Result<BatchResult<()>, HandlerError> {
            Ok(BatchResult::new())
        }
        async fn cleanup(&self, cx: &RunContext) {
            let folder = cx.temp_dir().unwrap();
            let text = format!("cleanup: folder {}", folder.join("ended").exists());
            self.0.lock().unwrap().push(text);
        }
    }
    let log = Log::default();
    let mut machine = start(Ordered(log.clone()));
    machine.ask(begin("1")).await;
    let folder = machine.cx.temp_dir().unwrap();
    machine.close().await;
    let expected = [
        "second: process ended true",
        "first: process ended true",
        "cleanup: folder true",
    ];
    assert_eq!(*log.lock().unwrap(), expected);
    assert!(!folder.exists());
}

#[tokio::test]
async fn what_a_process_leaves_of_its_group_ends_with_it() {
    let (cx, _control) = RunContext::for_test();
    let script = "(trap '' TERM; while :; do sleep 1; done) & exit 3";
    let mut process = cx.spawn(&mut shell(script)).unwrap();
    let stdout = BufReader::new(process.stdout.take().unwrap());
    assert_eq!(process.wait().await.code(), Some(3));
    all_dead(stdout).await.unwrap();
}

#[tokio::test]
async fn a_child_reads_the_end_of_file_and_a_variable_that_was_set_for_it() {
    let (cx, _control) = RunContext::for_test();
    let mut command = shell("cat; echo $FLOWKIT_OF_ITS_OWN");
    command.env("FLOWKIT_OF_ITS_OWN", "given");
    let mut process = cx.spawn(&mut command).unwrap();
    let mut stdout = process.stdout.take().unwrap();
    assert!(process.wait().await.success());
    let mut text = String::new();
    stdout.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "given\n");
}

#[tokio::test]
async fn a_program_that_is_not_there_is_a_transient_failure_that_names_it() {
    let (cx, _control) = RunContext::for_test();
    let error = cx.spawn(&mut Command::new("no-such-program")).unwrap_err();
    let failure = error.into_failure(|_| unreachable!());
    assert_eq!(&*failure.reason_code, "spawn_failed");
    assert!(!failure.permanent);
    assert!(failure.error.contains("no-such-program"), "{failure:?}");
}

#[tokio::test]
async fn in_the_simulator_no_process_is_started() {
    #[derive(Debug)]
    struct Simulator;
    impl Environment for Simulator {
        fn mono_ms(&self, _: Duration) -> u64 {
            Mono(0).0
        }
        fn elapsed_at(&self, mono_ms: u64) -> Duration {
            Duration::from_millis(mono_ms)
        }
        fn wall_ms(&self) -> i64 {
            0
        }
        fn seed(&self) -> [u64; 2] {
            [1, 2]
        }
        fn poll_ready(&self, _: &mut std::task::Context<'_>) -> Poll<()> {
            Poll::Ready(())
        }
    }
    let worker = WorkerId::new("w").unwrap();
    let clock = Clock::within(Some(Arc::new(Simulator)));
    let outlet = Outlet::Test(Mutex::default());
    let cx = RunContext::new(&spec("null"), worker, clock, outlet);
    let failure = cx
        .spawn(&mut shell("true"))
        .unwrap_err()
        .into_failure(|_| unreachable!());
    assert_eq!(
        (&*failure.reason_code, failure.permanent),
        ("simulated", true)
    );
    assert!(failure.error.contains("stand-in"), "{failure:?}");
}
