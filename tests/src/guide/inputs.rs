//! Input adapters: which one counts, several and empty sources, streams, what is refused.

#![allow(missing_docs, reason = "cases are named for what they show")]

use flowkit_runtime::{
    Batch, BatchResult, BatchStream, Chunk, FinalizeResult, Handler, HandlerError, Json, NodeState,
    Pulled, ReplyError, RunContext, SubmitOptions, TaskInput, WorkerSettings, handler_fn,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::sync::Semaphore;

use super::{Ground, Site, artifacts, decoded, finished};

/// Says where its batch came from.
struct Reader;

impl Handler for Reader {
    type Run = ();
    type Input = Value;
    type Output = String;

    async fn init(&self, _: &RunContext) -> Result<(), HandlerError> {
        Ok(())
    }

    async fn load_input(
        &self,
        _: &RunContext,
        input: TaskInput,
    ) -> Result<TaskInput, HandlerError> {
        let inline: Value = input.decode()?;
        Ok(match inline["propose"].as_str() {
            Some(adapter) => input.with_adapter(adapter, json!({"from_nodes": ["b"]}).into()),
            None => input,
        })
    }

    async fn batches(
        &self,
        _: &RunContext,
        _: TaskInput,
    ) -> Result<BatchStream<Value>, HandlerError> {
        let own = json!({"from_node": "its own"});
        Ok(BatchStream::one(Batch::new("own", own)))
    }

    async fn process(
        &self,
        _: &RunContext,
        (): &mut (),
        batch: Batch<Value>,
    ) -> Result<BatchResult<String>, HandlerError> {
        let from = batch.payload["from_node"].as_str().unwrap_or("?");
        Ok(BatchResult::of(from.to_owned()))
    }
}

pub async fn the_adapter_of_the_graph_counts_before_that_of_the_handler(ground: impl Ground) {
    let site = Site::new(ground).await;
    let echo =
        handler_fn(|_, batch: Batch<Json>| async move { Ok(BatchResult::of(batch.payload)) });
    let process = site.process().await;
    let both = process.builder().role("echo", echo).role("reader", Reader);
    process.start(both.capacity(2));
    let of_graph = json!({"propose": "pull.from_artifacts",
        "input_adapter": "pull.from_artifacts", "input_args": {"from_nodes": ["a"]}});
    for (inline, from) in [
        (of_graph, "a"),
        (json!({"propose": "pull.from_artifacts"}), "b"),
        (json!({"propose": "pull.from_the_moon"}), "its own"),
        (json!({}), "its own"),
    ] {
        let graph = json!({"nodes": [
            {"node_id": "a", "type": "echo"},
            {"node_id": "b", "type": "echo"},
            {"node_id": "r", "type": "reader", "depends_on": ["a", "b"], "io": {"input_inline": inline}},
        ]});
        let task = site.submit(&graph).await;
        finished(&task).await;
        assert_eq!(artifacts::<String>(&task, "r").await, [from]);
    }
    site.stop().await;
}

fn reader_of_one(adapter: &str, args: &Value) -> Value {
    json!({"nodes": [
        {"node_id": "a", "type": "r"},
        {"node_id": "r", "type": "r", "depends_on": ["a"],
         "io": {"input_inline": {"input_adapter": adapter, "input_args": args}}},
    ]})
}

pub async fn a_faulty_adapter_is_refused_and_a_strict_worker_does_not_guess(ground: impl Ground) {
    let site = Site::new(ground).await;
    let read = handler_fn(|_, _: Batch<Json>| async move { Ok(BatchResult::<()>::new()) });
    let process = site.process().await;
    let strict = WorkerSettings::default().strict_input_adapters(true);
    process.start(process.builder().role("r", read).settings(strict));
    let rechunk = "pull.from_artifacts.rechunk:size";
    let faulty = json!({"from_node": "a", "size": 0, "poll_ms": -1, "sise": 3});
    let cure = "did you mean `pull.from_artifacts`?";
    for (adapter, args, parts) in [
        (
            "pull.from_artifact",
            json!({"from_nodes": ["a"]}),
            &[cure][..],
        ),
        (
            rechunk,
            faulty,
            &["input_args.size", "input_args.poll_ms", "input_args.sise"],
        ),
        (
            "pull.from_artifacts",
            json!({"from_nodes": ["a", "moon"], "poll_ms": 500, "backoff_max_ms": 100}),
            &["`moon` is not a node", "is 100, below `poll_ms` 500"],
        ),
    ] {
        let graph = reader_of_one(adapter, &args);
        let client = site.client();
        let refused = client.submit(&graph, SubmitOptions::default()).await;
        let error = refused.expect_err("refused");
        assert_eq!(error.refusal(), Some(ReplyError::InvalidGraph));
        for part in parts {
            assert!(error.to_string().contains(part), "{part}: {error}");
        }
    }
    let stored = site.client().list(None, 10).await.expect("readable");
    assert!(stored.tasks.is_empty(), "{stored:?}");

    let args = json!({"from_node": "a", "size": 2});
    let task = site.submit(&reader_of_one(rechunk, &args)).await;
    let failure = task.wait().await.expect("it ends").failure;
    let failure = failure.expect("it failed");
    assert_eq!(&*failure.reason_code, "bad_input_args");
    assert!(failure.error.contains("meta_list_key"), "{failure:?}");
    site.stop().await;
}

/// A page of numbers, as the source writes it.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Page {
    numbers: Vec<u64>,
}

/// Writes pages of five numbers each, with the uids of every other source; before each page it takes a
/// permit.
struct Source(Arc<Semaphore>);

impl Source {
    fn free() -> Self {
        Self(Arc::new(Semaphore::new(1_000)))
    }
}

impl Handler for Source {
    type Run = ();
    type Input = u64;
    type Output = Page;

    async fn init(&self, _: &RunContext) -> Result<(), HandlerError> {
        Ok(())
    }

    async fn batches(
        &self,
        _: &RunContext,
        input: TaskInput,
    ) -> Result<BatchStream<u64>, HandlerError> {
        let pages = input.decode::<Value>()?["pages"].as_u64().unwrap_or(0);
        Ok(BatchStream::iter(
            (0..pages).map(|n| Batch::new(format!("{n}"), n)),
        ))
    }

    async fn process(
        &self,
        _: &RunContext,
        (): &mut (),
        batch: Batch<u64>,
    ) -> Result<BatchResult<Page>, HandlerError> {
        self.0.acquire().await?.forget();
        let numbers = (batch.payload * 5..batch.payload * 5 + 5).collect();
        Ok(BatchResult::of(Page { numbers }))
    }
}

fn source(id: &str, pages: u64) -> Value {
    json!({"node_id": id, "type": "source", "io": {"input_inline": {"pages": pages}}})
}

fn reader(id: &str, sources: &[&str], start_when: &str, mut input: Value) -> Value {
    input["input_args"]["from_nodes"] = json!(sources);
    json!({"node_id": id, "type": "reader", "depends_on": sources,
           "io": {"start_when": start_when, "input_inline": input}})
}

pub async fn several_sources_give_the_same_uids_in_every_task_and_empty_ones_none(
    ground: impl Ground,
) {
    let site = Site::new(ground).await;
    let sum = handler_fn(|_, batch: Batch<Pulled<Page>>| async move {
        Ok(BatchResult::of(
            batch.payload.meta.numbers.iter().sum::<u64>(),
        ))
    });
    let process = site.process().await;
    let both = process
        .builder()
        .role("source", Source::free())
        .role("reader", sum);
    process.start(both.capacity(4));
    let pull = json!({"input_adapter": "pull.from_artifacts"});
    let graph = json!({"nodes": [
        source("a", 2), source("b", 1), source("none", 0),
        reader("both", &["a", "b"], "ready", pull.clone()),
        reader("nothing", &["none"], "ready", pull),
    ]});
    for _ in 0..2 {
        let task = site.submit(&graph).await;
        finished(&task).await;
        let both = task.artifacts("both").all().await.expect("readable");
        let mut both: Vec<(String, u64)> = both
            .iter()
            .map(|artifact| (artifact.batch_uid.to_string(), decoded(&artifact.value)))
            .collect();
        both.sort();
        let expected = [("a:0", 10), ("a:1", 35), ("b:0", 10)];
        assert_eq!(both, expected.map(|(uid, sum)| (uid.to_owned(), sum)));
        let status = task.status().await.expect("there");
        let nothing = status.node("nothing").expect("there");
        assert_eq!((nothing.state, nothing.batches), (NodeState::Finished, 0));
    }
    site.stop().await;
}

/// Adds up chunks and says the sum at the end; says of each chunk that it has seen it.
struct Adder(Arc<Semaphore>);

impl Handler for Adder {
    type Run = u64;
    type Input = Chunk<u64>;
    type Output = ();

    async fn init(&self, _: &RunContext) -> Result<u64, HandlerError> {
        Ok(0)
    }

    async fn process(
        &self,
        _: &RunContext,
        run: &mut u64,
        batch: Batch<Chunk<u64>>,
    ) -> Result<BatchResult<()>, HandlerError> {
        self.0.add_permits(1);
        *run += batch.payload.items.iter().sum::<u64>();
        Ok(BatchResult::new().metric("items", batch.payload.items.len()))
    }

    async fn finalize(&self, cx: &RunContext, run: u64) -> Result<FinalizeResult, HandlerError> {
        let items = cx.totals()["items"].sum.0;
        Ok(FinalizeResult::of(json!({"sum": run, "items": items})))
    }
}

/// Five numbers per page make chunks of 2, 2 and 1.
pub async fn a_stream_is_read_in_chunks_while_its_source_still_works(ground: impl Ground) {
    let site = Site::new(ground).await;
    let (pages, seen) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    site.worker("source", Source(pages.clone())).await;
    site.worker("reader", Adder(seen.clone())).await;
    let cut = json!({"input_adapter": "pull.from_artifacts.rechunk:size",
                     "input_args": {"size": 2, "meta_list_key": "numbers"}});
    let graph = json!({"nodes": [source("s", 4), reader("r", &["s"], "first_batch", cut)]});
    let task = site.submit(&graph).await;
    for _ in 0..4 {
        // The source may write a page only after the reader has seen the one before.
        pages.add_permits(1);
        seen.acquire_many(3).await.expect("open").forget();
    }
    finished(&task).await;
    let status = task.status().await.expect("there");
    let reader = status.node("r").expect("there");
    assert_eq!(reader.batches, 12);
    let result: Value = decoded(reader.result.as_ref().expect("of finalize"));
    assert_eq!(result, json!({"sum": 190, "items": 20.0}));
    site.stop().await;
}

/// The reader makes room for its source, as often as it takes.
pub async fn one_slot_runs_a_source_and_its_reader(ground: impl Ground) {
    let site = Site::new(ground).await;
    let process = site.process().await;
    let adder = Adder(Arc::new(Semaphore::new(0)));
    process.start(
        process
            .builder()
            .role("source", Source::free())
            .role("reader", adder),
    );
    let cut = json!({"input_adapter": "pull.from_artifacts.rechunk:size",
                     "input_args": {"size": 2, "meta_list_key": "numbers"}});
    let graph = json!({"nodes": [source("s", 4), reader("r", &["s"], "first_batch", cut)]});
    let task = site.submit(&graph).await;
    finished(&task).await;
    let status = task.status().await.expect("there");
    assert_eq!(status.node("r").expect("there").batches, 12);
    site.stop().await;
}

/// Joined by a colon, the uids of both sources would be the same.
pub async fn sources_whose_ids_hold_colons_stay_apart(ground: impl Ground) {
    let site = Site::new(ground).await;

    let read = handler_fn(|_, batch: Batch<Pulled<Value>>| async move {
        Ok(BatchResult::of(batch.payload.reference.node_id.to_string()))
    });
    let process = site.process().await;
    let worker = process
        .builder()
        .role("b:1", One("b:1"))
        .role("1", One("1"));
    process.start(worker.role("reader", read).capacity(2));
    let graph = json!({"nodes": [
        {"node_id": "a", "type": "b:1"},
        {"node_id": "a:b", "type": "1"},
        reader("both", &["a", "a:b"], "ready", json!({"input_adapter": "pull.from_artifacts", "input_args": {}})),
    ]});
    let task = site.submit(&graph).await;
    finished(&task).await;
    let mut read = artifacts::<String>(&task, "both").await;
    read.sort();
    assert_eq!(read, ["a", "a:b"]);
    site.stop().await;
}

/// One batch of this uid.
struct One(&'static str);

impl Handler for One {
    type Run = ();
    type Input = Value;
    type Output = Value;

    async fn init(&self, _: &RunContext) -> Result<(), HandlerError> {
        Ok(())
    }

    async fn batches(
        &self,
        _: &RunContext,
        _: TaskInput,
    ) -> Result<BatchStream<Value>, HandlerError> {
        Ok(BatchStream::one(Batch::new(self.0, Value::Null)))
    }

    async fn process(
        &self,
        _: &RunContext,
        (): &mut (),
        batch: Batch<Value>,
    ) -> Result<BatchResult<Value>, HandlerError> {
        Ok(BatchResult::of(batch.payload))
    }
}

/// Nothing tells the readers that there is more, nor that it was the last; by their worker's settings
/// they would look once an hour.
pub async fn readers_that_are_not_woken_look_as_often_as_their_arguments_say(ground: impl Ground) {
    let site = Site::new(ground).await;
    site.cut().wakes.store(true, Ordering::SeqCst);
    let (pages, seen) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    site.worker("source", Source(pages.clone())).await;
    let hour = 3_600_000;
    let seldom = WorkerSettings::default()
        .pull_poll_ms_default(hour)
        .pull_empty_backoff_ms_max(hour);
    let process = site.process().await;
    let readers = process.builder().role("reader", Adder(seen.clone()));
    process.start(readers.settings(seldom).capacity(2));
    let args = |eof| {
        json!({"input_adapter": "pull.from_artifacts.rechunk:size", "input_args": {
            "size": 5, "meta_list_key": "numbers",
            "poll_ms": 10, "backoff_max_ms": 80, "eof_on_task_done": eof}})
    };
    let graph = json!({"nodes": [
        source("s", 4),
        reader("trusts", &["s"], "first_batch", args(true)),
        reader("looks", &["s"], "first_batch", args(false)),
    ]});
    let task = site.submit(&graph).await;
    for _ in 0..4 {
        // A page comes only after both have seen the one before.
        pages.add_permits(1);
        seen.acquire_many(2).await.expect("open").forget();
    }
    finished(&task).await;
    let status = task.status().await.expect("there");
    for id in ["trusts", "looks"] {
        let reader = status.node(id).expect("there");
        assert_eq!(reader.batches, 4, "{id}");
        let result: Value = decoded(reader.result.as_ref().expect("of finalize"));
        assert_eq!(result, json!({"sum": 190, "items": 20.0}), "{id}");
    }
    site.stop().await;
}
