//! A server as a process: started on its own, found again by its pid, stopped.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::run::Outcome;

/// How long a server may take to be ready, or to end.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long it may take to end in order before it is killed.
const STOP_PATIENCE: Duration = Duration::from_secs(15);
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// One server's folder: its pid, its port, its log and its data.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    name: &'static str,
    folder: PathBuf,
}

impl Server {
    pub(crate) fn new(services: &Path, name: &'static str) -> Self {
        Self {
            name,
            folder: services.join(name),
        }
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Starts a command that goes on when we end, and waits until it listens.
    pub(crate) fn start(&self, command: &mut Command, port: u16) -> Outcome {
        let log = self.folder.join("log");
        let file = File::create(&log).map_err(|e| format!("{}: {e}", log.display()))?;
        let errors = file
            .try_clone()
            .map_err(|e| format!("{}: {e}", log.display()))?;
        let mut child = command
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(errors)
            // A group of its own: Ctrl-C for us is not for it.
            .process_group(0)
            .spawn()
            .map_err(|e| format!("{} cannot be started: {e}", self.name))?;
        self.note("pid", &child.id().to_string())?;
        self.note("port", &port.to_string())?;
        let started = Instant::now();
        while !listens(port) {
            let ended = child.try_wait().ok().flatten().is_some();
            if ended || started.elapsed() > PATIENCE {
                return Err(format!(
                    "{} did not come up:\n{}",
                    self.name,
                    self.log_end()
                ));
            }
            std::thread::sleep(LOOK_INTERVAL);
        }
        Ok(())
    }

    fn note(&self, what: &str, value: &str) -> Outcome {
        let file = self.folder.join(what);
        fs::write(&file, value).map_err(|e| format!("{}: {e}", file.display()))
    }

    fn noted<T: std::str::FromStr>(&self, what: &str) -> Option<T> {
        let text = fs::read_to_string(self.folder.join(what)).ok()?;
        text.trim().parse().ok()
    }

    /// The pid, if that process is still ours: another one may have got the number.
    fn pid(&self) -> Option<u32> {
        let pid: u32 = self.noted("pid")?;
        let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let ours = self.folder.to_string_lossy();
        String::from_utf8_lossy(&line)
            .contains(&*ours)
            .then_some(pid)
    }

    /// Its port, if it runs and listens.
    pub(crate) fn port(&self) -> Option<u16> {
        self.pid()?;
        let port = self.noted("port")?;
        listens(port).then_some(port)
    }

    pub(crate) fn log_end(&self) -> String {
        let log = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().rev().take(15).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    /// Stops it in order, or kills it; its data goes.
    pub(crate) fn down(&self) -> Outcome {
        if let Some(pid) = self.pid() {
            println!("{}: stopping", self.name);
            signal("-TERM", pid);
            let asked = Instant::now();
            while self.pid().is_some() {
                if asked.elapsed() > STOP_PATIENCE {
                    signal("-KILL", pid);
                }
                if asked.elapsed() > PATIENCE {
                    return Err(format!("{} (pid {pid}) does not end", self.name));
                }
                std::thread::sleep(LOOK_INTERVAL);
            }
        }
        match fs::remove_dir_all(&self.folder) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(format!("{}: {e}", self.folder.display()))
            }
            _ => Ok(()),
        }
    }
}

fn signal(which: &str, pid: u32) {
    let _ = Command::new("kill")
        .args([which, &pid.to_string()])
        .status();
}

fn listens(port: u16) -> bool {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok()
}

/// A port that nobody listens on now.
pub(crate) fn free_port() -> Outcome<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).and_then(|l| l.local_addr());
    listener
        .map(|address| address.port())
        .map_err(|e| format!("no free port: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_another_process_has_is_not_ours() {
        let folder = std::env::temp_dir().join(format!("flowkit-services-{}", std::process::id()));
        let server = Server::new(&folder, "kafka");
        fs::create_dir_all(server.folder()).expect("a folder");
        // This test's own process: alive, but no server of that folder.
        server
            .note("pid", &std::process::id().to_string())
            .expect("written");
        server.note("port", "1").expect("written");
        assert_eq!(server.port(), None);
        assert!(server.down().is_ok(), "and it is left alone");
    }
}
