//! `cancel_seen`: a handler that is dropped was told before, and one that listens and had time to
//! end is never dropped. Where real handlers run: those of the machines' own world listen as they
//! please.

use std::collections::BTreeMap;

use super::{Judge, View};
use crate::history::{Life, Place, Step, What};

const NAME: &str = "cancel_seen";
/// Time to end that is enough for whoever listens.
const TIME_US: u64 = 100_000;
/// What goes on at one moment is noted in some order.
const MOMENT_US: u64 = 50_000;

#[derive(Debug, Default)]
pub(super) struct CancelSeen {
    runs: BTreeMap<(Place, u64), Told>,
    /// When a host was frozen or went on last.
    paused: BTreeMap<u32, u64>,
    /// Handlers dropped without a word, which may be on its way, or their process may be ending.
    untold: Vec<(u64, Place, u64, String)>,
}

#[derive(Debug, Default)]
struct Told {
    at: Option<u64>,
    /// Checkpoints that it waits for.
    saving: u32,
    /// It said itself how it ends; what is left of it after a panic is dropped.
    failed: bool,
}

impl Judge for CancelSeen {
    fn event(&mut self, view: &mut View<'_>) {
        let at = view.event.at;
        let slack = view.plan.world.slack_us();
        if slack == 0 {
            return;
        }
        while let Some((since, ..)) = self.untold.first()
            && at > since + MOMENT_US + slack
        {
            let (_, _, _, what) = self.untold.remove(0);
            view.broken(NAME, what);
        }
        match &view.event.what {
            What::Process { place, what } => match what {
                Life::Crashed | Life::Stopped => {
                    self.runs.retain(|(at, _), _| at.host != place.host);
                    self.untold.retain(|(_, at, ..)| at.host != place.host);
                }
                Life::Stalled | Life::Resumed => {
                    self.paused.insert(place.host, at);
                }
                Life::Started | Life::Asked { .. } => {}
            },
            What::Handler { run, step } => {
                let key = (run.place, run.run_id);
                let told = self.runs.entry(key).or_default();
                match step {
                    Step::Cancel { .. } => {
                        told.at.get_or_insert(at);
                        self.untold.retain(|(_, place, id, _)| (*place, *id) != key);
                    }
                    Step::Checkpoint { .. } => told.saving += 1,
                    Step::CheckpointSaved { .. } => told.saving = told.saving.saturating_sub(1),
                    Step::Failed { .. } => told.failed = true,
                    Step::Abort if told.failed => {}
                    Step::Abort => {
                        let name = format!("{}/{}: token {}", run.task, run.node, run.token);
                        let Some(since) = told.at else {
                            let what = format!("{name} was dropped, and had not been told to end");
                            self.untold.push((at, run.place, run.run_id, what));
                            return;
                        };
                        let listens = view
                            .node(run.task.as_str(), run.node.as_str())
                            .is_some_and(|node| !node.script.ignores_cancel);
                        let paused = self.paused.get(&run.place.host).copied();
                        let paused = paused.is_some_and(|paused| paused + TIME_US + slack > since);
                        if listens && told.saving == 0 && !paused && at > since + TIME_US + slack {
                            let what = format!(
                                "{name} was dropped {} ms after it was told to end, and listens",
                                (at - since) / 1_000
                            );
                            view.broken(NAME, what);
                        }
                    }
                    Step::Closed | Step::Lost => {
                        self.runs.remove(&key);
                    }
                    _ => {}
                }
            }
            _ => {}
        }
    }
}
