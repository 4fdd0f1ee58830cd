//! The `scan` role: the files below a folder, in batches of paths.

use flowkit::prelude::*;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

use super::path_text;
use super::walk::{Found, Walk};

/// Paths per batch where the graph does not say.
pub(crate) const BATCH_SIZE: usize = 64;

/// The key of the list in a scan's artifact, for `meta_list_key` of a rechunking reader.
pub(crate) const ENTRIES_KEY: &str = "entries";

/// `io.input_inline` of a scan.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ScanInput {
    /// The folder, as path text.
    pub(crate) dir: String,
    /// Paths that are left out with all they hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) exclude: Vec<String>,
    /// Most paths per batch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) batch_size: Option<usize>,
}

/// One item of a batch; paths are absolute, as path text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Entry {
    /// A regular file.
    File(String),
    /// Something that could not be read.
    Unreadable {
        /// What.
        path: String,
        /// Why.
        reason: String,
    },
}

/// A batch on its way through the handler.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ScanBatch {
    entries: Vec<Entry>,
    /// Where the source goes on once this batch is accepted.
    resume: Resume,
}

/// The checkpoint: the source resumes behind `last` and gives the next batch the number `next`, so
/// a batch has the same uid in every attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Resume {
    next: u64,
    last: String,
}

/// What a scan leaves for later nodes.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ScanArtifact {
    entries: Vec<Entry>,
}

/// Handler of the role.
#[derive(Debug)]
pub(crate) struct Scan;

impl Handler for Scan {
    type Run = ();
    type Input = ScanBatch;
    type Output = ScanArtifact;

    async fn init(&self, _cx: &RunContext) -> Result<(), HandlerError> {
        Ok(())
    }

    async fn batches(
        &self,
        cx: &RunContext,
        input: TaskInput,
    ) -> Result<BatchStream<ScanBatch>, HandlerError> {
        let input: ScanInput = input.decode()?;
        let resume: Option<Resume> = cx.checkpoint()?;
        let plan = Plan::new(&input, resume)?;
        Ok(BatchStream::blocking(move |out| {
            // A wrong folder is a wrong graph, not an empty tree.
            std::fs::read_dir(&plan.root).map_err(|error| {
                let text = format!("cannot read the folder {}: {error}", plan.root.display());
                HandlerError::permanent("bad_input", text)
            })?;
            for batch in plan.batches() {
                // Eight digits keep the uids sorted for people; more are legal.
                let uid = format!("{:08}", batch.resume.next - 1);
                out.send(Batch::new(uid, batch))?;
            }
            Ok(())
        }))
    }

    async fn process(
        &self,
        cx: &RunContext,
        _run: &mut (),
        batch: Batch<ScanBatch>,
    ) -> Result<BatchResult<ScanArtifact>, HandlerError> {
        let ScanBatch { entries, resume } = batch.payload;
        cx.save_checkpoint(&resume).await?;
        let found = entries.len();
        Ok(BatchResult::of(ScanArtifact { entries }).metric("found", found))
    }
}

/// What to walk, from where.
#[derive(Debug)]
struct Plan {
    root: PathBuf,
    exclude: Vec<PathBuf>,
    batch_size: usize,
    resume: Option<(u64, PathBuf)>,
}

impl Plan {
    fn new(input: &ScanInput, resume: Option<Resume>) -> Result<Self, HandlerError> {
        let bad = |text: String| HandlerError::permanent("bad_input", text);
        let absolute = |text: &str| {
            let path = path_text::decode(text).map_err(bad)?;
            std::path::absolute(path).map_err(|e| bad(format!("`{text}`: {e}")))
        };
        let batch_size = input.batch_size.unwrap_or(BATCH_SIZE);
        if batch_size == 0 {
            return Err(bad("batch_size is 0; it must be at least 1".to_owned()));
        }
        let exclude: Result<_, HandlerError> =
            input.exclude.iter().map(|text| absolute(text)).collect();
        let resume = match resume {
            None => None,
            Some(resume) => {
                let last = path_text::decode(&resume.last)
                    .map_err(|e| HandlerError::permanent("bad_checkpoint", e))?;
                Some((resume.next, last))
            }
        };
        Ok(Self {
            root: absolute(&input.dir)?,
            exclude: exclude?,
            batch_size,
            resume,
        })
    }

    fn batches(&self) -> impl Iterator<Item = ScanBatch> {
        let (mut next, last) = match &self.resume {
            None => (0, None),
            Some((next, last)) => (*next, Some(last.clone())),
        };
        let mut walk = Walk::new(&self.root, &self.exclude, last);
        std::iter::from_fn(move || {
            let found: Vec<Found> = walk.by_ref().take(self.batch_size).collect();
            let last = path_text::encode(found.last()?.path());
            next += 1;
            let entries = found.iter().map(|found| self.entry(found)).collect();
            Some(ScanBatch {
                entries,
                resume: Resume { next, last },
            })
        })
    }

    fn entry(&self, found: &Found) -> Entry {
        let text = |path: &Path| path_text::encode(&self.root.join(path));
        match found {
            Found::File(path) => Entry::File(text(path)),
            Found::Unreadable(path, reason) => Entry::Unreadable {
                path: text(path),
                reason: reason.clone(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Entry, Plan, Resume, Scan, ScanBatch, ScanInput};
    use flowkit::prelude::*;
    use std::fs;

    fn tree(files: usize) -> (tempfile::TempDir, ScanInput) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for file in 0..files {
            let sub = folder.path().join(format!("d{}", file % 3));
            fs::create_dir_all(&sub).expect("a folder");
            fs::write(sub.join(format!("f{file}")), "x").expect("a file");
        }
        let input = ScanInput {
            dir: super::path_text::encode(folder.path()),
            exclude: Vec::new(),
            batch_size: Some(4),
        };
        (folder, input)
    }

    fn batches(input: &ScanInput, resume: Option<Resume>) -> Vec<ScanBatch> {
        let plan = Plan::new(input, resume).expect("valid input");
        plan.batches().collect()
    }

    #[test]
    fn batches_hold_at_most_the_asked_number_and_together_every_file() {
        let (_folder, input) = tree(10);
        let batches = batches(&input, None);
        let sizes: Vec<usize> = batches.iter().map(|b| b.entries.len()).collect();
        assert_eq!(sizes, [4, 4, 2]);
    }

    #[test]
    fn resuming_at_any_checkpoint_gives_the_same_batches_as_the_first_time() {
        let (_folder, input) = tree(23);
        let all = batches(&input, None);
        for (at, batch) in all.iter().enumerate() {
            let rest = batches(&input, Some(batch.resume.clone()));
            assert_eq!(rest, all[at + 1..], "after batch {at}");
        }
    }

    #[test]
    fn an_empty_folder_has_no_batch() {
        let (_folder, input) = tree(0);
        assert!(batches(&input, None).is_empty());
    }

    #[test]
    fn a_batch_size_of_zero_is_refused() {
        let (_folder, mut input) = tree(1);
        input.batch_size = Some(0);
        assert!(Plan::new(&input, None).is_err());
    }

    #[test]
    fn entries_are_compact_in_json() {
        let entries = [
            Entry::File("/a".to_owned()),
            Entry::Unreadable {
                path: "/b".to_owned(),
                reason: "permission denied".to_owned(),
            },
        ];
        let json = serde_json::to_string(&entries).expect("json");
        assert_eq!(json, r#"["/a",{"path":"/b","reason":"permission denied"}]"#);
        let back: [Entry; 2] = serde_json::from_str(&json).expect("back");
        assert_eq!(back, entries);
    }

    #[tokio::test]
    async fn processing_a_batch_saves_where_to_go_on() {
        let (_folder, input) = tree(5);
        let batch = batches(&input, None).remove(0);
        let (cx, control) = RunContext::for_test();
        let resume = serde_json::to_string(&batch.resume).expect("json");
        let _result = Scan
            .process(&cx, &mut (), Batch::new("00000000", batch))
            .await
            .expect("processed");
        assert_eq!(control.checkpoints(), [resume]);
    }
}
