//! A server as a process: started on its own, found again by its pid, killed, stopped.

use std::collections::hash_map::RandomState;
use std::fs::{self, File};
use std::hash::BuildHasher;
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

/// Where servers listen: below Linux's range for outgoing connections. In that range anybody's
/// connection could take the port while its server is down, and a look could connect to itself.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// One server's folder: its pid, its port, its log and its data.
#[derive(Clone, Debug)]
pub(crate) struct Process {
    name: &'static str,
    folder: PathBuf,
}

impl Process {
    /// The folder must be absolute: it is how a process is known to be ours.
    pub(crate) fn new(services: &Path, name: &'static str) -> Self {
        Self {
            name,
            folder: services.join(name),
        }
    }

    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The port that was noted for it, whether it runs or not.
    pub(crate) fn port(&self) -> Option<u16> {
        self.noted("port")
    }

    pub(crate) fn note_port(&self, port: u16) -> Outcome {
        self.note("port", &port.to_string())
    }

    /// Starts a command that goes on when we end. Its arguments must name the folder.
    pub(crate) fn start(&self, command: &mut Command) -> Outcome {
        let log = self.folder.join("log");
        let failed = |e: std::io::Error| format!("{}: {e}", log.display());
        // Appended to: the log of a killed server says what happened before.
        let file = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .map_err(failed)?;
        let errors = file.try_clone().map_err(failed)?;
        let mut child = command
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(errors)
            // A group of its own: Ctrl-C for us is not for it.
            .process_group(0)
            .spawn()
            .map_err(|e| format!("{} cannot be started: {e}", self.name))?;
        self.note("pid", &child.id().to_string())?;
        // A moment passes until its command line is to be seen, by which all else knows it.
        let started = Instant::now();
        while !self.is_alive() {
            let ended = child.try_wait();
            let ended = ended.map_err(|e| format!("cannot wait for {}: {e}", self.name))?;
            if let Some(status) = ended {
                let log = self.log_end();
                return Err(format!("{} ended ({status}); its log:\n{log}", self.name));
            }
            if started.elapsed() > PATIENCE {
                return Err(format!("{} does not start", self.name));
            }
            std::thread::yield_now();
        }
        Ok(())
    }

    /// Looks until the server is ready, ends, or has had its time.
    pub(crate) fn wait_until(&self, ready: impl Fn() -> bool) -> Outcome {
        let started = Instant::now();
        while !ready() {
            let why = if !self.is_alive() {
                "ended".to_owned()
            } else if started.elapsed() > PATIENCE {
                format!("was not ready after {} s", PATIENCE.as_secs())
            } else {
                std::thread::sleep(LOOK_INTERVAL);
                continue;
            };
            return Err(format!("{} {why}; its log:\n{}", self.name, self.log_end()));
        }
        Ok(())
    }

    pub(crate) fn is_alive(&self) -> bool {
        self.pid().is_some()
    }

    /// The pid, if that process is still ours: another one may have got the number. What has ended
    /// and is not yet waited for has no command line left.
    fn pid(&self) -> Option<u32> {
        let pid: u32 = self.noted("pid")?;
        let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        names(&line, &self.folder).then_some(pid)
    }

    pub(crate) fn log_end(&self) -> String {
        let log = fs::read(self.folder.join("log")).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().rev().take(15).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    /// `kill -9`: nothing is flushed or said goodbye to. The data stays.
    pub(crate) fn kill(&self) -> Outcome {
        let Some(pid) = self.pid() else {
            return Ok(());
        };
        println!("{}: kill -9 {pid}", self.name);
        signal("-KILL", pid)?;
        self.wait_for_end(PATIENCE)
    }

    /// Stops it in order, or kills it. The data stays.
    pub(crate) fn stop(&self) -> Outcome {
        let Some(pid) = self.pid() else {
            return Ok(());
        };
        println!("{}: stopping pid {pid}", self.name);
        signal("-TERM", pid)?;
        self.wait_for_end(STOP_PATIENCE).or_else(|_| self.kill())
    }

    /// It keeps its connections and answers nobody.
    pub(crate) fn freeze(&self) -> Outcome {
        self.pid().map_or(Ok(()), |pid| signal("-STOP", pid))
    }

    pub(crate) fn thaw(&self) -> Outcome {
        self.pid().map_or(Ok(()), |pid| signal("-CONT", pid))
    }

    fn wait_for_end(&self, patience: Duration) -> Outcome {
        let asked = Instant::now();
        while self.is_alive() {
            if asked.elapsed() > patience {
                return Err(format!("{} does not end", self.name));
            }
            std::thread::sleep(LOOK_INTERVAL);
        }
        Ok(())
    }

    /// Removes all that a stopped server left.
    pub(crate) fn remove(&self) -> Outcome {
        match fs::remove_dir_all(&self.folder) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(format!("{}: {e}", self.folder.display()))
            }
            _ => Ok(()),
        }
    }

    fn note(&self, what: &str, value: &str) -> Outcome {
        let file = self.folder.join(what);
        fs::write(&file, value).map_err(|e| format!("{}: {e}", file.display()))
    }

    fn noted<T: std::str::FromStr>(&self, what: &str) -> Option<T> {
        let text = fs::read_to_string(self.folder.join(what)).ok()?;
        text.trim().parse().ok()
    }
}

/// Whether a command line (words that end in NUL) names something in the folder.
fn names(line: &[u8], folder: &Path) -> bool {
    let inside = format!("{}/", folder.display());
    String::from_utf8_lossy(line).contains(&inside)
}

fn signal(which: &str, pid: u32) -> Outcome {
    // Its outcome says nothing: a process that has just ended is what we want.
    Command::new("kill")
        .args([which, &pid.to_string()])
        .stderr(Stdio::null())
        .status()
        .map(|_| ())
        .map_err(|e| format!("cannot run kill: {e}"))
}

/// A connection to a port of this machine, with a limit on every read and write.
pub(crate) fn connect(port: u16) -> std::io::Result<TcpStream> {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let limit = Duration::from_secs(2);
    let stream = TcpStream::connect_timeout(&address, limit)?;
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    Ok(stream)
}

/// A port that nobody listens on now.
pub(crate) fn free_port() -> Outcome<u16> {
    let tries = (0..1_000_u32).map(|n| RandomState::new().hash_one(n) % PORTS.len() as u64);
    tries
        .filter_map(|offset| PORTS.start.checked_add(u16::try_from(offset).ok()?))
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .ok_or_else(|| format!("no free port from {} to {}", PORTS.start, PORTS.end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_another_process_has_is_not_ours() {
        let folder = std::env::temp_dir().join(format!("flowkit-services-{}", std::process::id()));
        let process = Process::new(&folder, "kafka");
        fs::create_dir_all(process.folder()).expect("a folder");
        // This test's own process: alive, but no server of that folder.
        let pid = std::process::id().to_string();
        process.note("pid", &pid).expect("written");
        assert!(!process.is_alive());
        assert!(process.kill().is_ok(), "and it is left alone");
        assert!(process.remove().is_ok());
        fs::remove_dir(folder).expect("nothing else is in it");
    }

    #[test]
    fn a_command_line_is_ours_if_it_names_something_in_the_folder() {
        let folder = Path::new("/t/services/kafka");
        assert!(names(
            b"java\0/t/services/kafka/server.properties\0",
            folder
        ));
        assert!(!names(
            b"java\0/t/services/kafka2/server.properties\0",
            folder
        ));
        assert!(!names(b"", folder));
    }

    #[test]
    fn a_free_port_is_outside_the_range_of_outgoing_connections() {
        assert!(PORTS.contains(&free_port().expect("a port")));
    }
}
