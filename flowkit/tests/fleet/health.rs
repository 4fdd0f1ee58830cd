//! Health and metrics of processes over servers.

use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpStream;

use super::deployment::{Deployment, Process, sleepers, until};

/// A port of the system's choice; the process says which.
const LISTEN: [&str; 2] = ["--health-listen", "127.0.0.1:0"];

/// Where a process says that it serves its health.
fn address_of(process: &Process) -> String {
    let said = || {
        let lines = process.said();
        let mut found = lines.iter().filter_map(|line| line.split_once("http://"));
        let address = found.next().and_then(|(_, rest)| rest.split_once('/'));
        Value::from(address.map(|(address, _)| address))
    };
    let address = until(said, Value::is_string);
    address.as_str().unwrap_or_default().to_owned()
}

/// Head and body of a path; nothing while nobody listens.
fn get(address: &str, path: &str) -> (String, String) {
    let mut text = String::new();
    if let Ok(mut stream) = TcpStream::connect(address) {
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
        let _ = stream.write_all(request.as_bytes());
        let _ = stream.read_to_string(&mut text);
    }
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_default();
    (head.to_owned(), body.to_owned())
}

/// What a process says of itself; null while it does not answer.
fn health_of(address: &str) -> Value {
    serde_json::from_str(&get(address, "/readyz").1).unwrap_or_default()
}

/// Waits until a process is ready; what it says.
fn ready(address: &str) -> Value {
    until(|| health_of(address), |health| health["ready"] == true)
}

#[test]
fn processes_over_servers_serve_their_health_and_count_what_they_did() {
    let deployment = Deployment::new("health", 1);
    let coordinator = deployment.start(&[&["coordinator"][..], &LISTEN].concat());
    let roles = ["worker", "--worker-id", "w", "--role", "sleep"];
    let worker = deployment.start(&[&roles[..], &LISTEN].concat());
    let (of_coordinator, of_worker) = (address_of(&coordinator), address_of(&worker));
    let health = ready(&of_worker);
    assert_eq!(health["worker_id"], "w", "{health}");
    assert_eq!(health["roles"], json!(["sleep"]), "{health}");
    assert_eq!(health["lag"], 0, "{health}");
    let health = ready(&of_coordinator);
    let shards = health["coordinator"]["shards"].as_array();
    assert_eq!(shards.map(Vec::len), Some(1), "{health}");

    let file = deployment.graph(&sleepers(2, 10, 3));
    let task = deployment.json(&["submit", &file, "--watch"], 0);
    assert_eq!(task["status"], "finished", "{task}");
    let ended = r#"flowkit_worker_runs_ended_total{worker="w",type="sleep",outcome="TASK_DONE"} 2"#;
    let settled = r#"flowkit_coordinator_tasks_settled_total{outcome="finished"} 1"#;
    let accepted = "flowkit_coordinator_batches_accepted_total 6";
    for (address, lines) in [
        (&of_worker, &["flowkit_ready 1", ended][..]),
        (&of_coordinator, &["flowkit_ready 1", settled, accepted]),
    ] {
        assert!(get(address, "/healthz").0.starts_with("HTTP/1.1 200 "));
        for line in lines {
            // Requests that come close together share one look.
            let said = |metrics: &Value| {
                let mut all = metrics.as_str().unwrap_or_default().lines();
                all.any(|said| said == *line)
            };
            until(|| Value::from(get(address, "/metrics").1), said);
        }
    }
    let both = ["--health", &of_worker, "--health", &of_coordinator];
    let well = deployment.json(&[&["doctor"][..], &both].concat(), 0);
    assert_eq!(well["ok"], true, "{well}");
}

/// The coordinator's counts. (It is long: a lease that lapses on a busy machine is a finding, too.)
#[test]
fn a_worker_that_is_given_another_lease_says_so_and_the_doctor_finds_it() {
    let deployment = Deployment::new("lease", 1);
    let with_lease = |words: &[&str], sec: &str| deployment.with_lease(words, sec);
    let _coordinator = deployment.started(with_lease(&["coordinator"], "30"));
    let words = ["worker", "--worker-id", "w", "--role", "sleep"];
    let words = [&words[..], &LISTEN].concat();
    let worker = deployment.started(with_lease(&words, "7"));
    let address = address_of(&worker);
    let file = deployment.graph(&sleepers(1, 60_000, 1));
    deployment.json(&["submit", &file], 0);
    deployment.until_runs("w", "n0");
    let shown = deployment.json(&["worker", "show", "w"], 0);
    assert_eq!(shown["runs"][0]["lease_ttl_ms"], 30_000, "{shown}");
    // The grant is stored before the worker hears of it.
    let says_so = |health: &Value| {
        let error = health["last_error"]["error"].as_str().unwrap_or_default();
        health["ready"] == true && error.contains("lease")
    };
    until(|| health_of(&address), says_so);

    let ill = deployment.answer(with_lease(&["doctor"], "7"), 1);
    let finding = &ill["findings"][0];
    assert_eq!(finding["check"], "timing", "{ill}");
    assert_eq!(finding["subject"], "lease_ttl_sec", "{ill}");
    let said = "leases last 30 s as the coordinators say, and these settings say 7 s";
    assert_eq!(finding["finding"], said, "{ill}");
    // With the coordinators' own settings nothing differs.
    let well = deployment.answer(with_lease(&["doctor"], "30"), 0);
    assert_eq!(well["ok"], true, "{well}");
}
