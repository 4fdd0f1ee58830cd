//! Where a handler's batches come from: a file on a thread of its own, a state that unfolds, a stream.

#![allow(missing_docs, reason = "cases are named for what they show")]

use flowkit_runtime::{
    Batch, BatchResult, BatchStream, Handler, HandlerError, RunContext, TaskInput,
};
use futures_util::stream;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use super::{Ground, Site, finished, one_node};

type Notes = Arc<Mutex<Vec<String>>>;

fn note(notes: &Notes, text: String) {
    notes.lock().expect("no panic").push(text);
}

/// A part of a file: whole lines, and the number of the line behind them.
#[derive(Serialize, Deserialize)]
struct Part {
    lines: Vec<String>,
    end: usize,
}

#[derive(Deserialize)]
struct Job {
    path: PathBuf,
}

/// Counts the words of a file, ten lines at a time. Its third batch fails once.
struct Words(Notes);

impl Handler for Words {
    type Run = ();
    type Input = Part;
    type Output = usize;

    async fn init(&self, _: &RunContext) -> Result<(), HandlerError> {
        Ok(())
    }

    async fn batches(
        &self,
        cx: &RunContext,
        input: TaskInput,
    ) -> Result<BatchStream<Part>, HandlerError> {
        let Job { path } = input.decode()?;
        let done: usize = cx.checkpoint()?.unwrap_or(0);
        Ok(BatchStream::blocking(move |out| {
            let file = BufReader::new(std::fs::File::open(path)?);
            let mut lines = file.lines().skip(done);
            let mut end = done;
            loop {
                let at = end;
                let part: Vec<String> = lines.by_ref().take(10).collect::<Result<_, _>>()?;
                if part.is_empty() {
                    return Ok(());
                }
                end += part.len();
                out.send(Batch::new(format!("line-{at}"), Part { lines: part, end }))?;
            }
        }))
    }

    async fn process(
        &self,
        cx: &RunContext,
        (): &mut (),
        batch: Batch<Part>,
    ) -> Result<BatchResult<usize>, HandlerError> {
        note(&self.0, format!("{} {}", cx.info().epoch.0, batch.uid));
        let Part { lines, end } = batch.payload;
        cx.save_checkpoint(&end).await?;
        if end == 30 && cx.info().epoch.0 == 1 {
            return Err(HandlerError::transient("flaky", "once"));
        }
        let words = lines.iter().map(|line| line.split_whitespace().count());
        let words = words.sum::<usize>();
        Ok(BatchResult::of(words).metric("words", words))
    }
}

pub async fn a_file_is_read_in_chunks_and_goes_on_where_it_was(ground: impl Ground) {
    let site = Site::new(ground).await;
    let notes = Notes::default();
    site.worker("r", Words(notes.clone())).await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("text");
    std::fs::write(&file, "to be or not\n".repeat(45)).expect("written");
    let task = site.submit(&one_node("r", json!({ "path": file }))).await;
    finished(&task).await;
    let node = task.status().await.expect("there").nodes.remove(0);
    assert_eq!((node.batches, node.totals["words"].sum.0), (5, 180.0));
    let first = [0, 10, 20].map(|line| format!("1 line-{line}"));
    // What was accepted is not even read again, and the checkpoint of the failed batch counts for nothing.
    let second = [20, 30, 40].map(|line| format!("2 line-{line}"));
    assert_eq!(
        *notes.lock().expect("no panic"),
        [&first[..], &second].concat()
    );

    // An error of the thread is one of the attempt.
    let missing = folder.path().join("missing");
    let task = site
        .submit(&one_node("r", json!({ "path": missing })))
        .await;
    let failure = task.wait().await.expect("it ends").failure;
    let failure = failure.expect("it failed");
    assert_eq!(&*failure.reason_code, "unexpected_error");
    assert!(failure.error.starts_with("batches: "), "{failure:?}");
    site.stop().await;
}

/// Three pages, out of a state or as a stream. In the first attempt drawing the third one fails.
struct Pages(Notes);

impl Handler for Pages {
    type Run = ();
    type Input = u32;
    type Output = u32;

    async fn init(&self, _: &RunContext) -> Result<(), HandlerError> {
        Ok(())
    }

    async fn batches(
        &self,
        cx: &RunContext,
        input: TaskInput,
    ) -> Result<BatchStream<u32>, HandlerError> {
        let (notes, first) = (self.0.clone(), cx.info().epoch.0 == 1);
        let draw = move |page: u32| {
            note(&notes, format!("draw {page}"));
            match page {
                2 if first => Err(HandlerError::transient("gone", "the server went away")),
                3 => Ok(None),
                page => Ok(Some(Batch::new(format!("page-{page}"), page))),
            }
        };
        Ok(match input.decode::<Value>()?["as"].as_str() {
            Some("stream") => {
                let pages = (0..).map(move |page| draw(page).transpose());
                BatchStream::from_stream(stream::iter(pages.map_while(|batch| batch)))
            }
            _ => BatchStream::unfold(0, move |page| {
                let batch = draw(page);
                async move { Ok(batch?.map(|batch| (batch, page + 1))) }
            }),
        })
    }

    async fn process(
        &self,
        _: &RunContext,
        (): &mut (),
        batch: Batch<u32>,
    ) -> Result<BatchResult<u32>, HandlerError> {
        note(&self.0, format!("work {}", batch.payload));
        Ok(BatchResult::of(batch.payload))
    }
}

pub async fn a_source_is_drawn_one_batch_at_a_time_and_its_error_ends_the_attempt(
    ground: impl Ground,
) {
    let site = Site::new(ground).await;
    let notes = Notes::default();
    site.worker("r", Pages(notes.clone())).await;
    for source in ["unfold", "stream"] {
        let task = site.submit(&one_node("r", json!({ "as": source }))).await;
        finished(&task).await;
        let drawn = std::mem::take(&mut *notes.lock().expect("no panic"));
        let first = ["draw 0", "work 0", "draw 1", "work 1", "draw 2"];
        // It saves no checkpoint, so all is drawn again, and the engine skips what was accepted.
        let second = ["draw 0", "draw 1", "draw 2", "work 2", "draw 3"];
        assert_eq!(drawn, [first, second].concat(), "{source}");
        let node = task.status().await.expect("there").nodes.remove(0);
        assert_eq!((node.attempts.0, node.batches), (2, 3), "{source}");
        assert_eq!(
            super::artifacts::<u32>(&task, "n").await,
            [0, 1, 2],
            "{source}"
        );
    }
    site.stop().await;
}
