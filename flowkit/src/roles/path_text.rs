//! Paths as text that survives JSON: readable, and reversible byte for byte.
//!
//! A path that is UTF-8 stands as it is, except that a backslash is doubled; every byte that is
//! not part of valid UTF-8 stands as `\xNN`.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// The text of a path.
pub(crate) fn encode(path: &Path) -> String {
    encode_name(path.as_os_str())
}

/// The text of one name.
pub(crate) fn encode_name(name: &OsStr) -> String {
    let mut text = String::new();
    for chunk in name.as_encoded_bytes().utf8_chunks() {
        for c in chunk.valid().chars() {
            if c == '\\' {
                text.push('\\');
            }
            text.push(c);
        }
        for byte in chunk.invalid() {
            // Writing to a text cannot fail.
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

/// The path of a text.
///
/// # Errors
/// When the text was not made by [`encode`], or names a path this system cannot have.
pub(crate) fn decode(text: &str) -> Result<PathBuf, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        bytes.extend_from_slice(&rest.as_bytes()[..at]);
        let escape = &rest[at + 1..];
        if let Some(after) = escape.strip_prefix('\\') {
            bytes.push(b'\\');
            rest = after;
            continue;
        }
        let digits = escape.strip_prefix('x').and_then(|e| e.get(..2));
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        let Some(byte) = byte else {
            return Err(format!("`{text}` is no path text: bad escape at byte {at}"));
        };
        bytes.push(byte);
        rest = &escape[3..];
    }
    bytes.extend_from_slice(rest.as_bytes());
    path_of(bytes).ok_or_else(|| format!("`{text}` is no path on this system"))
}

#[cfg(unix)]
fn path_of(bytes: Vec<u8>) -> Option<PathBuf> {
    use std::os::unix::ffi::OsStringExt;
    Some(std::ffi::OsString::from_vec(bytes).into())
}

#[cfg(not(unix))]
fn path_of(bytes: Vec<u8>) -> Option<PathBuf> {
    String::from_utf8(bytes).ok().map(PathBuf::from)
}

#[cfg(all(test, unix))]
mod tests {
    use super::{decode, encode};
    use proptest::prelude::*;
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt;
    use std::path::PathBuf;

    fn path(bytes: &[u8]) -> PathBuf {
        OsString::from_vec(bytes.to_vec()).into()
    }

    #[test]
    fn utf8_stands_as_it_is_and_other_bytes_are_escaped() {
        assert_eq!(encode(&path("a/é x".as_bytes())), "a/é x");
        assert_eq!(encode(&path(b"a\\b")), "a\\\\b");
        assert_eq!(encode(&path(b"caf\xe9.txt")), "caf\\xe9.txt");
    }

    #[test]
    fn what_encode_never_makes_is_refused() {
        for text in ["\\", "\\x", "\\x1", "\\y00", "a\\xzz", "\\xé"] {
            assert!(decode(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_come_back(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let path = path(&bytes);
            prop_assert_eq!(decode(&encode(&path)), Ok(path));
        }
    }
}
