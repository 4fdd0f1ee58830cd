//! The page of reason codes names every code that is given to a failure somewhere in the code, and no other.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const PAGE: &str = include_str!("../../../docs/guide/reason-codes.md");
/// Where failures are made.
const SOURCES: [&str; 3] = ["../core/src", "../runtime/src", "src/roles"];
/// What is given a code as its first argument.
const MAKERS: [&str; 4] = [
    "permanent(",
    "transient(",
    "FunctionError::new(",
    "problem(",
];
/// Codes that are given by the name of a constant, or as a field.
const NAMED: [&str; 15] = [
    "bad_input",
    "bad_input_adapter",
    "bad_input_args",
    "bad_value",
    "cancelled",
    "exec_error",
    "exec_exit",
    "exec_killed",
    "exec_line_too_long",
    "exec_protocol",
    "exec_start",
    "no_handler",
    "panic",
    "start_too_large",
    "unexpected_error",
];
/// Codes that are handed to what ends a node.
const ENDING: [&str; 3] = ["event_refused", "input_changed", "worker_lost"];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder of sources") {
        let path = entry.expect("an entry").path();
        let name = path
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        if path.is_dir() && name != "tests" {
            sources(&path, found);
        } else if name.ends_with(".rs") && name != "tests.rs" {
            found.push(path);
        }
    }
}

/// The code proper: what stands before the file's tests, without its documentation.
fn code_of(path: &Path) -> String {
    let text = fs::read_to_string(path).expect("a source file");
    let code = text.split("#[cfg(test)]").next().unwrap_or_default();
    let lines = code
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    lines.map(|line| format!("{line}\n")).collect()
}

/// The text that stands right behind `maker`, where one does.
fn first_texts(code: &str, maker: &str) -> Vec<String> {
    let arguments = code.split(maker).skip(1).map(str::trim_start);
    let texts = arguments.filter_map(|argument| argument.strip_prefix('"')?.split('"').next());
    texts.map(str::to_owned).collect()
}

#[test]
fn the_page_of_reason_codes_names_those_of_the_code() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for folder in SOURCES {
        sources(&root.join(folder), &mut files);
    }
    let code: String = files.iter().map(|path| code_of(path)).collect();
    let mut given: BTreeSet<String> = BTreeSet::new();
    for maker in MAKERS {
        given.extend(first_texts(&code, maker));
    }
    assert!(given.len() >= 20, "{given:?}");
    for named in NAMED.into_iter().chain(ENDING) {
        assert!(code.contains(&format!("\"{named}\"")), "{named}: is gone");
        given.insert(named.to_owned());
    }

    let rows = PAGE.lines().filter(|line| line.starts_with("| `"));
    let cells = rows.filter_map(|row| row.split('|').nth(1));
    let mut told: BTreeSet<String> = cells
        .flat_map(|cell| cell.split(','))
        .map(|code| code.trim().trim_matches('`').to_owned())
        .collect();
    let programs = PAGE
        .split("exec_")
        .skip(1)
        .filter_map(|rest| rest.split('`').next());
    told.extend(programs.map(|rest| format!("exec_{rest}")));
    assert_eq!(told, given);
}
