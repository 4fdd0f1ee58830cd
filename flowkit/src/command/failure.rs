//! How the command ends: exit codes, and errors that say what to do.

use std::fmt;
use std::process::ExitCode;

/// How a command that did its work ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// All is done.
    Finished,
    /// A task failed or was cancelled, or the simulator found a broken promise.
    Failed,
    /// Stopped with Ctrl-C; the task is kept where it was.
    Interrupted,
}

impl From<Ending> for ExitCode {
    fn from(ending: Ending) -> Self {
        Self::from(match ending {
            Ending::Finished => 0,
            Ending::Failed => 1,
            Ending::Interrupted => INTERRUPTED,
        })
    }
}

/// Exit code after Ctrl-C.
pub(crate) const INTERRUPTED: u8 = 130;

/// Why a command could not do its work, in words that say what to do.
#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    text: String,
}

impl Failure {
    /// The user can mend it: usage, input, a data folder. Exit code 2.
    pub(crate) fn input(text: impl fmt::Display) -> Self {
        Self {
            code: 2,
            text: text.to_string(),
        }
    }

    /// The engine could not go on. Exit code 1.
    pub(crate) fn engine(text: impl fmt::Display) -> Self {
        Self {
            code: 1,
            text: text.to_string(),
        }
    }

    /// A newer process of the same worker is alive. Exit code 3: starting this one again is no use.
    pub(crate) fn superseded(text: impl fmt::Display) -> Self {
        Self {
            code: 3,
            text: text.to_string(),
        }
    }

    /// It was asked to stop before there was anything to stop in order. Exit code 130.
    pub(crate) fn interrupted() -> Self {
        Self {
            code: INTERRUPTED,
            text: "interrupted".to_owned(),
        }
    }

    /// The exit code.
    pub(crate) fn code(&self) -> ExitCode {
        ExitCode::from(self.code)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The outcome of a command.
pub(crate) type Outcome = Result<Ending, Failure>;
