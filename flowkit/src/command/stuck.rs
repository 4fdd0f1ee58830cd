//! Why a followed task does not move, told without being asked: a folder is locked while a command runs on
//! it, so nobody else can ask.

use flowkit::prelude::*;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

use super::table::one_line;

/// How long nothing of a task runs before it is said why, and the time between two looks.
const QUIET: Duration = Duration::from_secs(10);

/// Watches one task.
#[derive(Debug, Default)]
pub(crate) struct Stuck {
    /// When it is to be asked why; never while something runs.
    look_at: Option<Instant>,
    /// What was said last.
    said: String,
}

impl Stuck {
    /// The task has changed to this.
    pub(crate) fn seen(&mut self, status: &TaskStatus) {
        let waits = !status.settled && !is_running(&status.nodes);
        self.look_at = waits.then(|| Instant::now() + QUIET);
    }

    /// Ready when nothing of the task has run for a while, with the sentence that says why and the cure below
    /// it; then again when it is another sentence. Cancel safe.
    pub(crate) async fn sentence(&mut self, task: &TaskHandle, limits: &Limits) -> String {
        loop {
            match self.look_at {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
            // Servers that do not answer are told of where the task is followed.
            let why = task.why_within(limits).await;
            self.look_at = Some(Instant::now() + QUIET);
            let Ok(why) = why else {
                continue;
            };
            let began = why
                .nodes
                .iter()
                .any(|node| node.state == NodeState::Running);
            let told = without_figures(&why.why);
            if !began && told != self.said {
                self.said = told;
                return text(&why);
            }
        }
    }
}

fn is_running(nodes: &[NodeStatus]) -> bool {
    nodes.iter().any(|node| node.state == NodeState::Running)
}

/// A sentence whose times and counts alone have changed says nothing new.
fn without_figures(text: &str) -> String {
    text.chars().filter(|c| !c.is_ascii_digit()).collect()
}

fn text(why: &Why) -> String {
    let mut text = format!("note: {}", one_line(&why.why, 600));
    if let Some(cure) = &why.cure {
        text.push_str(&format!("\n  -> {}", one_line(cure, 600)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    async fn submitted(engine: &Engine) -> TaskHandle {
        let graph = json!({"nodes": [{"node_id": "n", "type": "ocr"}]});
        let client = engine.client();
        let task = client.submit(&graph, SubmitOptions::default()).await;
        task.expect("submitted")
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_task_waits_for_is_told_once_and_then_what_else_it_waits_for() {
        let engine = Engine::memory();
        engine.start().await.expect("started");
        let task = submitted(&engine).await;
        let (mut stuck, limits) = (Stuck::default(), Limits::default());
        stuck.seen(&task.status().await.expect("a status"));
        let began = Instant::now();
        let told = stuck.sentence(&task, &limits).await;
        assert!(began.elapsed() >= QUIET && began.elapsed() < QUIET * 2);
        let note =
            "note: nothing of it runs: node `n` no worker for role `ocr` has ever registered";
        assert_eq!(told.lines().next(), Some(note), "{told}");
        let cure = told.lines().nth(1).expect("a cure");
        assert!(
            cure.starts_with("  -> start one: flowkit worker --role ocr"),
            "{told}"
        );
        // It is the same for hours.
        let hours = Duration::from_secs(7_200);
        let again = tokio::time::timeout(hours, stuck.sentence(&task, &limits)).await;
        assert!(again.is_err(), "{again:?}");
        task.pause("disk is full").await.expect("durable");
        let told = stuck.sentence(&task, &limits).await;
        assert_eq!(
            told,
            "note: it is paused (disk is full): no node starts, what runs goes on\n  -> resume it"
        );
        engine.stop().await;
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_told_of_a_task_that_runs() {
        let engine = Engine::memory();
        engine.start().await.expect("started");
        let hold = handler_fn(|cx: RunContext, _: Batch<Json>| async move {
            cx.cancelled().await;
            Ok(BatchResult::of(()))
        });
        let worker = Worker::builder(&engine).role("ocr", hold).build();
        worker.expect("a worker").start();
        let task = submitted(&engine).await;
        let mut watch = task.watch(Duration::from_millis(100));
        let mut stuck = Stuck::default();
        while let Some(status) = watch.next().await.expect("a status") {
            stuck.seen(&status);
            if is_running(&status.nodes) {
                break;
            }
        }
        let limits = Limits::default();
        let hours = Duration::from_secs(7_200);
        let told = tokio::time::timeout(hours, stuck.sentence(&task, &limits)).await;
        assert!(told.is_err(), "{told:?}");
        engine.stop().await;
    }
}
