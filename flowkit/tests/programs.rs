//! The programs of docs/guide/deployment.md: compiled as the page shows them, and run over a real Kafka and
//! MongoDB.
//!
//! One test alone starts them, for they read the settings of the folder they are started in, and end on a signal.

use flowkit::fleet;
use flowkit::prelude::*;
use flowkit::settings::Settings;
use rustix::process::{Signal, getpid, kill_process};
use serde_json::json;
use std::thread::{JoinHandle, sleep, spawn};
use std::time::Duration;

mod worker {
    include!("../../docs/guide/deployment/worker.rs");

    pub(super) fn run() -> Result<(), String> {
        main().map_err(|error| error.to_string())
    }
}

mod coordinator {
    include!("../../docs/guide/deployment/coordinator.rs");

    pub(super) fn run() -> Result<(), String> {
        main().map_err(|error| error.to_string())
    }
}

/// What the page shows of a file: all behind its first line.
fn shown(file: &str) -> String {
    let (_, code) = file.split_once("\n\n").expect("a first line, then code");
    assert!(code.lines().count() <= 25, "short enough to read");
    format!("```rust,no_run\n{code}```")
}

#[test]
fn the_programs_of_the_page_run_a_task_over_the_servers_and_end_on_a_signal() {
    let page = include_str!("../../docs/guide/deployment.md");
    for file in [
        include_str!("../../docs/guide/deployment/worker.rs"),
        include_str!("../../docs/guide/deployment/coordinator.rs"),
    ] {
        assert!(page.contains(&shown(file)), "{file}");
    }

    use std::hash::{BuildHasher, RandomState};
    let name = format!("flowkit_programs_{:016x}", RandomState::new().hash_one(0));
    let folder = tempfile::tempdir().expect("a folder");
    std::env::set_current_dir(folder.path()).expect("it is there");
    let settings = format!("database = \"{name}\"\ntopic_prefix = \"{name}\"\ncapacity = 2\n");
    std::fs::write("flowkit.toml", settings).expect("written");

    let programs = [spawn(coordinator::run), spawn(worker::run)];
    let runtime = tokio::runtime::Runtime::new().expect("threads");
    runtime.block_on(async {
        let settings = Settings::load("flowkit.toml", []).expect("no faults");
        let engine = fleet::connect(&settings).await.expect("servers");
        let graph = json!({"nodes": [
            {"node_id": "words", "type": "words",
             "io": {"input_inline": {"page 1": "to be or not", "page 2": "to be"}}},
            {"node_id": "gross", "type": "coordinator_fn", "depends_on": ["words"],
             "io": {"fn": "price.gross"}},
        ]});
        let mut options = SubmitOptions::default();
        options.vars = Some(Json::encode(&json!({"net": 200})).expect("JSON"));
        let task = engine.client().submit(&graph, options).await;
        let task = task.expect("submitted");
        let ended = tokio::time::timeout(Duration::from_secs(60), task.wait()).await;
        let ended = ended.expect("in time").expect("an answer");
        assert_eq!(ended.state, TaskState::Finished, "{:?}", ended.failure);
        let status = task.status().await.expect("readable");
        assert_eq!(status.vars.text(), r#"{"gross":238,"net":200}"#);
        let words = task.artifacts("words").all().await.expect("readable");
        assert_eq!(words[0].value.text(), "6");
        let worker = &engine.client().workers().await.expect("readable")[0];
        assert_eq!((worker.worker_id.as_str(), worker.capacity), ("words-1", 2));
    });

    // Both listen by now: the one has run the node, the other has answered.
    kill_process(getpid(), Signal::TERM).expect("sent");
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    while !programs.iter().all(JoinHandle::is_finished) {
        assert!(std::time::Instant::now() < deadline, "they end on SIGTERM");
        sleep(Duration::from_millis(20));
    }
    for program in programs {
        assert_eq!(program.join().expect("no panic"), Ok(()));
    }
}

#[test]
fn settings_that_name_no_server_are_refused_with_every_missing_key() {
    let settings = flowkit::settings::Given::default().settings();
    let settings = settings.expect("defaults have no faults");
    let runtime = tokio::runtime::Runtime::new().expect("threads");
    let error = runtime.block_on(fleet::connect(&settings));
    let error = error.expect_err("nowhere to go").to_string();
    for key in ["kafka_bootstrap: ", "mongo_uri: "] {
        assert!(error.contains(key), "{error}");
    }
}
