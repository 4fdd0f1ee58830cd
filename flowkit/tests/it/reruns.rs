//! `flowkit task rerun`, and what docs/guide/rerun-and-retention.md shows.

use super::common::run;
use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// The code of the guide, word for word.
mod guide {
    use flowkit::prelude::*;

    async fn again(client: &Client, id: TaskId) -> Result<TaskHandle, ClientError> {
        let options = RerunOptions::from_nodes(["transform"]);
        client.task(id).rerun(options).await
    }

    #[tokio::test]
    async fn its_code_runs() {
        let engine = Engine::memory();
        engine.start().await.expect("started");
        let id = TaskId::new("nothing").expect("an id");
        let error = again(&engine.client(), id).await.expect_err("refused");
        assert_eq!(error.refusal(), Some(ReplyError::NotFound));
        engine.stop().await;
    }
}

#[test]
fn the_guide_shows_code_that_is_run_here() {
    let words =
        |text: &str| -> Vec<String> { text.split_whitespace().map(str::to_owned).collect() };
    let guide = include_str!("../../../docs/guide/rerun-and-retention.md");
    let block = guide.split("```rust\n").nth(1).expect("a block");
    let shown = words(block.split("```").next().expect("its end"));
    let here = words(include_str!("reruns.rs"));
    let found = here.windows(shown.len()).any(|part| part == shown);
    assert!(found, "mod guide differs from the guide's code");
}

#[test]
fn every_command_of_the_guide_works() {
    let guide = include_str!("../../../docs/guide/rerun-and-retention.md");
    let blocks = guide.split("```sh\n").skip(1);
    let script: String = blocks
        .filter_map(|block| block.split("```").next())
        .collect();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let program = Path::new(env!("CARGO_BIN_EXE_flowkit"));
    let programs = program.parent().expect("a folder").display();
    let path = std::env::var("PATH").expect("text");
    let output = Command::new("bash")
        .args(["-e", "-c", &script])
        .current_dir(folder.path())
        .env("PATH", format!("{programs}:{path}"))
        .stdin(Stdio::null())
        .output()
        .expect("bash runs");
    let (said, errors) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{said}\n{errors}");
    for part in ["\"rerun_of\"", "\"kept_from\"", "say, break"] {
        assert!(said.contains(part), "{part}: {said}\n{errors}");
    }
}

fn task<'a>(words: &'a [&'a str], data: &'a Path) -> Vec<&'a OsStr> {
    let mut arguments = vec![OsStr::new("task")];
    arguments.extend(words.iter().map(OsStr::new));
    arguments.extend([OsStr::new("--data"), data.as_os_str(), OsStr::new("--json")]);
    arguments
}

#[test]
fn a_finished_task_runs_again_from_a_node_and_nonsense_is_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let graph = folder.path().join("graph.json");
    let text = r#"{"nodes":[
        {"node_id":"a","type":"echo","io":{"input_inline":{"n":1}}},
        {"node_id":"b","type":"echo","depends_on":["a"],"io":{"input_inline":{"n":2}}}]}"#;
    fs::write(&graph, text).expect("written");
    let data = folder.path().join("data");
    let first = ["run".as_ref(), graph.as_os_str(), "--json".as_ref()];
    let data_flag = ["--data".as_ref(), data.as_os_str()];
    let first = run(first.into_iter().chain(data_flag))
        .expect_code(0)
        .json();
    let id = first["task_id"].as_str().expect("an id").to_owned();

    // Nothing is left to run.
    let ran = run(task(&["rerun", &id], &data)).expect_code(2);
    assert!(ran.stderr.contains("every node"), "{}", ran.stderr);
    let ran = run(task(&["rerun", &id, "--from", "nowhere"], &data)).expect_code(2);
    assert!(ran.stderr.contains("no node `nowhere`"), "{}", ran.stderr);
    let ran = run(task(&["rerun", &id, "--from", "a", "--all"], &data)).expect_code(2);
    assert!(ran.stderr.contains("--all"), "{}", ran.stderr);
    let ran = run(task(&["rerun", "nothing"], &data)).expect_code(2);
    assert!(ran.stderr.contains("no task nothing"), "{}", ran.stderr);

    let again = run(task(&["rerun", &id, "--from", "b"], &data));
    let again = again.expect_code(0).json();
    assert_eq!(
        (&again["status"], &again["rerun_of"]),
        (&"finished".into(), &first["task_id"])
    );
    assert_eq!(again["nodes"]["a"]["kept_from"], first["task_id"]);
    assert_eq!(again["nodes"]["a"]["grants"], 0, "{again}");
    assert_eq!(again["nodes"]["b"]["grants"], 1, "{again}");
    let second = again["task_id"].as_str().expect("an id");
    let third = run(task(&["rerun", second, "--all"], &data))
        .expect_code(0)
        .json();
    assert_eq!(third["nodes"]["a"]["grants"], 1, "{third}");
    let list = run(task(&["list"], &data)).expect_code(0).json();
    assert_eq!(list["tasks"].as_array().map(Vec::len), Some(3));
}

#[test]
fn a_rerun_in_a_folder_needs_the_programs_of_roles_that_run_again() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let graph = folder.path().join("graph.json");
    let text = r#"{"nodes":[
        {"node_id":"a","type":"mine","retry_policy":{"max":1},"io":{"input_inline":{"text":"t"}}},
        {"node_id":"b","type":"echo","depends_on":["a"],"io":{"input_inline":{"n":2}}}]}"#;
    fs::write(&graph, text).expect("written");
    let data = folder.path().join("data");
    let data_flag = ["--data".as_ref(), data.as_os_str()];
    let first = ["run".as_ref(), graph.as_os_str(), "--json".as_ref()];
    let breaks = ["--exec".as_ref(), OsStr::new("mine=sh -c 'exit 3'")];
    let first = run(first.into_iter().chain(data_flag).chain(breaks))
        .expect_code(1)
        .json();
    let id = first["task_id"].as_str().expect("an id").to_owned();

    let ran = run(task(&["rerun", &id], &data)).expect_code(2);
    assert!(
        ran.stderr.contains("--exec mine='COMMAND'"),
        "{}",
        ran.stderr
    );
    let list = run(task(&["list"], &data)).expect_code(0).json();
    let tasks = list["tasks"].as_array().map(Vec::len);
    assert_eq!(tasks, Some(1), "nothing was submitted: {list}");
    let ran = run(task(&["rerun", &id, "--from", "nope"], &data)).expect_code(2);
    assert!(ran.stderr.contains("--from: "), "{}", ran.stderr);
    let script = folder.path().join("upper.sh");
    let text = include_str!("../../../docs/guide/exec/upper.sh");
    fs::write(&script, text).expect("written");
    let works = format!("mine=sh {}", script.display());
    let again = run(task(&["rerun", &id, "--exec", &works], &data));
    let again = again.expect_code(0).json();
    assert_eq!(again["rerun_of"], first["task_id"], "{again}");
    let list = run(task(&["list"], &data)).expect_code(0).json();
    assert_eq!(list["tasks"].as_array().map(Vec::len), Some(2));
}
