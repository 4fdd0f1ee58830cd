//! Detectors of values that do not belong into vars.

use serde_json::Value;

use super::registry::Functions;
use crate::planted::{Bug, is_planted};

/// The name of the built-in detector.
pub const SECRETS: &str = "secrets";

/// Says which texts are sensitive. Must be deterministic, like a function.
///
/// A closure is a detector:
///
/// ```
/// use flowkit_core::function::Functions;
///
/// let functions = Functions::default().detector("iban", |text: &str| {
///     text.len() >= 15 && text.starts_with("DE") && text[2..].bytes().all(|b| b.is_ascii_digit())
/// });
/// assert!(functions.faults().is_empty());
/// ```
pub trait Detector: Send + Sync + 'static {
    /// Whether the text is, or holds, something sensitive.
    fn flags(&self, text: &str) -> bool;
}

impl<F: Fn(&str) -> bool + Send + Sync + 'static> Detector for F {
    fn flags(&self, text: &str) -> bool {
        self(text)
    }
}

/// The name of the first detector that flags a text within the value, keys included.
pub(super) fn flagged<'n>(
    value: &Value,
    names: &'n [String],
    functions: &Functions,
) -> Option<&'n str> {
    let flags = |text: &str| {
        let mut names = names.iter();
        names
            .find(|name| {
                functions
                    .detector_named(name)
                    .is_some_and(|d| d.flags(text))
                    && (*name == SECRETS || !is_planted(Bug::UserDetectorsIgnored))
            })
            .map(String::as_str)
    };
    match value {
        Value::String(text) => flags(text),
        Value::Array(items) => items.iter().find_map(|v| flagged(v, names, functions)),
        Value::Object(map) => map
            .iter()
            .find_map(|(key, v)| flags(key).or_else(|| flagged(v, names, functions))),
        _ => None,
    }
}

/// Tokens and keys of known forms, and long texts that look drawn at random.
#[derive(Debug)]
pub(super) struct Secrets;

/// Beginnings of tokens, each with the least length of the whole.
const PREFIXES: [(&str, usize); 14] = [
    ("AKIA", 20),
    ("ASIA", 20),
    ("AIza", 35),
    ("ghp_", 36),
    ("gho_", 36),
    ("ghs_", 36),
    ("github_pat_", 40),
    ("glpat-", 20),
    ("xoxb-", 20),
    ("xoxp-", 20),
    ("xapp-", 20),
    ("sk_live_", 20),
    ("sk-", 24),
    ("hf_", 30),
];

/// Shortest text that is judged by how random it looks.
const RANDOM_CHARS_MIN: usize = 20;

impl Detector for Secrets {
    fn flags(&self, text: &str) -> bool {
        if text.contains("-----BEGIN ") && text.contains("KEY-----") {
            return true;
        }
        let ends = |c: char| c.is_whitespace() || "\"'`=:,;()[]{}<>@&?|".contains(c);
        let mut bearer = false;
        text.split(ends)
            .filter(|word| !word.is_empty())
            .any(|word| {
                let after_bearer =
                    std::mem::replace(&mut bearer, word.eq_ignore_ascii_case("bearer"));
                (after_bearer && word.len() >= 8)
                    || is_token(word)
                    || is_jwt(word)
                    || looks_random(word)
            })
    }
}

fn is_token(word: &str) -> bool {
    PREFIXES
        .iter()
        .any(|(prefix, least)| word.starts_with(prefix) && word.len() >= *least)
}

/// Three parts of base64url, the first of which is an object of JSON.
fn is_jwt(word: &str) -> bool {
    let parts: Vec<&str> = word.split('.').collect();
    parts.len() == 3
        && parts[0].starts_with("eyJ")
        && parts.iter().all(|part| {
            part.len() >= 4
                && part
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        })
}

/// Long, of letters and digits, and no character much more frequent than the others.
fn looks_random(word: &str) -> bool {
    let ours = |b: u8| b.is_ascii_alphanumeric() || b"+/-_".contains(&b);
    let bytes = word.as_bytes();
    let has = |what: fn(&u8) -> bool| bytes.iter().any(what);
    if bytes.len() < RANDOM_CHARS_MIN
        || !bytes.iter().all(|b| ours(*b))
        || !has(u8::is_ascii_digit)
        || !has(u8::is_ascii_alphabetic)
        || is_uuid(bytes)
    {
        return false;
    }
    let mut counts = [0_u64; 256];
    for byte in bytes {
        counts[usize::from(*byte)] += 1;
    }
    // Of two characters picked at random at most 1 pair in 9.2 is equal: 3.2 bits each.
    let equal: u64 = counts.iter().map(|count| count * count).sum();
    let all = bytes.len() as u64;
    all * all * 10 >= equal * 92
}

/// An id, not a secret.
fn is_uuid(bytes: &[u8]) -> bool {
    bytes.len() == 36
        && bytes.iter().enumerate().all(|(at, b)| match at {
            8 | 13 | 18 | 23 => *b == b'-',
            _ => b.is_ascii_hexdigit(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_keys_and_random_texts_are_flagged() {
        for secret in [
            concat!("AKIA", "IOSFODNN7EXAMPLE"),
            "Authorization: Bearer abcdefgh12",
            concat!("ghp_", "abcdefghijklmnopqrstuvwxyz0123456789"),
            "-----BEGIN RSA PRIVATE KEY-----\nMII",
            "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl",
            "password=Zk3vQ9xLm2Rt7YwPb5NcHd8",
            "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        ] {
            assert!(Secrets.flags(secret), "{secret}");
        }
    }

    #[test]
    fn ordinary_texts_are_not() {
        for text in [
            "",
            "gold",
            "a fairly long sentence about 25 things that nobody would call secret",
            "550e8400-e29b-41d4-a716-446655440000",
            "https://example.com/some/page?page=2",
            "2026-11-28T22:08:19Z",
            "very_long_descriptive_name_of_a_setting",
            "00000000000000000000000000000000001a",
            "/usr/share/doc/package/README",
        ] {
            assert!(!Secrets.flags(text), "{text}");
        }
    }
}
