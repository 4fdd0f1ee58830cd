//! Programs as handlers, by the built command: the guide's page, and what hostile programs and flags do.

use super::common::{Ran, flowkit, run};
use serde_json::{Value, json};
use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};

const PAGE: &str = include_str!("../../../docs/guide/exec.md");
const FILES: [(&str, &str); 3] = [
    (
        "words.py",
        include_str!("../../../docs/guide/exec/words.py"),
    ),
    (
        "upper.sh",
        include_str!("../../../docs/guide/exec/upper.sh"),
    ),
    (
        "pages.json",
        include_str!("../../../docs/guide/exec/pages.json"),
    ),
];

/// A folder with the guide's files.
fn guide_folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, text) in FILES {
        fs::write(folder.path().join(name), text).expect("written");
    }
    folder
}

/// The blocks of a page that are marked so.
fn blocks(page: &str, mark: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut inside = false;
    for line in page.lines() {
        if line == format!("```{mark}") {
            inside = true;
            blocks.push(String::new());
        } else if line == "```" {
            inside = false;
        } else if inside && let Some(block) = blocks.last_mut() {
            block.push_str(line);
            block.push('\n');
        }
    }
    blocks
}

/// Runs a graph in a folder.
fn run_graph(folder: &Path, graph: &Value, flags: &[&str]) -> Ran {
    let file = folder.join("graph.json");
    fs::write(&file, graph.to_string()).expect("written");
    let mut command = flowkit();
    command
        .current_dir(folder)
        .arg("run")
        .arg(&file)
        .args(flags);
    command.arg("--json").output().expect("it runs").into()
}

/// A graph of one node that runs a command.
fn one(command: &str) -> Value {
    json!({"nodes": [{
        "node_id": "n", "type": "exec", "retry_policy": {"max": 1},
        "io": {"input_inline": {"command": command}},
    }]})
}

#[test]
fn the_page_shows_the_files_as_they_are() {
    for (mark, (name, text)) in ["python", "bash", "json"].iter().zip(FILES) {
        assert_eq!(blocks(PAGE, mark), [text], "{name}");
    }
}

#[test]
fn every_command_of_the_exec_guide_works() {
    let folder = guide_folder();
    let script = blocks(PAGE, "sh").concat();
    assert!(script.lines().count() >= 5, "{script}");
    let program = Path::new(env!("CARGO_BIN_EXE_flowkit"));
    let path = std::env::var("PATH").expect("text");
    let path = format!("{}:{path}", program.parent().expect("a folder").display());
    let ran: Ran = Command::new("bash")
        .args(["-e", "-c", &script])
        .current_dir(folder.path())
        .env("PATH", path)
        .stdin(Stdio::null())
        .output()
        .expect("bash runs")
        .into();
    let ran = ran.expect_code(0);
    assert!(ran.stdout.contains("pages.json: ok, 3 nodes"), "{ran:#?}");
    assert!(ran.stdout.contains("\"words\":10"), "{ran:#?}");
}

#[test]
fn programs_of_the_guide_pass_on_pages_checkpoints_and_errors() {
    let folder = guide_folder();
    let graph: Value = serde_json::from_str(FILES[2].1).expect("JSON");
    let flags = ["--exec", "words=python3 words.py"];
    let ran = run_graph(folder.path(), &graph, &flags)
        .expect_code(0)
        .json();
    assert_eq!(ran["nodes"]["count"]["batches"], 2, "{ran}");
    assert_eq!(ran["nodes"]["count"]["result"]["words"], 10.0, "{ran}");
    assert_eq!(ran["nodes"]["shout"]["batches"], 1, "{ran}");

    let mut broken = graph;
    broken["nodes"][0]["io"]["input_inline"]["items"][2] = json!(7);
    let ran = run_graph(folder.path(), &broken, &flags)
        .expect_code(1)
        .json();
    assert_eq!(ran["failure"]["reason_code"], "bad_page", "{ran}");
    assert_eq!(ran["failure"]["error"], "page 0 is no text", "{ran}");
    assert_eq!(ran["nodes"]["shout"]["state"], "skipped", "{ran}");
}

#[test]
fn a_program_does_not_see_flowkits_own_variables() {
    let folder = tempfile::tempdir().expect("a folder");
    let script = r#"
import json, os, sys
for text in sys.stdin:
    line = json.loads(text)
    if line["kind"] == "finalize":
        print(json.dumps({"kind": "final", "result": dict(os.environ)}), flush=True)
    if line["kind"] == "batch":
        print(json.dumps({"kind": "result", "batch_uid": line["batch_uid"]}), flush=True)
"#;
    fs::write(folder.path().join("env.py"), script).expect("written");
    fs::write(
        folder.path().join("g.json"),
        one("python3 env.py").to_string(),
    )
    .expect("written");
    let ran: Ran = flowkit()
        .current_dir(folder.path())
        .args(["run", "g.json", "--json"])
        .env("FLOWKIT_MONGO_URI", "mongodb://user:hunter2@host")
        .env("FLOWKIT_KAFKA_PROPERTIES", r#"{"sasl.password":"hunter2"}"#)
        .env("OF_THE_USER", "seen")
        .output()
        .expect("it runs")
        .into();
    let ran = ran.expect_code(0);
    assert!(!ran.stdout.contains("hunter2"), "{ran:#?}");
    assert!(!ran.stdout.contains("FLOWKIT_"), "{ran:#?}");
    assert_eq!(ran.json()["nodes"]["n"]["result"]["OF_THE_USER"], "seen");
}

#[test]
fn what_is_wrong_with_a_command_is_said_before_anything_runs() {
    let folder = tempfile::tempdir().expect("a folder");
    let graph = folder.path().join("g.json");
    fs::write(&graph, one("sh x.sh").to_string()).expect("written");
    let graph = graph.to_str().expect("UTF-8");
    for (flags, part) in [
        (&["--exec", "python3 a.py"][..], "name its role"),
        (&["--exec", "a="], "the command is empty"),
        (&["--exec", "a='open"], "within a quote"),
        (
            &["--exec", "a=no-such-program x"],
            "\"no-such-program\" is not there",
        ),
        (&["--exec", "a=./g.json"], "is not there"),
        (&["--exec", "a=sh", "--exec", "a=sh"], "two programs"),
    ] {
        for command in [&["run", graph][..], &["graph", "check", graph]] {
            let ran = run(command.iter().chain(flags)).expect_code(2);
            assert!(ran.stderr.contains(part), "{part}: {ran:#?}");
        }
    }
    let ran = run(["run", graph, "--exec", &format!("a={graph}")]).expect_code(2);
    assert!(ran.stderr.contains("is not executable"), "{ran:#?}");
    for flags in [
        &["worker", "--exec", "sh"][..],
        &["worker", "--role", "a", "--role", "b", "--exec", "sh"],
    ] {
        let ran = run(flags).expect_code(2);
        assert!(ran.stderr.contains("--exec"), "{ran:#?}");
    }
    for (command, part) in [
        (json!(null), "command: missing"),
        (json!(7), "7 is no text"),
        (json!(""), "empty"),
        (json!("sh 'x"), "within a quote"),
    ] {
        let mut bad = one("");
        bad["nodes"][0]["io"]["input_inline"]["command"] = command;
        let ran = run_graph(folder.path(), &bad, &[]).expect_code(2);
        let place = "nodes[0].io.input_inline.command";
        assert!(ran.stderr.contains(place), "{ran:#?}");
        assert!(ran.stderr.contains(part), "{part}: {ran:#?}");
    }
}

#[test]
fn a_program_that_fails_is_shown_with_what_it_said_last() {
    let folder = tempfile::tempdir().expect("a folder");
    for (command, code, parts) in [
        (
            "no-such-program",
            "exec_start",
            &["no-such-program", "cannot be started"][..],
        ),
        (
            "sh -c 'echo no model >&2; exit 3'",
            "exec_exit",
            &["exit code 3", "no model"],
        ),
        ("sh -c 'kill -9 $$'", "exec_killed", &["signal: 9"]),
        (
            "sh -c 'echo hello; cat'",
            "exec_protocol",
            &["is not JSON", "hello"],
        ),
        (
            "true",
            "exec_protocol",
            &["exit code 0 and without a result"],
        ),
    ] {
        let ran = run_graph(folder.path(), &one(command), &[]).expect_code(1);
        let failure = &ran.json()["failure"];
        assert_eq!(failure["reason_code"], code, "{failure}");
        for part in parts {
            let error = failure["error"].as_str().expect("text");
            assert!(error.contains(part), "{part}: {error}");
        }
    }
}

#[cfg(unix)]
#[test]
fn a_program_reads_the_end_of_file_when_its_worker_is_killed() {
    let folder = tempfile::tempdir().expect("a folder");
    let pipe = folder.path().join("pipe");
    let made = Command::new("mkfifo").arg(&pipe).status().expect("it runs");
    assert!(made.success());
    // Holds the pipe open for as long as it lives; says when it is at work.
    let script = "exec 3>pipe; read -r hello; read -r batch; echo at work >&3; \
                  read -r line; echo end of file >&3";
    fs::write(folder.path().join("p.sh"), script).expect("written");
    fs::write(folder.path().join("g.json"), one("sh p.sh").to_string()).expect("written");
    let mut child = flowkit()
        .current_dir(folder.path())
        .args(["run", "g.json"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    let mut pipe = fs::File::open(&pipe).expect("the program opens it, too");
    let mut at_work = [0; 8];
    pipe.read_exact(&mut at_work).expect("it says so");
    child.kill().expect("SIGKILL");
    child.wait().expect("dead");
    let mut rest = String::new();
    pipe.read_to_string(&mut rest).expect("closed when it ends");
    assert_eq!(rest, "end of file\n");
}

/// A process that dies with the test, however that ends.
#[cfg(unix)]
struct Killed(std::process::Child);

#[cfg(unix)]
impl Killed {
    fn kill(&mut self) {
        self.0.kill().expect("SIGKILL");
        self.0.wait().expect("dead");
    }
}

#[cfg(unix)]
impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The folders of runs below a folder.
#[cfg(unix)]
fn of_runs(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(folder).expect("it is there");
    let paths = entries.map(|entry| entry.expect("readable").path());
    let of_run = |path: &std::path::PathBuf| path.to_string_lossy().contains("flowkit-temp-");
    paths.filter(of_run).collect()
}

#[cfg(unix)]
#[test]
fn the_temporary_folder_of_a_killed_worker_goes_when_the_next_one_starts() {
    let folder = tempfile::tempdir().expect("a folder");
    let temp = folder.path().join("temp");
    fs::create_dir(&temp).expect("made");
    let flowkit_in = |graph: &str, command: &str| {
        fs::write(folder.path().join(graph), one(command).to_string()).expect("written");
        let mut flowkit = flowkit();
        flowkit.current_dir(folder.path()).args(["run", graph]);
        flowkit
            .env("TMPDIR", &temp)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        flowkit
    };
    let pipes = ["killed", "alive"].map(|name| folder.path().join(name));
    let mut workers = ["killed", "alive"].map(|name| {
        let pipe = folder.path().join(name);
        let made = Command::new("mkfifo").arg(&pipe).status().expect("it runs");
        assert!(made.success());
        // Says when it is at work, and ends with its worker.
        let script = format!(
            r#"exec 3>{name}; read -r hello; read -r batch; echo half > "$TMPDIR/file"; echo at work >&3; read -r line"#
        );
        fs::write(folder.path().join(format!("{name}.sh")), script).expect("written");
        let graph = format!("{name}.json");
        let started = flowkit_in(&graph, &format!("sh {name}.sh")).spawn();
        Killed(started.expect("it starts"))
    });
    for pipe in &pipes {
        let mut pipe = fs::File::open(pipe).expect("the program opens it, too");
        pipe.read_exact(&mut [0; 8]).expect("it says so");
    }
    assert_eq!(of_runs(&temp).len(), 2);
    workers[0].kill();
    assert_eq!(of_runs(&temp).len(), 2, "nobody could delete it");

    // The program of the next worker ends once there are two: its own, and that of the other one that lives.
    let script = r#"read -r hello; read -r batch
        for i in $(seq 1200); do
          [ "$(ls -d temp/flowkit-temp-* | wc -l)" -gt 2 ] || break; sleep 0.05
        done
        [ -d "$TMPDIR" ] && echo '{"kind":"result","batch_uid":"input"}'; read -r line"#;
    fs::write(folder.path().join("next.sh"), script).expect("written");
    let mut next = flowkit_in("next.json", "sh next.sh");
    let ran: Ran = next.output().expect("it runs").into();
    ran.expect_code(0);
    let left = of_runs(&temp);
    assert_eq!(left.len(), 1, "{left:?}");
    assert!(left[0].join("file").exists(), "its owner lives");
}
