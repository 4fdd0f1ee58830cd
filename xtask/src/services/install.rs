//! Programs that fetch and run the servers: found, or installed through the system's packages.

use std::process::{Command, Stdio};

use crate::run::{Outcome, step};

fn runs(program: &str, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Sees that a program is there; as root it is installed from Debian's packages.
pub(crate) fn program(name: &str, probe: &[&str], packages: &[&str]) -> Outcome {
    if runs(name, probe) {
        return Ok(());
    }
    let list = packages.join(" ");
    let cure = format!("`{name}` is needed: install it (Debian: apt-get install {list})");
    let is_root = std::env::var("USER").is_ok_and(|user| user == "root")
        || runs("sh", &["-c", "test $(id -u) = 0"]);
    if !is_root || !runs("apt-get", &["--version"]) {
        return Err(cure);
    }
    let mut update = Command::new("apt-get");
    step("package lists", update.args(["update", "--quiet"]))?;
    let mut install = Command::new("apt-get");
    install.env("DEBIAN_FRONTEND", "noninteractive");
    install
        .args(["install", "--yes", "--quiet", "--no-install-recommends"])
        .args(packages);
    step("packages", &mut install)?;
    if runs(name, probe) { Ok(()) } else { Err(cure) }
}
