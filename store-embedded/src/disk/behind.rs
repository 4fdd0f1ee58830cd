//! Write-behind: applying a commit never waits for the disk.
//!
//! redb holds its writer lock while it syncs. Here its `sync_data` only *closes an epoch*: the
//! writes since the last one. [`Behind::drain`] later writes epoch n to the disk and syncs it
//! before it writes any byte of epoch n+1. Epochs are never merged and never skipped, so what the
//! disk can hold after a power cut is exactly what redb was built to recover from: everything up to
//! some sync, and any part of the writes after it.

use redb::{BackendError, StorageBackend};
use std::collections::VecDeque;
use std::io;
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::overlay::{Overlay, Piece};
use crate::shared::cause_of_panic;

/// The disk and what is not on it yet.
#[derive(Debug)]
pub(crate) struct Behind {
    disk: Box<dyn StorageBackend>,
    state: Mutex<State>,
    /// Held while an epoch is carried out: one at a time, in order.
    draining: Mutex<()>,
}

#[derive(Debug)]
struct State {
    /// Length of the storage as redb sees it.
    len: u64,
    /// Length of the file on the disk.
    disk_len: u64,
    open: Epoch,
    closed: VecDeque<Arc<Epoch>>,
    /// A write or sync failed: nothing is tried again.
    failed: Option<Arc<str>>,
}

/// The writes between two syncs.
#[derive(Debug, Default)]
struct Epoch {
    writes: Overlay,
    /// Shortest length during the epoch, if it was cut: what lay behind it reads as zero.
    cut: Option<u64>,
    /// Length at its end, if it was set.
    len: Option<u64>,
}

impl Epoch {
    fn is_empty(&self) -> bool {
        self.writes.is_empty() && self.cut.is_none() && self.len.is_none()
    }
}

impl State {
    fn check(&self) -> io::Result<()> {
        match &self.failed {
            Some(reason) => Err(io::Error::other(reason.to_string())),
            None => Ok(()),
        }
    }
}

/// What a pending epoch does to the bytes of a read.
enum Patch {
    /// The storage was cut here and may have grown again.
    Zero {
        from: u64,
    },
    Bytes {
        at: u64,
        piece: Piece,
    },
}

impl State {
    /// How far the disk's own bytes count, and what comes on top of them, in order.
    fn pending(&self, offset: u64, end: u64) -> (u64, Vec<Patch>) {
        let mut disk_end = self.disk_len;
        let mut patches = Vec::new();
        for epoch in self.closed.iter().map(|epoch| &**epoch).chain([&self.open]) {
            if let Some(from) = epoch.cut
                && from < end
            {
                disk_end = disk_end.min(from);
                patches.push(Patch::Zero { from });
            }
            let pieces = epoch.writes.touching(offset, end);
            patches.extend(pieces.map(|(at, piece)| Patch::Bytes { at, piece }));
        }
        (disk_end.clamp(offset, end), patches)
    }
}

impl Behind {
    pub(crate) fn new(disk: Box<dyn StorageBackend>) -> io::Result<Arc<Self>> {
        // What another process wrote and did not sync may be gone after the next power cut: nothing
        // that is found here may rest on it.
        disk.sync_data()?;
        let len = disk.len()?;
        Ok(Arc::new(Self {
            disk,
            state: Mutex::new(State {
                len,
                disk_len: len,
                open: Epoch::default(),
                closed: VecDeque::new(),
                failed: None,
            }),
            draining: Mutex::new(()),
        }))
    }

    /// Makes every closed epoch durable. Blocks.
    pub(crate) fn drain(&self) -> io::Result<()> {
        let _one_at_a_time = lock(&self.draining);
        loop {
            let epoch = {
                let state = lock(&self.state);
                state.check()?;
                let Some(epoch) = state.closed.front() else {
                    return Ok(());
                };
                epoch.clone()
            };
            let ended = catch_unwind(AssertUnwindSafe(|| self.carry_out(&epoch)));
            let ended =
                ended.unwrap_or_else(|panic| Err(io::Error::other(cause_of_panic(&*panic))));
            if let Err(error) = ended {
                // The disk may hold any part of the epoch now, and a second sync may lie about it.
                lock(&self.state).failed = Some(Arc::from(error.to_string()));
                return Err(error);
            }
            lock(&self.state).closed.pop_front();
        }
    }

    fn carry_out(&self, epoch: &Epoch) -> io::Result<()> {
        if let Some(cut) = epoch.cut
            && cut < self.disk_len()
        {
            self.set_disk_len(cut)?;
        }
        if let Some(len) = epoch.len
            && len != self.disk_len()
        {
            self.set_disk_len(len)?;
        }
        for (offset, piece) in epoch.writes.iter() {
            self.disk.write(offset, piece.bytes())?;
        }
        self.disk.sync_data()
    }

    fn disk_len(&self) -> u64 {
        lock(&self.state).disk_len
    }

    fn set_disk_len(&self, len: u64) -> io::Result<()> {
        // Readers beside this one must neither count on bytes that are being cut off nor on bytes
        // that are not there yet.
        {
            let mut state = lock(&self.state);
            state.disk_len = state.disk_len.min(len);
        }
        self.disk.set_len(len)?;
        lock(&self.state).disk_len = len;
        Ok(())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let end = offset + out.len() as u64;
        // What is pending is looked up before the disk is read: an epoch may reach the disk and be
        // forgotten in between, and then both say the same.
        let (disk_end, patches) = {
            let state = lock(&self.state);
            state.check()?;
            if end > state.len {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            state.pending(offset, end)
        };
        let covering = |patch: &Patch| match patch {
            Patch::Zero { from } => *from <= offset,
            Patch::Bytes { at, piece } => *at <= offset && *at + piece.bytes().len() as u64 >= end,
        };
        let first = patches.iter().rposition(covering);
        if first.is_none() {
            let (on_disk, beyond) = out.split_at_mut((disk_end - offset) as usize);
            if !on_disk.is_empty() {
                self.disk.read(offset, on_disk)?;
            }
            beyond.fill(0);
        }
        for patch in &patches[first.unwrap_or(0)..] {
            match patch {
                Patch::Zero { from } => {
                    out[(from.max(&offset) - offset) as usize..].fill(0);
                }
                Patch::Bytes { at, piece } => {
                    let from = offset.max(*at);
                    let to = end.min(at + piece.bytes().len() as u64);
                    out[(from - offset) as usize..(to - offset) as usize]
                        .copy_from_slice(&piece.bytes()[(from - at) as usize..(to - at) as usize]);
                }
            }
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = lock(&self.state);
        state.check()?;
        if len < state.len {
            state.open.writes.truncate(len);
            let cut = state.open.cut.unwrap_or(len).min(len);
            state.open.cut = Some(cut);
        }
        state.open.len = Some(len);
        state.len = len;
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = lock(&self.state);
        state.check()?;
        state.open.writes.write(offset, data);
        Ok(())
    }

    fn close_epoch(&self) -> io::Result<()> {
        let mut state = lock(&self.state);
        state.check()?;
        if !state.open.is_empty() {
            let epoch = std::mem::take(&mut state.open);
            state.closed.push_back(Arc::new(epoch));
        }
        Ok(())
    }
}

/// What redb is given.
#[derive(Debug)]
pub(crate) struct BehindBackend(pub(crate) Arc<Behind>);

impl StorageBackend for BehindBackend {
    fn len(&self) -> io::Result<u64> {
        Ok(lock(&self.0.state).len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.close_epoch()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        let drained = self.0.close_epoch().and_then(|()| self.0.drain());
        drained.and(self.0.disk.close())
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.disk.try_lock_range(start, end)
    }

    fn try_lock_shared_range(
        &self,
        start: Bound<u64>,
        end: Bound<u64>,
    ) -> Result<bool, BackendError> {
        self.0.disk.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.disk.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.disk.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.disk.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.disk.query_lock_range(start, end)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic elsewhere is reported by its own thread; the state is consistent at every step.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::faulty::{FaultyDisk, Random};

    /// Random writes, cuts, growth, epochs and drains, against a plain vector of bytes: reads see
    /// the newest bytes, and the disk holds the end of an epoch after each drain.
    #[test]
    fn reads_see_everything_and_the_disk_gets_whole_epochs_in_order() {
        for seed in 0..40 {
            let mut random = Random::new(seed);
            let disk = FaultyDisk::new(vec![7; 5_000]);
            let behind = Behind::new(Box::new(disk.clone())).unwrap();
            let backend = BehindBackend(behind.clone());
            let mut now = vec![7; 5_000];
            let mut closed = now.clone();
            for step in 1..200_u8 {
                match random.below(12) {
                    0 => {
                        let len = random.below(10_000);
                        backend.set_len(len).unwrap();
                        now.resize(len as usize, 0);
                    }
                    1 => {
                        backend.sync_data().unwrap();
                        closed.clone_from(&now);
                    }
                    2 => {
                        behind.drain().unwrap();
                        assert!(disk.synced() == closed, "seed {seed}, step {step}");
                    }
                    3..7 => {
                        let at = random.below(now.len() as u64 + 1);
                        let len = random.below(now.len() as u64 - at + 1).min(700);
                        backend.write(at, &vec![step; len as usize]).unwrap();
                        now[at as usize..(at + len) as usize].fill(step);
                    }
                    _ => {
                        let at = random.below(now.len() as u64 + 1);
                        let len = random.below(now.len() as u64 - at + 1);
                        let mut out = vec![1; len as usize];
                        backend.read(at, &mut out).unwrap();
                        let range = at as usize..(at + len) as usize;
                        assert!(out == now[range], "seed {seed}, step {step}");
                    }
                }
                assert_eq!(backend.len().unwrap(), now.len() as u64);
            }
            backend.close().unwrap();
            assert!(disk.synced() == now, "seed {seed}");
        }
    }

    /// Every epoch that was on the disk at some sync is one that was closed, in that order.
    #[test]
    fn epochs_are_neither_merged_nor_left_out() {
        let disk = FaultyDisk::new(vec![0; 100]);
        let behind = Behind::new(Box::new(disk.clone())).unwrap();
        let backend = BehindBackend(behind.clone());
        for epoch in 1..=5 {
            backend.write(epoch, &[1]).unwrap();
            backend.sync_data().unwrap();
        }
        let before = disk.counts();
        disk.fail_syncs_after(Some(3));
        assert!(behind.drain().is_err());
        assert_eq!(disk.synced()[..7], [0, 1, 1, 1, 0, 0, 0]);
        let (writes, syncs) = disk.counts();
        assert_eq!((writes - before.0, syncs - before.1), (4, 3));
        disk.fail_syncs_after(None);
        assert!(
            behind.drain().is_err(),
            "a failed sync is never tried again"
        );
        assert!(backend.write(0, &[1]).is_err());
        assert_eq!(disk.counts(), (writes, syncs));
    }

    /// Readers beside a drain see the newest bytes at every moment.
    #[test]
    fn reads_beside_a_drain_see_the_newest_bytes() {
        let disk = FaultyDisk::new(vec![0; 4_096]);
        let behind = Behind::new(Box::new(disk)).unwrap();
        let backend = BehindBackend(behind.clone());
        std::thread::scope(|scope| {
            let drainer = scope.spawn(|| {
                for _ in 0..3_000 {
                    behind.drain().unwrap();
                }
            });
            let mut round = 0_u32;
            while !drainer.is_finished() {
                round += 1;
                let bytes = round.to_le_bytes();
                backend.write(u64::from(round % 64) * 64, &bytes).unwrap();
                let mut out = [0; 4];
                backend.read(u64::from(round % 64) * 64, &mut out).unwrap();
                assert_eq!(out, bytes);
                backend.sync_data().unwrap();
                backend.read(u64::from(round % 64) * 64, &mut out).unwrap();
                assert_eq!(out, bytes);
            }
        });
    }
}
