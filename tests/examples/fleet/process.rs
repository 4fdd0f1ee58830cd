//! A process under measurement: killed with SIGKILL when dropped.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use crate::Outcome;

#[derive(Debug)]
pub(crate) struct Process(Child);

impl Process {
    /// Starts one and waits until it says that it is up.
    pub(crate) fn start(mut command: Command) -> Outcome<Self> {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let stderr = child.stderr.take().ok_or("no standard error")?;
        let process = Self(child);
        let mut lines = BufReader::new(stderr).lines();
        let first = lines.next().ok_or("the process ended at once")??;
        if !first.contains("Ctrl-C stops it in order") {
            let rest: Vec<String> = lines.map_while(Result::ok).collect();
            return Err(format!("{first}\n{}", rest.join("\n")).into());
        }
        // What goes wrong while it is measured must be seen, and must not fill the pipe.
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                eprintln!("  | {line}");
            }
        });
        Ok(process)
    }

    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }

    /// SIGKILL: nothing is said to anybody.
    pub(crate) fn kill(self) {}
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
