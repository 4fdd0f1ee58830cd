//! Settings of the commands that are a whole deployment by themselves: from a file and the environment.

use serde_json::{Value, json};
use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use super::common::{Ran, Tree, flowkit, run};

/// A folder with a graph and a data folder.
struct Place {
    folder: tempfile::TempDir,
    graph: PathBuf,
    data: PathBuf,
}

impl Place {
    fn new(graph: &Value) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("graph.json");
        fs::write(&file, graph.to_string()).expect("written");
        Self {
            graph: file,
            data: folder.path().join("data"),
            folder,
        }
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, text).expect("written");
        path
    }

    /// Runs the graph in the data folder.
    fn run(&self, more: &[&OsStr], variables: &[(&str, &str)]) -> Ran {
        let output = flowkit()
            .arg("run")
            .args([self.graph.as_os_str(), OsStr::new("--data")])
            .args([self.data.as_os_str(), OsStr::new("--json")])
            .args(more)
            .envs(variables.iter().copied())
            .output();
        output.expect("flowkit starts").into()
    }
}

fn echoes(names: &[&str]) -> Value {
    let node = |name: &&str| json!({"node_id": name, "type": "echo", "io": {"input_inline": {"text": name}}});
    json!({"nodes": names.iter().map(node).collect::<Vec<_>>()})
}

const WINDOW: Duration = Duration::from_millis(1_500);

#[test]
fn limits_of_the_environment_or_of_a_file_hold_in_a_run_and_in_a_rerun() {
    let limits = json!({"types": {"echo": {"starts_max": 1, "window_ms": 1_500}}});
    let file = json!({ "limits": limits }).to_string();
    // The second node may not start before the first one's start is so long ago.
    let place = Place::new(&echoes(&["a", "b"]));
    let began = Instant::now();
    let ran = place.run(&[], &[("FLOWKIT_LIMITS", &limits.to_string())]);
    assert_eq!(ran.expect_code(0).json()["status"], "finished");
    assert!(began.elapsed() >= WINDOW, "{:?}", began.elapsed());

    let place = Place::new(&echoes(&["a", "b"]));
    let config = place.file("limits.json", &file);
    let config = [OsStr::new("--config"), config.as_os_str()];
    let began = Instant::now();
    let task = place.run(&config, &[]).expect_code(0).json();
    assert!(began.elapsed() >= WINDOW, "{:?}", began.elapsed());

    let id = task["task_id"].as_str().expect("an id");
    let words = ["task", "rerun", id, "--all", "--json", "--data"].map(OsStr::new);
    let began = Instant::now();
    let again = words
        .into_iter()
        .chain([place.data.as_os_str()])
        .chain(config);
    let again = run(again).expect_code(0).json();
    assert_eq!(again["status"], "finished", "{again}");
    assert!(began.elapsed() >= WINDOW, "{:?}", began.elapsed());
}

#[test]
fn retention_acts_in_a_run() {
    let place = Place::new(&echoes(&["a"]));
    let first = place.run(&[], &[]).expect_code(0).json();
    let first = first["task_id"].as_str().expect("an id").to_owned();
    let swept = || {
        let words = ["task", "show", first.as_str(), "--data"].map(OsStr::new);
        let shown = run(words.into_iter().chain([place.data.as_os_str()]));
        shown.stderr.contains("was swept")
    };
    assert!(!swept(), "by default everything is kept");
    let variables = [
        ("FLOWKIT_RETENTION_FINISHED_SEC", "0.2"),
        ("FLOWKIT_SWEEP_INTERVAL_SEC", "0.01"),
    ];
    // It is swept while a run's engine is there, which need not be this one's.
    let graph = json!({"nodes": [
        {"node_id": "s", "type": "sleep", "io": {"input_inline": {"ms": 300}}}]});
    fs::write(&place.graph, graph.to_string()).expect("written");
    let gone = (0..20).any(|_| {
        place.run(&[], &variables).expect_code(0);
        swept()
    });
    assert!(gone, "task {first} is still there");
}

#[test]
fn programs_of_roles_come_from_the_settings_too() {
    let place = Place::new(&json!({"nodes": [
        {"node_id": "a", "type": "mine", "io": {"input_inline": {"text": "t"}}}]}));
    let text = include_str!("../../../docs/guide/exec/upper.sh");
    let script = place.file("upper.sh", text);
    let exec = format!("mine=sh {}", script.display());
    let config = place.file("exec.json", &json!({"exec": [exec]}).to_string());
    let config = [OsStr::new("--config"), config.as_os_str()];
    let task = place.run(&config, &[]).expect_code(0).json();
    assert_eq!(task["status"], "finished", "{task}");
    let id = task["task_id"].as_str().expect("an id");
    let words = ["task", "rerun", id, "--all", "--json", "--data"].map(OsStr::new);
    let again = words
        .into_iter()
        .chain([place.data.as_os_str()])
        .chain(config);
    let again = run(again).expect_code(0).json();
    assert_eq!(again["status"], "finished", "{again}");
    // A flag wins over them.
    let flag = ["--exec", "mine=sh -c 'exit 3'"].map(OsStr::new);
    let graph = fs::read_to_string(&place.graph).expect("there");
    let once = graph.replace("\"type\"", "\"retry_policy\":{\"max\":1},\"type\"");
    fs::write(&place.graph, once).expect("written");
    let both = [&config[..], &flag].concat();
    place.run(&both, &[]).expect_code(1);
}

#[test]
fn health_is_served_where_the_settings_say() {
    let place = Place::new(&json!({"nodes": [
        {"node_id": "s", "type": "sleep", "io": {"input_inline": {"ms": 60_000}}}]}));
    let config = place.file("health.toml", "health_listen = \"127.0.0.1:0\"\n");
    let tree = Tree::with_files(1);
    let runs: [&[&OsStr]; 2] = [
        &[OsStr::new("run"), place.graph.as_os_str()],
        &[OsStr::new("demo"), tree.path().as_os_str()],
    ];
    for words in runs {
        let mut child = flowkit()
            .args(words)
            .args([OsStr::new("--config"), config.as_os_str()])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("flowkit starts");
        let lines = BufReader::new(child.stderr.take().expect("piped")).lines();
        let mut lines = lines.map_while(Result::ok);
        let served = lines.any(|line| line.starts_with("health: http://127.0.0.1:"));
        child.kill().expect("a process");
        child.wait().expect("it is dead");
        assert!(served, "{words:?}");
    }
}

#[test]
fn a_misspelt_variable_and_a_bad_file_are_told_by_every_command_of_one_machine() {
    let place = Place::new(&echoes(&["a"]));
    let task = place.run(&[], &[]).expect_code(0).json();
    let id = task["task_id"].as_str().expect("an id");
    let config = place.file("bad.json", r#"{"lease_ttl_sec": -1, "worker_id": null}"#);
    let said = "error: 2 faults in the settings:\n  - lese_ttl_sec (FLOWKIT_LESE_TTL_SEC): no such \
                setting; did you mean FLOWKIT_LEASE_TTL_SEC?\n  - lease_ttl_sec (";
    let data = || place.data.as_os_str();
    let graph = place.graph.as_os_str();
    let of = |words: &[&str]| -> Vec<std::ffi::OsString> { words.iter().map(Into::into).collect() };
    for (words, last) in [
        (of(&["run"]), Some(graph)),
        (of(&["demo", "."]), None),
        (of(&["task", "list"]), None),
        (of(&["task", "rerun", id]), None),
        (of(&["task", "pause", id]), None),
        (of(&["why", id]), None),
        (of(&["doctor"]), None),
        (of(&["worker", "list"]), None),
    ] {
        let output = flowkit()
            .args(&words)
            .args(last)
            .args([OsStr::new("--config"), config.as_os_str()])
            .args([OsStr::new("--data"), data()])
            .env("FLOWKIT_LESE_TTL_SEC", "5")
            .output();
        let ran = Ran::from(output.expect("flowkit starts")).expect_code(2);
        assert!(ran.stderr.starts_with(said), "{words:?}: {}", ran.stderr);
        let place = config.display();
        assert!(
            ran.stderr.ends_with(&format!(
                "({place}): must be from 0.01 to 86,400 seconds, not -1\n"
            )),
            "{words:?}: {}",
            ran.stderr
        );
    }
}

#[test]
fn a_file_without_servers_leaves_the_demo_on_this_machine() {
    let tree = Tree::with_files(20);
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("a.toml");
    for (text, data) in [
        ("lease_ttl_sec = 30\n", None),
        // A folder that a flag names wins over servers that a file names.
        (
            "kafka_bootstrap = \"127.0.0.1:1\"\nmongo_uri = \"mongodb://127.0.0.1:1\"\n",
            Some(folder.path().join("data")),
        ),
    ] {
        fs::write(&config, text).expect("written");
        let mut command = flowkit();
        command
            .args(["demo", "--json"])
            .args([tree.path(), Path::new("--config"), &config])
            .env("FLOWKIT_KAFKA", "127.0.0.1:1");
        if let Some(data) = data {
            command.args([Path::new("--data"), &data]);
        }
        let ran: Ran = command.output().expect("flowkit starts").into();
        assert_eq!(ran.expect_code(0).json()["files"], 20);
    }
}
