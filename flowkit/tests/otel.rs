//! Traces as a collector receives them from the built command: a small server takes OTLP over HTTP and reads the
//! protobuf by itself.

use flowkit::traces::{span_id_of, trace_id_of};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// One span, as far as it is looked at.
#[derive(Clone, Debug, Default)]
struct Span {
    trace: u128,
    id: u64,
    parent: u64,
    name: String,
    start: u64,
    end: u64,
    attributes: BTreeMap<String, String>,
    /// 1 ok, 2 error.
    status: u64,
    service: String,
    pid: String,
}

/// The fields of a protobuf message: number and bytes; numbers are little-endian bytes.
fn fields(mut bytes: &[u8]) -> Vec<(u64, Vec<u8>)> {
    fn varint(bytes: &mut &[u8]) -> u64 {
        let mut value = 0;
        for shift in (0..).step_by(7) {
            let (byte, rest) = bytes.split_first().expect("a byte");
            *bytes = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
        }
        value
    }
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        let length = match key & 7 {
            0 => {
                let value = varint(&mut bytes);
                found.push((key >> 3, value.to_le_bytes().to_vec()));
                continue;
            }
            1 => 8,
            2 => usize::try_from(varint(&mut bytes)).expect("a length"),
            5 => 4,
            other => panic!("wire type {other}"),
        };
        let (value, rest) = bytes.split_at(length);
        found.push((key >> 3, value.to_vec()));
        bytes = rest;
    }
    found
}

fn number(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes.try_into().expect("8 bytes"))
}

fn id(bytes: &[u8]) -> u64 {
    u64::from_be_bytes(bytes.try_into().expect("8 bytes"))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

/// `KeyValue {key = 1, value = 2 {string = 1, bool = 2, int = 3}}`.
fn attribute(bytes: &[u8]) -> (String, String) {
    let mut pair = (String::new(), String::new());
    for (field, value) in fields(bytes) {
        match field {
            1 => pair.0 = text(&value),
            2 => {
                for (kind, value) in fields(&value) {
                    pair.1 = match kind {
                        1 => text(&value),
                        3 => number(&value).to_string(),
                        _ => format!("{value:?}"),
                    };
                }
            }
            _ => {}
        }
    }
    pair
}

/// `Span` of opentelemetry/proto/trace/v1.
fn span(bytes: &[u8]) -> Span {
    let mut span = Span::default();
    for (field, value) in fields(bytes) {
        match field {
            1 => span.trace = u128::from_be_bytes(value.try_into().expect("16 bytes")),
            2 => span.id = id(&value),
            4 if !value.is_empty() => span.parent = id(&value),
            5 => span.name = text(&value),
            7 => span.start = number(&value),
            8 => span.end = number(&value),
            9 => {
                let (key, value) = attribute(&value);
                span.attributes.insert(key, value);
            }
            15 => {
                for (field, value) in fields(&value) {
                    if field == 3 {
                        span.status = number(&value);
                    }
                }
            }
            _ => {}
        }
    }
    span
}

/// `ExportTraceServiceRequest {resource_spans = 1 {resource = 1, scope_spans = 2 {spans = 2}}}`.
fn spans(request: &[u8]) -> Vec<Span> {
    let mut found = Vec::new();
    for (_, group) in fields(request) {
        let mut resource = BTreeMap::new();
        for (field, part) in fields(&group) {
            let of_resource =
                |(field, value): (u64, Vec<u8>)| (field == 1).then(|| attribute(&value));
            match field {
                1 => resource.extend(fields(&part).into_iter().filter_map(of_resource)),
                2 => {
                    let of_scope = fields(&part).into_iter().filter(|(field, _)| *field == 2);
                    found.extend(of_scope.map(|(_, bytes)| span(&bytes)));
                }
                _ => {}
            }
        }
        for span in &mut found {
            let said = |key: &str| resource.get(key).cloned().unwrap_or_default();
            span.service = said("service.name");
            span.pid = said("process.pid");
        }
    }
    found
}

type Received = Arc<(Mutex<Vec<Span>>, Condvar)>;

/// A collector that keeps what it receives.
struct Collector {
    base: String,
    received: Received,
}

impl Collector {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let base = format!("http://{}", listener.local_addr().expect("an address"));
        let received = Received::default();
        let kept = received.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                take(&stream.expect("a connection"), &kept);
            }
        });
        Self { base, received }
    }

    fn spans(&self) -> Vec<Span> {
        self.received.0.lock().expect("not poisoned").clone()
    }

    /// Waits until a span fits.
    fn wait(&self, fits: impl Fn(&Span) -> bool) -> Span {
        let mut spans = self.received.0.lock().expect("not poisoned");
        loop {
            if let Some(span) = spans.iter().find(|span| fits(span)) {
                return span.clone();
            }
            let patience = Duration::from_secs(60);
            let (more, late) = self
                .received
                .1
                .wait_timeout(spans, patience)
                .expect("not poisoned");
            assert!(!late.timed_out(), "no such span: {:?}", *more);
            spans = more;
        }
    }
}

/// Takes one request and says that it was taken.
fn take(stream: &TcpStream, received: &Received) {
    let mut reader = BufReader::new(stream);
    let mut length = 0;
    let mut head = String::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).expect("a line");
        let lower = line.to_lowercase();
        if let Some(value) = lower.strip_prefix("content-length: ") {
            length = value.trim().parse().expect("a number");
        }
        if line.trim().is_empty() {
            break;
        }
        head.push_str(&lower);
    }
    assert!(head.starts_with("post /v1/traces http/1.1\r\n"), "{head}");
    assert!(
        head.contains("content-type: application/x-protobuf\r\n"),
        "{head}"
    );
    assert!(head.contains("host: 127.0.0.1:"), "{head}");
    let mut body = vec![0; length];
    reader.read_exact(&mut body).expect("the body");
    received
        .0
        .lock()
        .expect("not poisoned")
        .extend(spans(&body));
    received.1.notify_all();
    let mut stream = stream;
    let answer =
        b"HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\n\r\n";
    // Whoever does not wait for the answer is gone.
    let _ = stream.write_all(answer);
}

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
