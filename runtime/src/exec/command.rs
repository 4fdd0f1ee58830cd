//! What to start: words as a shell splits them, and whether there is such a program here.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::Exec;

/// Why a command line cannot be run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ExecError {
    /// It has no words.
    #[error("the command is empty: name a program, such as 'python3 ocr.py'")]
    Empty,
    /// A quote is not closed, or it ends with a backslash.
    /// (The line is not shown: there may be a token in it.)
    #[error("the command ends within a quote or an escape: close it")]
    Quote,
    /// No system could start it.
    #[error("the command holds a NUL character")]
    Nul,
    /// There is no such file.
    #[error(
        "the program {0:?} is not there: install it, or name it by its path (looked for in {1})"
    )]
    Missing(String, String),
    /// There is a file, and it cannot be executed.
    #[error("the program {0:?} is not executable: chmod +x it, or name its interpreter before it")]
    NotExecutable(String),
}

impl Exec {
    /// A command line, split into words as a shell does it: blanks separate, quotes and backslashes
    /// join. Nothing else of a shell happens: no variables, no patterns, no pipes. For those write
    /// `sh -c '…'`.
    ///
    /// # Errors
    /// It is empty, ends within a quote, or holds a NUL.
    pub fn parse(line: &str) -> Result<Self, ExecError> {
        if line.contains('\0') {
            return Err(ExecError::Nul);
        }
        let words = shlex::split(line).ok_or(ExecError::Quote)?;
        let mut words = words.into_iter();
        match words.next() {
            Some(program) if !program.is_empty() => Ok(Self::new(program, words)),
            _ => Err(ExecError::Empty),
        }
    }

    /// Looks whether the program is there and executable: for an error at the start of a worker and
    /// not in every run.
    ///
    /// # Errors
    /// It is not.
    pub fn check(&self) -> Result<(), ExecError> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        self.check_within(&path)
    }

    fn check_within(&self, path: &OsStr) -> Result<(), ExecError> {
        let named = Path::new(&self.program);
        let by_path = self.program.contains('/');
        let places: Vec<PathBuf> = if by_path {
            vec![named.to_owned()]
        } else {
            let folders = std::env::split_paths(path);
            folders.map(|folder| folder.join(named)).collect()
        };
        if places.iter().any(|place| is_executable(place)) {
            return Ok(());
        }
        if places.iter().any(|place| place.exists()) {
            return Err(ExecError::NotExecutable(self.program.clone()));
        }
        let looked = if by_path {
            "this folder".to_owned()
        } else {
            "PATH".to_owned()
        };
        Err(ExecError::Missing(self.program.clone(), looked))
    }

    pub(super) fn command(&self) -> tokio::process::Command {
        let mut command = tokio::process::Command::new(&self.program);
        command.args(&self.arguments);
        command
    }

    /// The program's name, for errors. Its arguments may hold what nobody should read.
    pub(super) fn name(&self) -> &str {
        &self.program
    }

    pub(super) const fn longest_line(&self) -> usize {
        self.line_bytes_max
    }
}

#[cfg(unix)]
fn is_executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(file)
        .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(not(unix))]
fn is_executable(file: &Path) -> bool {
    file.is_file()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_split_as_a_shell_does_and_nothing_more_happens() {
        let exec = Exec::parse(r#"python3 'my script.py' "a b"\ c $HOME *.txt | x"#).unwrap();
        let words = ["my script.py", "a b c", "$HOME", "*.txt", "|", "x"];
        assert_eq!(exec, Exec::new("python3", words));
    }

    #[test]
    fn a_line_that_is_no_command_is_refused_with_the_cure() {
        for (line, part) in [
            ("", "empty"),
            ("   ", "empty"),
            ("# a comment", "empty"),
            ("'' x", "empty"),
            ("python3 'open", "within a quote"),
            ("a\0b", "NUL"),
        ] {
            let text = Exec::parse(line).unwrap_err().to_string();
            assert!(text.contains(part), "{line:?}: {text}");
        }
    }

    #[test]
    fn a_program_is_looked_for_before_it_is_needed() {
        let folder = tempfile::tempdir().unwrap();
        let plain = folder.path().join("plain");
        std::fs::write(&plain, "text").unwrap();
        let within = |name: &str| {
            Exec::parse(name)
                .unwrap()
                .check_within(folder.path().as_ref())
        };
        assert!(matches!(within("no-such"), Err(ExecError::Missing(..))));
        assert!(matches!(within("./no/such"), Err(ExecError::Missing(..))));
        assert!(matches!(within("plain"), Err(ExecError::NotExecutable(_))));
        let by_path = within(plain.to_str().unwrap());
        assert!(matches!(by_path, Err(ExecError::NotExecutable(_))));
        assert_eq!(Exec::parse("sh").unwrap().check(), Ok(()));
    }
}
