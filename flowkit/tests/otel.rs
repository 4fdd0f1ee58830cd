//! Traces as a collector receives them from the built command.

#[path = "shared/collector.rs"]
mod collector;

use collector::{Collector, Span};
use flowkit::traces::{span_id_of, trace_id_of};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// The command, with nothing of the caller's own traces.
fn flowkit(folder: &Path, graph: &str, arguments: &[&str]) -> Command {
    let file = folder.join("graph.json");
    std::fs::write(&file, graph).expect("written");
    let mut command = Command::new(env!("CARGO_BIN_EXE_flowkit"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("OTEL_") {
            command.env_remove(name);
        }
    }
    command
        .args(["run", "graph.json", "--json", "--workers", "2"])
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::null());
    command
}

fn ended(output: &Output, code: i32) -> (Value, String) {
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{errors}");
    assert!(!errors.contains("panicked"), "{errors}");
    let answer = serde_json::from_slice(&output.stdout).unwrap_or_default();
    (answer, errors)
}

const GRAPH: &str = r#"{"nodes": [
  {"node_id": "wait", "type": "sleep", "io": {"input_inline": {"ms": 5, "batches": 3}}},
  {"node_id": "break", "type": "fail", "depends_on": ["wait"],
   "io": {"input_inline": {"permanent": true, "reason_code": "no_such_page", "error": "hunter2"}}}]}"#;

#[test]
fn a_task_is_one_trace_with_its_runs_and_batches() {
    let folder = tempfile::tempdir().expect("a folder");
    let collector = Collector::start();
    let output = flowkit(folder.path(), GRAPH, &["--otlp-endpoint", &collector.base])
        .output()
        .expect("it runs");
    let (answer, errors) = ended(&output, 1);
    assert!(!errors.contains("could not be delivered"), "{errors}");
    let task = answer["task_id"].as_str().expect("an id");
    let spans = collector.spans();
    for span in &spans {
        assert_eq!(span.trace, trace_id_of(task), "{span:?}");
        assert_eq!(span.service, "flowkit");
        assert!(span.start <= span.end, "{span:?}");
        assert!(!format!("{span:?}").contains("hunter2"), "{span:?}");
    }
    let named =
        |name: &str| -> Vec<&Span> { spans.iter().filter(|span| span.name == name).collect() };
    let [root] = named("task")[..] else {
        panic!("one root: {spans:?}");
    };
    assert_eq!((root.id, root.parent), (span_id_of(task), 0));
    assert_eq!(root.attributes["outcome"], "failed");
    assert_eq!(root.attributes["reason"], "no_such_page");
    assert_eq!(root.status, 2);
    let runs = named("run");
    assert_eq!(runs.len(), 2, "{runs:?}");
    for run in &runs {
        assert_eq!(run.parent, root.id, "{run:?}");
        assert_eq!(run.attributes["task"], task);
        assert_eq!(run.attributes["epoch"], "1");
        assert!(run.attributes["worker"].starts_with("local-"), "{run:?}");
        // Milliseconds of the submission, nanoseconds of the run.
        assert!(root.start <= run.start + 1_000_000, "{root:?} {run:?}");
    }
    let of = |node: &str| {
        let run = runs.iter().find(|run| run.attributes["node"] == node);
        let run = *run.expect("it ran");
        let batches = named("batch")
            .into_iter()
            .filter(move |batch| batch.parent == run.id);
        (run, batches.collect::<Vec<_>>())
    };
    let (run, batches) = of("wait");
    assert_eq!(run.attributes["outcome"], "done");
    assert_eq!(batches.len(), 3, "{batches:?}");
    assert!(
        batches
            .iter()
            .all(|batch| batch.attributes["outcome"] == "done")
    );
    let (run, batches) = of("break");
    assert_eq!(
        (run.attributes["outcome"].as_str(), run.status),
        ("failed", 2)
    );
    assert_eq!(batches.len(), 1, "{batches:?}");
    assert_eq!(batches[0].attributes["reason"], "no_such_page");
}

#[test]
fn spans_of_a_killed_process_and_of_the_next_one_meet_in_one_trace() {
    let folder = tempfile::tempdir().expect("a folder");
    let collector = Collector::start();
    let graph = r#"{"nodes": [
      {"node_id": "wait", "type": "sleep", "io": {"input_inline": {"ms": 150, "batches": 12}}}]}"#;
    let command = || {
        let mut command = flowkit(folder.path(), graph, &["--data", "state"]);
        command
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.base)
            .env("OTEL_SERVICE_NAME", "mine")
            .env("OTEL_BSP_SCHEDULE_DELAY", "50");
        command
    };
    let mut first = command()
        .stderr(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .expect("it runs");
    let early = collector.wait(|span| span.name == "batch");
    first.kill().expect("it runs");
    first.wait().expect("it is dead");
    let (answer, _) = ended(&command().output().expect("it runs"), 0);
    let root = collector.wait(|span| span.name == "task");
    assert_eq!(
        root.trace,
        trace_id_of(answer["task_id"].as_str().expect("an id"))
    );
    assert_eq!(root.trace, early.trace);
    assert_eq!(root.service, "mine");
    assert_ne!(root.pid, early.pid);
    let span = collector.wait(|span| span.name == "run" && span.pid == root.pid);
    assert_eq!((span.trace, span.parent), (root.trace, root.id));
}

#[test]
fn a_collector_that_is_away_or_never_answers_costs_a_note_and_seconds_at_most() {
    let folder = tempfile::tempdir().expect("a folder");
    // It takes connections and says nothing.
    let deaf = TcpListener::bind("127.0.0.1:0").expect("a port");
    let deaf = (
        format!("http://{}", deaf.local_addr().expect("an address")),
        Some(deaf),
    );
    let away = ("http://127.0.0.1:1".to_owned(), None);
    for (base, _listener) in [away, deaf] {
        let began = Instant::now();
        let mut command = flowkit(folder.path(), GRAPH, &["--otlp-endpoint", &base]);
        let output = command.env("RUST_LOG", "warn").output().expect("it runs");
        let (answer, errors) = ended(&output, 1);
        assert_eq!(answer["status"], "failed", "{answer}");
        assert!(
            errors.contains("7 of 7 spans could not be delivered"),
            "{errors}"
        );
        if base.ends_with(":1") {
            let said = errors.matches("traces cannot be delivered").count();
            assert_eq!(said, 1, "{errors}");
        }
        // The work itself takes a fraction of a second, the last spans have three.
        assert!(
            began.elapsed() < Duration::from_secs(30),
            "{:?}",
            began.elapsed()
        );
    }
}

#[test]
fn a_bad_endpoint_of_ours_is_refused_and_one_of_the_environment_noted() {
    let folder = tempfile::tempdir().expect("a folder");
    let graph = r#"{"nodes": [{"node_id": "e", "type": "echo", "io": {"input_inline": {}}}]}"#;
    for bad in ["https://h:4318", "nonsense", "http://me:hunter2@h:4318"] {
        let output = flowkit(folder.path(), graph, &["--otlp-endpoint", bad]).output();
        let (_, errors) = ended(&output.expect("it runs"), 2);
        assert!(
            errors.contains("otlp_endpoint (--otlp-endpoint): must be http://HOST:PORT"),
            "{errors}"
        );
        assert!(!errors.contains("hunter2"), "{errors}");
        let mut command = flowkit(folder.path(), graph, &[]);
        let output = command.env("OTEL_EXPORTER_OTLP_ENDPOINT", bad).output();
        let (_, errors) = ended(&output.expect("it runs"), 0);
        assert!(
            errors.contains("note: no traces are sent: OTEL_EXPORTER"),
            "{errors}"
        );
        assert!(!errors.contains("hunter2"), "{errors}");
    }
}

#[test]
fn a_run_sends_traces_where_its_settings_say() {
    let folder = tempfile::tempdir().expect("a folder");
    let collector = Collector::start();
    let text = format!("otlp_endpoint = \"{}\"\n", collector.base);
    std::fs::write(folder.path().join("traces.toml"), text).expect("written");
    let file = flowkit(folder.path(), GRAPH, &["--config", "traces.toml"]);
    let mut variable = flowkit(folder.path(), GRAPH, &[]);
    variable.env("FLOWKIT_OTLP_ENDPOINT", &collector.base);
    for mut command in [file, variable] {
        let (answer, _) = ended(&command.output().expect("it runs"), 1);
        let task = trace_id_of(answer["task_id"].as_str().expect("an id"));
        let root = |span: &Span| span.name == "task" && span.trace == task;
        assert!(
            collector.spans().iter().any(root),
            "{:?}",
            collector.spans()
        );
    }
}

#[test]
fn what_is_not_sampled_is_not_sent() {
    let folder = tempfile::tempdir().expect("a folder");
    let collector = Collector::start();
    for (name, value) in [
        ("OTEL_TRACES_SAMPLER", "always_off"),
        ("OTEL_SDK_DISABLED", "true"),
    ] {
        let mut command = flowkit(folder.path(), GRAPH, &["--otlp-endpoint", &collector.base]);
        ended(&command.env(name, value).output().expect("it runs"), 1);
        assert!(collector.spans().is_empty(), "{name}");
    }
}

#[test]
fn a_collector_that_answers_nonsense_or_refuses_changes_nothing_but_the_count() {
    let folder = tempfile::tempdir().expect("a folder");
    let endless = format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(1_000_000));
    for answer in [
        "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n",
        "SSH-2.0-OpenSSH\r\n",
        "",
        &endless,
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let base = format!("http://{}", listener.local_addr().expect("an address"));
        let answer = answer.to_owned();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.expect("a connection");
                let mut head = [0; 64];
                let _ = stream.read(&mut head);
                let _ = stream.write_all(answer.as_bytes());
            }
        });
        let mut command = flowkit(folder.path(), GRAPH, &["--otlp-endpoint", &base]);
        let (answer, errors) = ended(&command.output().expect("it runs"), 1);
        assert_eq!(answer["status"], "failed", "{answer}");
        assert!(
            errors.contains("7 of 7 spans could not be delivered"),
            "{errors}"
        );
    }
}

#[test]
fn keys_for_the_collector_are_in_no_line_of_any_log() {
    let folder = tempfile::tempdir().expect("a folder");
    let collector = Collector::start();
    for base in [collector.base.as_str(), "http://127.0.0.1:1"] {
        let mut command = flowkit(folder.path(), GRAPH, &["--otlp-endpoint", base]);
        let command = command
            .env("RUST_LOG", "trace")
            .env(
                "OTEL_EXPORTER_OTLP_HEADERS",
                "authorization=Bearer%20hunter3",
            )
            .env("FLOWKIT_MONGO_URI", "mongodb://me:hunter3@h")
            .env(
                "FLOWKIT_KAFKA_PROPERTIES",
                r#"{"sasl.password": "hunter3"}"#,
            );
        let (_, errors) = ended(&command.output().expect("it runs"), 1);
        assert!(
            errors.contains("TRACE") || errors.contains("DEBUG"),
            "{errors}"
        );
        assert!(!errors.contains("hunter3"), "{errors}");
    }
    assert!(!collector.spans().is_empty());
}
