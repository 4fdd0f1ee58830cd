//! Every file that a fuzzer kept, and every finding, through the same function as in the fuzzer.

use flowkit_fuzzed::TARGETS;
use flowkit_sim::plan::Plan;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

/// Files of a folder in order of their names; none if there is no such folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("a file").path()).collect();
    files.sort();
    files
}

fn run_all(target: &str) {
    let (_, body) = TARGETS
        .iter()
        .find(|(name, _)| *name == target)
        .expect("a target");
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz");
    let corpus = files(&fuzz.join("corpus").join(target));
    assert!(
        corpus.len() >= 10,
        "{target} has a corpus of {} files",
        corpus.len()
    );
    let findings = files(&fuzz.join("regressions").join(target));
    for path in corpus.iter().chain(&findings) {
        let bytes = fs::read(path).expect("it can be read");
        if catch_unwind(AssertUnwindSafe(|| body(&bytes))).is_err() {
            panic!("a finding again: {}", path.display());
        }
    }
}

#[test]
fn messages_of_the_corpus_are_read_or_refused() {
    run_all("envelope");
}

#[test]
fn graphs_of_the_corpus_are_planned_or_refused() {
    run_all("graph");
}

#[test]
fn settings_of_the_corpus_are_taken_or_refused() {
    run_all("config");
}

#[test]
fn store_files_of_the_corpus_are_answered_or_refused() {
    run_all("store");
}

#[test]
fn plans_of_the_corpus_are_run_or_refused() {
    run_all("plan");
}

/// Samples that a change of the format makes nonsense of reach nothing any more.
#[test]
fn plans_with_a_name_make_sense() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/plan");
    let named = files(&folder);
    let named = named
        .iter()
        .filter(|path| path.extension().is_some_and(|end| end == "json"));
    let mut plans = 0;
    for path in named {
        let bytes = fs::read(path).expect("it can be read");
        let plan: Plan = serde_json::from_slice(&bytes)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let wrong = plan.faults_of_form();
        assert!(wrong.is_empty(), "{}: {wrong:?}", path.display());
        plans += 1;
    }
    assert!(plans >= 4, "{plans} plans");
}

#[test]
fn messages_of_strangers_in_the_corpus_stop_no_machine() {
    run_all("machines");
}

#[test]
fn every_folder_of_files_belongs_to_a_target() {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz");
    for folder in files(&fuzz.join("corpus"))
        .iter()
        .chain(&files(&fuzz.join("regressions")))
    {
        let name = folder.file_name().and_then(|name| name.to_str());
        assert!(
            TARGETS.iter().any(|(target, _)| Some(*target) == name),
            "{}",
            folder.display()
        );
    }
}
