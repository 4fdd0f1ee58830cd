//! Bad input of every kind: a clear error or a recorded failure, nothing lost, no panic of ours.

use super::common::{Ran, Tree, flowkit, run, totals, wait_for};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Command, Stdio};

fn demo(dir: &Path) -> [&OsStr; 3] {
    [OsStr::new("demo"), dir.as_os_str(), OsStr::new("--json")]
}

fn demo_data<'a>(dir: &'a Path, data: &'a Path) -> [&'a OsStr; 5] {
    let [a, b, c] = demo(dir);
    [a, b, c, OsStr::new("--data"), data.as_os_str()]
}

#[test]
fn a_folder_that_is_not_there_is_bad_input() {
    let ran = run(demo(Path::new("/no/such/folder"))).expect_code(2);
    assert!(ran.stdout.is_empty());
    assert!(ran.stderr.contains("/no/such/folder"), "{}", ran.stderr);
}

#[test]
fn a_file_in_place_of_a_folder_is_bad_input() {
    let mut tree = Tree::new();
    let file = tree.file("file", b"x");
    let ran = run(demo(&file)).expect_code(2);
    assert!(ran.stderr.contains("is no folder"), "{}", ran.stderr);
}

#[test]
fn unknown_arguments_are_bad_usage() {
    run(["demo", "--nonsense"]).expect_code(2);
    run(["frobnicate"]).expect_code(2);
}

#[test]
fn what_is_wrong_with_a_flag_names_the_flag() {
    for (line, flag) in [
        ("run g --workers 100000000", "--workers"),
        ("run g --workers -1", "--workers"),
        ("run g --delay-sec -1", "--delay-sec"),
        ("run g --limit-key=", "--limit-key"),
        ("submit g --idempotency-key=", "--idempotency-key"),
        ("task rerun t --idempotency-key=", "--idempotency-key"),
    ] {
        let ran = run(line.split(' ')).expect_code(2);
        let said = format!("for '{flag} <");
        assert!(ran.stderr.contains(&said), "{line}: {}", ran.stderr);
    }
}

#[test]
fn a_log_filter_that_makes_no_sense_is_told() {
    let tree = Tree::with_files(1);
    let mut command = flowkit();
    command.args(demo(tree.path())).env("RUST_LOG", "flow[kit");
    let ran: Ran = command.output().expect("it runs").into();
    let ran = ran.expect_code(0);
    assert!(ran.stderr.contains("note: RUST_LOG="), "{}", ran.stderr);
}

#[test]
fn names_and_contents_that_are_not_utf8_count_like_others() {
    let mut tree = Tree::with_files(20);
    tree.file(
        OsStr::from_bytes(b"caf\xe9/na\xffme.t\xfet"),
        b"\xff\xfe one\xe9two\nthree \xc3\x28\n",
    );
    tree.file(OsStr::from_bytes(b"back\\slash\nand newline"), b"a b\n");
    let answer = run(demo(tree.path())).expect_code(0).json();
    assert_eq!(totals(&answer), tree.totals);
    assert_eq!(answer["unreadable"], 0);
    assert_eq!(answer["by_extension"]["t\\xfet"]["lines"], 2, "{answer}");
}

/// The command of somebody whom permissions bind, as they do not the superuser. The folder goes with it.
fn of_an_ordinary_user() -> OfAnother {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    use std::os::unix::process::CommandExt;
    // The program itself must be where another user can start it.
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("permissions");
    let copy = folder.path().join("flowkit");
    // Copied by a child: what this process has open for writing, a child of another test may hold
    // between its fork and its exec, and then it cannot be started.
    let mut cp = Command::new("cp");
    cp.arg("-p").arg(env!("CARGO_BIN_EXE_flowkit")).arg(&copy);
    assert!(cp.status().expect("cp starts").success());
    let mut command = Command::new(&copy);
    command.stdin(Stdio::null());
    if fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0) {
        const NOBODY: u32 = 65_534;
        command.gid(NOBODY).uid(NOBODY);
    }
    OfAnother(command, folder)
}

struct OfAnother(Command, tempfile::TempDir);

#[test]
fn a_data_folder_that_may_not_be_read_is_told_as_such() {
    use std::os::unix::fs::PermissionsExt;
    let state = tempfile::tempdir().expect("a temporary folder");
    fs::set_permissions(state.path(), fs::Permissions::from_mode(0o000)).expect("permissions");
    let OfAnother(mut command, _folder) = of_an_ordinary_user();
    command.args(["task", "list", "--data"]).arg(state.path());
    let ran: Ran = command.output().expect("flowkit starts").into();
    let ran = ran.expect_code(2);
    assert!(ran.stderr.contains("permission denied"), "{}", ran.stderr);
}

#[test]
fn what_the_user_may_not_read_is_counted_and_the_job_goes_on() {
    use std::os::unix::fs::PermissionsExt;
    let mut tree = Tree::with_files(20);
    let readable = tree.totals;
    let file = tree.file("locked-file.txt", b"secret\n");
    tree.file("locked-folder/inside.txt", b"secret\n");
    let folder = tree.path().join("locked-folder");
    for path in [&file, &folder] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o000)).expect("permissions");
    }
    fs::set_permissions(tree.path(), fs::Permissions::from_mode(0o755)).expect("permissions");
    let OfAnother(mut command, _folder) = of_an_ordinary_user();
    command.args(demo(tree.path()));
    let ran: Ran = command.output().expect("flowkit starts").into();
    // Otherwise the temporary folder could not be removed.
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).expect("permissions");

    let answer = ran.expect_code(0).json();
    assert_eq!(totals(&answer), readable);
    assert_eq!(answer["unreadable"], 2, "{answer}");
    let named = answer["unreadable_paths"].as_array().expect("a list");
    for (path, entry) in [&file, &folder].into_iter().zip(named) {
        assert_eq!(entry["path"], path.to_str().expect("UTF-8"));
        assert_eq!(entry["reason"], "permission denied");
    }
}

#[test]
fn a_file_that_vanishes_during_the_run_is_counted_as_unreadable() {
    let tree = Tree::with_files(4_000);
    let state = tempfile::tempdir().expect("a temporary folder");
    let child = flowkit()
        .args(demo_data(tree.path(), &state.path().join("data")))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("flowkit starts");
    // Files go away from the far end while it starts, walks and measures.
    let mut gone = 0;
    for folder in (0..80).rev() {
        for entry in fs::read_dir(tree.path().join(format!("d{folder:03}"))).expect("a folder") {
            fs::remove_file(entry.expect("an entry").path()).expect("removed");
            gone += 1;
        }
    }
    let output = child.wait_with_output().expect("flowkit ends");
    let answer = Ran::from(output).expect_code(0).json();
    let seen = totals(&answer)[0] + answer["unreadable"].as_u64().expect("a number");
    assert_eq!(gone, 4_000);
    assert!(seen <= 4_000, "{answer}");
    assert_eq!(answer["status"], "finished");
}

/// Overwrites bytes of every data file of a finished demo and shows what the next start says.
fn damaged(place: impl Fn(usize) -> std::ops::Range<usize>) -> String {
    let tree = Tree::with_files(200);
    let state = tempfile::tempdir().expect("a temporary folder");
    run(demo_data(tree.path(), state.path())).expect_code(0);
    let mut files = Vec::new();
    for entry in fs::read_dir(state.path()).expect("the data folder") {
        let path = entry.expect("an entry").path();
        let mut bytes = fs::read(&path).expect("the file");
        if bytes.len() >= 4_096 {
            let place = place(bytes.len());
            bytes[place].fill(0xa5);
            fs::write(&path, &bytes).expect("written");
            files.push((path, bytes));
        }
    }
    assert!(!files.is_empty(), "the data folder holds no file to damage");

    let ran = run(demo_data(tree.path(), state.path())).expect_code(2);
    assert!(ran.stdout.is_empty(), "{}", ran.stdout);
    for (path, bytes) in files {
        let now = fs::read(&path).expect("the file");
        assert!(now == bytes, "{} was changed", path.display());
    }
    assert!(ran.stderr.contains("nothing was changed"), "{}", ran.stderr);
    ran.stderr
}

#[test]
fn a_damaged_data_file_is_reported_and_never_emptied() {
    // What a broken disk leaves. So wide that it meets pages in use, wherever they are.
    let text = damaged(|len| len / 8..len);
    assert!(text.contains("is damaged"), "{text}");
    // Without its beginning nobody can tell what it was.
    let text = damaged(|_| 0..512);
    assert!(text.contains("is not a FlowKit store"), "{text}");
}

#[test]
fn a_data_path_that_is_a_file_is_bad_input() {
    let mut tree = Tree::with_files(5);
    let file = tree.file("data", b"mine");
    let ran = run(demo_data(tree.path(), &file)).expect_code(2);
    assert!(ran.stderr.contains("data"), "{}", ran.stderr);
    assert_eq!(fs::read(file).expect("still there"), b"mine");
}

#[test]
fn the_folder_to_read_cannot_hold_the_data_itself() {
    let tree = Tree::with_files(5);
    let ran = run(demo_data(tree.path(), tree.path())).expect_code(2);
    assert!(ran.stderr.contains("--data"), "{}", ran.stderr);
}

#[test]
fn a_second_process_on_the_same_folder_is_told_the_pid_of_the_first() {
    let graph = tempfile::NamedTempFile::new().expect("a temporary file");
    let text = r#"{"nodes":[{"node_id":"a","type":"sleep","io":{"input_inline":{"ms":60000}}}]}"#;
    fs::write(graph.path(), text).expect("written");
    let state = tempfile::tempdir().expect("a temporary folder");
    let mut first = flowkit()
        .arg("run")
        .arg(graph.path())
        .arg("--data")
        .arg(state.path())
        .stderr(Stdio::piped())
        .spawn()
        .expect("flowkit starts");
    wait_for(&mut first, "running");

    let tree = Tree::with_files(1);
    let data = state.path().to_str().expect("UTF-8");
    let second = run(demo_data(tree.path(), state.path()));
    let list = run(["task", "list", "--data", data]);
    first.kill().expect("killed");
    first.wait().expect("dead");
    for ran in [second.expect_code(2), list.expect_code(2)] {
        assert!(
            ran.stderr.contains(&first.id().to_string()),
            "{}",
            ran.stderr
        );
    }
}

#[test]
fn a_full_disk_ends_the_process_with_an_error_and_what_was_done_stays() {
    // A file size limit (and no signal for it) is the full disk that needs no file system of one's
    // own: every write beyond it fails.
    let tree = Tree::with_files(3_000);
    let state = tempfile::tempdir().expect("a temporary folder");
    let script = "trap '' XFSZ; ulimit -f \"$1\"; shift; exec \"$@\"";
    let limited = |blocks: &str| -> Ran {
        Command::new("bash")
            .args(["-c", script, "bash", blocks, env!("CARGO_BIN_EXE_flowkit")])
            .args(demo_data(tree.path(), state.path()))
            .stdin(Stdio::null())
            .output()
            .expect("bash starts")
            .into()
    };
    // 512-byte or 1-KiB blocks, by shell; either is far below what the task writes.
    let full = limited("300");
    assert!(matches!(full.code, Some(1 | 2)), "{full:?}");
    assert!(!full.stderr.contains("panicked at"), "{full:?}");
    // Logs before it name the kind, which is the engine's.
    let error = full.stderr.lines().find(|line| line.starts_with("error:"));
    let sound = error.is_some_and(|error| !error.contains("Corrupt"));
    assert!(sound, "it is sound: {full:?}");

    let answer = run(demo_data(tree.path(), state.path()))
        .expect_code(0)
        .json();
    assert_eq!(totals(&answer), tree.totals);
}

/// `flowkit sim replay … | head -1`.
#[test]
fn a_reader_that_goes_away_is_no_panic() {
    let mut child = flowkit()
        .args(["sim", "replay", "--tier", "0", "--seed", "1", "--verbose"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("flowkit starts");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    Ran::from(output).expect_code(0);
}

/// `flowkit … 2>&1 | head -1`: what cannot be said is no reason to end otherwise.
#[test]
fn nobody_who_hears_what_is_said_is_no_panic() {
    let ends = |arguments: &[&str]| {
        let mut child = flowkit()
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("flowkit starts");
        drop(child.stderr.take());
        child.wait().expect("it ends").code()
    };
    let seeds = ["sim", "run", "--tier", "0", "--seeds", "300"];
    assert_eq!(ends(&seeds), Some(0));
    assert_eq!(
        ends(&["task", "show", "t", "--data", "/nowhere/at/all"]),
        Some(2)
    );
}
