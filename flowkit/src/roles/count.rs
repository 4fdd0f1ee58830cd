//! What the `measure` role counts in one file: lines, words and bytes.

use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, Read};
use std::ops::AddAssign;
use std::path::Path;

/// Bytes read at once.
pub(crate) const CHUNK_BYTES: usize = 64 * 1024;

/// Counts over some files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Counts {
    /// Files.
    pub(crate) files: u64,
    /// Newline bytes.
    pub(crate) lines: u64,
    /// Runs of bytes other than ASCII white space.
    pub(crate) words: u64,
    /// Size in bytes.
    pub(crate) bytes: u64,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.files += other.files;
        self.lines += other.lines;
        self.words += other.words;
        self.bytes += other.bytes;
    }
}

/// The six ASCII white-space bytes.
const fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | 0x0b | 0x0c | b'\r')
}

/// Counts a stream of bytes that comes in pieces; where a piece ends makes no difference.
#[derive(Debug, Default)]
struct Counter {
    counts: Counts,
    in_word: bool,
}

impl Counter {
    fn feed(&mut self, piece: &[u8]) {
        let mut in_word = self.in_word;
        for &byte in piece {
            let space = is_space(byte);
            self.counts.lines += u64::from(byte == b'\n');
            self.counts.words += u64::from(!space && !in_word);
            in_word = !space;
        }
        self.in_word = in_word;
        self.counts.bytes += piece.len() as u64;
    }
}

/// Why a file has no counts.
#[derive(Debug)]
pub(crate) enum CountError {
    /// It cannot be read.
    Unreadable(io::Error),
    /// We were told to stop.
    Stopped,
}

/// Counts one file. `stop` is asked before every piece.
///
/// # Errors
/// [`CountError`]; a file that fails half-way is not counted at all.
pub(crate) fn count_file(path: &Path, stop: &dyn Fn() -> bool) -> Result<Counts, CountError> {
    let kind = fs::symlink_metadata(path).map_err(CountError::Unreadable)?;
    // A pipe that took the file's place since the scan would block us for ever.
    if !kind.is_file() {
        let error = io::Error::other("not a regular file any more");
        return Err(CountError::Unreadable(error));
    }
    let file = File::open(path).map_err(CountError::Unreadable)?;
    count(file, stop)
}

fn count(mut source: impl Read, stop: &dyn Fn() -> bool) -> Result<Counts, CountError> {
    let mut piece = vec![0; CHUNK_BYTES];
    let mut counter = Counter::default();
    loop {
        if stop() {
            return Err(CountError::Stopped);
        }
        match source.read(&mut piece) {
            Ok(0) => break,
            Ok(read) => counter.feed(&piece[..read]),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(CountError::Unreadable(e)),
        }
    }
    counter.counts.files = 1;
    Ok(counter.counts)
}

#[cfg(test)]
mod tests {
    use super::{CHUNK_BYTES, CountError, Counter, Counts, count, count_file};
    use proptest::prelude::*;

    fn counts(pieces: &[&[u8]]) -> (u64, u64, u64) {
        let mut counter = Counter::default();
        for piece in pieces {
            counter.feed(piece);
        }
        let Counts {
            lines,
            words,
            bytes,
            ..
        } = counter.counts;
        (lines, words, bytes)
    }

    #[test]
    fn lines_are_newline_bytes_and_words_are_runs_of_other_than_white_space() {
        for (text, expected) in [
            (&b""[..], (0, 0, 0)),
            (b"\n", (1, 0, 1)),
            (b"one", (0, 1, 3)),
            (b"one two\nthree", (1, 3, 13)),
            (b" a\tb\nc\x0bd\x0ce\rf ", (1, 6, 13)),
            // A non-breaking space, a NUL and a broken UTF-8 byte are no white space.
            (b"a\xc2\xa0b", (0, 1, 4)),
            (b"\x00 \xff", (0, 2, 3)),
        ] {
            assert_eq!(counts(&[text]), expected, "{text:?}");
        }
    }

    #[test]
    fn a_word_across_the_border_of_two_reads_is_one_word() {
        let mut text = vec![b' '; CHUNK_BYTES - 2];
        text.extend_from_slice(b"word\n");
        let counts = count(&text[..], &|| false).expect("counts");
        assert_eq!((counts.files, counts.lines, counts.words), (1, 1, 1));
        assert_eq!(counts.bytes, CHUNK_BYTES as u64 + 3);
    }

    #[test]
    fn being_told_to_stop_gives_no_counts() {
        assert!(matches!(
            count(&b"text"[..], &|| true),
            Err(CountError::Stopped)
        ));
    }

    #[test]
    fn a_folder_or_a_missing_file_is_unreadable() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for path in [folder.path().to_owned(), folder.path().join("no")] {
            assert!(matches!(
                count_file(&path, &|| false),
                Err(CountError::Unreadable(_))
            ));
        }
    }

    proptest! {
        #[test]
        fn any_cut_counts_as_the_plain_definition(
            text in proptest::collection::vec(
                proptest::sample::select(&b" \t\n\x0b\x0c\rab\xe9\x00"[..]), 0..60),
            cut in any::<proptest::sample::Index>(),
        ) {
            let space = |b: &u8| b" \t\n\x0b\x0c\r".contains(b);
            let words = text.split(space).filter(|word| !word.is_empty()).count() as u64;
            let lines = text.iter().filter(|b| **b == b'\n').count() as u64;
            let (left, right) = text.split_at(cut.index(text.len() + 1));
            prop_assert_eq!(counts(&[left, right]), (lines, words, text.len() as u64));
        }
    }
}
