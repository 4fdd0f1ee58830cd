//! Every case of the suites is in the macros: one that is not would never run.

use std::fs;
use std::path::Path;

fn cases_in(dir: &str) -> Vec<(String, String)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(dir);
    let mut cases = Vec::new();
    for file in fs::read_dir(dir).expect("the suite's folder") {
        let path = file.expect("a file of it").path();
        let group = path.file_stem().expect("a name").to_string_lossy();
        let text = fs::read_to_string(&path).expect("its text");
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("pub async fn ") {
                let name = rest.split('(').next().unwrap_or_default();
                cases.push((group.to_string(), name.to_owned()));
            }
        }
    }
    cases
}

#[test]
fn every_case_is_listed_in_its_group() {
    let macros = include_str!("../src/cases.rs");
    for (suite, at_least) in [("store", 50), ("transport", 15), ("guide", 25)] {
        let cases = cases_in(suite);
        assert!(cases.len() >= at_least, "{} cases found", cases.len());
        for (group, case) in cases {
            // Groups of two suites may have one name.
            let list = macros
                .split_once(&format!("macro_rules! {suite}_conformance"))
                .and_then(|(_, rest)| rest.split_once(&format!("{group}: [")))
                .and_then(|(_, rest)| rest.split_once(']'));
            let (list, _) = list.unwrap_or_else(|| panic!("no group {group}"));
            let listed = list.split(',').any(|name| name.trim() == case);
            assert!(listed, "{suite}::{group}::{case} is not listed");
        }
    }
}
