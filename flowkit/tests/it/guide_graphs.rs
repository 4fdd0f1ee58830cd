//! Every graph of docs/guide/graphs.md is checked and run, and prints what the page says.

use super::common::flowkit;
use std::fs;
use std::process::Command;

const PAGE: &str = include_str!("../../../docs/guide/graphs.md");

/// A fenced block: its language, and the line of text before it.
struct Block<'p> {
    language: &'p str,
    before: &'p str,
    text: String,
}

fn blocks() -> Vec<Block<'static>> {
    let mut blocks: Vec<Block<'_>> = Vec::new();
    let (mut inside, mut before) = (false, "");
    for line in PAGE.lines() {
        match line.strip_prefix("```") {
            Some(language) if !inside => {
                inside = true;
                blocks.push(Block {
                    language,
                    before,
                    text: String::new(),
                });
            }
            Some(_) => inside = false,
            None if inside => {
                if let Some(block) = blocks.last_mut() {
                    block.text.push_str(line);
                    block.text.push('\n');
                }
            }
            None if line.is_empty() => {}
            None => before = line,
        }
    }
    blocks
}

#[test]
fn every_graph_of_the_page_runs_and_prints_what_the_page_says() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_flowkit"));
    let programs = program.parent().expect("a folder");
    let path = std::env::var("PATH").expect("text");
    let (mut graphs, mut scripts, mut printed) = (0, 0, String::new());
    for block in blocks() {
        match block.language {
            "json" => {
                let name = block.before.trim_matches(['`', ':', '*']);
                assert!(name.ends_with(".json"), "an unnamed graph: {}", block.text);
                let file = folder.path().join(name);
                fs::write(&file, &block.text).expect("written");
                let checked = flowkit().args(["graph", "check"]).arg(&file).output();
                let checked = checked.expect("flowkit starts");
                let said = String::from_utf8_lossy(&checked.stderr);
                assert!(checked.status.success(), "{name}: {said}");
                assert!(
                    PAGE.contains(&format!("flowkit run {name}")),
                    "{name}: not run"
                );
                graphs += 1;
            }
            "sh" => {
                let ran = Command::new("sh")
                    .args(["-c", &format!("set -e\n{}", block.text)])
                    .env("PATH", format!("{}:{path}", programs.display()))
                    .current_dir(folder.path())
                    .output()
                    .expect("a shell");
                let said = String::from_utf8_lossy(&ran.stderr);
                assert!(ran.status.success(), "{}: {said}", block.text);
                printed = String::from_utf8_lossy(&ran.stdout).into_owned();
                scripts += 1;
            }
            "text" => {
                for line in block.text.lines() {
                    let words = |line: &'_ str| -> Vec<String> {
                        line.split_whitespace().map(str::to_owned).collect()
                    };
                    let found = printed
                        .lines()
                        .any(|shown| words(shown).starts_with(&words(line)));
                    assert!(found, "{line:?} is not among:\n{printed}");
                }
            }
            // Compiled and run as documentation of the library.
            "rust" => {}
            other => panic!("a block of {other:?}"),
        }
    }
    assert!(
        graphs >= 5 && scripts >= 5,
        "{graphs} graphs, {scripts} scripts"
    );
}

/// The fields that the checker knows at a place, as it names them to somebody who wrote another one.
fn known_fields(before: &str, after: &str) -> Vec<String> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("graph.json");
    let graph = format!(r#"{before}{{"qqqqqqqqqqqqqqqq": 1}}{after}"#);
    fs::write(&file, &graph).expect("written");
    let checked = flowkit().args(["graph", "check"]).arg(&file).output();
    let said = checked.expect("flowkit starts").stderr;
    let said = String::from_utf8_lossy(&said);
    let (_, fields) = said
        .split_once("known fields are ")
        .unwrap_or_else(|| panic!("{graph}: {said}"));
    let fields = fields.lines().next().expect("a line");
    fields
        .split(", ")
        .map(|name| name.trim().to_owned())
        .collect()
}

#[test]
fn the_table_of_all_fields_names_those_that_the_checker_knows() {
    let (_, table) = PAGE.split_once("## All fields").expect("the table");
    let rows = table.lines().filter(|line| line.starts_with("| `"));
    let cells = rows.filter_map(|row| row.split('|').nth(1));
    let told: Vec<&str> = cells
        .flat_map(|cell| cell.split(','))
        .map(|name| name.trim().trim_matches('`'))
        .collect();
    let inside = |field: &str| format!(r#"{{"nodes": [{{"{field}": "#);
    let parts = ["retry_policy", "routing", "io"];
    let mut known = known_fields("", "");
    let mut add = |place: &str, fields: Vec<String>| {
        known.extend(fields.iter().map(|field| format!("{place}.{field}")));
    };
    add(
        "edges_ex[]",
        known_fields(r#"{"nodes": [], "edges_ex": ["#, "]}"),
    );
    add("nodes[]", known_fields(r#"{"nodes": ["#, "]}"));
    for part in parts {
        let place = format!("nodes[].{part}");
        add(&place, known_fields(&inside(part), "}]}"));
    }
    // The table names what is in these.
    known.retain(|name| !parts.iter().any(|part| *name == format!("nodes[].{part}")));
    let mut told: Vec<String> = told.into_iter().map(str::to_owned).collect();
    told.sort();
    known.sort();
    assert_eq!(told, known);
}
