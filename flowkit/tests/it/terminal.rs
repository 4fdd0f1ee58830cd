//! What a terminal is shown that a pipe is not: live bars and colours. `script` of util-linux is the terminal.

use std::fs;

use super::common::flowkit;
use super::on_terminal::{CYAN, ESC, UP, colours, on_a_terminal};

/// A graph whose first node works for a while, and a failing log line is not among what it does.
fn graph(folder: &std::path::Path) -> String {
    let file = folder.join("graph.json");
    let text = r#"{"nodes": [
        {"node_id": "wait", "type": "sleep", "io": {"input_inline": {"ms": 200, "batches": 5}}},
        {"node_id": "say", "type": "echo", "depends_on": ["wait"], "io": {"input_inline": {"text": "done"}}}]}"#;
    fs::write(&file, text).expect("written");
    file.to_str().expect("UTF-8").to_owned()
}

#[test]
fn a_run_has_live_bars_on_a_terminal_and_colours_unless_they_are_not_wanted() {
    let folder = tempfile::tempdir().expect("a folder");
    let line = format!("flowkit run {} --workers 1", graph(folder.path()));
    let said = on_a_terminal(&line, &[]);
    for part in [
        "wait",
        "say",
        "━",
        "running",
        "5 batches",
        "finished",
        UP,
        CYAN,
    ] {
        assert!(said.contains(part), "{part:?}: {said:?}");
    }
    // Lines are what a pipe gets.
    assert!(!said.contains("wait: running"), "{said:?}");
    let plain = on_a_terminal(&line, &[("NO_COLOR", "1")]);
    for part in ["━", "5 batches", UP] {
        assert!(plain.contains(part), "{part:?}: {plain:?}");
    }
    assert_eq!(colours(&plain), Vec::<&str>::new(), "{plain:?}");
}

#[test]
fn a_simulation_has_a_live_bar_on_a_terminal_and_colours_unless_they_are_not_wanted() {
    let line = "flowkit sim run --seeds 300";
    let said = on_a_terminal(line, &[]);
    for part in ["━", "/300 seeds", CYAN] {
        assert!(said.contains(part), "{part:?}: {said:?}");
    }
    let plain = on_a_terminal(line, &[("NO_COLOR", "1")]);
    assert!(
        plain.contains("━") && plain.contains("/300 seeds"),
        "{plain:?}"
    );
    assert_eq!(colours(&plain), Vec::<&str>::new(), "{plain:?}");
}

#[test]
fn logs_and_errors_are_coloured_on_a_terminal_only_and_never_against_the_users_word() {
    let folder = tempfile::tempdir().expect("a folder");
    let line = format!("flowkit run {} --workers 1", graph(folder.path()));
    let logs = [("RUST_LOG", "info")];
    let said = on_a_terminal(&line, &logs);
    assert!(said.contains("\x1b[32m INFO"), "{said:?}");
    let said = on_a_terminal(&line, &[logs[0], ("NO_COLOR", "1")]);
    assert!(said.contains(" INFO "), "{said:?}");
    assert_eq!(colours(&said), Vec::<&str>::new(), "{said:?}");
    let said = on_a_terminal("flowkit --help", &[("NO_COLOR", "1")]);
    assert_eq!(colours(&said), Vec::<&str>::new(), "{said:?}");
}

#[test]
fn a_pipe_gets_no_escape_whatever_is_written_into_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let graph = graph(folder.path());
    for words in [
        &["run", &graph, "--workers", "1"][..],
        &["sim", "run", "--seeds", "100"],
        &["sim", "replay", "--seed", "3"],
        &["--help"],
    ] {
        let output = flowkit()
            .args(words)
            .env("RUST_LOG", "info")
            .env("TERM", "xterm-256color")
            .env_remove("NO_COLOR")
            .output()
            .expect("it runs");
        assert!(output.status.success(), "{words:?}: {output:?}");
        let (out, err) = (
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
        assert!(!out.contains(ESC), "{words:?}: {out:?}");
        assert!(!err.contains(ESC), "{words:?}: {err:?}");
        if words[0] == "run" {
            // There were logs that could have been coloured.
            assert!(err.contains(" INFO "), "{err}");
        }
    }
}

/// The program of the first node looks when all bars are there, and the others wait for it.
#[test]
fn many_nodes_have_one_bar_together_and_no_bar_a_thread() {
    let folder = tempfile::tempdir().expect("a folder");
    let look = |count: usize| {
        let script = "sleep 1; ls /proc/$PPID/task | wc -l > threads; \
                      echo '{\"kind\":\"result\",\"batch_uid\":\"input\"}'; cat > rest";
        fs::write(folder.path().join("p.sh"), script).expect("written");
        let mut nodes = vec![serde_json::json!({
            "node_id": "first", "type": "exec", "io": {"input_inline": {"command": "sh p.sh"}}})];
        nodes.extend((1..count).map(|n| {
            serde_json::json!({"node_id": format!("then{n}"), "type": "echo", "depends_on": ["first"]})
        }));
        let graph = serde_json::json!({"nodes": nodes}).to_string();
        fs::write(folder.path().join("g.json"), graph).expect("written");
        let line = format!(
            "cd {} && flowkit run g.json --workers 1 > table",
            folder.path().display()
        );
        let said = on_a_terminal(&line, &[("TOKIO_WORKER_THREADS", "2")]);
        let threads = fs::read_to_string(folder.path().join("threads")).expect("it looked");
        (said, threads.trim().parse::<usize>().expect("a number"))
    };
    let (few, threads) = look(30);
    assert!(
        few.contains("then29") && !few.contains("all nodes"),
        "{few:?}"
    );
    assert!(threads < 25, "{threads}");
    let (many, threads) = look(300);
    for part in [
        "all nodes",
        "0 of 300 ended, 1 running",
        "first",
        "300 of 300 ended",
    ] {
        assert!(many.contains(part), "{part:?}: {many:?}");
    }
    assert!(threads < 25, "{threads}");
    let bars = (1..300).filter(|n| many.contains(&format!("then{n} ")));
    // Not one for each: those that are seen at work, however slow the disk is.
    assert!(bars.count() < 250, "{many:?}");
}
