//! What the embedded store costs: commits of the engine's own records, through the store's port,
//! without the engine.
//!
//! ```text
//! cargo run --release -p flowkit-store-embedded --example throughput -- [rate] [records] [seconds] [tasks] [order] [folder]
//! ```
//! `rate`: records per second, 0 = as fast as possible (default 50000). `records`: per commit
//! (default 512). `seconds`: of measuring (default 10). `tasks`: in flight before it starts (default
//! 100000). `order`: grants go to the oldest of the backlog (`near`, the default) or to any of it
//! (`any`: the worst case for a B-tree). `folder`: for the data (default: a new one below the system's temporary folder).
//!
//! A task has one node and one batch: submit writes task and node, grant both, a batch the node and
//! an artifact, the end both. One commit is in flight at a time, and one sync beside it. Processor
//! time is that of the whole process, making the records included.

use flowkit_core::control::TaskControl;
use flowkit_core::id::{
    BatchUid, Epoch, Incarnation, NodeId, Offset, ShardId, TaskId, Token, WorkerId,
};
use flowkit_core::json::Json;
use flowkit_core::message::{Artifact, Cursor, Metrics};
use flowkit_core::port::{Commit, PortError, Record, Store, StoreReply, StoreRequest};
use flowkit_core::record::{
    ArtifactRecord, Grant, History, NodeRecord, NodeState, RECORD_VERSION, TaskRecord, TaskState,
    Totals,
};
use flowkit_store_embedded::EmbeddedStore;
use std::collections::{BTreeMap, VecDeque};
use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

const SHARD: ShardId = ShardId(0);

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let mut number = |default: u64| args.next().map_or(Ok(default), |text| text.parse());
    let (rate, records, seconds) = (number(50_000)?, number(512)?, number(10)?);
    let tasks = number(100_000)?;
    let any = match args.next().as_deref() {
        None | Some("near") => false,
        Some("any") => true,
        Some(other) => return Err(format!("`{other}` is neither `near` nor `any`").into()),
    };
    let temporary = std::env::temp_dir().join(format!("flowkit-store-{}", std::process::id()));
    let folder = args.next().map_or_else(|| temporary.clone(), PathBuf::from);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(measure(
        &folder,
        rate,
        records as usize,
        seconds,
        tasks,
        any,
    ))?;
    if folder == temporary {
        std::fs::remove_dir_all(folder)?;
    }
    Ok(())
}

async fn measure(
    folder: &std::path::Path,
    rate: u64,
    records: usize,
    seconds: u64,
    tasks: u64,
    any: bool,
) -> Result<()> {
    let store = Arc::new(EmbeddedStore::open(folder)?);
    println!("resident, empty: {} MB", resident_mb());
    let mut owner = Owner::take(store.clone()).await?;
    let mut load = Load {
        any,
        ..Load::default()
    };
    while (load.queued.len() as u64) < tasks {
        let batch = load.submissions(records);
        owner.commit(batch).await?;
    }
    sync(&store).await?;

    let (started, cpu) = (Instant::now(), cpu_seconds());
    let mut syncing = tokio::spawn(timed(sync_of(store.clone())));
    let (mut applies, mut syncs) = (Vec::new(), Vec::new());
    let mut written = 0_u64;
    while started.elapsed() < Duration::from_secs(seconds) {
        if rate > 0 {
            let due = Duration::from_secs_f64(written as f64 / rate as f64);
            tokio::time::sleep_until((started + due).into()).await;
        }
        let batch = load.work(records);
        written += batch.len() as u64;
        let begun = Instant::now();
        owner.commit(batch).await?;
        applies.push(begun.elapsed());
        if syncing.is_finished() {
            syncs.push((&mut syncing).await??);
            syncing = tokio::spawn(timed(sync_of(store.clone())));
        }
    }
    syncs.push(syncing.await??);
    sync(&store).await?;
    let (wall, cpu) = (started.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    let bytes = std::fs::metadata(folder.join("flowkit.redb"))?.len();
    println!("records/s: {:.0}", written as f64 / wall);
    println!("commits/s: {:.0}", applies.len() as f64 / wall);
    println!(
        "processor: {:.2} us per record, {:.2} cores",
        cpu * 1e6 / written as f64,
        cpu / wall
    );
    println!("apply, ms: {}", quantiles(&mut applies));
    println!("sync, ms: {} ({})", quantiles(&mut syncs), syncs.len());
    println!("file: {} MB, resident: {} MB", bytes >> 20, resident_mb());
    Ok(())
}

/// Writes the commits of one shard.
struct Owner {
    store: Arc<EmbeddedStore>,
    epoch: u64,
    seq: u64,
}

impl Owner {
    async fn take(store: Arc<EmbeddedStore>) -> Result<Self> {
        let owner: flowkit_core::id::ClientId = "owner".parse()?;
        let lease = StoreRequest::AcquireShard {
            shard: SHARD,
            owner: owner.clone(),
            ttl_ms: 3_600_000,
        };
        store.call(lease).await?;
        let read = store.call(StoreRequest::ReadShard { shard: SHARD }).await?;
        let StoreReply::Shard(read) = read else {
            return Err("not a shard".into());
        };
        let raise = StoreRequest::RaiseEpoch {
            shard: SHARD,
            owner,
            epoch: read.epoch,
            commit_seq: read.commit_seq,
        };
        store.call(raise).await?;
        Ok(Self {
            store,
            epoch: read.epoch + 1,
            seq: read.commit_seq,
        })
    }

    async fn commit(&mut self, records: Vec<Record>) -> Result<()> {
        self.seq += 1;
        let commit = Commit {
            shard: SHARD,
            epoch: self.epoch,
            seq: self.seq,
            id: self.seq,
            next: Offset(self.seq),
            last_entry: None,
            records,
        };
        self.store
            .call(StoreRequest::Commit(Arc::new(commit)))
            .await?;
        Ok(())
    }
}

async fn sync(store: &EmbeddedStore) -> std::result::Result<StoreReply, PortError> {
    store.call(StoreRequest::Sync { shard: SHARD }).await
}

async fn sync_of(store: Arc<EmbeddedStore>) -> std::result::Result<StoreReply, PortError> {
    sync(&store).await
}

async fn timed<T, E>(
    future: impl Future<Output = std::result::Result<T, E>>,
) -> std::result::Result<Duration, E> {
    let begun = Instant::now();
    future.await?;
    Ok(begun.elapsed())
}

/// Tasks on their way.
#[derive(Default)]
struct Load {
    /// Grants go to any task of the backlog.
    any: bool,
    random: u64,
    made: u64,
    queued: VecDeque<u64>,
    granted: VecDeque<u64>,
    accepted: VecDeque<u64>,
}

impl Load {
    fn submissions(&mut self, records: usize) -> Vec<Record> {
        let mut batch = Vec::with_capacity(records);
        while batch.len() < records {
            self.submit(&mut |record| batch.push(record));
        }
        batch
    }

    /// As many records of all kinds of events, the last of a key in a commit only.
    fn work(&mut self, records: usize) -> Vec<Record> {
        let mut batch: BTreeMap<(u8, u64), Record> = BTreeMap::new();
        while batch.len() < records {
            let mut put = |record: Record| {
                let key = match &record {
                    Record::Task(task) => (0, number_of(&task.task_id)),
                    Record::Node(node) => (1, number_of(&node.task_id)),
                    Record::Artifact(artifact) => (2, number_of(&artifact.task_id)),
                    Record::Tombstone(_) | Record::Remove(_) => (3, 0),
                };
                batch.insert(key, record);
            };
            self.submit(&mut put);
            if let Some(number) = self.next_queued() {
                put(task(number, TaskState::Running, 2));
                put(node(number, NodeState::Running, 2));
                self.granted.push_back(number);
            }
            // Some hundred runs are under way at a time.
            if self.granted.len() > 300
                && let Some(number) = self.granted.pop_front()
            {
                put(node(number, NodeState::Running, 2));
                put(artifact(number));
                self.accepted.push_back(number);
            }
            if self.accepted.len() > 300
                && let Some(number) = self.accepted.pop_front()
            {
                put(node(number, NodeState::Finished, 3));
                put(task(number, TaskState::Finished, 3));
            }
        }
        batch.into_values().collect()
    }

    fn next_queued(&mut self) -> Option<u64> {
        if self.any && !self.queued.is_empty() {
            self.random = self
                .random
                .wrapping_mul(0x5851_F42D_4C95_7F2D)
                .wrapping_add(1);
            let place = (self.random >> 32) as usize % self.queued.len();
            self.queued.swap(0, place);
        }
        self.queued.pop_front()
    }

    fn submit(&mut self, put: &mut impl FnMut(Record)) {
        self.made += 1;
        put(task(self.made, TaskState::Queued, 1));
        put(node(self.made, NodeState::Ready, 1));
        self.queued.push_back(self.made);
    }
}

/// Time-ordered, as clients make them.
fn task_id(number: u64) -> TaskId {
    let mixed = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 24;
    id(&format!("{number:012x}{mixed:010x}"))
}

fn number_of(task: &TaskId) -> u64 {
    u64::from_str_radix(&task.as_str()[..12], 16).unwrap_or_default()
}

fn id<T: std::str::FromStr<Err = flowkit_core::id::IdError>>(text: &str) -> T {
    match text.parse() {
        Ok(id) => id,
        Err(error) => unreachable!("{error}"),
    }
}

fn history<S: Copy>(state: S, entries: usize) -> History<S> {
    let mut history = History::default();
    for _ in 0..entries {
        history.push(state, 1_763_900_000_000, "granted");
    }
    history
}

fn task(number: u64, state: TaskState, entries: usize) -> Record {
    let graph = r#"{"nodes":[{"node_id":"count","type":"counter","io":{"input_inline":{"input_adapter":"none"}}}]}"#;
    Record::Task(Box::new(TaskRecord {
        version: RECORD_VERSION,
        task_id: task_id(number),
        submission_hash: u128::from(number) << 64,
        graph: Json::parse(graph).unwrap_or_default(),
        vars: Json::null(),
        idempotency_key: None,
        state,
        settled: state.is_terminal(),
        failure: None,
        cancel_grace_ms: None,
        created_at_ms: 1_763_900_000_000,
        history: history(state, entries),
        control: TaskControl::default(),
        vars_version: 0,
        submitted_vars: None,
        rerun: None,
    }))
}

fn node(number: u64, state: NodeState, entries: usize) -> Record {
    let grant = (state == NodeState::Running).then(|| Grant {
        worker_id: id::<WorkerId>("worker-on-host-17"),
        incarnation: Incarnation(4),
        inbox: 3,
        lease_ttl_ms: 60_000,
        cancel: None,
    });
    Record::Node(Box::new(NodeRecord {
        version: RECORD_VERSION,
        task_id: task_id(number),
        node_id: id::<NodeId>("count"),
        state,
        epoch: Epoch(1),
        lease_no: Token(1),
        grant,
        last_seq: 1,
        accepted: 1,
        checkpoint: None,
        checkpoint_batches: 0,
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
        history: history(state, entries),
        when_vars: None,
        made_vars: None,
        kept_from: None,
    }))
}

fn artifact(number: u64) -> Record {
    let body = r#"{"rows":1000,"bytes":123456,"checksum":"9f86d081884c7d659a2feaa0c55ad015"}"#;
    Record::Artifact(Box::new(ArtifactRecord {
        version: RECORD_VERSION,
        task_id: task_id(number),
        node_id: id::<NodeId>("count"),
        number: 1,
        batch_uid: id::<BatchUid>("batch-000001"),
        token: Token(1),
        metrics: Metrics::default(),
        artifact: Some(Artifact::Inline(Json::parse(body).unwrap_or_default())),
    }))
}

fn quantiles(times: &mut [Duration]) -> String {
    times.sort_unstable();
    let at = |part: f64| {
        let place = (times.len() as f64 * part) as usize;
        times
            .get(place.min(times.len().saturating_sub(1)))
            .map_or(0.0, |t| t.as_secs_f64() * 1e3)
    };
    format!(
        "p50 {:.2}, p99 {:.2}, max {:.2}",
        at(0.5),
        at(0.99),
        at(1.0)
    )
}

/// User and system time of this process; 0 where there is no `/proc`.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // Behind the name, which may hold blanks; in ticks of 10 ms.
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks = fields.split_whitespace().skip(11).take(2);
    ticks
        .filter_map(|ticks| ticks.parse::<f64>().ok())
        .sum::<f64>()
        / 100.0
}

fn resident_mb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kb = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kb.unwrap_or_default() / 1024
}
