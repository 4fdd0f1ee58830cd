//! A deployment of its own for each test, and its processes.

use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

/// One deployment of its own: a database and topics that no other test uses.
pub(crate) struct Deployment {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) name: String,
    pub(crate) shards: u32,
}

/// A process of it, killed when dropped.
pub(crate) struct Process {
    child: Child,
    said: Arc<Mutex<Vec<String>>>,
}

impl Process {
    /// One whose output goes elsewhere.
    pub(crate) fn elsewhere(mut command: Command) -> Self {
        Self {
            child: command.spawn().expect("it starts"),
            said: Arc::default(),
        }
    }

    /// SIGKILL: nothing is said to anybody.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it is dead");
    }

    /// Lines that it has written to standard error.
    pub(crate) fn said(&self) -> Vec<String> {
        self.said.lock().expect("no panic").clone()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Deployment {
    pub(crate) fn new(stem: &str, shards: u32) -> Self {
        use std::hash::{BuildHasher, RandomState};
        let unique = RandomState::new().hash_one(stem);
        Self {
            folder: tempfile::tempdir().expect("a folder"),
            name: format!("flowkit_{stem}_{unique:016x}"),
            shards,
        }
    }

    /// A command of this deployment. Leases are short, so that what dies is missed soon.
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_flowkit"));
        command.args(words);
        command.args(["--database", &self.name, "--topic-prefix", &self.name]);
        command.args(["--shards", &self.shards.to_string()]);
        command
            .env("FLOWKIT_LEASE_TTL_SEC", "3")
            .env("FLOWKIT_HB_INTERVAL_SEC", "0.5")
            .env("FLOWKIT_SHARD_LEASE_TTL_SEC", "2")
            .stdin(Stdio::null());
        command
    }

    /// The same with leases of so many seconds. A long one does not run out on a busy machine.
    pub(crate) fn with_lease(&self, words: &[&str], sec: &str) -> Command {
        let mut command = self.command(words);
        command.env("FLOWKIT_LEASE_TTL_SEC", sec);
        command
    }

    /// Starts a process and waits until it says that it is up.
    pub(crate) fn start(&self, words: &[&str]) -> Process {
        self.started(self.command(words))
    }

    /// The same with a command of [`Deployment::command`].
    pub(crate) fn started(&self, mut command: Command) -> Process {
        let mut child = command
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("flowkit starts");
        let stderr = child.stderr.take().expect("piped");
        let mut lines = BufReader::new(stderr).lines();
        let first = lines.next().expect("it says something").expect("text");
        assert!(first.contains("Ctrl-C stops it in order"), "{first}");
        let said = Arc::new(Mutex::new(Vec::new()));
        let heard = said.clone();
        // What else it says must not fill the pipe.
        std::thread::spawn(move || {
            let lines = lines.map_while(Result::ok);
            lines.for_each(|line| heard.lock().expect("no panic").push(line));
        });
        Process { child, said }
    }

    pub(crate) fn coordinator(&self) -> Process {
        self.start(&["coordinator"])
    }

    pub(crate) fn worker(&self, id: &str) -> Process {
        let words = ["worker", "--worker-id", id, "--capacity", "2"];
        let roles = ["--role", "sleep", "--role", "echo"];
        self.start(&[&words[..], &roles].concat())
    }

    /// Runs a command to its end and reads the JSON object that it prints.
    pub(crate) fn json(&self, words: &[&str], code: i32) -> Value {
        self.answer(self.command(words), code)
    }

    /// The same with a command of [`Deployment::command`].
    pub(crate) fn answer(&self, mut command: Command, code: i32) -> Value {
        let output = command.arg("--json").output().expect("it runs");
        let text = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(
            output.status.code(),
            Some(code),
            "{command:?}: {text}\n{errors}"
        );
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}\n{errors}"))
    }

    /// Waits until a worker runs a node. It says that it is up before it has registered, and until
    /// then only the list answers without an error.
    pub(crate) fn until_runs(&self, worker: &str, node: &str) {
        let runs = |list: &Value| {
            let mut workers = list["workers"].as_array().into_iter().flatten();
            workers.any(|known| {
                let mut running = known["running"].as_array().into_iter().flatten();
                known["worker_id"] == worker && running.any(|running| running == node)
            })
        };
        until(|| self.json(&["worker", "list"], 0), runs);
    }

    pub(crate) fn graph(&self, graph: &Value) -> String {
        let file = self.folder.path().join("graph.json");
        fs::write(&file, graph.to_string()).expect("written");
        file.to_str().expect("UTF-8").to_owned()
    }
}

pub(crate) fn sleepers(nodes: usize, ms: u64, batches: u64) -> Value {
    let nodes: Vec<Value> = (0..nodes)
        .map(|n| {
            json!({"node_id": format!("n{n}"), "type": "sleep",
                   "io": {"input_inline": {"ms": ms, "batches": batches}}})
        })
        .collect();
    json!({"nodes": nodes})
}

/// Asks until the answer is as wanted.
pub(crate) fn until(ask: impl Fn() -> Value, wanted: impl Fn(&Value) -> bool) -> Value {
    for _ in 0..300 {
        let answer = ask();
        if wanted(&answer) {
            return answer;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    panic!("never as wanted: {}", ask());
}
