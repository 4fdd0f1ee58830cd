//! Health, `why`, `doctor`, completions, the man page, and the guide's pages about them.

use serde_json::Value;
use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};

use super::common::{flowkit, run, wait_for};

/// The blocks of a page that are marked as `sh`, as one script.
fn script_of(page: &str) -> String {
    let mut script = String::new();
    let mut inside = false;
    for line in page.lines() {
        match line {
            "```sh" => inside = true,
            "```" => inside = false,
            line if inside => {
                script.push_str(line);
                script.push('\n');
            }
            _ => {}
        }
    }
    script
}

/// Runs a page's commands and returns what they said.
fn play(page: &str, commands: usize) -> (tempfile::TempDir, String) {
    let free = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = free.local_addr().expect("an address").port().to_string();
    drop(free);
    let script = script_of(page).replace("9600", &port);
    let typed = script.lines().filter(|line| line.contains("flowkit "));
    assert!(typed.count() >= commands, "{script}");
    let program = Path::new(env!("CARGO_BIN_EXE_flowkit"));
    let path = std::env::var("PATH").expect("text");
    let folder = tempfile::tempdir().expect("a folder");
    let output = Command::new("bash")
        .args(["-c", &format!("set -e\n{script}")])
        .current_dir(folder.path())
        .env(
            "PATH",
            format!("{}:{path}", program.parent().expect("a folder").display()),
        )
        .stdin(Stdio::null())
        .output()
        .expect("bash runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{}\n{said}\n{errors}",
        output.status
    );
    (folder, said)
}

#[test]
fn every_command_of_the_monitoring_guide_works() {
    let (folder, said) = play(include_str!("../../../docs/guide/monitoring.md"), 4);
    let health = fs::read_to_string(folder.path().join("health.json")).expect("there");
    let health: Value = serde_json::from_str(&health).expect("JSON");
    assert_eq!(health["ready"], true, "{health}");
    assert_eq!(health["workers"][0]["worker_id"], "local-1", "{health}");
    let metrics = fs::read_to_string(folder.path().join("metrics.txt")).expect("there");
    assert!(metrics.contains("\nflowkit_ready 1\n"), "{metrics}");
    for part in ["local-1", "\"incarnation\":1", "finished"] {
        assert!(said.contains(part), "{part}: {said}");
    }
}

#[test]
fn every_command_of_the_troubleshooting_guide_works() {
    let guide = include_str!("../../../docs/guide/troubleshooting.md");
    let (_folder, said) = play(guide, 5);
    let shown = guide.split("```text\n").nth(1).expect("a block");
    for line in shown.split("```").next().expect("its end").lines() {
        assert!(said.contains(line.trim_end()), "{line}\n{said}");
    }
    assert!(said.contains("\nall is well\n"), "{said}");
}

/// The folder is locked meanwhile, so nobody else could ask.
#[test]
fn a_run_says_by_itself_why_nothing_of_its_task_runs() {
    let folder = tempfile::tempdir().expect("a folder");
    let graph = folder.path().join("g.json");
    let text = r#"{"nodes": [
        {"node_id": "a", "type": "echo", "io": {"input_inline": {}}},
        {"node_id": "b", "type": "echo", "depends_on": ["a"], "io": {"input_inline": {}}}]}"#;
    fs::write(&graph, text).expect("written");
    let limits = r#"{"types": {"echo": {"starts_max": 1, "window_ms": 3600000}}}"#;
    let mut child = flowkit()
        .args(["run", "--json"])
        .arg(&graph)
        .args([OsStr::new("--data"), folder.path().join("data").as_os_str()])
        .env("FLOWKIT_LIMITS", limits)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
    let mut lines = lines.by_ref().map_while(Result::ok);
    let note = lines.find(|line| line.starts_with("note: "));
    let cure = lines.next();
    child.kill().expect("it runs");
    child.wait().expect("dead");
    let note = note.expect("it is said");
    let limit = "the limit of type `echo` allows 1 starts within any 60 min";
    assert!(
        note.starts_with("note: nothing of it runs: node `"),
        "{note}"
    );
    assert!(note.contains(limit), "{note}");
    let cure = cure.expect("a line");
    assert!(cure.starts_with("  -> "), "{cure}");
}

#[test]
fn a_run_serves_its_health_and_a_bad_address_is_bad_input() {
    let folder = tempfile::tempdir().expect("a folder");
    let graph = folder.path().join("g.json");
    let text =
        r#"{"nodes": [{"node_id": "s", "type": "sleep", "io": {"input_inline": {"ms": 60000}}}]}"#;
    fs::write(&graph, text).expect("written");
    let graph = graph.to_str().expect("UTF-8");
    let ran = run(["run", graph, "--health-listen", "nonsense"]).expect_code(2);
    assert_eq!(
        ran.stderr,
        "error: 1 fault in the settings:\n  - health_listen (--health-listen): must be IP:PORT, such as \
         127.0.0.1:9600, not `nonsense`\n"
    );
    let mut child = flowkit()
        .args([
            "run",
            graph,
            "--workers",
            "1",
            "--health-listen",
            "127.0.0.1:0",
        ])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut errors = BufReader::new(child.stderr.take().expect("piped"));
    let mut line = String::new();
    while !line.starts_with("health: http://") {
        line.clear();
        assert_ne!(errors.read_line(&mut line).expect("a line"), 0, "it ended");
    }
    let address = line["health: http://".len()..]
        .split('/')
        .next()
        .expect("an address");
    let get = |path: &str| {
        let mut stream = TcpStream::connect(address).expect("it listens");
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer
    };
    assert!(get("/healthz").starts_with("HTTP/1.1 200 "));
    assert!(get("/nothing").starts_with("HTTP/1.1 404 "));
    while !get("/readyz").starts_with("HTTP/1.1 200 ") {
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    // `doctor` asks it, too, beside a folder that nothing runs on.
    let other = folder.path().join("other");
    let other = other.to_str().expect("UTF-8");
    run([
        "demo",
        folder.path().to_str().expect("UTF-8"),
        "--data",
        other,
    ])
    .expect_code(0);
    let well = run(["doctor", "--data", other, "--health", address, "--json"]);
    let well = well.expect_code(0).json();
    assert_eq!(well["ok"], true, "{well}");
    let ill = run([
        "doctor",
        "--data",
        other,
        "--health",
        "127.0.0.1:1",
        "--json",
    ]);
    let ill = ill.expect_code(1).json();
    assert_eq!(ill["findings"][0]["check"], "health", "{ill}");
    child.kill().expect("it runs");
    child.wait().expect("it is dead");
}

#[test]
fn the_doctor_finds_a_record_that_cannot_be_read_nowhere_and_a_folder_that_is_none() {
    let folder = tempfile::tempdir().expect("a folder");
    let nowhere = folder.path().join("nowhere");
    let nowhere = nowhere.to_str().expect("UTF-8");
    run(["doctor", "--data", nowhere]).expect_code(2);
    run(["why", "x", "--data", nowhere]).expect_code(2);
}

#[test]
fn why_says_what_a_cancelled_and_an_unknown_task_are() {
    let folder = tempfile::tempdir().expect("a folder");
    let graph = folder.path().join("g.json");
    let text =
        r#"{"nodes": [{"node_id": "s", "type": "sleep", "io": {"input_inline": {"ms": 60000}}}]}"#;
    fs::write(&graph, text).expect("written");
    let data = folder.path().join("data");
    let data = data.to_str().expect("UTF-8");
    let mut child = flowkit()
        .args(["run", graph.to_str().expect("UTF-8"), "--data", data])
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("it starts");
    wait_for(&mut child, "s: running");
    // Whoever looks while it runs is told who holds the folder.
    let busy = run(["why", "x", "--data", data]).expect_code(2);
    assert!(
        busy.stderr.contains("wait until it has ended"),
        "{}",
        busy.stderr
    );
    child.kill().expect("it runs");
    child.wait().expect("it is dead");
    let list = run(["task", "list", "--data", data, "--json"])
        .expect_code(0)
        .json();
    let id = list["tasks"][0]["task_id"]
        .as_str()
        .expect("an id")
        .to_owned();
    let why = run(["why", &id, "--data", data, "--json"])
        .expect_code(0)
        .json();
    assert_eq!(why["nodes"][0]["waits_for"], "engine", "{why}");
    run(["task", "cancel", &id, "--data", data]).expect_code(0);
    let why = run(["why", &id, "--data", data, "--json"])
        .expect_code(0)
        .json();
    assert_eq!(
        why["why"], "it was cancelled (flowkit task cancel)",
        "{why}"
    );
    let none = run(["why", "nothing", "--data", data]).expect_code(2);
    assert!(
        none.stderr.contains("there is no task nothing"),
        "{}",
        none.stderr
    );
}

#[test]
fn completions_and_the_man_page_name_every_command() {
    let folder = tempfile::tempdir().expect("a folder");
    for shell in ["bash", "zsh", "fish"] {
        let script = run(["completions", shell]).expect_code(0).stdout;
        for command in ["worker", "doctor", "why", "submit", "health-listen"] {
            assert!(script.contains(command), "{shell}: {command}");
        }
    }
    // What bash is given is bash.
    let bash = run(["completions", "bash"]).stdout;
    let file = folder.path().join("flowkit.bash");
    fs::write(&file, bash).expect("written");
    let checked = Command::new("bash")
        .arg("-n")
        .arg(&file)
        .status()
        .expect("bash");
    assert!(checked.success());
    run(["completions", "cobol"]).expect_code(2);
    let page = run(["man"]).expect_code(0).stdout;
    assert!(page.contains(".TH") && page.contains("doctor"), "{page}");
    let pages = folder.path().join("man");
    run(["man", "--folder", pages.to_str().expect("UTF-8")]).expect_code(0);
    assert!(pages.join("flowkit-doctor.1").exists());
}

#[test]
fn replay_and_shrink_print_one_json_object() {
    let ran = run(["sim", "replay", "--seed", "3", "--json"]).expect_code(0);
    let replay = ran.json();
    assert_eq!(replay["holds"], true);
    assert!(
        replay["trace"]
            .as_array()
            .is_some_and(|rows| !rows.is_empty())
    );
    let ran = run(["sim", "shrink", "--seed", "3", "--json"]).expect_code(0);
    assert_eq!(ran.json()["failed"], false);
}

#[test]
fn no_command_colours_what_is_no_terminal() {
    for arguments in [&["--help"][..], &["doctor", "--help"], &["nonsense"]] {
        let output = flowkit().args(arguments).output().expect("it runs");
        for stream in [output.stdout, output.stderr] {
            assert!(!stream.contains(&0x1b), "{arguments:?}");
        }
    }
}
