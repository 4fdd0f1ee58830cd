//! A process that is killed: its folder is free at once, and holds what it had synced.

use flowkit_core::port::{StoreReply, StoreRequest};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use super::records::{put_task, task};
use super::{Owner, SHARD, ask};
use crate::{EmbeddedStore, OpenError};

const FOLDER: &str = "FLOWKIT_TEST_KILLED_FOLDER";

/// The process that is killed: commits and syncs for ever.
async fn child(folder: &Path) {
    let mut owner = Owner::of(EmbeddedStore::open(folder).unwrap()).await;
    for number in 0_u64.. {
        let records = (0..20)
            .map(|n| put_task(task(&format!("{number}-{n}"))))
            .collect();
        owner.commit(records).await.unwrap();
        if number % 3 == 0 {
            let Ok(StoreReply::Synced { seq }) = owner.sync().await else {
                panic!("not synced");
            };
            println!("\nsynced {seq}");
        }
    }
}

/// The test runs itself once more as the process that it kills.
#[tokio::test]
async fn a_killed_process_leaves_a_free_folder_and_all_that_it_synced() {
    if let Some(folder) = std::env::var_os(FOLDER) {
        return child(Path::new(&folder)).await;
    }
    const NAME: &str =
        "tests::killed::a_killed_process_leaves_a_free_folder_and_all_that_it_synced";
    let folder = tempfile::tempdir().unwrap();
    for round in 1..=3 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", NAME, "--nocapture"])
            .env(FOLDER, folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut synced = lines.map_while(Result::ok).filter_map(|line| {
            let seq = line.strip_prefix("synced ")?;
            seq.parse::<u64>().ok()
        });
        let seq = synced.nth(20 * round).expect("it syncs until it is killed");
        match EmbeddedStore::open(folder.path()) {
            Err(OpenError::InUse { pid, .. }) => assert_eq!(pid, Some(child.id())),
            other => panic!("{other:?}"),
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let last = synced.last().unwrap_or(seq);

        let store = EmbeddedStore::open(folder.path()).unwrap();
        let read = ask(&store, StoreRequest::ReadShard { shard: SHARD }).await;
        let StoreReply::Shard(shard) = read else {
            panic!("not a shard");
        };
        assert!(shard.commit_seq >= last, "{} of {last}", shard.commit_seq);
        let mut count = 0;
        let mut after = None;
        loop {
            let list = StoreRequest::ListTasks { after, limit: 1000 };
            let StoreReply::Tasks(page) = ask(&store, list).await else {
                panic!("not tasks");
            };
            count += page.tasks.len();
            after = page.tasks.last().map(|t| t.task.task_id.clone());
            if !page.more {
                break;
            }
        }
        assert_eq!(count % 20, 0, "a commit is not whole");
    }
}
