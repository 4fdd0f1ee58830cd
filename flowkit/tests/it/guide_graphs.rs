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
