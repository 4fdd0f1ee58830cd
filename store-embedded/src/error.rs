//! What can go wrong: opening, one request, the whole store.

use flowkit_core::port::{ErrorKind, PortError};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::watch;

/// Why a store cannot be opened. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The path names something that is not a folder.
    #[error("{} is not a folder; give the path of a folder for the data", path.display())]
    NotAFolder {
        /// The path.
        path: PathBuf,
    },
    /// The folder or a file in it cannot be created, read or written.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// The folder or file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Another process has the store open.
    #[error("{} is in use by {}; only one process may open it", path.display(), holder(*pid))]
    InUse {
        /// The data folder.
        path: PathBuf,
        /// The process that holds it, if it is known.
        pid: Option<u32>,
    },
    /// The file is a FlowKit store, but damaged.
    #[error(
        "{} is damaged ({detail}); nothing was changed. Restore it from a backup, or move it away \
         to start with an empty store",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found.
        detail: String,
    },
    /// The file is not a FlowKit store.
    #[error(
        "{} is not a FlowKit store ({detail}); nothing was changed. Give another folder, or move \
         the file away",
        path.display()
    )]
    NotOurs {
        /// The file.
        path: PathBuf,
        /// What was found.
        detail: String,
    },
    /// A newer version of FlowKit wrote the file.
    #[error(
        "{} was written by a newer version of FlowKit (schema {found}, this program knows up to \
         {known}); nothing was changed. Use that version",
        path.display()
    )]
    NewerSchema {
        /// The file.
        path: PathBuf,
        /// Its schema version.
        found: u32,
        /// The newest that this program knows.
        known: u32,
    },
    /// An older version of FlowKit wrote the file, in a form that this one does not read.
    #[error(
        "{} was written by an older version of FlowKit (schema {found}, this program reads {known}); \
         nothing was changed. Let that version finish its tasks, and name another folder for this one",
        path.display()
    )]
    OlderSchema {
        /// The file.
        path: PathBuf,
        /// Its schema version.
        found: u32,
        /// The one that this program reads.
        known: u32,
    },
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or_else(
        || "another process".to_owned(),
        |pid| format!("process {pid}"),
    )
}

/// Why a request ended without its reply.
#[derive(Debug)]
pub(crate) enum Stop {
    /// The file failed: the end of the store.
    Store(Box<redb::Error>),
    /// An answer to this request alone.
    Answer(PortError),
}

impl From<PortError> for Stop {
    fn from(error: PortError) -> Self {
        Self::Answer(error)
    }
}

macro_rules! store_errors {
    ($($error:ident),*) => {$(
        impl From<redb::$error> for Stop {
            fn from(error: redb::$error) -> Self {
                Self::Store(Box::new(error.into()))
            }
        }
    )*};
}
store_errors!(
    StorageError,
    TableError,
    TransactionError,
    CommitError,
    SetDurabilityError
);

/// The end of a store: set once, seen by every later call.
#[derive(Clone, Debug)]
pub(crate) struct Failure(Arc<watch::Sender<Option<Arc<str>>>>);

impl Failure {
    pub(crate) fn new() -> Self {
        Self(Arc::new(watch::Sender::new(None)))
    }

    /// Notes the end; the first cause stays.
    pub(crate) fn set(&self, cause: &str) {
        self.0.send_if_modified(|failed| {
            let first = failed.is_none();
            if first {
                *failed = Some(Arc::from(cause));
            }
            first
        });
    }

    pub(crate) fn check(&self, op: &str) -> Result<(), PortError> {
        match &*self.0.borrow() {
            Some(cause) => Err(failed(op, cause)),
            None => Ok(()),
        }
    }

    /// The error of a call that met the end.
    pub(crate) fn error(&self, op: &str) -> PortError {
        let cause = self.0.borrow().clone();
        failed(op, cause.as_deref().unwrap_or("the store is closed"))
    }

    pub(crate) async fn wait(&self) -> PortError {
        let mut receiver = self.0.subscribe();
        // The sender lives as long as `self`, so this ends only with a failure.
        let cause = receiver.wait_for(Option::is_some).await;
        let cause = cause.ok().and_then(|cause| (*cause).clone());
        failed("store", cause.as_deref().unwrap_or("closed"))
    }
}

fn failed(op: &str, cause: &str) -> PortError {
    let detail = format!("the store has failed and its process must end: {cause}");
    PortError::new(ErrorKind::Corrupt, op, detail)
}
