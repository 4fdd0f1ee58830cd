//! Temporary folders, of runs and of an engine's state, and what dead processes left of theirs.
//!
//! Each is locked for as long as it is in use. The system lets go of a lock however a process ends, so
//! that one which can be locked is nobody's; a process id would say less, for it may be another's by then.

use std::io;
use std::path::Path;
use tempfile::TempDir;

/// What those of runs are called, below the system's folder for temporary files.
const PREFIX: &str = "flowkit-temp-";
/// The same of an engine's state.
const STATE_PREFIX: &str = "flowkit-state-";
/// What such a folder holds: a user may call one of his own the like, and nothing of his is ever deleted.
const STATE_MARK: &str = "flowkit.temporary";

/// A folder for this user only. Dropped, it is deleted with everything in it; if the process is killed before, a
/// later one deletes it.
#[derive(Debug)]
pub struct Folder {
    folder: TempDir,
    /// Goes after the folder.
    _lock: Lock,
}

impl Folder {
    /// One for a run.
    pub(crate) fn make() -> io::Result<Self> {
        Self::make_in(&std::env::temp_dir(), PREFIX)
    }

    /// One for an engine's state.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn for_state() -> io::Result<Self> {
        Self::make_in(&std::env::temp_dir(), STATE_PREFIX)
    }

    fn make_in(place: &Path, prefix: &str) -> io::Result<Self> {
        loop {
            let folder = tempfile::Builder::new().prefix(prefix).tempdir_in(place)?;
            // A sweep may have come between the two: then it is gone, or will be.
            if let Some(lock) = lock_fresh(folder.path())? {
                if prefix == STATE_PREFIX {
                    std::fs::write(folder.path().join(STATE_MARK), "")?;
                }
                return Ok(Self {
                    folder,
                    _lock: lock,
                });
            }
        }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Deletes it, and says what it cannot delete.
    pub(crate) fn close(self) -> io::Result<()> {
        self.folder.close()
    }
}

/// Deletes what processes of this user left that are dead: those that were killed could not do it. Once in a
/// process, on a thread of its own, which nobody waits for: what it does not get done is the next one's.
pub(crate) fn sweep() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(sweep_aside);
}

fn sweep_aside() {
    let swept = std::thread::Builder::new()
        .name("flowkit-sweep".to_owned())
        .spawn(|| sweep_in(&std::env::temp_dir()));
    if let Err(error) = swept {
        tracing::warn!("what dead workers left in temporary folders stays: {error}");
    }
}

fn sweep_in(place: &Path) {
    let Ok(entries) = std::fs::read_dir(place) else {
        return; // whoever needs a folder there says so
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let is_ours = |prefix: &str| name.as_encoded_bytes().starts_with(prefix.as_bytes());
        let path = entry.path();
        let of_state = is_ours(STATE_PREFIX) && path.join(STATE_MARK).is_file();
        if !is_ours(PREFIX) && !of_state {
            continue;
        }
        match sweep_one(&path) {
            Ok(false) => {}
            Ok(true) => tracing::info!("{} is deleted: its process is dead", path.display()),
            // Another sweep, or its own run, was first.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!("a dead process's {} stays: {error}", path.display()),
        }
    }
}

#[cfg(unix)]
mod unix {
    use rustix::fs::{Mode, OFlags, open};
    use std::fs::{File, TryLockError};
    use std::os::unix::fs::MetadataExt;

    use super::*;

    pub(super) type Lock = File;

    /// Locks a folder that was just made; `None` if a sweep was faster.
    pub(super) fn lock_fresh(path: &Path) -> io::Result<Option<Lock>> {
        let folder = match open_folder(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            folder => folder?,
        };
        match folder.try_lock() {
            Err(TryLockError::WouldBlock) => Ok(None),
            // Where there are no locks (on some file systems of other machines) nobody can sweep.
            Err(TryLockError::Error(_)) => Ok(Some(folder)),
            Ok(()) => Ok(is_at(&folder, path)?.then_some(folder)),
        }
    }

    /// Deletes a folder of this user that nobody holds; whether it was one.
    pub(super) fn sweep_one(path: &Path) -> io::Result<bool> {
        let Ok(folder) = open_folder(path) else {
            return Ok(false); // a link, a file, or nothing that this user may read
        };
        let own = folder.metadata()?.uid() == rustix::process::geteuid().as_raw();
        if !own || folder.try_lock().is_err() || !is_at(&folder, path)? {
            return Ok(false);
        }
        // Follows no links.
        std::fs::remove_dir_all(path).map(|()| true)
    }

    fn open_folder(path: &Path) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(open(path, flags, Mode::empty())?.into())
    }

    /// What was opened there is there still.
    fn is_at(folder: &File, path: &Path) -> io::Result<bool> {
        let there = match std::fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            there => there?,
        };
        let opened = folder.metadata()?;
        Ok((opened.dev(), opened.ino()) == (there.dev(), there.ino()))
    }
}

#[cfg(unix)]
use unix::{Lock, lock_fresh, sweep_one};

/// Without folders that can be locked, what a killed process leaves is the system's to clear.
#[cfg(not(unix))]
mod other {
    use super::*;

    pub(super) type Lock = ();

    pub(super) fn lock_fresh(_: &Path) -> io::Result<Option<Lock>> {
        Ok(Some(()))
    }

    pub(super) fn sweep_one(_: &Path) -> io::Result<bool> {
        Ok(false)
    }
}

#[cfg(not(unix))]
use other::{Lock, lock_fresh, sweep_one};

#[cfg(all(test, unix))]
mod tests {
    use std::fs;
    use std::path::PathBuf;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::{Duration, Instant};

    use super::*;

    /// What `kill -9` leaves: the folder, and no lock.
    fn dead(place: &Path, prefix: &str) -> PathBuf {
        let Folder { folder, _lock } = Folder::make_in(place, prefix).unwrap();
        fs::write(folder.path().join("half"), "done").unwrap();
        folder.keep()
    }

    /// A child that another test starts has every lock of this process, until its exec.
    fn sweep_until_gone(left: &Path, place: &Path) {
        let began = Instant::now();
        while left.exists() {
            sweep_in(place);
            assert!(
                began.elapsed() < Duration::from_secs(30),
                "{left:?} is left"
            );
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_dead_processs_folder_is_deleted_and_a_live_ones_is_not() {
        let place = tempfile::tempdir().unwrap();
        let left = [PREFIX, STATE_PREFIX].map(|prefix| dead(place.path(), prefix));
        let held = Folder::make_in(place.path(), STATE_PREFIX).unwrap();
        fs::write(held.path().join("file"), "text").unwrap();
        for left in &left {
            sweep_until_gone(left, place.path());
        }
        assert!(held.path().join("file").exists());
        let path = held.path().to_owned();
        held.close().unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn nothing_else_is_deleted_and_no_link_is_followed() {
        let place = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        let precious = elsewhere.path().join("precious");
        fs::write(&precious, "text").unwrap();
        let link = place.path().join(format!("{PREFIX}link"));
        std::os::unix::fs::symlink(elsewhere.path(), &link).unwrap();
        let file = place.path().join(format!("{PREFIX}file"));
        fs::write(&file, "text").unwrap();
        let named = place.path().join("flowkit-other");
        fs::create_dir(&named).unwrap();
        let of_a_user = place.path().join(format!("{STATE_PREFIX}mine"));
        fs::create_dir(&of_a_user).unwrap();
        // A link within what is deleted goes, and what it shows stays.
        let left = dead(place.path(), PREFIX);
        std::os::unix::fs::symlink(elsewhere.path(), left.join("link")).unwrap();
        sweep_until_gone(&left, place.path());
        for path in [&link, &file, &named, &of_a_user, &precious] {
            assert!(path.exists(), "{}", path.display());
        }
        sweep_in(&place.path().join("missing"));
    }

    #[test]
    fn a_folder_is_its_makers_however_many_sweep_meanwhile() {
        let place = tempfile::tempdir().unwrap();
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    while !over.load(Ordering::Relaxed) {
                        sweep_in(place.path());
                    }
                });
            }
            for _ in 0..500 {
                let folder = Folder::make_in(place.path(), PREFIX).unwrap();
                fs::write(folder.path().join("file"), "text").unwrap();
                folder.close().unwrap();
            }
            over.store(true, Ordering::Relaxed);
        });
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
    }
}
