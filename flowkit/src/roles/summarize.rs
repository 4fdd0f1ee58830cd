//! The `summarize` role: adds up what `measure` reports.
//!
//! Nothing is kept in the handler's memory: the sums are the engine's totals over *accepted*
//! batches, so a crash at any moment changes nothing about them.

use flowkit::prelude::*;
use serde_json::{Map, Value};

use super::report::FileReport;

/// Names of the metrics, in the order they are shown.
pub(crate) const METRICS: [&str; 5] = ["files", "lines", "words", "bytes", "unreadable"];

/// Handler of the role. Its batches are a measuring node's artifacts.
#[derive(Debug)]
pub(crate) struct Summarize;

impl Handler for Summarize {
    type Run = ();
    type Input = Pulled<FileReport>;
    type Output = FileReport;

    async fn init(&self, _cx: &RunContext) -> Result<(), HandlerError> {
        Ok(())
    }

    async fn process(
        &self,
        _cx: &RunContext,
        _run: &mut (),
        batch: Batch<Pulled<FileReport>>,
    ) -> Result<BatchResult<FileReport>, HandlerError> {
        Ok(batch.payload.meta.into_result())
    }

    async fn finalize(&self, cx: &RunContext, _run: ()) -> Result<FinalizeResult, HandlerError> {
        let totals = cx.totals();
        let sums: Map<String, Value> = METRICS
            .iter()
            .map(|name| {
                let sum = totals.get(*name).map_or(0.0, |total| total.sum.0);
                ((*name).to_owned(), Value::from(whole(sum)))
            })
            .collect();
        Ok(FinalizeResult::of(sums))
    }
}

/// A sum of whole numbers; exact up to 2^53, which is 9 petabytes.
pub(crate) fn whole(sum: f64) -> u64 {
    // `as` saturates, and the sums are never negative.
    sum as u64
}
