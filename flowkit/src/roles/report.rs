//! What `measure` says of one batch of files, and `summarize` of all of them: sums that can be
//! added in any order.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ops::AddAssign;
use std::path::Path;

use flowkit::prelude::BatchResult;

use super::count::Counts;
use super::path_text;

/// Named examples of unreadable paths; beyond, they are counted only.
pub(crate) const UNREADABLE_NAMED_MAX: usize = 100;

/// A path that could not be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Unreadable {
    /// Its path, as path text.
    pub(crate) path: String,
    /// Why.
    pub(crate) reason: String,
}

/// Sums over some files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileReport {
    /// Over all of them.
    #[serde(flatten)]
    pub(crate) all: Counts,
    /// By extension; files without one stand under the empty text.
    pub(crate) by_extension: BTreeMap<String, Counts>,
    /// How many paths could not be read.
    pub(crate) unreadable: u64,
    /// Which, and why: the first [`UNREADABLE_NAMED_MAX`] of them.
    pub(crate) unreadable_paths: Vec<Unreadable>,
}

impl FileReport {
    /// Adds one file.
    pub(crate) fn add_file(&mut self, path: &Path, counts: Counts) {
        self.all += counts;
        let extension = path.extension().map(path_text::encode_name);
        *self
            .by_extension
            .entry(extension.unwrap_or_default())
            .or_default() += counts;
    }

    /// Adds one path that could not be read.
    pub(crate) fn add_unreadable(&mut self, path: String, reason: String) {
        self.unreadable += 1;
        if self.unreadable_paths.len() < UNREADABLE_NAMED_MAX {
            self.unreadable_paths.push(Unreadable { path, reason });
        }
    }

    /// The result of a batch: the sums as metrics, all of it as artifact.
    pub(crate) fn into_result(self) -> BatchResult<Self> {
        let all = self.all;
        let unreadable = self.unreadable;
        BatchResult::of(self)
            .metric("files", all.files)
            .metric("lines", all.lines)
            .metric("words", all.words)
            .metric("bytes", all.bytes)
            .metric("unreadable", unreadable)
    }
}

impl AddAssign<Self> for FileReport {
    fn add_assign(&mut self, other: Self) {
        self.all += other.all;
        for (extension, counts) in other.by_extension {
            *self.by_extension.entry(extension).or_default() += counts;
        }
        self.unreadable += other.unreadable;
        let room = UNREADABLE_NAMED_MAX.saturating_sub(self.unreadable_paths.len());
        self.unreadable_paths
            .extend(other.unreadable_paths.into_iter().take(room));
    }
}

#[cfg(test)]
mod tests {
    use super::{Counts, FileReport, UNREADABLE_NAMED_MAX};
    use std::path::Path;

    fn file(lines: u64) -> Counts {
        Counts {
            files: 1,
            lines,
            words: 2 * lines,
            bytes: 10 * lines,
        }
    }

    #[test]
    fn files_add_up_over_all_and_by_extension() {
        let mut report = FileReport::default();
        for (path, lines) in [("a/x.rs", 1), ("y.rs", 2), ("Makefile", 4), (".rc", 8)] {
            report.add_file(Path::new(path), file(lines));
        }
        assert_eq!((report.all.files, report.all.lines), (4, 15));
        let by = |extension: &str| report.by_extension[extension].lines;
        assert_eq!((by("rs"), by("")), (3, 12));
    }

    #[test]
    fn adding_reports_equals_one_report_over_all_files() {
        let (mut left, mut right, mut both) = <(FileReport, FileReport, FileReport)>::default();
        for (at, path) in ["a.rs", "b.md", "c.rs", "d"].into_iter().enumerate() {
            let half = if at % 2 == 0 { &mut left } else { &mut right };
            half.add_file(Path::new(path), file(at as u64));
            both.add_file(Path::new(path), file(at as u64));
        }
        left += right;
        assert_eq!(left, both);
    }

    #[test]
    fn every_unreadable_path_is_counted_and_the_first_ones_are_named() {
        let mut report = FileReport::default();
        for at in 0..=UNREADABLE_NAMED_MAX {
            report.add_unreadable(at.to_string(), "permission denied".to_owned());
        }
        let mut sum = report.clone();
        sum += report;
        assert_eq!(sum.unreadable, 2 * (UNREADABLE_NAMED_MAX as u64 + 1));
        assert_eq!(sum.unreadable_paths.len(), UNREADABLE_NAMED_MAX);
    }

    #[test]
    fn json_round_trip_keeps_the_flat_keys() {
        let mut report = FileReport::default();
        report.add_file(Path::new("x.rs"), file(3));
        let json = serde_json::to_value(&report).expect("json");
        assert_eq!(
            (json["files"].as_u64(), json["bytes"].as_u64()),
            (Some(1), Some(30))
        );
        assert_eq!(
            serde_json::from_value::<FileReport>(json).expect("back"),
            report
        );
    }
}
