//! Programs as handlers, with the test in the place of the worker machine.

use super::*;
use crate::Exec;

/// The store may be away for longer than the program has to end.
#[tokio::test]
async fn a_program_is_told_of_a_cancel_while_its_checkpoint_is_on_its_way() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("told");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.unwrap().success());
    let script = format!(
        r#"read -r hello; read -r batch
           echo '{{"kind":"checkpoint","batch_uid":"b","value":1}}'
           read -r line; printf '%s' "$line" > {}"#,
        pipe.display()
    );
    let mut machine = start(Exec::new("sh", ["-c", &script]));
    machine.ask(begin("1")).await;
    machine.send(process("b", "1"));
    let saves = machine.event().await;
    assert!(matches!(saves, RunEvent::Checkpoint(_)), "{saves:?}");
    let deadline = Instant::now() + Duration::from_secs(600);
    machine.cx.raise_cancel(CancelReason::UserRequest, deadline);
    // Nobody has answered the save.
    let told = tokio::task::spawn_blocking(|| std::fs::read_to_string(pipe));
    let told = tokio::time::timeout(Duration::from_secs(30), told).await;
    let told = told.expect("it is told").unwrap().unwrap();
    assert!(told.contains(r#""kind":"cancel""#), "{told}");
    machine.cx.checkpoint_answered(Ok(()));
    let RunEvent::Failed(failure) = machine.event().await else {
        panic!("it ended without an answer")
    };
    assert!(failure.cancelled, "{failure:?}");
    machine.close().await;
}

/// It may have ended long before the store has its checkpoint.
#[tokio::test]
async fn what_a_program_says_behind_a_slow_checkpoint_is_heard_though_it_has_ended() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("ended");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.unwrap().success());
    let script = format!(
        r#"exec 3> {}; read -r hello; read -r batch
           echo '{{"kind":"checkpoint","batch_uid":"b","value":1}}'
           echo '{{"kind":"error","code":"no_page","message":"page 7 is gone","permanent":true}}'
           exit 1"#,
        pipe.display()
    );
    let ended = tokio::task::spawn_blocking(|| std::fs::read_to_string(pipe));
    let mut machine = start(Exec::new("sh", ["-c", &script]));
    machine.ask(begin("1")).await;
    machine.send(process("b", "1"));
    assert!(matches!(machine.event().await, RunEvent::Checkpoint(_)));
    ended.await.unwrap().unwrap();
    // Longer than the last words of a program that has ended are waited for.
    tokio::time::sleep(crate::exec::SETTLE + Duration::from_millis(500)).await;
    machine.cx.checkpoint_answered(Ok(()));
    let RunEvent::Failed(failure) = machine.event().await else {
        panic!("it failed")
    };
    assert_eq!(
        (&*failure.reason_code, failure.permanent),
        ("no_page", true),
        "{failure:?}"
    );
    machine.close().await;
}
