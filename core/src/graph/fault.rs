//! What is wrong with a graph, and where.

use std::borrow::Cow;
use std::fmt;

/// Most faults listed for one graph; a last one says how many more there are. It keeps the answer
/// to a submission within the limit of a message.
pub const FAULTS_MAX: usize = 500;
/// Most bytes of the listed faults, for the same reason; escapes may double them.
const FAULTS_BYTES_MAX: usize = 256 * 1024;

/// One thing that is wrong with a graph.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fault {
    /// Where: `nodes[3].retry_policy.max`; `graph` for the graph itself.
    pub path: String,
    /// What is wrong there.
    pub problem: String,
    /// What to do about it.
    pub cure: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.path, self.problem, self.cure)
    }
}

impl std::error::Error for Fault {}

/// A place in the graph; it becomes text only when there is a fault.
#[derive(Clone, Copy)]
pub(crate) enum Path<'a> {
    Root,
    Key(&'a Self, &'a str),
    Index(&'a Self, usize),
}

impl<'a> Path<'a> {
    pub(crate) fn key(&'a self, key: &'a str) -> Self {
        Path::Key(self, key)
    }

    pub(crate) fn index(&'a self, index: usize) -> Self {
        Path::Index(self, index)
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Path::Root => f.write_str("graph"),
            Path::Key(Path::Root, key) => f.write_str(&shown_key(key)),
            Path::Key(parent, key) => write!(f, "{parent}.{}", shown_key(key)),
            Path::Index(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

/// A key as part of a path: as it is if it is a word, else quoted and of bounded length.
fn shown_key(key: &str) -> Cow<'_, str> {
    let word = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | ':' | '$');
    if !key.is_empty() && key.len() <= 80 && key.chars().all(word) {
        Cow::Borrowed(key)
    } else {
        Cow::Owned(quoted(key))
    }
}

/// The faults found so far.
#[derive(Default)]
pub(crate) struct Faults {
    list: Vec<Fault>,
    bytes: usize,
    unlisted: usize,
}

impl Faults {
    pub(crate) fn add(
        &mut self,
        path: impl fmt::Display,
        problem: impl Into<String>,
        cure: impl Into<String>,
    ) {
        if self.list.len() >= FAULTS_MAX || self.bytes >= FAULTS_BYTES_MAX {
            self.unlisted += 1;
            return;
        }
        let fault = Fault {
            path: path.to_string(),
            problem: problem.into(),
            cure: cure.into(),
        };
        self.bytes += fault.path.len() + fault.problem.len() + fault.cure.len();
        self.list.push(fault);
    }

    /// Looking for a similar name costs time; a graph with many faults has another problem.
    pub(crate) fn few(&self) -> bool {
        self.list.len() < 20
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub(crate) fn into_list(mut self) -> Vec<Fault> {
        if self.unlisted > 0 {
            self.list.push(Fault {
                path: "graph".to_owned(),
                problem: format!("{} more faults are not listed", self.unlisted),
                cure: "mend these first".to_owned(),
            });
        }
        self.list
    }
}

/// A user's text in a message: quoted, on one line, of bounded length.
pub(crate) fn quoted(text: &str) -> String {
    const CHARS_MAX: usize = 60;
    let escape = |part: &str| -> String {
        part.chars()
            .flat_map(|c| {
                let control = c.is_control();
                control
                    .then(|| c.escape_default())
                    .into_iter()
                    .flatten()
                    .chain((!control).then_some(c))
            })
            .collect()
    };
    match text.char_indices().nth(CHARS_MAX) {
        None => format!("`{}`", escape(text)),
        Some((end, _)) => format!("`{}…`", escape(&text[..end])),
    }
}

/// The candidate most like `name`, if one is like enough to be a slip of the keyboard.
pub(crate) fn similar<'a>(
    name: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    if name.len() > 40 {
        return None;
    }
    let limit = 1 + name.chars().count() / 4;
    candidates
        .into_iter()
        .filter(|c| c.len().abs_diff(name.len()) <= 4 * limit)
        .map(|c| (distance(name, c), c))
        .filter(|(d, _)| *d <= limit)
        .min_by_key(|(d, _)| *d)
        .map(|(_, c)| c)
}

/// How many characters must be inserted, removed or changed to get from `a` to `b`.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let change = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_keyboard_finds_its_name() {
        assert_eq!(similar("mesure", ["scan", "measure"]), Some("measure"));
        assert_eq!(similar("zzz", ["scan", "measure"]), None);
        assert_eq!(distance("kitten", "sitting"), 3);
    }

    #[test]
    fn quoted_text_stays_short_and_on_one_line() {
        assert_eq!(quoted("a\nb"), "`a\\nb`");
        assert_eq!(quoted(&"x".repeat(100)).chars().count(), 63);
    }
}
