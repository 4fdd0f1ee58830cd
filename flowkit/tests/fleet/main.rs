//! The engine as separate processes over a real Kafka and a real MongoDB: they share the work, die
//! without warning, and are replaced.
//!
//! Needs the feature `fleet`, and servers: `cargo xtask test` sees to both.

#[cfg(feature = "otel")]
#[path = "../shared/collector.rs"]
mod collector;
mod damage;
mod deployment;
mod doctor;
mod health;
#[path = "../shared/terminal.rs"]
mod on_terminal;
mod terminal;
#[cfg(feature = "otel")]
mod traces;

use serde_json::{Value, json};
use std::fs;
use std::process::{Command, Stdio};

use deployment::{Deployment, Process, sleepers, until};

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
    // A lease that runs out on a busy machine is a finding, too.
    let with_lease = |words: &[&str]| deployment.with_lease(words, "30");
    let coordinator = deployment.started(with_lease(&["coordinator"]));
    let file = deployment.graph(&sleepers(1, 60_000, 1));
    let task = deployment.json(&["submit", &file], 0);
    let id = task["task_id"].as_str().expect("an id").to_owned();
    let why = deployment.json(&["why", &id], 0);
    assert_eq!(
        why["nodes"][0]["why"], "no worker for role `sleep` has ever registered",
        "{why}"
    );
    let ill = deployment.json(&["doctor"], 1);
    let mut findings = ill["findings"].as_array().into_iter().flatten();
    let of_role = |found: &Value| found["check"] == "roles" && found["subject"] == "sleep";
    assert!(findings.any(of_role), "{ill}");

    let words = ["worker", "--worker-id", "w", "--role", "sleep"];
    let worker = deployment.started(with_lease(&words));
    deployment.until_runs("w", "n0");
    // The streams are read before the grants: its first heartbeat may be in the next look only.
    let beats =
        |shown: &Value| shown["runs"][0]["node_id"] == "n0" && shown["heartbeat_ms_ago"].is_u64();
    let shown = until(|| deployment.json(&["worker", "show", "w"], 0), beats);
    assert_eq!(shown["status"], "online", "{shown}");
    let why = deployment.json(&["why", &id], 0);
    assert_eq!(why["nodes"][0]["waits_for"], "nothing", "{why}");
    let well = deployment.answer(with_lease(&["doctor"]), 0);
    assert_eq!(well["ok"], true, "{well}");

    // Without a coordinator nobody takes the lease away, so what is seen stays.
    coordinator.kill();
    worker.kill();
    let lost = |value: &Value| value["nodes"][0]["waits_for"] != "nothing";
    let why = until(|| deployment.json(&["why", &id], 0), lost);
    assert_eq!(why["nodes"][0]["waits_for"], "lease_end", "{why}");
    let said = why["nodes"][0]["why"].as_str().expect("text");
    let end = "; it is granted anew once its lease of 30 s has run out";
    let began = said.starts_with("runs on w, which was not heard for ");
    assert!(began && said.ends_with(end), "{why}");
    let cure = "start the worker again, or another one of its role";
    assert_eq!(why["nodes"][0]["cure"], cure, "{why}");
}

#[test]
fn why_names_the_limit_that_the_settings_tell_of() {
    let deployment = Deployment::new("limit", 1);
    let config = deployment.folder.path().join("limits.toml");
    let text = "[limits.keys.tenant-7]\nrunning_max = 1\n";
    fs::write(&config, text).expect("written");
    let config = config.to_str().expect("UTF-8");
    let _coordinator = deployment.start(&["coordinator", "--config", config]);
    let _worker = deployment.worker("w");
    let file = deployment.graph(&sleepers(2, 60_000, 1));
    let task = deployment.json(&["submit", &file, "--limit-key", "tenant-7"], 0);
    let id = task["task_id"].as_str().expect("an id");
    let ask = || deployment.json(&["why", id, "--config", config], 0);
    let runs = |why: &Value| {
        let states = why["nodes"].as_array().into_iter().flatten();
        states.filter(|node| node["state"] == "running").count() == 1
    };
    let why = until(ask, runs);
    let nodes = why["nodes"].as_array().expect("a list");
    let waiting = nodes.iter().find(|node| node["state"] == "ready");
    let waiting = waiting.expect("the other one waits");
    assert_eq!(waiting["waits_for"], "limit", "{why}");
    let said = "is ready, and limit `tenant-7` is full: 1 of 1 nodes run";
    assert_eq!(waiting["why"], said, "{why}");
    // Who is not told of limits says how to ask with them.
    let blind = deployment.json(&["why", id], 0);
    let waiting = blind["nodes"].as_array().expect("a list");
    let waiting = waiting.iter().find(|node| node["state"] == "ready");
    let cure = waiting.expect("it waits")["cure"].as_str().expect("text");
    assert!(cure.contains("--config FILE"), "{blind}");
}

#[test]
fn the_demo_over_servers_obeys_the_settings() {
    let deployment = Deployment::new("obeys", 2);
    let dir = deployment.folder.path().join("files");
    fs::create_dir_all(&dir).expect("a folder");
    fs::write(dir.join("a.txt"), "a b\n").expect("written");
    let dir = dir.to_str().expect("UTF-8");
    let run = |name: &str, value: &str| {
        let mut command = deployment.command(&["demo", dir, "--json"]);
        let output = command.env(name, value).output().expect("it runs");
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), errors)
    };
    let (code, errors) = run("FLOWKIT_WORKER_VERSION", "7.7");
    assert_eq!(code, Some(0), "{errors}");
    let list = deployment.json(&["worker", "list"], 0);
    let workers = list["workers"].as_array().expect("a list");
    assert!(!workers.is_empty(), "{list}");
    for worker in workers {
        assert_eq!(worker["version"], "7.7", "{list}");
    }
    // Its coordinator has the settings as well: with two shards it refuses limits.
    let (code, errors) = run("FLOWKIT_LIMITS", r#"{"running_max": 1}"#);
    assert_eq!(code, Some(2), "{errors}");
    assert!(
        errors.contains("limits: need a deployment of one shard"),
        "{errors}"
    );
}

#[test]
fn what_a_worker_cannot_be_is_told_before_any_server_is_asked() {
    for (words, said) in [
        (
            &[
                "--role",
                "$a",
                "--worker-id",
                "$b",
                "--database",
                "a b",
                "--topic-prefix",
                "a/b",
            ][..],
            "4 faults in the settings:",
        ),
        (
            &["--role", "nothing"],
            "role \"nothing\": no such built-in role",
        ),
        (&["--exec", "a,b=sh"], "the role must not hold a comma"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_flowkit"))
            .args([
                "worker",
                "--kafka",
                "127.0.0.1:1",
                "--mongo",
                "mongodb://nonsense",
            ])
            .args(words)
            .output()
            .expect("it runs");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{errors}");
        assert!(errors.contains(said), "{errors}");
        assert!(!errors.contains("MongoDB"), "{errors}");
    }
}

/// As it is typed into a URI, and as the server is told it.
const MONGO_PASSWORD: [&str; 2] = ["hunter2%21mongo", "hunter2!mongo"];
const KAFKA_PASSWORD: &str = "hunter2-kafka";
const PAYLOAD: &str = "payload-7234561";
const VAR: &str = "var-7234561";

/// Fails if a text shows a password, a payload or vars.
#[track_caller]
fn shows_no_secret(text: &str, of: &str) {
    let [typed, told] = MONGO_PASSWORD;
    for secret in [typed, told, KAFKA_PASSWORD, PAYLOAD, VAR] {
        let line = text.lines().find(|line| line.contains(secret));
        assert!(line.is_none(), "{of} shows {secret}: {line:?}");
    }
}

#[test]
fn passwords_that_the_servers_refuse_stand_in_no_error_and_no_log() {
    let deployment = Deployment::new("refused", 1);
    let mongo = std::env::var("FLOWKIT_MONGO").expect("a server");
    let login = format!("mongodb://someone:{}@", MONGO_PASSWORD[0]);
    let mongo = mongo.replacen("mongodb://", &login, 1);
    let sasl = json!({
        "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanism": "PLAIN",
        "sasl.username": "someone",
        "sasl.password": KAFKA_PASSWORD,
    });
    for (name, value) in [
        ("FLOWKIT_MONGO", mongo),
        ("FLOWKIT_KAFKA_PROPERTIES", sasl.to_string()),
    ] {
        for words in [&["coordinator"][..], &["worker", "--role", "echo"]] {
            let mut command = deployment.command(words);
            command.env(name, &value).env("RUST_LOG", "trace");
            let output = command.output().expect("it runs");
            let errors = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{name}: {errors}");
            assert!(errors.contains("error: "), "{name}: {errors}");
            shows_no_secret(&errors, name);
        }
    }
}

#[test]
fn logs_of_everything_hold_no_password_no_payload_and_no_vars() {
    let deployment = Deployment::new("logs", 1);
    // A password that this protocol has no use for: the client has it all the same.
    let properties = json!({"sasl.username": "someone", "sasl.password": KAFKA_PASSWORD});
    let logged = |words: &[&str], name: &str| {
        let path = deployment.folder.path().join(name);
        let file = fs::File::create(&path).expect("a file");
        let mut command = deployment.command(words);
        command
            .env("FLOWKIT_KAFKA_PROPERTIES", properties.to_string())
            .env("RUST_LOG", "trace")
            .stdout(Stdio::null())
            .stderr(file);
        (command, path)
    };
    let (coordinator, first) = logged(&["coordinator"], "coordinator.log");
    let _coordinator = Process::elsewhere(coordinator);
    let roles = ["worker", "--role", "echo", "--role", "fail"];
    let (worker, second) = logged(&roles, "worker.log");
    let _worker = Process::elsewhere(worker);
    let graph = json!({"nodes": [
        {"node_id": "say", "type": "echo", "io": {"input_inline": {"text": PAYLOAD}}},
        {"node_id": "set", "type": "coordinator_fn", "depends_on": ["say"],
         "io": {"fn": "vars.set", "fn_args": {"kv": {"b": VAR}}}},
        {"node_id": "odd", "type": "echo", "depends_on": ["set"], "io": {"input_inline": {"n": PAYLOAD}}}]});
    let file = deployment.graph(&graph);
    let var = format!("a={VAR}");
    let (mut submit, third) = logged(&["submit", &file, "--watch", "--var", &var], "submit.log");
    let ended = submit.status().expect("it runs");
    let logs = [first, second, third].map(|path| {
        let text = fs::read(path).expect("a log");
        String::from_utf8_lossy(&text).into_owned()
    });
    assert!(ended.success(), "{}", logs[2]);
    for (log, of) in logs.iter().zip(["coordinator", "worker", "client"]) {
        shows_no_secret(log, of);
    }
    // There is what could have held them.
    for log in &logs[..2] {
        assert!(log.contains("TRACE") || log.contains("DEBUG"), "{log}");
    }
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
    deployment.until_runs("w", "p");
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
        ("127.0.0.1:1", "nonsense", "must begin with mongodb://"),
        (
            "127.0.0.1:1",
            "mongodb://a:b:c",
            "the MongoDB URI is faulty",
        ),
        ("nonsense", "mongodb://127.0.0.1:1", "must be HOST:PORT"),
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
