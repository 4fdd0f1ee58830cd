//! House rules that no compiler knows: file lengths, a first line that says what a file is for,
//! and words that must not be left behind.

use std::path::Path;
use walkdir::WalkDir;

use crate::run::{Outcome, root};

/// Longest source file in lines.
const LINES_MAX: usize = 600;

/// Longer files that exist, each with its ceiling. A ratchet: a ceiling is lowered when its file
/// shrinks, and no file is added.
const CEILINGS: &[(&str, usize)] = &[];

/// What must not be left in the code, and why.
const FORBIDDEN: &[(&str, &str)] = &[
    ("todo!(", "finish it, or leave it out"),
    ("unimplemented!(", "answer `unsupported`, or leave it out"),
    ("FIXME", "mend it, or file an issue"),
    ("#[ignore", "a test that is not run proves nothing"),
];

pub(crate) fn run() -> Outcome {
    println!("\n== tidy: file lengths, first lines, left-over words");
    let root = root();
    let mut faults = Vec::new();
    let mut files = 0;
    let walk = WalkDir::new(&root).sort_by_file_name().into_iter();
    let visible = |entry: &walkdir::DirEntry| {
        let name = entry.file_name().to_string_lossy();
        entry.depth() == 0 || (name != "target" && !name.starts_with('.'))
    };
    for entry in walk.filter_entry(visible) {
        let entry = entry.map_err(|e| format!("tidy: {e}"))?;
        if entry.path().extension().is_none_or(|e| e != "rs") {
            continue;
        }
        let text = std::fs::read_to_string(entry.path())
            .map_err(|e| format!("tidy: {}: {e}", entry.path().display()))?;
        let name = entry.path().strip_prefix(&root).unwrap_or(entry.path());
        faults.extend(judge(name, &text));
        files += 1;
    }
    if faults.is_empty() {
        println!("{files} files: ok");
        return Ok(());
    }
    Err(format!(
        "{} faults:\n  {}",
        faults.len(),
        faults.join("\n  ")
    ))
}

/// The faults of one file.
fn judge(name: &Path, text: &str) -> Vec<String> {
    let shown = name.display().to_string().replace('\\', "/");
    let mut faults = Vec::new();
    let lines = text.lines().count();
    let ceiling = CEILINGS.iter().find(|(file, _)| *file == shown);
    let most = ceiling.map_or(LINES_MAX, |(_, lines)| *lines);
    if lines > most {
        faults.push(format!(
            "{shown}: {lines} lines, {most} allowed: split it by job"
        ));
    } else if lines < most && ceiling.is_some() {
        faults.push(format!(
            "{shown}: {lines} lines now: lower its ceiling in xtask/src/tidy.rs"
        ));
    }
    // Programs of the guide are included where they are compiled, and `//!` cannot be.
    let says = if shown.starts_with("docs/") {
        "//"
    } else {
        "//!"
    };
    if !text.starts_with(says) && !text.starts_with("#!") {
        faults.push(format!(
            "{shown}: begins without `//!`: say in one line what it is for"
        ));
    }
    // This file has to name the words.
    if shown == "xtask/src/tidy.rs" {
        return faults;
    }
    for (at, line) in text.lines().enumerate() {
        if line.contains("#[allow(") && !line.contains("reason =") {
            let why = "say `#[expect(lint, reason = …)]`, or give the reason";
            faults.push(format!("{shown}:{}: `#[allow`: {why}", at + 1));
        }
        for (word, why) in FORBIDDEN {
            if line.contains(word) {
                faults.push(format!("{shown}:{}: `{word}`: {why}", at + 1));
            }
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::{LINES_MAX, judge};
    use std::path::Path;

    #[test]
    fn a_tidy_file_has_no_faults() {
        assert!(judge(Path::new("a.rs"), "//! A.\nfn a() {}\n").is_empty());
    }

    #[test]
    fn length_first_line_and_words_are_each_reported() {
        let mut text = "fn a() { todo!() }\n".to_owned();
        text.push_str(&"\n".repeat(LINES_MAX));
        let faults = judge(Path::new("core/a.rs"), &text);
        assert_eq!(faults.len(), 3, "{faults:?}");
        assert!(faults[0].starts_with("core/a.rs: 601 lines"));
        assert!(faults[1].contains("begins without"));
        assert!(faults[2].starts_with("core/a.rs:1: `todo!(`"));
    }
}
