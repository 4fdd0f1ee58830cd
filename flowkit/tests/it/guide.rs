//! The commands of the guide's pages for one machine, run as they stand there.

use std::process::{Command, Stdio};

/// The blocks of a page that are marked as `sh`, as one script.
fn script_of(page: &str) -> String {
    let blocks = page.split("```sh\n").skip(1);
    blocks
        .filter_map(|block| block.split("```").next())
        .collect()
}

#[test]
fn every_command_of_the_page_on_operating_tasks_works() {
    let script = script_of(include_str!("../../../docs/guide/operating-tasks.md"));
    let commands = script.lines().filter(|line| line.contains("flowkit "));
    assert!(commands.count() >= 6, "{script}");
    let folder = tempfile::tempdir().expect("a folder");
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_flowkit"));
    let programs = program.parent().expect("a folder");
    let path = std::env::var("PATH").expect("text");
    let output = Command::new("bash")
        .args(["-c", &format!("set -e\n{script}")])
        .current_dir(folder.path())
        .env("PATH", format!("{}:{path}", programs.display()))
        .stdin(Stdio::null())
        .output()
        .expect("bash runs");
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{}\n{said}\n{errors}",
        output.status
    );
    for part in [
        "paused",
        "running",
        "finished",
        "paused: disk is full",
        "granted to local-",
        "\"priority\":5",
    ] {
        assert!(said.contains(part), "{part}: {said}\n{errors}");
    }
}
