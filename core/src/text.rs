//! Text for people that comes from outside: it is cut where it enters, so that no record grows by it.

use std::borrow::Cow;

/// The most of a reason that a client gives for a cancel, a pause or a resume, in bytes.
pub const REASON_BYTES_MAX: usize = 1024;

/// Ends a text that was cut.
const MORE: &str = "…";

/// The text if it is at most so long, or else its beginning with `…` at the end, not longer.
#[must_use]
pub fn cut(text: &str, bytes_max: usize) -> Cow<'_, str> {
    if text.len() <= bytes_max {
        return Cow::Borrowed(text);
    }
    let room = bytes_max.saturating_sub(MORE.len());
    let end = text.floor_char_boundary(room);
    Cow::Owned(format!("{}{MORE}", &text[..end]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_between_characters_and_ends_with_a_mark() {
        assert_eq!(cut("four", 4), "four");
        assert_eq!(cut("abcdef", 5), "ab…");
        // The second `ü` would end beyond the room.
        assert_eq!(cut("üüüü", 6), "ü…");
        assert_eq!(cut("üüüü", 6).len(), 5);
    }
}
