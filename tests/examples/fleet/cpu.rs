//! Where the time goes: processor time of each process (Linux).

use std::collections::BTreeSet;
use std::fs;
use std::time::Instant;

/// Clock ticks per second of `/proc`: 100 wherever Linux runs.
const TICKS_PER_S: f64 = 100.0;

/// Processes that are watched, by name.
#[derive(Debug, Default)]
pub(crate) struct Cpu(Vec<(&'static str, u32)>);

/// The state at one moment.
#[derive(Debug)]
pub(crate) struct Mark {
    at: Instant,
    seconds: Vec<f64>,
}

impl Cpu {
    pub(crate) fn watch(&mut self, name: &'static str, pid: u32) {
        self.0.push((name, pid));
    }

    /// Watches whoever listens on a port of this machine; a server elsewhere is left out.
    pub(crate) fn watch_server(&mut self, name: &'static str, address: &str) {
        if let Some(pid) = port_of(address).and_then(listener) {
            self.watch(name, pid);
        }
    }

    pub(crate) fn mark(&self) -> Mark {
        Mark {
            at: Instant::now(),
            seconds: self.0.iter().map(|(_, pid)| seconds_of(*pid)).collect(),
        }
    }

    /// Cores that each name used since a mark.
    pub(crate) fn cores_since(&self, mark: &Mark) -> Vec<(&'static str, f64)> {
        let elapsed = mark.at.elapsed().as_secs_f64();
        let mut cores: Vec<(&'static str, f64)> = Vec::new();
        for ((name, pid), before) in self.0.iter().zip(&mark.seconds) {
            let used = (seconds_of(*pid) - before) / elapsed;
            match cores.iter_mut().find(|(other, _)| other == name) {
                Some((_, sum)) => *sum += used,
                None => cores.push((name, used)),
            }
        }
        cores
    }
}

fn seconds_of(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name in brackets may hold anything; what follows it are numbers.
    let numbers = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks = numbers.split_whitespace().skip(11).take(2);
    ticks.filter_map(|n| n.parse::<f64>().ok()).sum::<f64>() / TICKS_PER_S
}

/// The port of the first host of an address or a MongoDB URI.
fn port_of(address: &str) -> Option<u16> {
    let hosts = address.split_once("://").map_or(address, |(_, rest)| rest);
    let hosts = hosts.split('/').next()?;
    let first = hosts.rsplit('@').next()?.split(',').next()?;
    first.rsplit_once(':')?.1.parse().ok()
}

/// The process that listens on a port of this machine.
fn listener(port: u16) -> Option<u32> {
    let mut sockets = BTreeSet::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        for line in fs::read_to_string(table).unwrap_or_default().lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            // Local address, state `0A` (listening), inode.
            if let (Some(local), Some(&"0A"), Some(inode)) =
                (words.get(1), words.get(3), words.get(9))
                && local.ends_with(&format!(":{port:04X}"))
            {
                sockets.insert(format!("socket:[{inode}]"));
            }
        }
    }
    let processes = fs::read_dir("/proc").ok()?.filter_map(Result::ok);
    let mut pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.find(|pid| {
        let files = fs::read_dir(format!("/proc/{pid}/fd"));
        files.is_ok_and(|files| {
            files.filter_map(Result::ok).any(|file| {
                let target = fs::read_link(file.path()).ok();
                target.is_some_and(|target| sockets.contains(&*target.to_string_lossy()))
            })
        })
    })
}
