//! Running the built `flowkit` command, and folders with known contents.

use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

/// The command as a shell would start it.
pub(crate) fn flowkit() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_flowkit"));
    command.stdin(Stdio::null()).env_remove("RUST_BACKTRACE");
    // Where tests against servers find these; a command that has a folder needs none.
    command
        .env_remove("FLOWKIT_KAFKA")
        .env_remove("FLOWKIT_MONGO");
    command
}

/// What one run printed and how it ended.
#[derive(Debug)]
pub(crate) struct Ran {
    /// Exit code; `None` after a signal.
    pub(crate) code: Option<i32>,
    /// Standard output.
    pub(crate) stdout: String,
    /// Standard error.
    pub(crate) stderr: String,
}

impl Ran {
    /// The one JSON object on standard output.
    pub(crate) fn json(&self) -> Value {
        let value: Value = serde_json::from_str(&self.stdout)
            .unwrap_or_else(|e| panic!("no JSON object on standard output: {e}\n{self:#?}"));
        assert!(value.is_object(), "no JSON object: {value}");
        value
    }

    /// Fails unless the command ended so; shows all it printed.
    #[track_caller]
    pub(crate) fn expect_code(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:#?}");
        assert!(
            !self.stderr.contains("panicked at"),
            "a panic of ours: {self:#?}"
        );
        self
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// Runs the command to its end.
pub(crate) fn run<I: IntoIterator<Item = S>, S: AsRef<std::ffi::OsStr>>(arguments: I) -> Ran {
    let output = flowkit().args(arguments).output().expect("flowkit starts");
    output.into()
}

/// Lines, words, bytes by the plain definition.
pub(crate) fn plain_counts(text: &[u8]) -> (u64, u64, u64) {
    let space = |byte: &u8| b" \t\n\x0b\x0c\r".contains(byte);
    let lines = text.iter().filter(|byte| **byte == b'\n').count();
    let words = text.split(space).filter(|word| !word.is_empty()).count();
    (lines as u64, words as u64, text.len() as u64)
}

/// A temporary folder whose totals are known.
#[derive(Debug)]
pub(crate) struct Tree {
    folder: tempfile::TempDir,
    /// Files, lines, words, bytes.
    pub(crate) totals: [u64; 4],
    /// Files by extension.
    pub(crate) extensions: BTreeMap<String, u64>,
}

impl Tree {
    /// An empty one.
    pub(crate) fn new() -> Self {
        Self {
            folder: tempfile::tempdir().expect("a temporary folder"),
            totals: [0; 4],
            extensions: BTreeMap::new(),
        }
    }

    /// One with this many small files in folders of fifty.
    pub(crate) fn with_files(count: usize) -> Self {
        let mut tree = Self::new();
        for file in 0..count {
            let name = format!(
                "d{:03}/f{file}.{}",
                file / 50,
                ["txt", "rs", "md"][file % 3]
            );
            tree.file(name, "some words\n".repeat(file % 17).as_bytes());
        }
        tree
    }

    /// Its place.
    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Adds a file.
    pub(crate) fn file(&mut self, name: impl AsRef<Path>, text: &[u8]) -> PathBuf {
        let path = self.path().join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("folders");
        fs::write(&path, text).expect("a file");
        let (lines, words, bytes) = plain_counts(text);
        for (total, add) in self.totals.iter_mut().zip([1, lines, words, bytes]) {
            *total += add;
        }
        let extension = path.extension().unwrap_or_default().to_string_lossy();
        *self.extensions.entry(extension.into_owned()).or_default() += 1;
        path
    }
}

/// Files, lines, words and bytes of an answer of the demo.
pub(crate) fn totals(answer: &Value) -> [u64; 4] {
    ["files", "lines", "words", "bytes"].map(|key| {
        answer[key]
            .as_u64()
            .unwrap_or_else(|| panic!("`{key}` is no number: {answer}"))
    })
}

/// Waits for a progress line that holds these words. The rest of standard error is read on and
/// thrown away, so that the child never waits for us.
#[track_caller]
pub(crate) fn wait_for(child: &mut Child, words: &str) {
    let mut stderr = BufReader::new(child.stderr.take().expect("standard error is piped"));
    let mut line = String::new();
    while !line.contains(words) {
        line.clear();
        let read = stderr.read_line(&mut line).expect("a line");
        assert_ne!(read, 0, "it ended before it said `{words}`");
    }
    std::thread::spawn(move || std::io::copy(&mut stderr, &mut std::io::sink()));
}
