//! The real Kafka and MongoDB of a run: where they are, and what is done to them.

use flowkit_sim::plan::{Leaving, Server};
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

/// A set of servers that `cargo xtask services up` has started.
#[derive(Clone, Debug)]
pub(crate) struct Servers {
    /// The xtask program.
    pub(crate) xtask: PathBuf,
    /// The set's folder.
    pub(crate) folder: PathBuf,
    /// Kafka's own address.
    pub(crate) kafka: String,
    /// MongoDB's own port.
    pub(crate) mongo_port: u16,
}

/// Something that is being done to a server.
pub(crate) type Doing = JoinHandle<Result<(), String>>;

impl Servers {
    /// Reads where the servers of a folder are.
    pub(crate) fn of(xtask: PathBuf, folder: PathBuf) -> Result<Self, String> {
        let port = |name: &str| {
            let file = folder.join(name).join("port");
            let text = fs::read_to_string(&file).map_err(|e| format!("{}: {e}", file.display()))?;
            let text = text.trim();
            text.parse::<u16>()
                .map_err(|e| format!("{}: {text}: {e}", file.display()))
        };
        Ok(Self {
            kafka: format!("127.0.0.1:{}", port("kafka")?),
            mongo_port: port("mongo")?,
            xtask,
            folder,
        })
    }

    /// MongoDB itself.
    pub(crate) fn mongo(&self) -> String {
        format!(
            "mongodb://127.0.0.1:{}/?directConnection=true",
            self.mongo_port
        )
    }

    /// Kafka's further listeners: where each is, and the port that its clients are told.
    pub(crate) fn listeners(&self) -> Result<Vec<(u16, u16)>, String> {
        let file = self.folder.join("kafka/listeners");
        let text = fs::read_to_string(&file).map_err(|e| format!("{}: {e}", file.display()))?;
        let pair = |line: &str| {
            let (at, told) = line.split_once(' ')?;
            Some((at.parse().ok()?, told.trim().parse().ok()?))
        };
        let pairs: Option<Vec<(u16, u16)>> = text.lines().map(pair).collect();
        pairs.ok_or_else(|| format!("{}: not pairs of ports", file.display()))
    }

    /// Takes a server away and brings it back, beside all else.
    pub(crate) fn away(&self, server: Server, how: Leaving, for_ms: u64) -> Doing {
        let servers = self.clone();
        std::thread::spawn(move || {
            let (gone, back) = match how {
                Leaving::Frozen => ("freeze", "thaw"),
                Leaving::Stopped => ("stop", "start"),
                Leaving::Killed => ("kill", "start"),
            };
            servers.act(gone, server)?;
            std::thread::sleep(Duration::from_millis(for_ms));
            servers.act(back, server)
        })
    }

    fn act(&self, verb: &str, server: Server) -> Result<(), String> {
        let name = match server {
            Server::Store => "mongo",
            Server::Broker => "kafka",
        };
        let mut command = Command::new(&self.xtask);
        command.args(["services", "--folder"]).arg(&self.folder);
        command.args([verb, name]).stdin(Stdio::null());
        let output = command.output();
        let output = output.map_err(|e| format!("{}: {e}", self.xtask.display()))?;
        if output.status.success() {
            return Ok(());
        }
        let errors = String::from_utf8_lossy(&output.stderr);
        Err(format!("{verb} {name}: {}", errors.trim()))
    }
}
