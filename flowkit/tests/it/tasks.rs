//! `flowkit task list|show|cancel|pause|resume` on the folder of an earlier run.

use super::common::{Tree, flowkit, run, wait_for};
use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::Stdio;

fn task<'a>(words: &'a [&'a str], data: &'a Path) -> Vec<&'a OsStr> {
    let mut arguments = vec![OsStr::new("task")];
    arguments.extend(words.iter().map(OsStr::new));
    arguments.extend([OsStr::new("--data"), data.as_os_str(), OsStr::new("--json")]);
    arguments
}

#[test]
fn a_finished_task_is_listed_and_shown() {
    let tree = Tree::with_files(20);
    let state = tempfile::tempdir().expect("a temporary folder");
    let demo = ["demo", "--json", "--data"].map(OsStr::new);
    let folders = [state.path().as_os_str(), tree.path().as_os_str()];
    let answer = run(demo.into_iter().chain(folders)).expect_code(0).json();
    let id = answer["task_id"].as_str().expect("an id");

    let list = run(task(&["list"], state.path())).expect_code(0).json();
    let tasks = list["tasks"].as_array().expect("a list");
    assert_eq!(tasks.len(), 1);
    assert_eq!(
        (&tasks[0]["task_id"], &tasks[0]["status"]),
        (&answer["task_id"], &"finished".into())
    );

    let shown = run(task(&["show", id], state.path())).expect_code(0).json();
    assert_eq!(shown["status"], "finished");
    assert_eq!(
        shown["nodes"]["summarize"]["result"]["files"], 20,
        "{shown}"
    );
    let measured = &shown["nodes"]["measure"]["totals"]["files"];
    assert_eq!(measured["sum"], 20.0, "{shown}");
    assert_eq!(measured["count"], shown["nodes"]["measure"]["batches"]);
    let found = &shown["nodes"]["scan"]["totals"]["found"]["sum"];
    assert_eq!((found, &shown["sums"]["found"]), (&20.0.into(), found));
    assert_eq!(shown["history"]["dropped"], 0, "{shown}");
    let causes = shown["history"]["entries"].as_array().expect("a list");
    assert_eq!(causes[0]["cause"], "submitted", "{shown}");
    let ended = causes.last().expect("an end");
    assert_eq!(ended["to"], "finished", "{shown}");
    assert!(ended["at_ms"].is_u64(), "{shown}");
    let scan = &shown["nodes"]["scan"]["history"]["entries"];
    let granted = scan.as_array().into_iter().flatten();
    let mut granted = granted.filter_map(|entry| entry["cause"].as_str());
    assert!(granted.any(|cause| cause.starts_with("granted to local-")));
}

#[test]
fn a_task_of_a_killed_process_can_be_cancelled_and_stays_so() {
    let state = tempfile::tempdir().expect("a temporary folder");
    let (data, id) = killed(state.path(), 60_000);
    let list = run(task(&["list"], &data)).expect_code(0).json();
    assert_eq!(list["tasks"][0]["status"], "running", "{list}");

    let cancelled = run(task(&["cancel", &id], &data)).expect_code(0).json();
    assert_eq!(cancelled["status"], "cancelled", "{cancelled}");
    let shown = run(task(&["show", &id], &data)).expect_code(0).json();
    assert_eq!(shown["status"], "cancelled");
    // Cancelling again changes nothing, as the guide has it.
    let again = run(task(&["cancel", &id], &data)).expect_code(1);
    assert!(again.stderr.contains("was cancelled before"), "{again:?}");
}

#[test]
fn a_cancel_keeps_its_reason_cut_to_its_bound_and_its_grace() {
    let state = tempfile::tempdir().expect("a temporary folder");
    let (data, id) = killed(state.path(), 60_000);
    // Longer than is kept, of characters of two bytes, and with what would move a terminal's cursor.
    let reason = format!("\u{1b}[2Jwrong year\n{}", "ü".repeat(2_000));
    let words = ["cancel", &id, "--reason", &reason, "--grace-sec", "1.5"];
    run(task(&words, &data)).expect_code(0);
    let shown = run(task(&["show", &id], &data)).expect_code(0).json();
    let entries = shown["history"]["entries"].as_array().expect("a list");
    let cancelling = entries.iter().find(|entry| entry["to"] == "cancelling");
    let cause = cancelling.expect("it was")["cause"].as_str();
    let cause = cause.expect("text");
    assert!(
        cause.starts_with("cancelled: \u{1b}[2Jwrong year\nüü"),
        "{cause}"
    );
    assert!(
        cause.ends_with("ü…") && cause.len() <= 1_024,
        "{}",
        cause.len()
    );
    let of_node = shown["nodes"]["b"]["history"]["entries"].to_string();
    assert!(of_node.contains("wrong year"), "{of_node}");

    let words = ["show", &id, "--history"];
    let mut words = task(&words, &data);
    words.retain(|word| *word != "--json");
    let text = run(words).expect_code(0).stdout;
    let line = text.lines().find(|line| line.contains("cancelling"));
    let line = line.unwrap_or_else(|| panic!("{text}"));
    assert!(
        line.contains("wrong year") && !text.contains('\u{1b}'),
        "{line}"
    );
    let mut words = vec![OsStr::new("why"), OsStr::new(&id)];
    words.extend([OsStr::new("--data"), data.as_os_str()]);
    let why = run(words).expect_code(0).stdout;
    assert!(why.contains("it was cancelled (") && why.contains("wrong year"));
    assert!(!why.contains('\u{1b}'), "{why}");

    use flowkit_core::port::{Store, StoreReply, StoreRequest};
    let store = flowkit::EmbeddedStore::open(&data).expect("nobody has it open");
    let task_id = flowkit::TaskId::new(&id).expect("an id");
    let runtime = tokio::runtime::Runtime::new().expect("threads");
    let read = runtime.block_on(store.call(StoreRequest::ReadTask { task_id }));
    let Ok(StoreReply::Task(Some(found))) = read else {
        panic!("{read:?}");
    };
    assert_eq!(found.task.cancel_grace_ms, Some(1_500));
}

/// A data folder whose process was killed while its task ran, and the task's id.
fn killed(state: &Path, ms: u32) -> (std::path::PathBuf, String) {
    let graph = state.join("graph.json");
    let text = format!(
        r#"{{"nodes":[{{"node_id":"a","type":"sleep","io":{{"input_inline":{{"ms":{ms}}}}}}},
            {{"node_id":"b","type":"echo","depends_on":["a"],"io":{{"input_inline":{{}}}}}}]}}"#
    );
    fs::write(&graph, text).expect("written");
    let data = state.join("data");
    let arguments = [
        OsStr::new("run"),
        graph.as_os_str(),
        OsStr::new("--data"),
        data.as_os_str(),
    ];
    let mut child = flowkit()
        .args(arguments)
        .stderr(Stdio::piped())
        .spawn()
        .expect("flowkit starts");
    wait_for(&mut child, "running");
    child.kill().expect("killed");
    child.wait().expect("dead");
    let list = run(task(&["list"], &data)).expect_code(0).json();
    let id = list["tasks"][0]["task_id"]
        .as_str()
        .expect("an id")
        .to_owned();
    (data, id)
}

#[test]
fn a_task_can_be_paused_stays_so_across_processes_and_goes_on_once_resumed() {
    let state = tempfile::tempdir().expect("a temporary folder");
    let (data, id) = killed(state.path(), 1_500);
    let words = ["pause", &id, "--reason", "maintenance"];
    let paused = run(task(&words, &data)).expect_code(0).json();
    assert_eq!(paused["status"], "paused", "{paused}");
    // Pausing again changes nothing and is no error.
    run(task(&["pause", &id], &data)).expect_code(0);
    let graph = state.path().join("graph.json");
    let again = [
        OsStr::new("run"),
        graph.as_os_str(),
        OsStr::new("--data"),
        data.as_os_str(),
    ];
    let mut why = run(["why".as_ref(), id.as_ref(), again[2], again[3]]);
    why = why.expect_code(0);
    let cure = format!("-> resume it: flowkit task resume {id} --data ");
    assert!(why.stdout.contains(&cure), "{}", why.stdout);
    let refused = run(again).expect_code(2);
    assert!(refused.stderr.contains("task resume"), "{}", refused.stderr);
    let resumed = run(task(&["resume", &id], &data)).expect_code(0).json();
    assert_eq!(resumed["status"], "running", "{resumed}");
    let others = ["--priority", "5", "--limit-key", "k"].map(OsStr::new);
    let goes_on = run(again.into_iter().chain(others)).expect_code(0);
    let note = "note: --priority, --limit-key changes nothing";
    assert!(goes_on.stderr.contains(note), "{}", goes_on.stderr);
    // What has ended stays as it was.
    let ended = run(task(&["pause", &id], &data)).expect_code(1);
    assert!(ended.stderr.contains("finished"), "{}", ended.stderr);
}

#[test]
fn a_task_or_folder_that_is_not_there_is_bad_input() {
    let state = tempfile::tempdir().expect("a temporary folder");
    let nowhere = state.path().join("nowhere");
    for words in [
        &["list"][..],
        &["show", "x"],
        &["cancel", "x"],
        &["pause", "x"],
        &["resume", "x"],
    ] {
        let ran = run(task(words, &nowhere)).expect_code(2);
        assert!(ran.stderr.contains("nowhere"), "{}", ran.stderr);
        assert!(!nowhere.exists(), "looking must not make a data folder");
    }
    let tree = Tree::new();
    let demo = ["demo", "--json", "--data"].map(OsStr::new);
    let data = state.path().join("data");
    run(demo
        .into_iter()
        .chain([data.as_os_str(), tree.path().as_os_str()]))
    .expect_code(0);
    for words in [
        &["show", "x"][..],
        &["cancel", "x"],
        &["pause", "x"],
        &["resume", "x"],
    ] {
        let ran = run(task(words, &data)).expect_code(2);
        assert!(ran.stderr.contains("no task"), "{}", ran.stderr);
    }
}
