//! A disk in memory that does what a power cut may do, for tests.

use redb::StorageBackend;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// What a disk writes whole, or not at all.
const SECTOR: usize = 512;

/// A disk in memory. Clones are the same disk.
///
/// Everything that was not synced may be lost, kept, kept in part (in sectors of 512 bytes) and
/// kept out of order by [`FaultyDisk::power_cut`]. Writes and syncs can be made to fail, syncs can
/// be held back, and the disk can be full.
#[derive(Clone, Debug)]
pub struct FaultyDisk(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    inner: Mutex<Inner>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Inner {
    synced: Vec<u8>,
    now: Vec<u8>,
    pending: Vec<Pending>,
    /// Writes that still succeed; `None` = all.
    writes_left: Option<u64>,
    /// Syncs that still succeed; `None` = all.
    syncs_left: Option<u64>,
    capacity: Option<usize>,
    syncs_held: bool,
    syncs_lie: bool,
    panics: bool,
    /// Syncs that wait now.
    waiting: u64,
    writes: u64,
    syncs: u64,
    cuts: Option<Cuts>,
}

/// Power cuts drawn while the disk is in use.
#[derive(Debug)]
struct Cuts {
    random: Random,
    every_writes: u64,
    images: Vec<Vec<u8>>,
}

#[derive(Clone, Debug)]
enum Pending {
    Write(usize, Vec<u8>),
    SetLen(usize),
}

impl FaultyDisk {
    /// An empty disk, or one that holds the image of another.
    #[must_use]
    pub fn new(image: Vec<u8>) -> Self {
        let inner = Inner {
            now: image.clone(),
            synced: image,
            ..Inner::default()
        };
        Self(Arc::new(Shared {
            inner: Mutex::new(inner),
            changed: Condvar::new(),
        }))
    }

    /// What the disk would hold after a power cut now; another seed, another cut.
    #[must_use]
    pub fn power_cut(&self, seed: u64) -> Vec<u8> {
        self.inner().power_cut(&mut Random::new(seed))
    }

    /// What the disk would hold after a power cut now if nothing but what was synced survived.
    #[must_use]
    pub fn synced(&self) -> Vec<u8> {
        self.inner().synced.clone()
    }

    /// Everything written so far, as after the death of the process alone.
    #[must_use]
    pub fn written(&self) -> Vec<u8> {
        self.inner().now.clone()
    }

    /// The same disk after the process died and the machine lived on: everything written can be
    /// read, what was not synced can still be lost. Its faults are gone.
    #[must_use]
    pub fn after_process_death(&self) -> Self {
        let inner = self.inner();
        let survivor = Self::new(inner.synced.clone());
        {
            let mut survivor = survivor.inner();
            survivor.now.clone_from(&inner.now);
            survivor.pending.clone_from(&inner.pending);
        }
        survivor
    }

    /// From now on every so many writes, and at every sync before it takes effect, an image of a
    /// power cut at that moment is kept.
    pub fn draw_power_cuts(&self, seed: u64, every_writes: u64) {
        self.inner().cuts = Some(Cuts {
            random: Random::new(seed),
            every_writes: every_writes.max(1),
            images: Vec::new(),
        });
    }

    /// The images kept so far; they are taken out.
    #[must_use]
    pub fn take_images(&self) -> Vec<Vec<u8>> {
        let mut inner = self.inner();
        inner
            .cuts
            .as_mut()
            .map_or_else(Vec::new, |cuts| std::mem::take(&mut cuts.images))
    }

    /// Lets so many more writes succeed; `None` heals the disk.
    pub fn fail_writes_after(&self, writes: Option<u64>) {
        self.inner().writes_left = writes;
    }

    /// Lets so many more syncs succeed; `None` heals the disk.
    pub fn fail_syncs_after(&self, syncs: Option<u64>) {
        self.inner().syncs_left = syncs;
    }

    /// The disk cannot grow beyond so many bytes; `None` takes the limit away.
    pub fn limit(&self, capacity: Option<usize>) {
        self.inner().capacity = capacity;
    }

    /// From now on a sync says that it succeeded, and does nothing.
    pub fn lie_about_syncs(&self) {
        self.inner().syncs_lie = true;
    }

    /// From now on a write panics, as the library above may on a damaged page.
    pub fn panic_on_writes(&self) {
        self.inner().panics = true;
    }

    /// Holds every sync until it is called with `false`.
    pub fn hold_syncs(&self, held: bool) {
        self.inner().syncs_held = held;
        self.0.changed.notify_all();
    }

    /// Blocks until a sync is being held.
    pub fn wait_for_held_sync(&self) {
        let mut inner = self.inner();
        while inner.waiting == 0 {
            inner = self
                .0
                .changed
                .wait(inner)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Writes and syncs that succeeded so far.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        let inner = self.inner();
        (inner.writes, inner.syncs)
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn power_cut(&self, random: &mut Random) -> Vec<u8> {
        let mut image = self.synced.clone();
        // Of the sectors: about half, nearly all, nearly none, or whole writes up to some moment.
        let mode = random.below(4);
        let ordered = random.below(self.pending.len() as u64 + 1);
        for (place, pending) in (0_u64..).zip(&self.pending) {
            let mut keep = || match mode {
                0 => random.below(2) == 0,
                1 => random.below(16) != 0,
                2 => random.below(16) == 0,
                _ => place < ordered,
            };
            match pending {
                Pending::SetLen(len) => {
                    if keep() {
                        image.resize(*len, 0);
                    }
                }
                Pending::Write(offset, data) => {
                    for (sector, bytes) in data.chunks(SECTOR).enumerate() {
                        if keep() {
                            let at = offset + sector * SECTOR;
                            let end = at + bytes.len();
                            if image.len() < end {
                                image.resize(end, 0);
                            }
                            image[at..end].copy_from_slice(bytes);
                        }
                    }
                }
            }
        }
        image
    }

    fn draw(&mut self) {
        let Some(mut cuts) = self.cuts.take() else {
            return;
        };
        let image = self.power_cut(&mut cuts.random);
        cuts.images.push(image);
        self.cuts = Some(cuts);
    }

    fn spend(left: &mut Option<u64>) -> io::Result<()> {
        match left {
            Some(0) => Err(io::Error::other("the disk failed")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

fn place(offset: u64) -> io::Result<usize> {
    usize::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput.into())
}

impl StorageBackend for FaultyDisk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.inner().now.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let inner = self.inner();
        let offset = place(offset)?;
        let bytes = inner.now.get(offset..offset + out.len());
        out.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut inner = self.inner();
        let len = place(len)?;
        if len > inner.now.len() && inner.capacity.is_some_and(|limit| len > limit) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Inner::spend(&mut inner.writes_left)?;
        inner.now.resize(len, 0);
        inner.pending.push(Pending::SetLen(len));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut inner = self.inner();
        inner.waiting += 1;
        self.0.changed.notify_all();
        while inner.syncs_held {
            inner = self
                .0
                .changed
                .wait(inner)
                .unwrap_or_else(PoisonError::into_inner);
        }
        inner.waiting -= 1;
        inner.draw();
        Inner::spend(&mut inner.syncs_left)?;
        inner.syncs += 1;
        if !inner.syncs_lie {
            let written = inner.now.clone();
            inner.synced = written;
            inner.pending.clear();
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut inner = self.inner();
        let at = place(offset)?;
        assert!(!inner.panics, "a planted panic");
        Inner::spend(&mut inner.writes_left)?;
        let end = at + data.len();
        if end > inner.now.len() {
            inner.now.resize(end, 0);
        }
        inner.now[at..end].copy_from_slice(data);
        inner.pending.push(Pending::Write(at, data.to_vec()));
        inner.writes += 1;
        let every = inner
            .cuts
            .as_ref()
            .map_or(u64::MAX, |cuts| cuts.every_writes);
        if inner.writes.is_multiple_of(every) {
            inner.draw();
        }
        Ok(())
    }
}

/// A small generator for tests: the same seed, the same numbers.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        (self.next() >> 16) % end.max(1)
    }
}
