//! What Ctrl-C, a second one, and a terminal that goes away do to a run and to what it started.

use super::common::wait_for;
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A run of a program that ignores every request to end, and says so on a pipe that it holds open.
fn stubborn(folder: &Path) -> (Child, fs::File) {
    let made = Command::new("mkfifo").arg(folder.join("pipe")).status();
    assert!(made.expect("it runs").success());
    let script = "trap '' TERM HUP INT; exec 3>pipe; read -r hello; read -r batch; echo at work >&3
        while :; do sleep 60; done";
    fs::write(folder.join("p.sh"), script).expect("written");
    let graph = r#"{"nodes": [{"node_id": "n", "type": "exec", "retry_policy": {"max": 1},
        "io": {"input_inline": {"command": "bash p.sh"}}}]}"#;
    fs::write(folder.join("g.json"), graph).expect("written");
    fs::create_dir(folder.join("temp")).expect("made");
    let run = of_folder(folder, &["run", "g.json"]).spawn();
    let child = run.expect("it starts");
    let mut pipe = fs::File::open(folder.join("pipe")).expect("the program opens it, too");
    pipe.read_exact(&mut [0; 8]).expect("it says so");
    (child, pipe)
}

fn of_folder(folder: &Path, line: &[&str]) -> Command {
    // However this test is run: under `nohup` its children would ignore SIGHUP.
    let mut command = Command::new("env");
    command.args(["--default-signal=HUP", env!("CARGO_BIN_EXE_flowkit")]);
    command.args(line).stdin(Stdio::null());
    command
        .current_dir(folder)
        .env("TMPDIR", folder.join("temp"));
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

fn send(child: &Child, signal: Signal) {
    let pid = i32::try_from(child.id()).expect("an id");
    kill_process(Pid::from_raw(pid).expect("an id"), signal).expect("sent");
}

/// Reads on until nobody holds the pipe any more.
fn until_dead(mut pipe: fs::File) {
    pipe.read_to_string(&mut String::new()).expect("read");
}

fn left(folder: &Path) -> usize {
    let temp = fs::read_dir(folder.join("temp")).expect("it is there");
    temp.count()
}

#[test]
fn a_second_ctrl_c_kills_what_was_started() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut child, pipe) = stubborn(folder.path());
    send(&child, Signal::INT);
    wait_for(&mut child, "press Ctrl-C again");
    send(&child, Signal::INT);
    assert_eq!(child.wait().expect("it ends").code(), Some(130));
    until_dead(pipe);
    assert!(
        left(folder.path()) > 0,
        "it ended in order, so the second one was not heard"
    );
}

#[test]
fn the_state_of_a_killed_command_without_a_data_folder_goes_with_a_later_one() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::create_dir(folder.path().join("temp")).expect("made");
    let graph = |role: &str| {
        let node = r#"{"nodes": [{"node_id": "n", "type": "TYPE", "io": {"input_inline": {"ms": 60000}}}]}"#;
        let file = folder.path().join(format!("{role}.json"));
        fs::write(file, node.replace("TYPE", role)).expect("written");
        of_folder(folder.path(), &["run", &format!("{role}.json")])
    };
    let mut killed = graph("sleep").spawn().expect("it starts");
    wait_for(&mut killed, "n: running");
    killed.kill().expect("SIGKILL");
    killed.wait().expect("dead");
    assert_eq!(left(folder.path()), 1, "nobody could delete it");
    // Nobody waits for the sweep: a command that has ended before it leaves it to the next one.
    for _ in 0..100 {
        let ran = graph("echo").output().expect("it runs");
        assert!(ran.status.success(), "{ran:?}");
        if left(folder.path()) == 0 {
            return;
        }
    }
    panic!("{} folders are left", left(folder.path()));
}

#[test]
fn a_terminal_that_goes_away_ends_a_run_in_order() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut child, pipe) = stubborn(folder.path());
    send(&child, Signal::HUP);
    assert_eq!(child.wait().expect("it ends").code(), Some(130));
    until_dead(pipe);
    assert_eq!(left(folder.path()), 0);
}

#[test]
fn a_run_that_was_told_to_outlive_its_terminal_does() {
    let folder = tempfile::tempdir().expect("a folder");
    let graph =
        r#"{"nodes": [{"node_id": "n", "type": "sleep", "io": {"input_inline": {"ms": 500}}}]}"#;
    let file = folder.path().join("g.json");
    fs::write(&file, graph).expect("written");
    let mut child = Command::new("sh")
        .args(["-c", "trap '' HUP; exec \"$@\"", "sh"])
        .args([env!("CARGO_BIN_EXE_flowkit"), "run"])
        .arg(&file)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    wait_for(&mut child, "n: running");
    send(&child, Signal::HUP);
    assert_eq!(child.wait().expect("it ends").code(), Some(0));
}
