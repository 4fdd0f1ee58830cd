//! Driving a run by an input adapter: reads, wakes and looks.

use super::Worker;
use super::adapter::{PAGE, Pull};
use super::calls::For;
use super::commands::merge_sources;
use super::io::{Effect, RunId};
use super::run::{Run, Work};
use super::timers::Timer;
use crate::id::{NodeId, TaskId};
use crate::message::SourceState;
use crate::planted::{Bug, is_planted};
use crate::port::{PortError, StoreReply, StoreRequest};
use crate::time::Now;

/// The task that a source's artifacts are of: another one, if a rerun kept the source from it.
fn task_of(run: &Run, source: &NodeId) -> TaskId {
    let mut known = run.start.sources.iter();
    let known = known.find(|state| state.node_id == *source);
    let kept_from = known.and_then(|state| state.kept_from.as_ref());
    let kept_from = kept_from.filter(|_| !is_planted(Bug::KeptUnread));
    kept_from.unwrap_or(&run.task_id).clone()
}

impl Worker {
    /// Draws the next batch from the adapter.
    pub(super) fn pull(&mut self, id: RunId, now: Now, out: &mut Vec<Effect>) {
        loop {
            let Some(run) = self.runs.get_mut(&id) else {
                return;
            };
            let Some(puller) = run.puller.as_mut() else {
                return;
            };
            match puller.next() {
                Pull::Batch(drawn) => {
                    if !self.meet(id, drawn, now, out) {
                        return;
                    }
                }
                Pull::Read { source, after } => {
                    run.work = Work::Pulling { asked: true };
                    let request = StoreRequest::ReadArtifacts {
                        task_id: task_of(run, &source),
                        node_id: source.clone(),
                        after,
                        limit: PAGE,
                    };
                    self.call(For::Artifacts(id, source), request, now, out);
                    return;
                }
                Pull::Wait { ms } => {
                    run.work = Work::Pulling { asked: false };
                    if !is_planted(Bug::NeverPolls) {
                        self.timers.set(Timer::Pull(id), now.mono.after(ms));
                    }
                    return;
                }
                Pull::End => {
                    self.finalize(id, out);
                    return;
                }
            }
        }
    }

    pub(super) fn artifacts_read(
        &mut self,
        id: RunId,
        source: &NodeId,
        result: Result<StoreReply, PortError>,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        let Some(run) = self.runs.get_mut(&id) else {
            return;
        };
        if !matches!(run.work, Work::Pulling { .. }) {
            return;
        }
        match (result, run.puller.as_mut()) {
            (Ok(StoreReply::Artifacts(artifacts)), Some(puller)) => {
                puller.arrived(source, artifacts);
                self.proceed(id, now, out);
            }
            (other, _) => self.store_refused(id, other, now, out),
        }
    }

    /// INPUT_READY, or the task's record, has news about sources.
    pub(super) fn sources_moved(
        &mut self,
        id: RunId,
        states: &[SourceState],
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        let Some(run) = self.runs.get_mut(&id) else {
            return;
        };
        let Some(puller) = run.puller.as_mut() else {
            return;
        };
        let news = puller.learn(states);
        if news && matches!(run.work, Work::Pulling { asked: false }) {
            self.timers.cancel(Timer::Pull(id));
            self.proceed(id, now, out);
        }
    }

    /// Nobody woke the reader for a while.
    pub(super) fn look_for_input(&mut self, id: RunId, now: Now, out: &mut Vec<Effect>) {
        let Some(run) = self.runs.get_mut(&id) else {
            return;
        };
        let Some(puller) = run.puller.as_mut() else {
            return;
        };
        if !matches!(run.work, Work::Pulling { asked: false }) {
            return;
        }
        let asks_task = puller.asks_task();
        puller.look();
        if asks_task {
            run.work = Work::Pulling { asked: true };
            let request = StoreRequest::ReadTask {
                task_id: run.task_id.clone(),
            };
            self.call(For::Sources(id), request, now, out);
        } else {
            self.proceed(id, now, out);
        }
    }

    /// The records of the reader's sources. Any terminal state is an end: whether a failure was
    /// handled is for the owner to judge, and if it was not, the owner ends this run.
    pub(super) fn sources_read(
        &mut self,
        id: RunId,
        result: Result<StoreReply, PortError>,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        let Some(run) = self.runs.get_mut(&id) else {
            return;
        };
        if !matches!(run.work, Work::Pulling { .. }) {
            return;
        }
        if let Ok(StoreReply::Task(Some(task))) = result {
            let states: Vec<_> = task
                .nodes
                .iter()
                .map(|node| SourceState {
                    node_id: node.node_id.clone(),
                    last: node.accepted,
                    ended: node.state.is_terminal(),
                    kept_from: node.kept_from.clone(),
                })
                .collect();
            merge_sources(&mut run.start.sources, &states);
            if let Some(puller) = run.puller.as_mut() {
                puller.learn(&states);
            }
        }
        self.proceed(id, now, out);
    }
}
