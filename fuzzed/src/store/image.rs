//! Files of a small store, and damage to them.

use flowkit_core::id::{BatchUid, Epoch, Incarnation, NodeId, Offset, ShardId, TaskId, Token};
use flowkit_core::json::Json;
use flowkit_core::message::{Artifact, Cursor, Metrics};
use flowkit_core::port::{Commit, Record, Store, StoreReply, StoreRequest};
use flowkit_core::record::{
    ArtifactRecord, Grant, History, NodeRecord, NodeState, RECORD_VERSION, TaskRecord, TaskState,
    Totals,
};
use flowkit_store_embedded::EmbeddedStore;
use flowkit_store_embedded::testing::{FaultyDisk, TestClock};
use std::sync::{Arc, OnceLock};

use super::block_on;

/// A key of each table, in the tables' order.
pub(super) const KEYS: [&[u8]; 10] = [
    b"t0",
    b"t0\0n",
    b"t0\0n\0\0\0\0\0\0\0\0\x01",
    b"t0\0n\0b1",
    b"\0\0\0\0t0",
    b"\0\0\0\0",
    b"w",
    b"t0\0n",
    b"t0\0n\0b1\0\0\0\0\0\0\0\0\x02",
    b"deployment",
];

/// A file, and every version that a task in it ever had.
pub(super) struct Image {
    pub(super) file: Vec<u8>,
    pub(super) versions: Vec<TaskRecord>,
}

/// The files that damage is done to.
pub(super) struct Images {
    /// Closed in order.
    pub(super) closed: Image,
    /// Its process died.
    pub(super) died: Image,
}

/// Made once: each run damages a copy.
pub(super) fn images() -> &'static Images {
    static IMAGES: OnceLock<Images> = OnceLock::new();
    IMAGES.get_or_init(|| {
        let disk = FaultyDisk::new(Vec::new());
        let store = EmbeddedStore::open_on(&disk, TestClock::default()).expect("a new store");
        let versions = block_on(fill(&store)).expect("a healthy store");
        let died = disk.written();
        drop(store);
        Images {
            closed: Image {
                file: disk.synced(),
                versions: versions.clone(),
            },
            died: Image {
                file: died,
                versions,
            },
        }
    })
}

fn id<T: std::str::FromStr>(text: &str) -> T {
    text.parse().unwrap_or_else(|_| panic!("{text} is an id"))
}

/// A few commits, and a row in every table.
async fn fill(store: &EmbeddedStore) -> Result<Vec<TaskRecord>, flowkit_core::port::PortError> {
    let (shard, owner) = (ShardId(0), || id("owner"));
    store
        .call(StoreRequest::AcquireShard {
            shard,
            owner: owner(),
            ttl_ms: 60_000,
        })
        .await?;
    let raise = StoreRequest::RaiseEpoch {
        shard,
        owner: owner(),
        epoch: 0,
        commit_seq: 0,
    };
    let StoreReply::Shard(record) = store.call(raise).await? else {
        panic!("a shard record was asked for");
    };
    store
        .call(StoreRequest::RegisterWorker {
            worker_id: id("w"),
            expected: Incarnation(0),
            start_nonce: 5,
            roles: vec![id("scan")],
            capacity: 1,
            inbox: 0,
            worker_version: Arc::from("2"),
        })
        .await?;
    let json = |text: &str| Json::parse(text).expect("JSON");
    store
        .call(StoreRequest::PutScratch {
            task_id: id("t0"),
            node_id: id("n"),
            token: Token(2),
            save_no: 1,
            batch_uid: id("b2"),
            checkpoint: json("{\"i\":1}"),
        })
        .await?;
    store
        .call(StoreRequest::StageArtifact {
            task_id: id("t0"),
            node_id: id("n"),
            batch_uid: id("b1"),
            token: Token(2),
            body: json("[1,2,3]"),
        })
        .await?;
    let mut versions = Vec::new();
    for round in 0..6_u64 {
        let name = format!("t{}", round % 3);
        let mut task = task(&name);
        if round >= 3 {
            task.state = TaskState::Finished;
            task.settled = round == 5;
        }
        versions.push(task.clone());
        let artifact = artifact(&name, round / 3 + 1);
        let records = vec![
            Record::Task(Box::new(task)),
            Record::Node(Box::new(node(&name))),
            Record::Artifact(Box::new(artifact)),
        ];
        let seq = record.commit_seq + 1 + round;
        let commit = Commit {
            shard,
            epoch: record.epoch,
            seq,
            id: seq * 10,
            next: Offset(seq),
            last_entry: None,
            records,
        };
        store.call(StoreRequest::Commit(Arc::new(commit))).await?;
        if round % 2 == 0 {
            store.call(StoreRequest::Sync { shard }).await?;
        }
    }
    Ok(versions)
}

fn task(name: &str) -> TaskRecord {
    TaskRecord {
        version: RECORD_VERSION,
        task_id: id::<TaskId>(name),
        submission_hash: 1 << 100,
        graph: Json::parse(r#"{"nodes":[{"node_id":"n","type":"scan"}]}"#).expect("JSON"),
        vars: Json::null(),
        idempotency_key: Some(Arc::from("key")),
        state: TaskState::Running,
        settled: false,
        failure: None,
        cancel_grace_ms: None,
        created_at_ms: 1_700_000_000_000,
        history: History::default(),
        control: flowkit_core::control::TaskControl::default(),
        vars_version: 0,
        submitted_vars: None,
        rerun: None,
    }
}

fn node(task: &str) -> NodeRecord {
    NodeRecord {
        version: RECORD_VERSION,
        task_id: id(task),
        node_id: id("n"),
        state: NodeState::Running,
        epoch: Epoch(1),
        lease_no: Token(2),
        grant: Some(Grant {
            worker_id: id("w"),
            incarnation: Incarnation(1),
            inbox: 0,
            lease_ttl_ms: 60_000,
            cancel: None,
        }),
        last_seq: 1,
        accepted: 1,
        checkpoint: Some(Json::null()),
        checkpoint_batches: 1,
        cursor: Cursor::default(),
        cursor_batches: 0,
        totals: Totals::default(),
        result: None,
        failures: 0,
        losses: 0,
        grants: 1,
        wait_ms: None,
        new_attempt: false,
        failure: None,
        history: History::default(),
        when_vars: None,
        made_vars: None,
        kept_from: None,
    }
}

fn artifact(task: &str, number: u64) -> ArtifactRecord {
    ArtifactRecord {
        version: RECORD_VERSION,
        task_id: id(task),
        node_id: id::<NodeId>("n"),
        number,
        batch_uid: id::<BatchUid>(&format!("b{number}")),
        token: Token(2),
        metrics: Metrics::default(),
        artifact: Some(Artifact::Staged(7)),
    }
}

/// The file after damage: eight bytes each say what, where and with what.
pub(super) fn edited(file: &[u8], edits: &[u8]) -> Vec<u8> {
    let mut file = file.to_vec();
    for edit in edits.chunks_exact(8) {
        if file.is_empty() {
            break;
        }
        let &[kind, a, b, c, d, e, f, g] = edit else {
            break;
        };
        let len = file.len();
        let mut at = u32::from_le_bytes([a, b, c, 0]) as usize % len;
        let with = [d, e, f, g];
        // Half of the damage meets the first pages: they hold what the rest hangs on.
        if kind & 0x80 != 0 {
            at %= len.min(1 << 12);
        }
        let sector = |at: usize| at & !511..len.min((at & !511) + 512);
        match kind & 0x7F {
            0..32 => file[at] ^= d.max(1),
            32..64 => {
                let end = len.min(at + 4);
                file[at..end].copy_from_slice(&with[..end - at]);
            }
            64..80 => file[sector(at)].fill(d),
            80..96 => {
                let from = u32::from_le_bytes([d, e, f, 0]) as usize % len;
                let sector = file[sector(from)].to_vec();
                let end = len.min((at & !511) + sector.len());
                file[at & !511..end].copy_from_slice(&sector[..end - (at & !511)]);
            }
            96..112 => file.truncate(at),
            _ => file.resize(len + usize::from(d) * 512, e),
        }
    }
    file
}
