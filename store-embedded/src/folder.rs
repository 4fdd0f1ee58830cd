//! The data folder: its files, and the lock that keeps other processes out.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use crate::error::OpenError;

/// The store's one file.
const DATA: &str = "flowkit.redb";
/// A data file that is being made; renamed when it is complete.
const NEW: &str = "flowkit.redb.new";
/// Locked by the process that has the store open.
const LOCK: &str = "flowkit.lock";
/// Who that is. A file of its own: on some systems a locked file cannot be read.
const PID: &str = "flowkit.pid";

/// Whether a folder has the data file.
pub(crate) fn holds_data(path: &Path) -> bool {
    path.join(DATA).exists()
}

/// A data folder that this process holds. Another one may take it when this is dropped, or when
/// the process ends in any way.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    _lock: File,
}

impl Folder {
    /// Makes the folder if there is none, and locks it.
    pub(crate) fn take(path: &Path) -> Result<Self, OpenError> {
        if path.exists() && !path.is_dir() {
            let path = path.to_owned();
            return Err(OpenError::NotAFolder { path });
        }
        fs::create_dir_all(path).map_err(failed("create the folder", path))?;
        let lock_path = path.join(LOCK);
        let lock = OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(false)
            .open(&lock_path)
            .map_err(failed("write in the folder", path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let pid = fs::read_to_string(path.join(PID)).ok();
                return Err(OpenError::InUse {
                    path: path.to_owned(),
                    pid: pid.and_then(|pid| pid.trim().parse().ok()),
                });
            }
            Err(TryLockError::Error(error)) => return Err(failed("lock", &lock_path)(error)),
        }
        let pid_path = path.join(PID);
        fs::write(&pid_path, format!("{}\n", std::process::id()))
            .map_err(failed("write", &pid_path))?;
        Ok(Self {
            path: path.to_owned(),
            _lock: lock,
        })
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.path.join(DATA)
    }

    /// Opens the data file; `None` if there is none yet.
    pub(crate) fn open_data(&self) -> Result<Option<File>, OpenError> {
        let path = self.data();
        match OpenOptions::new().read(true).write(true).open(&path) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed("open", &path)(error)),
        }
    }

    /// Makes the data file: filled under another name, so that it exists only once it is complete.
    pub(crate) fn make_data(
        &self,
        fill: impl FnOnce(File, &Path) -> Result<(), OpenError>,
    ) -> Result<(), OpenError> {
        let new = self.path.join(NEW);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            // What stands there was never complete.
            .truncate(true)
            .open(&new)
            .map_err(failed("create", &new))?;
        fill(file, &new)?;
        fs::rename(&new, self.data()).map_err(failed("rename", &new))?;
        self.sync_folder()
    }

    /// Makes the names in the folder durable, where a folder can be synced.
    fn sync_folder(&self) -> Result<(), OpenError> {
        if cfg!(unix) {
            let folder = File::open(&self.path).and_then(|folder| folder.sync_all());
            folder.map_err(failed("sync the folder", &self.path))?;
        }
        Ok(())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // A pid that stays behind does no harm: the lock decides.
        let _ = fs::remove_file(self.path.join(PID));
    }
}

pub(crate) fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> OpenError {
    let path = path.to_owned();
    move |source| OpenError::Io {
        doing,
        path,
        source,
    }
}
