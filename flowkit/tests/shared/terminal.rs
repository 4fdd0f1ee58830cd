//! `script` of util-linux as a terminal, for tests of what is shown there.

use std::process::{Command, Stdio};

pub(crate) const ESC: char = '\x1b';
/// Moves the cursor up: what is drawn over is live.
pub(crate) const UP: &str = "\x1b[1A";
pub(crate) const CYAN: &str = "\x1b[36m";

/// Types a line into a shell on a terminal, and returns all that the terminal was sent.
pub(crate) fn on_a_terminal(line: &str, variables: &[(&str, &str)]) -> String {
    let program = env!("CARGO_BIN_EXE_flowkit");
    let line = format!(
        "stty cols 100 rows 30; {}",
        line.replace("flowkit ", &format!("'{program}' "))
    );
    let output = Command::new("script")
        .args(["-q", "-e", "-c", &line, "/dev/null"])
        .env("TERM", "xterm-256color")
        .env_remove("NO_COLOR")
        .env_remove("RUST_LOG")
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .output();
    let output = output.unwrap_or_else(|error| {
        panic!("`script` does not start ({error}): install util-linux (Debian: bsdutils), which the tests use as a terminal")
    });
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{line}: {}\n{said}", output.status);
    said
}

/// The escapes that set a colour or another look: `ESC [ numbers m`.
pub(crate) fn colours(said: &str) -> Vec<&str> {
    let looks = said.split(ESC).skip(1).filter(|rest| {
        let code = rest.strip_prefix('[').unwrap_or_default();
        let end = code.find(|c: char| !c.is_ascii_digit() && c != ';');
        end.is_some_and(|end| code[end..].starts_with('m') && end > 0 && &code[..end] != "0")
    });
    looks.collect()
}
