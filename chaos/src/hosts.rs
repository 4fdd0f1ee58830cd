//! The processes of a run: started, killed, frozen, stopped and started again as the plan says.

use flowkit_sim::judge::{Life, Place, Seen};
use flowkit_sim::plan::Plan;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::journal::now_us;
use crate::seconds;
use crate::timeline::Timeline;
use crate::worker::{NOT_STARTED, SUPERSEDED};

/// A process that could not start is started again after this long.
const START_AGAIN: Duration = Duration::from_millis(300);
/// Beyond its grace a process that was asked to stop is killed.
const STOP_PATIENCE: Duration = Duration::from_secs(25);

/// What every process of a run is told.
#[derive(Clone, Debug)]
pub(crate) struct Deployment {
    /// The `flowkit` command, with its adapters.
    pub(crate) flowkit: PathBuf,
    /// Folder of this run: plan, journals, logs.
    pub(crate) folder: PathBuf,
    /// Database, and prefix of the topics.
    pub(crate) name: String,
}

/// What a host runs.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Coordinator,
    /// Index in the plan's workers.
    Worker(usize),
}

/// One host: at most one process at a time.
#[derive(Debug)]
pub(crate) struct Host {
    index: u32,
    kind: Kind,
    kafka: String,
    mongo: String,
    started: u32,
    child: Option<Child>,
    stalled_until: Option<Instant>,
    start_at: Option<Instant>,
    /// It was asked to stop: when it is killed at the latest, and how long it stays away.
    stopping: Option<(Instant, Duration)>,
    retired: bool,
}

impl Host {
    pub(crate) fn coordinator(index: u32, kafka: String, mongo: String) -> Self {
        Self::new(index, Kind::Coordinator, kafka, mongo)
    }

    pub(crate) fn worker(index: u32, worker: usize, kafka: String, mongo: String) -> Self {
        Self::new(index, Kind::Worker(worker), kafka, mongo)
    }

    fn new(index: u32, kind: Kind, kafka: String, mongo: String) -> Self {
        Self {
            index,
            kind,
            kafka,
            mongo,
            started: 0,
            child: None,
            stalled_until: None,
            start_at: Some(Instant::now()),
            stopping: None,
            retired: false,
        }
    }

    pub(crate) fn is_running(&self) -> bool {
        self.child.is_some()
    }

    /// The worker of the plan that it runs.
    pub(crate) fn worker_index(&self) -> Option<usize> {
        match self.kind {
            Kind::Worker(worker) => Some(worker),
            Kind::Coordinator => None,
        }
    }

    /// The newest process.
    fn place(&self) -> Place {
        Place {
            host: self.index,
            generation: self.started.saturating_sub(1),
            machine: 0,
        }
    }

    /// The journals that its processes wrote.
    pub(crate) fn journals(&self, folder: &Path) -> Vec<(Place, PathBuf)> {
        let places = (0..self.started).map(|generation| Place {
            generation,
            ..self.place()
        });
        places
            .map(|place| (place, journal(folder, place)))
            .collect()
    }

    fn saw(&self, timeline: &Timeline, at_us: u64, what: Life) {
        let place = self.place();
        timeline.note_at(at_us, Seen::Process { place, what });
    }

    fn start(
        &mut self,
        deployment: &Deployment,
        plan: &Plan,
        timeline: &Timeline,
    ) -> Result<(), String> {
        self.started += 1;
        let log = deployment.folder.join(format!("host-{}.log", self.index));
        let failed = |e: std::io::Error| format!("{}: {e}", log.display());
        let file = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .map_err(failed)?;
        let errors = file.try_clone().map_err(failed)?;
        let mut command = match self.kind {
            Kind::Coordinator => self.coordinator_command(deployment, plan),
            Kind::Worker(worker) => self.worker_command(deployment, worker)?,
        };
        command.stdin(Stdio::null()).stdout(file).stderr(errors);
        let at_us = now_us();
        let child = command.spawn();
        let child = child.map_err(|e| format!("{:?}: {e}", command.get_program()))?;
        self.child = Some(child);
        self.saw(timeline, at_us, Life::Started);
        Ok(())
    }

    fn coordinator_command(&self, deployment: &Deployment, plan: &Plan) -> Command {
        let world = &plan.world;
        let mut command = Command::new(&deployment.flowkit);
        command.arg("coordinator");
        command.args(["--kafka", &self.kafka, "--mongo", &self.mongo]);
        command.args([
            "--database",
            &deployment.name,
            "--topic-prefix",
            &deployment.name,
        ]);
        for (key, ms) in [
            ("FLOWKIT_LEASE_TTL_SEC", world.lease_ttl_ms),
            ("FLOWKIT_SHARD_LEASE_TTL_SEC", world.shard_lease_ttl_ms),
            ("FLOWKIT_CANCEL_GRACE_SEC", world.cancel_grace_ms),
        ] {
            command.env(key, seconds(ms).to_string());
        }
        command
    }

    fn worker_command(&self, deployment: &Deployment, worker: usize) -> Result<Command, String> {
        let program = std::env::current_exe().map_err(|e| format!("our own program: {e}"))?;
        let mut command = Command::new(program);
        command.args(["worker", "--worker", &worker.to_string()]);
        command.args(["--kafka", &self.kafka, "--mongo", &self.mongo]);
        command.args(["--name", &deployment.name]);
        command
            .arg("--plan")
            .arg(deployment.folder.join("plan.json"));
        command
            .arg("--journal")
            .arg(journal(&deployment.folder, self.place()));
        Ok(command)
    }

    /// `kill -9`, and up again later.
    pub(crate) fn crash(&mut self, timeline: &Timeline, down: Duration) -> bool {
        let killed = self.kill(timeline);
        if killed {
            self.start_at = Some(Instant::now() + down);
        }
        killed
    }

    /// `kill -9`, for good.
    pub(crate) fn gone(&mut self, timeline: &Timeline) -> bool {
        self.start_at = None;
        self.retired = true;
        self.kill(timeline)
    }

    fn kill(&mut self, timeline: &Timeline) -> bool {
        let Some(mut child) = self.child.take() else {
            return false;
        };
        // Fails only if it has ended by itself, which is as good.
        let _ = (child.kill(), child.wait());
        self.saw(timeline, now_us(), Life::Crashed);
        self.stalled_until = None;
        self.stopping = None;
        true
    }

    /// SIGSTOP; SIGCONT later.
    pub(crate) fn stall(&mut self, timeline: &Timeline, time: Duration) -> bool {
        let until = Instant::now() + time;
        if self.child.is_none() || self.stalled_until.is_some_and(|other| other >= until) {
            return false;
        }
        let at_us = now_us();
        self.signal("-STOP");
        if self.stalled_until.replace(until).is_none() {
            self.saw(timeline, at_us, Life::Stalled);
        }
        true
    }

    fn resume(&mut self, timeline: &Timeline) {
        if self.stalled_until.take().is_some() && self.child.is_some() {
            self.saw(timeline, now_us(), Life::Resumed);
            self.signal("-CONT");
        }
    }

    /// SIGTERM, and up again later.
    pub(crate) fn shutdown(&mut self, down: Duration) -> bool {
        let stops = self.child.is_some() && self.stopping.is_none();
        if stops {
            self.signal("-TERM");
            self.stopping = Some((Instant::now() + STOP_PATIENCE, down));
        }
        stops
    }

    fn signal(&self, which: &str) {
        if let Some(child) = &self.child {
            // What has just ended cannot be signalled, and need not be.
            let _ = Command::new("kill")
                .args([which, &child.id().to_string()])
                .stderr(Stdio::null())
                .status();
        }
    }

    /// Starts, resumes and buries what is due.
    pub(crate) fn tend(
        &mut self,
        deployment: &Deployment,
        plan: &Plan,
        timeline: &Timeline,
    ) -> Result<(), String> {
        let now = Instant::now();
        if self.stalled_until.is_some_and(|until| until <= now) {
            self.resume(timeline);
        }
        if let Some(child) = &mut self.child
            && let Some(status) = child.try_wait().map_err(|e| e.to_string())?
        {
            self.ended(timeline, status)?;
        }
        if self.stopping.is_some_and(|(until, _)| until <= now) && self.stalled_until.is_none() {
            return Err(format!("host {} did not stop when asked", self.index));
        }
        if self.child.is_none() && self.start_at.is_some_and(|at| at <= now) {
            self.start_at = None;
            self.start(deployment, plan, timeline)?;
        }
        Ok(())
    }

    fn ended(&mut self, timeline: &Timeline, status: ExitStatus) -> Result<(), String> {
        self.child = None;
        self.stalled_until = None;
        self.saw(timeline, now_us(), Life::Stopped);
        let stopping = self.stopping.take();
        match status.code() {
            Some(0) if stopping.is_some() => {
                self.start_at = stopping.map(|(_, down)| Instant::now() + down);
            }
            // Its servers were not there: whoever supervises it starts it again.
            Some(code) if code == i32::from(NOT_STARTED) => {
                let down = stopping.map_or(START_AGAIN, |(_, down)| down);
                self.start_at = Some(Instant::now() + down);
            }
            // Another process has its name.
            Some(code) if code == i32::from(SUPERSEDED) => {}
            // It had not come so far as to listen to signals.
            None if stopping.is_some() => {
                self.start_at = stopping.map(|(_, down)| Instant::now() + down);
            }
            _ => return Err(format!("host {} ended by itself: {status}", self.index)),
        }
        Ok(())
    }

    /// Faults are over: it runs.
    pub(crate) fn heal(&mut self, timeline: &Timeline) {
        self.resume(timeline);
        if self.child.is_none() && !self.retired {
            self.start_at = Some(Instant::now());
        } else if let Some((_, down)) = &mut self.stopping {
            *down = Duration::ZERO;
        }
    }

    /// The end of the run: it stops in order, for good.
    pub(crate) fn end(&mut self) {
        self.retired = true;
        self.start_at = None;
        self.shutdown(Duration::from_secs(86_400));
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = (child.kill(), child.wait());
        }
    }
}

fn journal(folder: &Path, place: Place) -> PathBuf {
    folder.join(format!("journal-{}-{}", place.host, place.generation))
}

/// The ends of what all processes said, for a failure.
pub(crate) fn log_ends(folder: &Path) -> String {
    let mut text = String::new();
    let Ok(entries) = fs::read_dir(folder) else {
        return text;
    };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths
        .iter()
        .filter(|path| path.extension().is_some_and(|e| e == "log"))
    {
        let log = fs::read(path).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        let last = lines.len().saturating_sub(8);
        text.push_str(&format!("-- {}\n", path.display()));
        for line in &lines[last..] {
            text.push_str(&format!("   {line}\n"));
        }
    }
    text
}
