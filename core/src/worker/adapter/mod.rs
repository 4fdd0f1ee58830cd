//! Input adapters: batches made of what source nodes have accepted.
//!
//! A [`Puller`] follows every source's accepted sequence with a cursor, one number after the
//! other. All chunks of an artifact are yielded before the cursor moves and before another source
//! is looked at; only the batch that completes an artifact carries the new cursor. A holder that
//! takes over in the middle of an artifact may begin with another source: it keeps its cursor back
//! until it has met everything that was accepted. So the batches accepted when a cursor was
//! committed are exactly those behind it.

mod args;
mod chunks;

pub(super) use args::Args;

use serde::Serialize;
use std::collections::VecDeque;

use chunks::Chunk;

use super::commands::position_from;
use super::run::Drawn;
use crate::id::NodeId;
use crate::message::{AdapterSpec, Cursor, SourceState};
use crate::planted::{Bug, is_planted};
use crate::record::ArtifactRecord;

/// Artifacts asked for at once.
pub(super) const PAGE: u32 = 64;

/// What a reader does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Pull {
    /// Process this batch.
    Batch(Drawn),
    /// Read artifacts of a source above a number.
    Read { source: NodeId, after: u64 },
    /// Wait for a wake, or for so many milliseconds.
    Wait { ms: u64 },
    /// Every source ended and was read to its end.
    End,
}

#[derive(Clone, Debug, Serialize)]
struct Source {
    node_id: NodeId,
    /// Number of the newest artifact whose every chunk was yielded.
    cursor: u64,
    /// Its newest accepted number, as far as is known.
    last: u64,
    ended: bool,
    /// The store had nothing where more was announced: not read again before the next look.
    stalled: bool,
}

/// The state of one reader.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Puller {
    args: Args,
    sources: Vec<Source>,
    /// Index of the source that is being read.
    at: usize,
    /// Artifacts of that source that were read and not yet looked into.
    read: VecDeque<ArtifactRecord>,
    /// Chunks of the artifact in work.
    chunks: VecDeque<Chunk>,
    /// Looks in a row that found nothing.
    idle_looks: u32,
    /// Sources still to be read in the look that is under way.
    to_look: Vec<usize>,
    /// `eof_on_task_done: false`: a look after the end of all sources found nothing more.
    looked_after_end: bool,
}

impl Puller {
    /// Checks the adapter's arguments against the sources of the node.
    ///
    /// # Errors
    /// Reason code and text of a permanent failure.
    pub(super) fn new(
        args: Args,
        cursor: &Cursor,
        known: &[SourceState],
    ) -> Result<Self, (&'static str, String)> {
        let mut sources = Vec::with_capacity(args.from_nodes.len());
        for node_id in &args.from_nodes {
            let Some(state) = known.iter().find(|state| state.node_id == *node_id) else {
                let text =
                    format!("`from_nodes` names `{node_id}`, which is no parent of the node");
                return Err((args::BAD_ARGS, text));
            };
            sources.push(Source {
                node_id: node_id.clone(),
                cursor: cursor.get(node_id).copied().unwrap_or(0),
                last: state.last,
                ended: state.ended,
                stalled: false,
            });
        }
        Ok(Self {
            args,
            sources,
            at: 0,
            read: VecDeque::new(),
            chunks: VecDeque::new(),
            idle_looks: 0,
            to_look: Vec::new(),
            looked_after_end: false,
        })
    }

    /// Takes news about sources; true if there is something to do now.
    pub(super) fn learn(&mut self, states: &[SourceState]) -> bool {
        let mut news = false;
        let mut at = 0;
        for state in states {
            let found = position_from(&self.sources, at, |s| s.node_id == state.node_id);
            let Some(found) = found else {
                continue;
            };
            at = found + 1;
            let source = &mut self.sources[found];
            // Old news may come late: numbers only grow, an end stays an end.
            let more = state.last > source.last;
            news |= more || (state.ended && !source.ended);
            source.stalled &= !more;
            source.last = source.last.max(state.last);
            source.ended |= state.ended;
        }
        if news {
            self.idle_looks = 0;
            self.looked_after_end = false;
        }
        news
    }

    /// Artifacts of a source arrived.
    pub(super) fn arrived(&mut self, source: &NodeId, artifacts: Vec<ArtifactRecord>) {
        let Some(index) = self.sources.iter().position(|s| s.node_id == *source) else {
            return;
        };
        self.to_look.retain(|other| *other != index);
        let state = &mut self.sources[index];
        // Only cursor + 1 and what follows without a gap is taken; anything else comes later.
        let next = state.cursor + 1;
        let fitting: VecDeque<_> = artifacts
            .into_iter()
            .zip(next..)
            .take_while(|(artifact, number)| artifact.number == *number)
            .map(|(artifact, _)| artifact)
            .collect();
        let Some(newest) = fitting.back() else {
            state.stalled = true;
            return;
        };
        state.stalled = false;
        state.last = state.last.max(newest.number);
        self.at = index;
        self.read = fitting;
        self.idle_looks = 0;
        self.looked_after_end = false;
        self.to_look.clear();
    }

    /// A wait is over: look at every source that may have more.
    pub(super) fn look(&mut self) {
        self.idle_looks = self.idle_looks.saturating_add(1);
        let all_ended = self.all_ended();
        self.to_look.clear();
        for (index, source) in self.sources.iter_mut().enumerate().rev() {
            source.stalled = false;
            if all_ended || !source.ended || source.cursor < source.last {
                self.to_look.push(index);
            }
        }
        if all_ended {
            self.looked_after_end = true;
        }
    }

    /// What to do next.
    pub(super) fn next(&mut self) -> Pull {
        loop {
            if let Some(chunk) = self.chunks.pop_front() {
                let done = self.chunks.is_empty();
                if done && !is_planted(Bug::CursorEarly) {
                    self.sources[self.at].cursor += 1;
                }
                return Pull::Batch(Drawn {
                    uid: chunk.uid,
                    payload: chunk.payload,
                    last: done && self.at_end(),
                    cursor: (done || is_planted(Bug::CursorEarly)).then(|| self.cursor()),
                });
            }
            if let Some(artifact) = self.read.pop_front() {
                self.chunks = chunks::of(&self.args, &artifact);
                if self.chunks.is_empty() || is_planted(Bug::CursorEarly) {
                    // Nothing in it: the cursor moves with the next artifact that has a batch.
                    self.sources[self.at].cursor += 1;
                }
                continue;
            }
            // Round robin: sources after the one read last come first.
            let count = self.sources.len();
            let next = (1..=count)
                .map(|step| (self.at + step) % count)
                .find(|index| {
                    let source = &self.sources[*index];
                    source.cursor < source.last && !source.stalled
                });
            if let Some(index) = next.or_else(|| self.to_look.last().copied()) {
                return Pull::Read {
                    source: self.sources[index].node_id.clone(),
                    after: self.sources[index].cursor,
                };
            }
            if self.at_end() {
                return Pull::End;
            }
            return Pull::Wait {
                ms: self.pause_ms(),
            };
        }
    }

    /// The wait before the next look doubles from `poll_ms` to `backoff_max_ms`.
    fn pause_ms(&self) -> u64 {
        let pause = self
            .args
            .poll_ms
            .saturating_mul(1 << self.idle_looks.min(16));
        pause.min(self.args.backoff_max_ms)
    }

    /// The next look asks the task's record as well: the message that said "ended" may be lost.
    /// Owners repeat that one, so the costlier read is left to every fourth of the longest pauses.
    pub(super) fn asks_task(&self) -> bool {
        self.pause_ms() == self.args.backoff_max_ms && self.idle_looks % 4 == 3
    }

    fn all_ended(&self) -> bool {
        self.sources.iter().all(|source| source.ended)
    }

    /// Nothing is left and nothing will come.
    fn at_end(&self) -> bool {
        let drained = self.read.is_empty()
            && self.chunks.is_empty()
            && self.sources.iter().all(|s| s.ended && s.cursor >= s.last);
        let looked = self.looked_after_end && !is_planted(Bug::EndUnlooked);
        drained && (self.args.eof_on_task_done || looked)
    }

    fn cursor(&self) -> Cursor {
        self.sources
            .iter()
            .map(|source| (source.node_id.clone(), source.cursor))
            .collect()
    }

    pub(super) fn check_invariants(&self) {
        assert!(self.at < self.sources.len());
        assert!(self.read.len() <= PAGE as usize);
    }
}

/// Whether this version has an adapter of that name.
pub(super) fn is_known(spec: &AdapterSpec) -> bool {
    args::is_known(&spec.name)
}
