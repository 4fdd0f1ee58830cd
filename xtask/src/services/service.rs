//! What the servers have in common: laid out, started, waited for, killed, started again, stopped.

use std::process::Command;

use super::process::{Process, free_port};
use crate::run::Outcome;

/// A server of one set. Every set has its own folder; the downloads are shared.
pub(crate) trait Service {
    /// The variable that says where it is.
    fn variable(&self) -> &'static str;

    fn process(&self) -> &Process;

    /// What clients connect to if it listens on that port.
    fn address_at(&self, port: u16) -> String;

    /// Fetches what it needs to run, once.
    fn fetch(&self) -> Outcome;

    /// Lays out an empty server in its folder.
    fn create(&self, port: u16) -> Outcome;

    /// Runs it on what its folder holds.
    fn command(&self, port: u16) -> Command;

    /// Waits until it does all that a test may ask of it.
    fn wait_ready(&self, port: u16) -> Outcome;

    fn is_alive(&self) -> bool {
        self.process().is_alive()
    }

    /// Where it is, if it runs.
    fn address(&self) -> Option<String> {
        let port = self.process().port().filter(|_| self.is_alive())?;
        Some(self.address_at(port))
    }

    /// Starts it on the port and the data that it had, and waits until it is ready.
    fn start(&self) -> Outcome {
        let process = self.process();
        let port = process.port().ok_or_else(|| {
            let name = process.name();
            format!("{name} was never up here: `cargo xtask services up` comes first")
        })?;
        if !self.is_alive() {
            println!("{}: starting on port {port}", process.name());
            process.start(&mut self.command(port))?;
        }
        self.wait_ready(port)
    }

    /// `kill -9`.
    fn kill(&self) -> Outcome {
        self.process().kill()
    }

    /// `kill -9`, then up again on the same port and data.
    fn restart(&self) -> Outcome {
        self.kill()?;
        self.start()
    }

    /// Starts an empty one unless one runs. True beside the address if it was started.
    fn up(&self) -> Outcome<(String, bool)> {
        let process = self.process();
        if let Some(address) = self.address() {
            // It may have been left half started.
            self.start()?;
            println!("{}: runs already", process.name());
            return Ok((address, false));
        }
        self.fetch()?;
        process.remove()?;
        let folder = process.folder();
        std::fs::create_dir_all(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        let port = free_port()?;
        process.note_port(port)?;
        self.create(port)?;
        if let Err(why) = self.start() {
            // Nobody knows of it, so nobody else would stop it.
            process.kill()?;
            return Err(why);
        }
        println!("{}: ready", process.name());
        Ok((self.address_at(port), true))
    }

    /// Stops it and drops its data.
    fn down(&self) -> Outcome {
        self.process().stop()?;
        self.process().remove()
    }
}
