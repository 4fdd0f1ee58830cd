//! Limits of a user's JSON value: what some store could refuse is refused at the edge.
//!
//! One pass over the text, no tree, no recursion.

use super::Json;

/// Deepest nesting of arrays and objects. Document stores stop at 100 levels, and a value lies
/// some levels deep in the record that holds it.
pub const JSON_DEPTH_MAX: usize = 64;

/// About how long a path is shown.
const PATH_BYTES: usize = 400;
/// Most breaks listed for one value.
const BREAKS_MAX: usize = 100;

/// What to hold a value against.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Most bytes of text.
    pub(crate) bytes_max: usize,
    /// Deepest nesting.
    pub(crate) depth_max: usize,
    /// A key may stand only once in an object. Costs an ordered set per object.
    pub(crate) unique_keys: bool,
}

/// One place where a value breaks a limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Break {
    /// Where: `a.b[3].c`; empty for the value itself.
    pub(crate) path: String,
    /// What is wrong there.
    pub(crate) problem: String,
    /// What to do about it.
    pub(crate) cure: &'static str,
}

/// Checks that every store can keep a value of a user: at most `bytes_max` bytes, nesting up to
/// [`JSON_DEPTH_MAX`], keys without NUL and without a leading `$`, integers within 64 bits signed,
/// finite numbers, whole surrogate pairs.
///
/// # Errors
/// One sentence with the first place that breaks a limit.
pub fn check_value(value: &Json, bytes_max: usize) -> Result<(), String> {
    let limits = Limits {
        bytes_max,
        depth_max: JSON_DEPTH_MAX,
        unique_keys: false,
    };
    match breaks(value.text(), limits).into_iter().next() {
        None => Ok(()),
        Some(found) if found.path.is_empty() => Err(format!("{}; {}", found.problem, found.cure)),
        Some(found) => Err(format!(
            "at `{}`: {}; {}",
            found.path, found.problem, found.cure
        )),
    }
}

/// Every place where the text breaks a limit, in order. Too long or too deep ends the search.
pub(crate) fn breaks(text: &str, limits: Limits) -> Vec<Break> {
    let mut scan = Scan {
        text,
        at: 0,
        limits,
        frames: Vec::new(),
        found: Vec::new(),
    };
    if text.len() > limits.bytes_max {
        scan.found.push(Break {
            path: String::new(),
            problem: format!("it has {} bytes of JSON", text.len()),
            cure: "make it smaller; large data belongs into artifacts or files",
        });
        return scan.found;
    }
    scan.run();
    scan.found
}

/// An open array or object.
enum Frame<'a> {
    Array {
        index: usize,
    },
    Object {
        key: &'a str,
        seen: std::collections::BTreeSet<&'a str>,
    },
}

struct Scan<'a> {
    text: &'a str,
    at: usize,
    limits: Limits,
    frames: Vec<Frame<'a>>,
    found: Vec<Break>,
}

/// What a string literal holds, apart from its text.
#[derive(Default)]
struct Literal {
    nul: bool,
    dollar_first: bool,
    half_pair: bool,
}

impl<'a> Scan<'a> {
    fn run(&mut self) {
        let bytes = self.text.as_bytes();
        while self.found.len() < BREAKS_MAX {
            let Some(&byte) = bytes.get(self.at) else {
                return;
            };
            match byte {
                b'{' | b'[' => {
                    if self.frames.len() >= self.limits.depth_max {
                        let problem = format!("nested deeper than {}", self.limits.depth_max);
                        self.note(problem, "flatten the value");
                        return;
                    }
                    self.frames.push(if byte == b'[' {
                        Frame::Array { index: 0 }
                    } else {
                        Frame::Object {
                            key: "",
                            seen: std::collections::BTreeSet::new(),
                        }
                    });
                    self.at += 1;
                    if byte == b'{' {
                        self.key();
                    }
                }
                b'}' | b']' => {
                    self.frames.pop();
                    self.at += 1;
                }
                b',' => {
                    self.at += 1;
                    match self.frames.last_mut() {
                        Some(Frame::Array { index }) => *index += 1,
                        Some(Frame::Object { .. }) => self.key(),
                        None => {}
                    }
                }
                b'"' => {
                    let (_, literal) = self.string();
                    self.note_half_pair(&literal);
                }
                b'-' | b'0'..=b'9' => self.number(),
                _ => self.at += 1,
            }
        }
    }

    /// Reads the key of the next member, if there is one.
    fn key(&mut self) {
        let bytes = self.text.as_bytes();
        while bytes.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
        if bytes.get(self.at) != Some(&b'"') {
            return;
        }
        let (name, literal) = self.string();
        let mut twice = false;
        if let Some(Frame::Object { key, seen }) = self.frames.last_mut() {
            *key = name;
            twice = self.limits.unique_keys && !seen.insert(name);
        }
        if twice {
            self.note("the key stands twice".to_owned(), "keep one of them");
        }
        if literal.nul {
            self.note("a key holds NUL".to_owned(), "rename the key");
        }
        if literal.dollar_first {
            self.note("a key starts with `$`".to_owned(), "rename the key");
        }
        self.note_half_pair(&literal);
    }

    /// Reads the string literal that starts here; its text is as written, escapes included.
    fn string(&mut self) -> (&'a str, Literal) {
        let bytes = self.text.as_bytes();
        let start = self.at + 1;
        let mut at = start;
        let mut literal = Literal {
            dollar_first: bytes.get(start) == Some(&b'$'),
            ..Literal::default()
        };
        let mut open_pair = false;
        loop {
            match bytes.get(at) {
                None | Some(b'"') => break,
                Some(b'\\') if bytes.get(at + 1) == Some(&b'u') => {
                    let unit = self
                        .text
                        .get(at + 2..at + 6)
                        .and_then(|hex| u16::from_str_radix(hex, 16).ok())
                        .unwrap_or(0);
                    literal.nul |= unit == 0;
                    literal.dollar_first |= at == start && unit == u16::from(b'$');
                    let low = (0xDC00..0xE000).contains(&unit);
                    literal.half_pair |= low != open_pair;
                    open_pair = (0xD800..0xDC00).contains(&unit);
                    at += 6;
                    continue;
                }
                Some(b'\\') => at += 2,
                Some(_) => at += 1,
            }
            literal.half_pair |= open_pair;
            open_pair = false;
        }
        literal.half_pair |= open_pair;
        let end = at.min(bytes.len());
        self.at = end + 1;
        (self.text.get(start..end).unwrap_or(""), literal)
    }

    fn number(&mut self) {
        let bytes = self.text.as_bytes();
        let start = self.at;
        let mut whole = true;
        while let Some(byte) = bytes.get(self.at) {
            match byte {
                b'-' | b'+' | b'0'..=b'9' => {}
                b'.' | b'e' | b'E' => whole = false,
                _ => break,
            }
            self.at += 1;
        }
        let digits = self.text.get(start..self.at).unwrap_or("");
        if whole && digits.parse::<i64>().is_err() {
            self.note(
                "an integer is beyond 64 bits signed".to_owned(),
                "write it as text or as a fraction",
            );
        }
        if !whole && !digits.parse::<f64>().is_ok_and(f64::is_finite) {
            self.note(
                "a number is beyond what a double can hold".to_owned(),
                "write it as text",
            );
        }
    }

    fn note_half_pair(&mut self, literal: &Literal) {
        if literal.half_pair {
            self.note(
                "a text holds half of a surrogate pair".to_owned(),
                "write the whole character",
            );
        }
    }

    fn note(&mut self, problem: String, cure: &'static str) {
        let mut path = String::new();
        for frame in &self.frames {
            if path.len() > PATH_BYTES {
                path.push('…');
                break;
            }
            match frame {
                Frame::Array { index } => path.push_str(&format!("[{index}]")),
                Frame::Object { key, .. } => {
                    if !path.is_empty() {
                        path.push('.');
                    }
                    if key.is_empty() {
                        path.push_str("\"\"");
                    }
                    path.extend(key.chars().take(80));
                }
            }
        }
        self.found.push(Break {
            path,
            problem,
            cure,
        });
    }
}

#[cfg(test)]
mod tests;
