//! Target `store`: the embedded store's file after damage, or with rows of another origin.
//!
//! The first byte says what the others are: a whole file, damage to a file that was closed, damage
//! to one whose process died, or rows that are put into a whole file.

mod ask;
mod image;

use flowkit_store_embedded::testing::{FaultyDisk, TestClock};
use flowkit_store_embedded::{EmbeddedStore, OpenError};

use ask::{everything, tasks};
use image::{Image, images};

/// Where the disk is full: far more than the file was, so that a length out of nowhere shows.
const DISK_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Opens the file and asks for everything: answers or clear errors, whatever stands in it. Damage
/// never changes a row.
///
/// # Panics
/// On a finding.
pub fn run(bytes: &[u8]) {
    let Some((kind, bytes)) = bytes.split_first() else {
        return;
    };
    let images = images();
    match kind % 4 {
        0 => {
            let _ = opened(bytes.to_vec());
        }
        1 => damaged(&images.closed, bytes),
        2 => damaged(&images.died, bytes),
        _ => planted(&images.closed, bytes),
    }
}

/// A disk with this file, and the store on it.
fn opened(file: Vec<u8>) -> Option<EmbeddedStore> {
    let len = file.len();
    let disk = FaultyDisk::new(file);
    disk.limit(Some(DISK_BYTES_MAX));
    if len == 0 {
        return None;
    }
    let opened = EmbeddedStore::open_on(&disk, TestClock::default());
    assert!(
        disk.written().len() < DISK_BYTES_MAX,
        "it grew without need"
    );
    match opened {
        Ok(store) => {
            block_on(everything(&store));
            Some(store)
        }
        Err(
            error @ (OpenError::Damaged { .. }
            | OpenError::NotOurs { .. }
            | OpenError::NewerSchema { .. }
            | OpenError::OlderSchema { .. }
            | OpenError::Io { .. }),
        ) => {
            assert!(!error.to_string().is_empty());
            None
        }
        Err(error) => panic!("no answer to a damaged file: {error}"),
    }
}

fn damaged(image: &Image, edits: &[u8]) {
    let Some(store) = opened(image::edited(&image.file, edits)) else {
        return;
    };
    // What can still be read stood there at some time.
    for task in block_on(tasks(&store)) {
        assert!(image.versions.contains(&task), "another row: {task:?}");
    }
}

/// Each row: table, length of the key, length of the value, key, value. A key of length 0 is that of
/// a row of the same table that is there.
fn planted(image: &Image, mut rows: &[u8]) {
    let disk = FaultyDisk::new(image.file.clone());
    let Ok(store) = EmbeddedStore::open_on(&disk, TestClock::default()) else {
        panic!("the whole file cannot be opened");
    };
    while let [table, key, value, rest @ ..] = rows {
        let table = usize::from(*table) % image::KEYS.len();
        let (key, rest) = rest.split_at(rest.len().min(usize::from(*key)));
        let (value, rest) = rest.split_at(rest.len().min(usize::from(*value)));
        let key = if key.is_empty() {
            image::KEYS[table]
        } else {
            key
        };
        // The file's own mark and its deployment are read only when it is opened.
        block_on(store.plant(table, key, value));
        rows = rest;
    }
    block_on(everything(&store));
    drop(store);
    let _ = opened(disk.synced());
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime without drivers needs no resources")
        .block_on(future)
}
