//! Lines of bounded length out of a pipe, and the tail of another.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};

/// What a pipe gave.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// A line, without its end.
    Line(Vec<u8>),
    /// A line without an end: the pipe closed within it.
    Half(Vec<u8>),
    /// A line that is longer than allowed.
    TooLong,
    /// The pipe is closed.
    End,
}

/// Reads lines. Never holds more than one, and a buffer.
#[derive(Debug)]
pub(super) struct Lines<R> {
    pipe: BufReader<R>,
    line: Vec<u8>,
    bytes_max: usize,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    pub(super) fn new(pipe: R, bytes_max: usize) -> Self {
        Self {
            pipe: BufReader::with_capacity(64 * 1024, pipe),
            line: Vec::new(),
            bytes_max,
        }
    }

    /// The next piece. Cancel safe: what is read of a line is kept.
    pub(super) async fn next(&mut self) -> Piece {
        loop {
            let Ok(read) = self.pipe.fill_buf().await else {
                return Piece::End; // a pipe that cannot be read is closed
            };
            if read.is_empty() {
                let half = std::mem::take(&mut self.line);
                return if half.is_empty() {
                    Piece::End
                } else {
                    Piece::Half(half)
                };
            }
            let end = read.iter().position(|byte| *byte == b'\n');
            let taken = end.unwrap_or(read.len());
            if self.line.len() + taken > self.bytes_max {
                return Piece::TooLong;
            }
            self.line.extend_from_slice(&read[..taken]);
            self.pipe.consume(end.map_or(taken, |end| end + 1));
            if end.is_some() {
                return Piece::Line(std::mem::take(&mut self.line));
            }
        }
    }
}

/// The last bytes of a pipe.
#[derive(Clone, Debug, Default)]
pub(super) struct Tail(Arc<Mutex<VecDeque<u8>>>);

impl Tail {
    /// How much of it is kept.
    const BYTES: usize = 2 * 1024;

    /// Reads a pipe to its end.
    pub(super) async fn follow(self, mut pipe: impl AsyncRead + Unpin) {
        let mut buffer = [0; 4096];
        while let Ok(read @ 1..) = pipe.read(&mut buffer).await {
            let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            kept.extend(&buffer[..read]);
            let over = kept.len().saturating_sub(Self::BYTES);
            kept.drain(..over);
        }
    }

    /// What is kept, from the start of a line if more came before, as printable text.
    pub(super) fn text(&self) -> String {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes: Vec<u8> = kept.iter().copied().collect();
        let cut = bytes.len() == Self::BYTES;
        let text = String::from_utf8_lossy(&bytes);
        let text = match text.split_once('\n') {
            Some((_, rest)) if cut && !rest.trim().is_empty() => rest,
            _ => &text,
        };
        printable(text.trim_end())
    }
}

/// Control characters but line ends and tabs become blanks: an error text is shown on terminals.
pub(super) fn printable(text: &str) -> String {
    let shown = |c: char| match c {
        '\n' | '\t' => c,
        c if c.is_control() => ' ',
        c => c,
    };
    text.chars().map(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_come_whole_however_they_were_written() {
        let mut lines = Lines::new(&b"one\n\ntwo\r\nhalf"[..], 5);
        assert_eq!(lines.next().await, Piece::Line(b"one".to_vec()));
        assert_eq!(lines.next().await, Piece::Line(b"".to_vec()));
        assert_eq!(lines.next().await, Piece::Line(b"two\r".to_vec()));
        assert_eq!(lines.next().await, Piece::Half(b"half".to_vec()));
        assert_eq!(lines.next().await, Piece::End);
    }

    #[tokio::test]
    async fn a_line_over_the_bound_is_not_read_on() {
        let long = [b'x'; 1_000_000];
        let mut lines = Lines::new(&long[..], 100_000);
        assert_eq!(lines.next().await, Piece::TooLong);
        assert!(lines.line.len() <= 100_000);
        let mut lines = Lines::new(&b"12345\n123456\n"[..], 5);
        assert_eq!(lines.next().await, Piece::Line(b"12345".to_vec()));
        assert_eq!(lines.next().await, Piece::TooLong);
    }

    #[tokio::test]
    async fn a_tail_is_the_end_of_what_was_written_in_whole_lines() {
        let tail = Tail::default();
        let text: String = (0..100_000).map(|n| format!("line {n}\n")).collect();
        tail.clone().follow(text.as_bytes()).await;
        let kept = tail.text();
        assert!(kept.len() <= Tail::BYTES, "{}", kept.len());
        assert!(kept.starts_with("line ") && kept.ends_with("line 99999"));

        let tail = Tail::default();
        tail.clone().follow(&b"a\x1b[31m\xff\nb"[..]).await;
        assert_eq!(tail.text(), "a [31m\u{fffd}\nb");
    }
}
