//! Child processes of a run: each leads a process group of its own, which ends with it.

use flowkit_core::planted::{Bug, is_planted};
use std::ffi::OsString;
use std::io;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::process::{ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::sync::watch;

/// What FlowKit's own settings are called in the environment; they may hold passwords.
const OWN_PREFIX: &str = "FLOWKIT_";

/// A process that a run started with [`RunContext::spawn`](crate::RunContext::spawn).
///
/// It leads a process group of its own. When it ends, whatever is left of the group is killed; when
/// the run ends, the group is asked to end and then killed. Dropping this value closes its end of
/// the pipes and leaves the process running until then.
#[derive(Debug)]
pub struct ChildProcess {
    /// Its standard input: always a pipe, so that it sees the end of file when the worker dies,
    /// however that happens.
    pub stdin: Option<ChildStdin>,
    /// Its standard output, if the command pipes it.
    pub stdout: Option<ChildStdout>,
    /// Its standard error, if the command pipes it.
    pub stderr: Option<ChildStderr>,
    pub(crate) group: Arc<Group>,
}

impl ChildProcess {
    /// Its process id, which is that of its group.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.group.id()
    }

    /// Closes its standard input, if that was not taken, and waits until it has ended. Cancel safe.
    pub async fn wait(&mut self) -> ExitStatus {
        if !is_planted(Bug::StdinHeld) {
            drop(self.stdin.take());
        }
        self.group.ended().await
    }

    /// Asks the group to end (SIGTERM), kills it (SIGKILL) after `grace`, and waits for its end.
    ///
    /// # Cancel safety
    /// Dropped, it may have asked and not killed; the end of the run sees to that.
    pub async fn end(&mut self, grace: Duration) -> ExitStatus {
        drop(self.stdin.take());
        self.group.end(grace).await
    }
}

/// A process group, led by a child of this process.
#[derive(Debug)]
pub(crate) struct Group {
    #[cfg(unix)]
    leader: rustix::process::Pid,
    /// The leader is not reaped yet, so nobody else can have its id.
    unreaped: Mutex<bool>,
    status: watch::Receiver<Option<ExitStatus>>,
}

impl Group {
    pub(crate) fn has_ended(&self) -> bool {
        self.status.borrow().is_some()
    }

    /// Waits for the leader's end.
    pub(crate) async fn ended(&self) -> ExitStatus {
        let mut status = self.status.clone();
        match status.wait_for(Option::is_some).await.map(|status| *status) {
            Ok(Some(status)) => status,
            // Its supervisor went with the runtime, and killed it.
            _ => ExitStatus::default(),
        }
    }

    /// SIGTERM, SIGKILL after `grace`, and its end.
    pub(crate) async fn end(&self, grace: Duration) -> ExitStatus {
        if is_planted(Bug::TermSkipped) {
            self.kill();
        }
        self.terminate();
        if let Ok(status) = tokio::time::timeout(grace, self.ended()).await {
            return status;
        }
        if !is_planted(Bug::KillUnsent) {
            self.kill();
        }
        self.ended().await
    }

    fn unreaped(&self) -> MutexGuard<'_, bool> {
        self.unreaped.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts a process; its end is watched by a task of its own.
pub(crate) fn start(command: &mut Command) -> io::Result<ChildProcess> {
    command.stdin(Stdio::piped());
    for name in hidden(command) {
        command.env_remove(name);
    }
    supervised(command)
}

/// FlowKit's own variables, unless the command sets them itself.
fn hidden(command: &Command) -> Vec<OsString> {
    let set: Vec<_> = command.as_std().get_envs().map(|(name, _)| name).collect();
    let names = std::env::vars_os().map(|(name, _)| name);
    names
        .filter(|name| name.as_encoded_bytes().starts_with(OWN_PREFIX.as_bytes()))
        .filter(|name| !set.contains(&name.as_os_str()))
        .collect()
}

#[cfg(unix)]
mod unix {
    use rustix::io::Errno;
    use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
    use std::time::Instant;
    use tokio::process::Child;
    use tokio::signal::unix::{SignalKind, signal};

    use super::*;

    impl Group {
        pub(crate) fn id(&self) -> u32 {
            self.leader.as_raw_nonzero().get().unsigned_abs()
        }

        /// Asks every process of the group to end.
        pub(crate) fn terminate(&self) {
            self.signal(Signal::TERM);
        }

        /// Kills every process of the group. Returns at once.
        pub(crate) fn kill(&self) {
            self.signal(Signal::KILL);
        }

        fn signal(&self, signal: Signal) {
            let unreaped = self.unreaped();
            if *unreaped {
                // Fails only where nothing is left to signal.
                let _ = kill_process_group(self.leader, signal);
            }
        }
    }

    /// Groups whose leaders are not reaped yet, for a process that ends at once.
    #[derive(Debug)]
    struct Living {
        groups: Vec<Arc<Group>>,
        /// Starts that are under way.
        starting: usize,
        /// Nothing is to start any more.
        is_over: bool,
    }

    static LIVING: Mutex<Living> = Mutex::new(Living {
        groups: Vec::new(),
        starting: 0,
        is_over: false,
    });

    /// Longest wait for starts that are under way when all are killed.
    const STARTS_MAX: Duration = Duration::from_secs(1);

    fn living() -> MutexGuard<'static, Living> {
        LIVING.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Kills the group of every child of this process, which starts no more of them. For a process that ends at
    /// once: nobody else would.
    pub fn kill_all() {
        let began = Instant::now();
        loop {
            let mut living = living();
            living.is_over = true;
            for group in &living.groups {
                group.kill();
            }
            if living.starting == 0 || began.elapsed() >= STARTS_MAX {
                return;
            }
            drop(living);
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// A start that is under way.
    struct Start;

    impl Start {
        fn begins() -> io::Result<Self> {
            let mut living = living();
            if living.is_over {
                return Err(io::Error::other("this process ends"));
            }
            living.starting += 1;
            Ok(Self)
        }

        fn became(self, group: Arc<Group>) {
            let mut living = living();
            if living.is_over {
                group.kill();
            }
            living.groups.push(group);
        }
    }

    impl Drop for Start {
        fn drop(&mut self) {
            living().starting -= 1;
        }
    }

    /// Kills the group when the runtime drops its supervisor.
    struct KillOnDrop(Arc<Group>);

    impl Drop for KillOnDrop {
        fn drop(&mut self) {
            self.0.kill();
            living().groups.retain(|group| !Arc::ptr_eq(group, &self.0));
        }
    }

    pub(super) fn supervised(command: &mut Command) -> io::Result<ChildProcess> {
        // Listening begins before the child does: its end is not missed.
        let mut a_child_changed = signal(SignalKind::child())?;
        let start = Start::begins()?;
        let mut child = command.process_group(0).spawn()?;
        let leader = child.id().and_then(|id| i32::try_from(id).ok());
        let Some(leader) = leader.and_then(Pid::from_raw) else {
            return Err(io::Error::other("the process has no id"));
        };
        let (ended, status) = watch::channel(None);
        let group = Arc::new(Group {
            leader,
            unreaped: Mutex::new(true),
            status,
        });
        let process = ChildProcess {
            stdin: child.stdin.take(),
            stdout: child.stdout.take(),
            stderr: child.stderr.take(),
            group: group.clone(),
        };
        start.became(group.clone());
        let guard = KillOnDrop(group);
        tokio::spawn(async move {
            while !has_exited(leader) {
                if a_child_changed.recv().await.is_none() {
                    break; // no signals any more: the runtime ends
                }
            }
            ended.send_replace(Some(reap(child, &guard.0).await));
        });
        Ok(process)
    }

    /// Looks without reaping: until then the id of the leader, and so of the group, is nobody else's.
    fn has_exited(leader: Pid) -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        match waitid(WaitId::Pid(leader), options) {
            Ok(None) | Err(Errno::INTR) => false,
            Ok(Some(_)) | Err(_) => true,
        }
    }

    /// Kills what the leader left behind, then lets go of its id.
    async fn reap(mut child: Child, group: &Group) -> ExitStatus {
        if !is_planted(Bug::GroupSpared) {
            group.kill();
        }
        *group.unreaped() = false;
        child.wait().await.unwrap_or_default()
    }
}

#[cfg(unix)]
pub use unix::kill_all;
#[cfg(unix)]
use unix::supervised;

#[cfg(not(unix))]
mod other {
    use super::*;

    impl Group {
        pub(crate) fn id(&self) -> u32 {
            0
        }

        pub(crate) fn terminate(&self) {}

        pub(crate) fn kill(&self) {}
    }

    /// There are none.
    pub const fn kill_all() {}

    pub(super) fn supervised(_: &mut Command) -> io::Result<ChildProcess> {
        Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "child processes of a run need process groups, which this system does not have",
        ))
    }
}

#[cfg(not(unix))]
pub use other::kill_all;
#[cfg(not(unix))]
use other::supervised;
