//! The `measure` role: reads files and counts lines, words and bytes.

use flowkit::prelude::*;

use super::count::{CountError, count_file};
use super::path_text;
use super::reason::reason;
use super::report::FileReport;
use super::scan::Entry;

/// Handler of the role. Its batches are chunks of a scan's entries.
#[derive(Debug)]
pub(crate) struct Measure;

impl Handler for Measure {
    type Run = ();
    type Input = Chunk<Entry>;
    type Output = FileReport;

    async fn init(&self, _cx: &RunContext) -> Result<(), HandlerError> {
        Ok(())
    }

    async fn process(
        &self,
        cx: &RunContext,
        _run: &mut (),
        batch: Batch<Chunk<Entry>>,
    ) -> Result<BatchResult<FileReport>, HandlerError> {
        let context = cx.clone();
        let entries = batch.payload.items;
        let work = tokio::task::spawn_blocking(move || measure(&context, entries));
        let report = work.await??;
        Ok(report.into_result())
    }
}

fn measure(cx: &RunContext, entries: Vec<Entry>) -> Result<FileReport, HandlerError> {
    let mut report = FileReport::default();
    let total = entries.len() as u64;
    for (done, entry) in entries.into_iter().enumerate() {
        cx.report_progress(done as u64, Some(total));
        let text = match entry {
            Entry::File(text) => text,
            Entry::Unreadable { path, reason } => {
                report.add_unreadable(path, reason);
                continue;
            }
        };
        let path = path_text::decode(&text).map_err(|e| HandlerError::permanent("bad_input", e))?;
        match count_file(&path, &|| cx.is_cancelled()) {
            Ok(counts) => report.add_file(&path, counts),
            Err(CountError::Unreadable(error)) => report.add_unreadable(text, reason(&error)),
            Err(CountError::Stopped) => return Err(HandlerError::cancelled()),
        }
    }
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::{Entry, measure, path_text};
    use flowkit::prelude::*;
    use std::time::Duration;

    #[tokio::test]
    async fn files_are_counted_and_what_cannot_be_read_is_named_with_its_reason() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("a.txt");
        std::fs::write(&file, "one two\nthree\n").expect("a file");
        let entries = vec![
            Entry::File(path_text::encode(&file)),
            Entry::File(path_text::encode(&folder.path().join("vanished"))),
            Entry::Unreadable {
                path: "/locked".to_owned(),
                reason: "permission denied".to_owned(),
            },
        ];
        let (cx, _control) = RunContext::for_test();
        let report = measure(&cx, entries).expect("a report");
        assert_eq!(
            (report.all.files, report.all.lines, report.all.words),
            (1, 2, 3)
        );
        assert_eq!(report.by_extension["txt"].bytes, 14);
        let reasons: Vec<&str> = report
            .unreadable_paths
            .iter()
            .map(|u| u.reason.as_str())
            .collect();
        assert_eq!(reasons, ["not found", "permission denied"]);
        assert_eq!(report.unreadable, 2);
    }

    #[tokio::test]
    async fn a_cancelled_run_stops_and_reports_nothing() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("a.txt");
        std::fs::write(&file, "text").expect("a file");
        let (cx, control) = RunContext::for_test();
        control.cancel(CancelReason::UserRequest, Duration::from_secs(1));
        assert!(measure(&cx, vec![Entry::File(path_text::encode(&file))]).is_err());
    }
}
