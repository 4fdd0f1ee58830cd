//! Power cuts, failed writes, failed syncs and full disks, at hundreds of moments of a load.
//!
//! Goal: whatever a power cut does to unsynced writes, the store opens again and holds exactly what
//! some prefix of the commits had written, at least up to the last commit that was synced.
//! Method: a load runs on a disk that draws an image of a power cut every few writes and at every
//! sync; each image is opened and compared, table by table, with a plain model.

use flowkit_core::id::Token;
use flowkit_core::json::Json;
use flowkit_core::message::Artifact;
use flowkit_core::port::{Commit, Record, Store, StoreReply, StoreRequest};
use flowkit_core::record::{ArtifactRecord, NodeRecord, TaskRecord};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::records::{artifact, grant, node, put_artifact, put_node, put_task, task};
use super::{Owner, SHARD, ask};
use crate::EmbeddedStore;
use crate::disk::faulty::Random;
use crate::testing::{FaultyDisk, TestClock};

/// What the commits of a load have written, so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Model {
    seq: u64,
    tasks: BTreeMap<String, TaskRecord>,
    nodes: BTreeMap<(String, String), NodeRecord>,
    artifacts: BTreeMap<(String, String, u64), ArtifactRecord>,
}

impl Model {
    pub(super) fn apply(&mut self, commit: &Commit) {
        self.seq = commit.seq;
        let text = |id: &dyn std::fmt::Display| id.to_string();
        for record in commit.records.clone() {
            match record {
                Record::Task(r) => {
                    self.tasks.insert(text(&r.task_id), *r);
                }
                Record::Node(r) => {
                    self.nodes.insert((text(&r.task_id), text(&r.node_id)), *r);
                }
                Record::Artifact(r) => {
                    let key = (text(&r.task_id), text(&r.node_id), r.number);
                    self.artifacts.insert(key, *r);
                }
                Record::Tombstone(_) | Record::Remove(_) => {}
            }
        }
    }

    /// Everything in a store, through its port.
    pub(super) async fn read(store: &EmbeddedStore) -> Self {
        let mut found = Self::default();
        match ask(store, StoreRequest::ReadShard { shard: SHARD }).await {
            StoreReply::Shard(shard) => found.seq = shard.commit_seq,
            other => panic!("{other:?}"),
        }
        let mut unsettled = 0;
        for task in tasks(store, |after| StoreRequest::ListTasks { after, limit: 7 }).await {
            unsettled += usize::from(!task.settled);
            let name = task.task_id.to_string();
            let read = StoreRequest::ReadTask {
                task_id: task.task_id.clone(),
            };
            let StoreReply::Task(Some(whole)) = ask(store, read).await else {
                panic!("{name} is listed and not there");
            };
            for node in whole.nodes {
                let node_name = node.node_id.to_string();
                for artifact in artifacts(store, &node).await {
                    let key = (name.clone(), node_name.clone(), artifact.number);
                    found.artifacts.insert(key, artifact);
                }
                found.nodes.insert((name.clone(), node_name), node);
            }
            found.tasks.insert(name, task);
        }
        let load = |after| StoreRequest::LoadTasks {
            shard: SHARD,
            after,
            limit: 7,
        };
        assert_eq!(
            tasks(store, load).await.len(),
            unsettled,
            "index of unsettled tasks"
        );
        found
    }
}

async fn tasks(
    store: &EmbeddedStore,
    page: impl Fn(Option<flowkit_core::id::TaskId>) -> StoreRequest,
) -> Vec<TaskRecord> {
    let mut found: Vec<TaskRecord> = Vec::new();
    loop {
        let after = found.last().map(|task| task.task_id.clone());
        let StoreReply::Tasks(page) = ask(store, page(after)).await else {
            panic!("not a page");
        };
        assert!(page.unreadable.is_empty(), "{:?}", page.unreadable);
        found.extend(page.tasks.into_iter().map(|task| task.task));
        if !page.more {
            return found;
        }
    }
}

async fn artifacts(store: &EmbeddedStore, node: &NodeRecord) -> Vec<ArtifactRecord> {
    let read = StoreRequest::ReadArtifacts {
        task_id: node.task_id.clone(),
        node_id: node.node_id.clone(),
        after: 0,
        limit: 1000,
    };
    let StoreReply::Artifacts(found) = ask(store, read).await else {
        panic!("not artifacts");
    };
    // Another index over the same rows must say the same.
    let accepted = StoreRequest::ReadAccepted {
        task_id: node.task_id.clone(),
        node_id: node.node_id.clone(),
        after: 0,
        limit: 1000,
    };
    let expected = found
        .iter()
        .map(|a| (a.number, a.batch_uid.clone()))
        .collect();
    assert_eq!(ask(store, accepted).await, StoreReply::Accepted(expected));
    found
}

/// Random commits: new tasks, grants, batches with artifacts of all sizes, tasks that settle.
pub(super) struct Load {
    random: Random,
    pub(super) model: Model,
    tasks: u64,
}

impl Load {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            random: Random::new(seed),
            model: Model::default(),
            tasks: 0,
        }
    }

    pub(super) fn records(&mut self) -> Vec<Record> {
        let mut records = BTreeMap::new();
        for _ in 0..1 + self.random.below(30) {
            let number = self.random.below(self.tasks + 2);
            let name = format!("task-{number:06}");
            let node_name = format!("node-{}", self.random.below(3));
            self.tasks = self.tasks.max(number + 1);
            let mut record = task(&name);
            record.settled = self.random.below(4) == 0;
            record.created_at_ms = self.random.below(1 << 40) as i64;
            records.insert(format!("0{name}"), put_task(record));
            let key = (name.clone(), node_name.clone());
            let mut run = self.model.nodes.get(&key).cloned();
            let run_ref = run.get_or_insert_with(|| node(&name, &node_name));
            if records.contains_key(&format!("1{name}/{node_name}")) {
                continue;
            }
            run_ref.lease_no = Token(run_ref.lease_no.0 + 1);
            run_ref.grant = (self.random.below(2) == 0).then(|| grant("worker"));
            if self.random.below(2) == 0 {
                run_ref.accepted += 1;
                let size = 1 << self.random.below(13);
                let body = Json::encode(&"x".repeat(size)).unwrap();
                let number = run_ref.accepted;
                let record = artifact(&name, &node_name, number, Artifact::Inline(body));
                records.insert(format!("2{name}/{node_name}"), put_artifact(record));
            }
            records.insert(format!("1{name}/{node_name}"), put_node(run_ref.clone()));
        }
        records.into_values().collect()
    }
}

/// An image of a power cut, and the seq of the last commit whose sync had been answered by then.
type Cut = (u64, Vec<u8>);

/// Runs a load until it ends or the store fails: the model after every commit, and the images.
/// `fail` does something to the disk once the store is open.
async fn run(
    disk: &FaultyDisk,
    seed: u64,
    commits: u64,
    fail: impl FnOnce(&FaultyDisk),
) -> (Vec<Model>, Vec<Cut>) {
    let mut owner = Owner::on(disk).await;
    let mut load = Load::new(seed);
    let mut history = vec![load.model.clone()];
    let mut cuts = Vec::new();
    let mut synced = 0;
    disk.draw_power_cuts(seed, 5 + seed % 40);
    fail(disk);
    for _ in 0..commits {
        let records = load.records();
        let commit = owner.next(records);
        let request = StoreRequest::Commit(Arc::new(commit.clone()));
        if owner.store.call(request).await.is_err() {
            break;
        }
        load.model.apply(&commit);
        history.push(load.model.clone());
        if load.random.below(3) == 0 {
            let reply = owner.sync().await;
            // Drawn before the reply: what it says need not be in them.
            cuts.extend(disk.take_images().into_iter().map(|image| (synced, image)));
            match reply {
                Ok(StoreReply::Synced { seq }) => synced = seq,
                Ok(other) => panic!("{other:?}"),
                Err(_) => break,
            }
            cuts.push((synced, disk.power_cut(load.random.next())));
            cuts.push((synced, disk.synced()));
        }
    }
    for _ in 0..3 {
        cuts.push((synced, disk.power_cut(load.random.next())));
    }
    drop(owner);
    cuts.extend(disk.take_images().into_iter().map(|image| (synced, image)));
    (history, cuts)
}

/// Opens an image, which must hold a prefix with everything that was synced; how many commits.
async fn check(history: &[Model], (synced, image): Cut) -> Result<u64, String> {
    let store = EmbeddedStore::open_on(&FaultyDisk::new(image), TestClock::default());
    let store = store.map_err(|error| error.to_string())?;
    let found = Model::read(&store).await;
    if found.seq < synced {
        return Err(format!(
            "holds {} commits of {synced} that were synced",
            found.seq
        ));
    }
    match history.get(found.seq as usize) {
        Some(expected) if *expected == found => Ok(found.seq),
        Some(_) => Err(format!("commit {} is not whole", found.seq)),
        None => Err(format!("commit {} was never made", found.seq)),
    }
}

async fn check_all(history: &[Model], cuts: Vec<Cut>) -> usize {
    let count = cuts.len();
    for cut in cuts {
        check(history, cut).await.unwrap();
    }
    count
}

#[tokio::test]
async fn any_power_cut_leaves_a_prefix_with_all_that_was_synced() {
    let (mut opened, mut beyond) = (0, 0);
    for seed in 1..=6 {
        let (history, cuts) = run(&FaultyDisk::new(Vec::new()), seed, 60, |_| {}).await;
        assert_eq!(history.len(), 61);
        for cut in cuts {
            let synced = cut.0;
            let seq = check(&history, cut).await.unwrap();
            opened += 1;
            beyond += u64::from(seq > synced);
        }
    }
    assert!(opened > 300, "only {opened} images");
    // Otherwise no cut ever met a sync under way.
    assert!(
        beyond > 10,
        "only {beyond} of {opened} held more than was synced"
    );
    println!("{opened} images opened, {beyond} held more than was synced");
}

/// The same check on a disk that breaks the one promise a disk makes: it must notice.
#[tokio::test]
async fn a_disk_that_lies_about_syncs_is_found_out() {
    let lie = |disk: &FaultyDisk| disk.lie_about_syncs();
    let (history, cuts) = run(&FaultyDisk::new(Vec::new()), 3, 30, lie).await;
    let mut found_out = 0;
    for cut in cuts {
        found_out += u64::from(check(&history, cut).await.is_err());
    }
    assert!(found_out > 10, "only {found_out} images were found out");
}

#[tokio::test]
async fn a_write_that_fails_at_any_place_loses_nothing_synced() {
    let mut opened = 0;
    for writes in 0..30 {
        let fail = |disk: &FaultyDisk| disk.fail_writes_after(Some(writes * writes));
        let (history, cuts) = run(&FaultyDisk::new(Vec::new()), writes, 300, fail).await;
        assert!(history.len() < 301, "no write failed");
        opened += check_all(&history, cuts).await;
    }
    println!("{opened} images opened");
}

#[tokio::test]
async fn a_sync_that_fails_at_any_place_loses_nothing_synced() {
    for syncs in 0..12 {
        let fail = |disk: &FaultyDisk| disk.fail_syncs_after(Some(syncs));
        let (history, cuts) = run(&FaultyDisk::new(Vec::new()), 100 + syncs, 200, fail).await;
        assert!(history.len() < 201, "no sync failed");
        check_all(&history, cuts).await;
    }
}

#[tokio::test]
async fn a_disk_that_fills_up_at_any_place_loses_nothing_synced() {
    for room in 0..8 {
        let fail = |disk: &FaultyDisk| disk.limit(Some(disk.written().len() + room * 50_000));
        let (history, cuts) = run(&FaultyDisk::new(Vec::new()), 200 + room as u64, 300, fail).await;
        assert!(history.len() < 301, "the disk never filled up");
        check_all(&history, cuts).await;
    }
}

#[tokio::test]
async fn power_cuts_during_the_repair_at_open_lose_nothing_either() {
    let disk = FaultyDisk::new(Vec::new());
    let (history, cuts) = run(&disk, 7, 40, |_| {}).await;
    let mut again = Vec::new();
    for (place, (synced, image)) in (0_u64..).zip(cuts).step_by(5) {
        let disk = FaultyDisk::new(image);
        disk.draw_power_cuts(place, 1);
        drop(EmbeddedStore::open_on(&disk, TestClock::default()).unwrap());
        again.extend(disk.take_images().into_iter().map(|image| (synced, image)));
    }
    assert!(again.len() > 50, "only {} images", again.len());
    check_all(&history, again).await;
}

/// The process dies, the machine lives: what was written and not synced is still in its memory. The
/// next process reads it and tells others; a power cut after that must not take it back.
#[tokio::test]
async fn what_an_open_found_survives_the_next_power_cut() {
    let mut more = 0;
    for seed in 0..20 {
        let disk = FaultyDisk::new(Vec::new());
        let mut owner = Owner::on(&disk).await;
        owner.commit(vec![put_task(task("t1"))]).await.unwrap();
        disk.hold_syncs(true);
        let sync = owner.sync();
        tokio::pin!(sync);
        assert!(timeout(Duration::ZERO, &mut sync).await.is_err());
        let held = disk.clone();
        spawn_blocking(move || held.wait_for_held_sync())
            .await
            .unwrap();
        // Everything is written and the sync has not happened: here the process dies.
        let machine = disk.after_process_death();
        disk.hold_syncs(false);
        let store = EmbeddedStore::open_on(&machine, TestClock::default()).unwrap();
        let found = Model::read(&store).await.seq;
        more += found;
        let image = FaultyDisk::new(machine.power_cut(seed));
        let store = EmbeddedStore::open_on(&image, TestClock::default()).unwrap();
        assert_eq!(Model::read(&store).await.seq, found);
    }
    assert!(more > 0, "no open found more than was synced");
}
