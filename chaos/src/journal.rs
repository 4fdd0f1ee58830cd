//! What a worker process writes down while it lives, line by line, so that it outlives its death.

use flowkit_core::id::{Epoch, NodeId, TaskId, Token, WorkerId};
use flowkit_core::json::Json;
use flowkit_core::port::GrantView;
use flowkit_runtime::RunInfo;
use flowkit_sim::judge::Step;
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

/// One line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Line {
    /// Microseconds since the Unix epoch.
    pub(crate) at_us: u64,
    pub(crate) what: Entry,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Entry {
    /// A handler began a run.
    Began {
        run: RunKey,
        epoch: Epoch,
        checkpoint: Option<Json>,
        accepted: u64,
    },
    /// A handler's later step.
    Step { run: RunKey, step: Step },
    /// This process registers as a worker under a number of its own.
    Registering { worker: WorkerId, nonce: u64 },
    /// It has read grants, asked for at a time before this line's.
    Grants {
        asked_us: u64,
        nodes: Vec<(TaskId, NodeId)>,
        grants: Vec<Option<GrantView>>,
    },
    /// It has read that a token of its is fenced.
    Fenced { run: RunKey },
}

/// A run, by what no other run of its process has.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct RunKey {
    pub(crate) task: TaskId,
    pub(crate) node: NodeId,
    pub(crate) token: Token,
}

impl RunKey {
    fn of(run: &RunInfo) -> Self {
        Self {
            task: run.task_id.clone(),
            node: run.node_id.clone(),
            token: run.token,
        }
    }
}

/// Microseconds since the Unix epoch. All processes of a run are on one machine: one clock.
pub(crate) fn now_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_micros()).unwrap_or(0))
}

/// An open journal.
#[derive(Debug)]
pub(crate) struct Journal(Mutex<File>);

impl Journal {
    pub(crate) fn create(path: &Path) -> Result<Self, String> {
        let file = OpenOptions::new().create(true).append(true).open(path);
        let file = file.map_err(|e| format!("{}: {e}", path.display()))?;
        Ok(Self(Mutex::new(file)))
    }

    /// Writes a line with the time of now. What the kernel has outlives the process.
    pub(crate) fn note(&self, what: Entry) {
        // The lock is held over the look at the clock: lines are in order of time.
        let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let line = Line {
            at_us: now_us(),
            what,
        };
        let mut text = serde_json::to_string(&line).expect("a line has a JSON form");
        text.push('\n');
        file.write_all(text.as_bytes())
            .expect("the journal can be written");
    }
}

impl flowkit_sim::acting::Journal for Journal {
    fn began(&self, run: &RunInfo, checkpoint: Option<Json>) {
        self.note(Entry::Began {
            run: RunKey::of(run),
            epoch: run.epoch,
            checkpoint,
            accepted: run.accepted,
        });
    }

    fn step(&self, run: &RunInfo, step: Step) {
        let run = RunKey::of(run);
        self.note(Entry::Step { run, step });
    }
}

/// Reads a journal. Its last line may be torn: its process was killed.
pub(crate) fn read(path: &Path) -> Result<Vec<Line>, String> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        // It died before it wrote anything.
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(format!("{}: {e}", path.display())),
    };
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let lines = whole.lines().enumerate();
    lines
        .map(|(n, line)| {
            serde_json::from_str(line).map_err(|e| format!("{}:{}: {e}", path.display(), n + 1))
        })
        .collect()
}
