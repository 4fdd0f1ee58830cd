//! What `flowkit doctor` prints, word for word: of a data folder, and of processes that are asked.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;

use super::common::{Ran, Tree, flowkit};

/// Runs the doctor over a folder in which two demos have finished.
fn doctor(data: &Path, more: &[&str], code: i32) -> String {
    let output = flowkit()
        .args(["doctor", "--data"])
        .arg(data)
        .args(more)
        .output();
    let ran = Ran::from(output.expect("flowkit starts")).expect_code(code);
    // How fast the store was is another matter.
    let (before, rest) = ran.stdout.split_once("it answered in ").expect("the store");
    let (took, rest) = rest.split_once(" ms").expect("a time");
    took.parse::<u32>().expect("a number");
    format!("{before}it answered in N ms{rest}")
}

fn data(folder: &Path) -> std::path::PathBuf {
    let tree = Tree::with_files(3);
    let data = folder.join("data");
    for _ in 0..2 {
        let demo = flowkit()
            .arg("demo")
            .arg(tree.path())
            .arg("--data")
            .arg(&data)
            .output();
        Ran::from(demo.expect("flowkit starts")).expect_code(0);
    }
    data
}

/// One process's answer to `/readyz`.
fn serve(body: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a question");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("a byte");
            head.extend(byte);
        }
        assert!(head.starts_with(b"GET /readyz "), "{head:?}");
        write!(stream, "HTTP/1.1 200 OK\r\n\r\n{body}").expect("sent");
    });
    address
}

const OF_A_FOLDER: &str = "\
ok       store         it answered in N ms
skipped  subscription  a data folder's streams go with its process, and none runs on it now
skipped  roles         a data folder's streams go with its process, and none runs on it now
skipped  conflicts     a data folder's streams go with its process, and none runs on it now
skipped  folding       a data folder's streams go with its process, and none runs on it now
ok       timing        no lease ran out within a day
";

#[test]
fn a_sound_folder_and_nobody_to_ask() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = data(folder.path());
    let nobody =
        "name where workers serve health: --health HOST:PORT (their setting health_listen)";
    let rest = |state: &str| {
        format!(
            "{OF_A_FOLDER}ok       state         {state}\nskipped  health        {nobody}\n\
             skipped  memory        {nobody}\n\nall is well\n"
        )
    };
    assert_eq!(doctor(&data, &[], 0), rest("2 tasks"));
    assert_eq!(
        doctor(&data, &["--tasks-max", "1"], 0),
        rest("1 tasks, and there are more: --tasks-max N")
    );
}

#[test]
fn processes_are_asked_without_a_folder_and_who_does_not_answer_is_not_counted() {
    let well = serve(serde_json::json!({"worker_id": "w1", "memory": []}).to_string());
    let ran: Ran = flowkit()
        .args(["doctor", "--health", &well])
        .output()
        .expect("it runs")
        .into();
    let ran = ran.expect_code(0);
    for part in [
        "skipped  store         name a data folder, --data PATH, or servers\n",
        "ok       health        1 of 1 processes answered\n",
        "ok       memory        1 of 1 processes answered\n",
    ] {
        assert!(ran.stdout.contains(part), "{part}: {}", ran.stdout);
    }
    let ran: Ran = flowkit()
        .args(["doctor", "--health", "127.0.0.1:1"])
        .output()
        .expect("it runs")
        .into();
    let ran = ran.expect_code(1);
    let none = "skipped  memory        no process answered\n";
    assert!(ran.stdout.contains(none), "{}", ran.stdout);
}

#[test]
fn what_processes_say_of_themselves_is_told_with_the_cure() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = data(folder.path());
    let memory: Vec<[u64; 2]> = (1..=8).map(|n| [9_000 - n * 1_000, n << 27]).collect();
    let ill = serde_json::json!({
        "worker_id": "w1", "not_ready": ["its inbox is not read"], "workers": [{"abandoned": 2}],
        "memory": memory});
    let (ill, none) = (serve(ill.to_string()), serve("nonsense".to_owned()));
    let said = doctor(&data, &["--health", &ill, "--health", &none], 1);
    let end = format!(
        "{OF_A_FOLDER}ok       state         2 tasks
FOUND    health        w1: its inbox is not read
                       -> see what it names; its log (RUST_LOG=info) says more
FOUND    health        w1: 2 handlers ignore that they were told to end, and hold slots
                       -> let them look at `cx.is_cancelled()` between steps; restart the worker to free its slots
FOUND    health        {none}: the answer is no health of FlowKit
                       -> is the process alive, and is this its health_listen?
FOUND    memory        w1: its memory grew from 256 to 896 MiB within 8 s
                       -> let handlers give back what a run took in `cleanup`, keep no batch after its `process`, and look with a memory profiler

4 findings
"
    );
    assert_eq!(said, end);
    // Times that do not fit each other, as the folder's own settings have them.
    let config = folder.path().join("a.toml");
    let config = config.to_str().expect("UTF-8");
    std::fs::write(config, "lease_ttl_sec = 30\n").expect("written");
    // A worker sees to its heartbeats by itself.
    let said = doctor(&data, &["--config", config], 0);
    let note = "ok       timing        no lease ran out within a day; heartbeats are sent every 10 s, a third \
                of the lease, which is less than hb_interval_sec\n";
    assert!(said.contains(note), "{said}");
    let text = "lease_ttl_sec = 30\nhb_interval_sec = 5\ndb_cancel_poll_ms = 40000\n";
    std::fs::write(config, text).expect("written");
    let said = doctor(&data, &["--config", config], 1);
    let found = "FOUND    timing        db_cancel_poll_ms: grants are read every 40 s, less than once per lease of \
                 30 s\n                       -> set db_cancel_poll_ms well below lease_ttl_sec\n";
    assert!(said.contains(found), "{said}");
    assert!(said.ends_with("\n1 finding\n"), "{said}");
}
