//! The engine as separate processes over a real Kafka and a real MongoDB: they share the work, die
//! without warning, and are replaced.
//!
//! Needs the feature `fleet`, and servers: `cargo xtask test` sees to both.

mod damage;
mod deployment;
mod doctor;

use serde_json::{Value, json};
use std::fs;
use std::process::{Command, Stdio};

use deployment::{Deployment, sleepers, until};

/// Batches of every node of a finished task.
fn batches(task: &Value) -> u64 {
    let nodes = task["nodes"].as_object().expect("nodes");
    nodes
        .values()
        .map(|node| node["batches"].as_u64().unwrap_or(0))
        .sum()
}

#[test]
fn work_goes_on_when_a_worker_and_a_coordinator_are_killed() {
    let deployment = Deployment::new("killed", 2);
    let first = deployment.coordinator();
    let _second = deployment.coordinator();
    let victim = deployment.worker("victim");
    let _other = deployment.worker("other");
    let file = deployment.graph(&sleepers(6, 200, 5));
    let mut tasks = Vec::new();
    for key in ["a", "b"] {
        let task = deployment.json(&["submit", &file, "--idempotency-key", key], 0);
        tasks.push(task["task_id"].as_str().expect("an id").to_owned());
    }
    // The same key is the same task, whoever is asked.
    let again = deployment.json(&["submit", &file, "--idempotency-key", "a"], 0);
    assert_eq!(again["task_id"], json!(tasks[0]));
    victim.kill();
    first.kill();
    for key in ["a", "b"] {
        let words = ["submit", &file, "--idempotency-key", key, "--watch"];
        let task = deployment.json(&words, 0);
        assert_eq!(task["status"], "finished", "{task}");
        assert_eq!(batches(&task), 6 * 5, "every batch counts once: {task}");
    }
    let list = deployment.json(&["task", "list"], 0);
    assert_eq!(list["tasks"].as_array().map(Vec::len), Some(2), "{list}");
    let workers = deployment.json(&["worker", "list"], 0);
    assert_eq!(
        workers["workers"].as_array().map(Vec::len),
        Some(2),
        "{workers}"
    );
}

#[test]
fn a_cancelled_task_ends_on_its_worker_and_is_shown_by_any_process() {
    let deployment = Deployment::new("cancelled", 1);
    let _coordinator = deployment.coordinator();
    let _worker = deployment.worker("w");
    let file = deployment.graph(&sleepers(1, 60_000, 1));
    let task = deployment.json(&["submit", &file], 0);
    let id = task["task_id"].as_str().expect("an id").to_owned();
    let cancelled = deployment.json(&["task", "cancel", &id], 0);
    assert_eq!(cancelled["status"], "cancelled", "{cancelled}");
    let shown = deployment.json(&["task", "show", &id], 0);
    assert_eq!(shown["status"], "cancelled", "{shown}");
}

#[test]
fn why_and_doctor_name_the_role_without_a_worker_and_a_worker_is_shown_with_its_runs() {
    let deployment = Deployment::new("why", 1);
    let _coordinator = deployment.coordinator();
    let file = deployment.graph(&sleepers(1, 60_000, 1));
    let task = deployment.json(&["submit", &file], 0);
    let id = task["task_id"].as_str().expect("an id").to_owned();
    let why = deployment.json(&["why", &id], 0);
    assert_eq!(
        why["nodes"][0]["why"], "no worker for role `sleep` has ever registered",
        "{why}"
    );
    let ill = deployment.json(&["doctor"], 1);
    assert_eq!(ill["findings"][0]["check"], "roles", "{ill}");
    assert_eq!(ill["findings"][0]["subject"], "sleep", "{ill}");

    let worker = deployment.worker("w");
    let runs = |value: &Value| value["runs"][0]["node_id"] == "n0";
    let shown = until(|| deployment.json(&["worker", "show", "w"], 0), runs);
    assert_eq!(shown["status"], "online", "{shown}");
    assert!(shown["heartbeat_ms_ago"].is_u64(), "{shown}");
    let why = deployment.json(&["why", &id], 0);
    assert_eq!(why["nodes"][0]["waits_for"], "nothing", "{why}");
    let well = deployment.json(&["doctor"], 0);
    assert_eq!(well["ok"], true, "{well}");

    worker.kill();
    let lost = |value: &Value| value["nodes"][0]["waits_for"] != "nothing";
    let why = until(|| deployment.json(&["why", &id], 0), lost);
    let waits = why["nodes"][0]["waits_for"].as_str().expect("text");
    assert!(matches!(waits, "lease_end" | "slot" | "worker"), "{why}");
}

#[test]
fn a_worker_over_servers_is_ready_once_it_is_registered_and_says_who_it_is() {
    let deployment = Deployment::new("health", 1);
    let _coordinator = deployment.coordinator();
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = free.local_addr().expect("an address").to_string();
    drop(free);
    let words = [
        "worker",
        "--worker-id",
        "w",
        "--role",
        "echo",
        "--health-listen",
        &address,
    ];
    let _worker = deployment.start(&words);
    let health = || {
        use std::io::{Read, Write};
        let mut text = String::new();
        if let Ok(mut stream) = std::net::TcpStream::connect(&address) {
            let _ = stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n");
            let _ = stream.read_to_string(&mut text);
        }
        let body = text.split_once("\r\n\r\n").map_or("null", |(_, body)| body);
        serde_json::from_str(body).expect("JSON")
    };
    let health = until(health, |health| health["ready"] == true);
    assert_eq!(health["worker_id"], "w", "{health}");
    assert_eq!(health["roles"], json!(["echo"]), "{health}");
    assert_eq!(health["lag"], 0, "{health}");
    let well = deployment.json(&["doctor", "--health", &address], 0);
    assert_eq!(well["ok"], true, "{well}");
}

#[test]
fn a_program_is_a_worker_of_its_own_role() {
    let deployment = Deployment::new("exec", 1);
    let program = deployment.folder.path().join("words.py");
    let text = include_str!("../../../docs/guide/exec/words.py");
    fs::write(&program, text).expect("written");
    let _coordinator = deployment.coordinator();
    let command = format!("python3 '{}'", program.display());
    let _worker = deployment.start(&["worker", "--role", "words", "--exec", &command]);
    let other = format!("more=python3 '{}'", program.display());
    let _other = deployment.start(&["worker", "--role", "echo", "--exec", &other]);
    let node = |name: &str, role: &str| {
        json!({"node_id": name, "type": role,
               "io": {"input_inline": {"items": ["to be or not", "to be"]}}})
    };
    let graph = json!({"nodes": [node("a", "words"), node("b", "more"), node("c", "echo")]});
    let file = deployment.graph(&graph);
    let task = deployment.json(&["submit", &file, "--watch"], 0);
    assert_eq!(task["status"], "finished", "{task}");
    for name in ["a", "b"] {
        assert_eq!(task["nodes"][name]["result"]["words"], 6.0, "{task}");
    }
}

#[test]
fn a_worker_is_shown_with_the_checkpoint_of_what_it_ran_when_it_was_killed() {
    let deployment = Deployment::new("checkpoint", 1);
    let program = deployment.folder.path().join("pager.py");
    fs::write(&program, include_str!("../programs/pager.py")).expect("written");
    let coordinator = deployment.coordinator();
    let command = format!("python3 '{}'", program.display());
    let words = ["worker", "--worker-id", "w", "--role", "pager", "--exec"];
    let worker = deployment.start(&[&words[..], &[&command]].concat());
    let _echo = deployment.worker("e");
    let file = deployment.graph(&json!({"nodes": [
        {"node_id": "src", "type": "echo", "io": {"input_inline": {"items": ["page", "stop"]}}},
        {"node_id": "p", "type": "pager", "depends_on": ["src"], "io": {"input_inline": {
            "input_adapter": "pull.from_artifacts.rechunk:size",
            "input_args": {"from_node": "src", "size": 1, "meta_list_key": "items"}}}},
    ]}));
    deployment.json(&["submit", &file], 0);
    let show = || deployment.json(&["worker", "show", "w"], 0);
    let accepted = |shown: &Value| shown["runs"][0]["batches"] == 1;
    until(show, accepted);
    // Without a coordinator nobody ends its lease: what it ran stays as it was.
    coordinator.kill();
    worker.kill();
    let shown = show();
    assert_eq!(shown["runs"][0]["node_id"], "p", "{shown}");
    assert_eq!(
        shown["runs"][0]["checkpoint"],
        json!({"page": 1}),
        "{shown}"
    );
    let list = deployment.json(&["worker", "list"], 0);
    let running = list["workers"].as_array().expect("a list").iter();
    let running: Vec<_> = running.map(|worker| &worker["running"]).collect();
    assert!(running.contains(&&json!(["p"])), "{list}");
}

#[test]
fn the_demo_gives_the_same_totals_over_servers_as_in_a_folder() {
    let deployment = Deployment::new("demo", 1);
    let dir = deployment.folder.path().join("files");
    fs::create_dir_all(dir.join("below")).expect("a folder");
    for n in 0..40 {
        let text = format!("file {n}\nwith two lines\n");
        fs::write(dir.join(format!("below/{n}.txt")), text).expect("written");
    }
    let dir = dir.to_str().expect("UTF-8");
    let fleet = deployment.json(&["demo", dir], 0);
    let mut alone = Command::new(env!("CARGO_BIN_EXE_flowkit"));
    let alone = alone
        .args(["demo", dir, "--json"])
        .output()
        .expect("it runs");
    let alone: Value = serde_json::from_slice(&alone.stdout).expect("JSON");
    for key in [
        "files",
        "lines",
        "words",
        "bytes",
        "by_extension",
        "unreadable",
    ] {
        assert_eq!(fleet[key], alone[key], "{key}");
    }
    assert_eq!(fleet["files"], 40);
}

#[test]
fn servers_that_are_not_there_are_named_with_the_cure() {
    for (kafka, mongo, part) in [
        (
            "127.0.0.1:1",
            "mongodb://127.0.0.1:1/?replicaSet=rs0",
            "MongoDB cannot be reached",
        ),
        ("127.0.0.1:1", "nonsense", "URI"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_flowkit"))
            .args(["coordinator", "--kafka", kafka, "--mongo", mongo])
            .output()
            .expect("it runs");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{errors}");
        assert!(errors.contains(part), "{errors}");
        assert!(!errors.contains("panicked"), "{errors}");
    }
}

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

#[test]
fn every_command_of_the_deployment_guide_works() {
    let script = script_of(include_str!("../../../docs/guide/deployment.md"));
    let commands = script.lines().filter(|line| line.starts_with("flowkit "));
    assert!(commands.count() >= 10, "{script}");
    let deployment = Deployment::new("guide", 2);
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_flowkit"));
    let folder = program.parent().expect("a folder");
    let path = std::env::var("PATH").expect("text");
    // What goes on in the background ends with the script.
    let script = format!(
        "set -e\ntrap 'kill $(jobs -p); wait' EXIT\n{script}\n\
         echo \"background: $(jobs -pr | wc -l)\"\n"
    );
    let output = Command::new("bash")
        .args(["-c", &script])
        .current_dir(deployment.folder.path())
        .env("PATH", format!("{}:{path}", folder.display()))
        .env("FLOWKIT_DATABASE", &deployment.name)
        .env("FLOWKIT_TOPIC_PREFIX", &deployment.name)
        .env("FLOWKIT_SHARDS", "2")
        .stdin(Stdio::null())
        .output()
        .expect("bash runs");
    let (said, errors) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(
        output.status.success(),
        "{}\n{said}\n{errors}",
        output.status
    );
    let background = script.matches(" &\n").count();
    let alive = format!("background: {background}");
    for part in ["finished", "ocr-1", "hello", &alive] {
        assert!(said.contains(part), "{part}: {said}\n{errors}");
    }
}
