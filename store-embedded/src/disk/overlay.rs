//! Bytes written but not yet in the file, by offset.

use std::collections::BTreeMap;
use std::sync::Arc;

/// A part of one write.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    data: Arc<[u8]>,
    start: usize,
    end: usize,
}

impl Piece {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.data[self.start..self.end]
    }

    fn len(&self) -> u64 {
        (self.end - self.start) as u64
    }

    fn part(&self, start: u64, end: u64) -> Self {
        // Both lie within the piece, whose length is a usize.
        Self {
            data: self.data.clone(),
            start: self.start + start as usize,
            end: self.start + end as usize,
        }
    }
}

/// Pieces that do not overlap; a later write replaces what it covers.
#[derive(Debug, Default)]
pub(super) struct Overlay {
    pieces: BTreeMap<u64, Piece>,
}

impl Overlay {
    pub(super) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    pub(super) fn write(&mut self, offset: u64, data: &[u8]) {
        if data.is_empty() {
            return;
        }
        self.clear(offset, offset + data.len() as u64);
        let piece = Piece {
            data: Arc::from(data),
            start: 0,
            end: data.len(),
        };
        self.pieces.insert(offset, piece);
    }

    /// Forgets everything from an offset on.
    pub(super) fn truncate(&mut self, len: u64) {
        self.clear(len, u64::MAX);
    }

    fn clear(&mut self, from: u64, to: u64) {
        if let Some((&at, piece)) = self.pieces.range(..from).next_back()
            && at + piece.len() > from
        {
            let piece = piece.clone();
            self.pieces.insert(at, piece.part(0, from - at));
            self.keep_tail(at, &piece, to);
        }
        while let Some((&at, _)) = self.pieces.range(from..to).next() {
            if let Some(piece) = self.pieces.remove(&at) {
                self.keep_tail(at, &piece, to);
            }
        }
    }

    fn keep_tail(&mut self, at: u64, piece: &Piece, to: u64) {
        if at + piece.len() > to {
            self.pieces.insert(to, piece.part(to - at, piece.len()));
        }
    }

    /// The pieces that touch a range, in order.
    pub(super) fn touching(&self, from: u64, to: u64) -> impl Iterator<Item = (u64, Piece)> + '_ {
        let first = self
            .pieces
            .range(..from)
            .next_back()
            .filter(|(at, piece)| **at + piece.len() > from);
        first
            .into_iter()
            .chain(self.pieces.range(from..to))
            .map(|(at, piece)| (*at, piece.clone()))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &Piece)> {
        self.pieces.iter().map(|(at, piece)| (*at, piece))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Random writes and truncations read back as in a plain vector of bytes.
    #[test]
    fn reads_back_what_was_written_last() {
        let mut random = crate::disk::faulty::Random::new(7);
        for _ in 0..50 {
            let mut overlay = Overlay::default();
            let mut plain: Vec<Option<u8>> = vec![None; 300];
            for step in 0..60_u8 {
                let from = random.below(250);
                if random.below(8) == 0 {
                    overlay.truncate(from);
                    plain[from as usize..].fill(None);
                    continue;
                }
                let data = vec![step; random.below(50) as usize];
                overlay.write(from, &data);
                plain[from as usize..from as usize + data.len()].fill(Some(step));
            }
            let from = random.below(150);
            let to = from + random.below(150);
            let mut read = vec![None; 300];
            for (at, piece) in overlay.touching(from, to) {
                for (i, byte) in piece.bytes().iter().enumerate() {
                    let slot = &mut read[at as usize + i];
                    assert_eq!(*slot, None, "pieces overlap");
                    *slot = Some(*byte);
                }
            }
            let range = from as usize..to as usize;
            assert_eq!(read[range.clone()], plain[range]);
        }
    }
}
