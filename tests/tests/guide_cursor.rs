//! The guide's database cursor, on a real collection: compiled as the page shows it, and run by processes
//! over Kafka and MongoDB.

mod fleet_ground;
mod kafka_topics;
#[path = "../../docs/guide/handlers/people.rs"]
#[expect(unreachable_pub, reason = "written as in a crate of its own")]
mod people;

use fleet_ground::Fleet;
use flowkit::prelude::*;
use flowkit_tests::guide::Site;
use flowkit_tests::{run, servers};
use people::{Ages, Person};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

#[test]
fn the_page_shows_the_code_that_is_run() {
    let page = include_str!("../../docs/guide/handlers.md");
    let file = include_str!("../../docs/guide/handlers/people.rs");
    let (_, code) = file
        .split_once("\n\n")
        .expect("a first line, then the code");
    assert!(page.contains(&format!("```rust\n{code}```")));
}

/// The guide's handler, whose fourth batch fails once.
struct Flaky(Ages, Arc<AtomicU32>);

impl Handler for Flaky {
    type Run = ();
    type Input = Vec<Person>;
    type Output = u32;

    async fn init(&self, cx: &RunContext) -> Result<(), HandlerError> {
        self.0.init(cx).await
    }

    async fn batches(
        &self,
        cx: &RunContext,
        input: TaskInput,
    ) -> Result<BatchStream<Vec<Person>>, HandlerError> {
        self.0.batches(cx, input).await
    }

    async fn process(
        &self,
        cx: &RunContext,
        run: &mut (),
        batch: Batch<Vec<Person>>,
    ) -> Result<BatchResult<u32>, HandlerError> {
        if self.1.fetch_add(1, Ordering::Relaxed) == 3 {
            return Err(HandlerError::transient("flaky", "once"));
        }
        self.0.process(cx, run, batch).await
    }
}

#[test]
fn a_cursor_over_a_collection_resumes_behind_the_last_accepted_batch() {
    run(async {
        let name = servers::fresh_name("flowkit_guide");
        let connect = async || {
            let client = mongodb::Client::with_uri_str(servers::mongo()).await;
            client.expect("MongoDB is up").database(&name)
        };
        let database = connect().await;
        let people = database.collection::<Person>("people");
        let all = (1..=47).map(|id| Person {
            id: id * 3,
            age: 40,
        });
        people.insert_many(all).await.expect("written");

        // The worker's connections go with its process.
        let people = connect().await.collection("people");
        let site = Site::new(Fleet::open()).await;
        let processed = Arc::new(AtomicU32::new(0));
        let handler = Flaky(Ages { people }, processed.clone());
        site.worker("ages", handler).await;
        let graph = json!({"nodes": [{
            "node_id": "a", "type": "ages", "retry_policy": {"max": 2, "backoff_sec": 0},
            "io": {"input_inline": {"batch_size": 10}},
        }]});
        let task = site.submit(&graph).await;
        let outcome = task.wait().await.expect("it ends");
        assert_eq!(outcome.state, TaskState::Finished, "{:?}", outcome.failure);
        let status = task.status().await.expect("it is there");
        let node = status.node("a").expect("it is there");
        assert_eq!((node.attempts.0, node.batches), (2, 5));
        assert_eq!(node.totals["people"].sum.0, 47.0);
        // Five batches, and the failed one again: none of the three before it.
        assert_eq!(processed.load(Ordering::Relaxed), 6);
        let artifacts = task.artifacts("a").all().await.expect("they are there");
        let uids: Vec<&str> = artifacts.iter().map(|a| a.batch_uid.as_str()).collect();
        assert_eq!(
            uids,
            ["from-3", "from-33", "from-63", "from-93", "from-123"]
        );
        site.stop().await;
        database.drop().await.expect("MongoDB is up");
    });
}
