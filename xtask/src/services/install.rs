//! Programs that fetch and run the servers: found, or installed through the system's packages.

use std::process::{Command, Stdio};

use crate::run::{Outcome, output, step};

/// Kafka 4 is compiled for this Java.
const JAVA_MIN: u32 = 17;

pub(crate) fn runs(program: &str, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Sees that a program is there; as root it is installed from Debian's packages.
pub(crate) fn program(name: &str, probe: &[&str], packages: &[&str]) -> Outcome {
    needed(name, || runs(name, probe), &[packages])
}

/// Sees that a new enough Java is there.
pub(crate) fn java() -> Outcome {
    let probe = || {
        // `java -version` prints to stderr, this one to stdout; Java 8 knows only that one.
        let text = Command::new("java").arg("--version").output();
        text.is_ok_and(|text| java_major(&String::from_utf8_lossy(&text.stdout)) >= JAVA_MIN)
    };
    let name = format!("java, {JAVA_MIN} or newer,");
    // The newest systems no longer have the older one.
    needed(
        &name,
        probe,
        &[&["openjdk-17-jre-headless"], &["openjdk-21-jre-headless"]],
    )
}

/// "openjdk 17.0.15 2025-04-15": 17. Zero if the text says something else.
fn java_major(text: &str) -> u32 {
    let version = text.split_whitespace().nth(1).unwrap_or_default();
    let digits: String = version.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or(0)
}

/// Tries one list of packages after the other until the probe is content.
fn needed(what: &str, probe: impl Fn() -> bool, alternatives: &[&[&str]]) -> Outcome {
    if probe() {
        return Ok(());
    }
    let lists: Vec<String> = alternatives.iter().map(|list| list.join(" ")).collect();
    let cure = format!(
        "{what} is needed: install it (Debian: apt-get install {})",
        lists.join(", or ")
    );
    let is_root = output(Command::new("id").arg("-u")).is_ok_and(|id| id.trim() == "0");
    if !is_root || !runs("apt-get", &["--version"]) {
        return Err(cure);
    }
    let mut update = Command::new("apt-get");
    step("package lists", update.args(["update", "--quiet"]))?;
    for packages in alternatives {
        let mut install = Command::new("apt-get");
        install.env("DEBIAN_FRONTEND", "noninteractive");
        install
            .args(["install", "--yes", "--quiet", "--no-install-recommends"])
            .args(*packages);
        if step("packages", &mut install).is_ok() && probe() {
            return Ok(());
        }
    }
    Err(cure)
}

#[cfg(test)]
mod tests {
    use super::{java_major, needed};

    #[test]
    fn the_version_of_java_is_read_from_what_it_prints() {
        for (text, major) in [
            (
                "openjdk 17.0.15 2025-04-15\nOpenJDK Runtime Environment",
                17,
            ),
            ("openjdk 25 2025-09-16", 25),
            ("java 21.0.1-ea 2023-10-17 LTS", 21),
            ("", 0),
            ("Unrecognized option: --version", 0),
        ] {
            assert_eq!(java_major(text), major, "{text}");
        }
    }

    #[test]
    fn what_is_there_is_not_installed() {
        assert_eq!(needed("x", || true, &[&["no-such-package"]]), Ok(()));
    }
}
