//! Handlers: loading, drawing and closing take no time; a batch takes as long as it likes.

use std::sync::Arc;

use flowkit_core::id::{BatchUid, Token};
use flowkit_core::json::Json;
use flowkit_core::worker::{RunCommand, RunEvent, RunFailure, RunId, RunSpec};
use serde::Serialize;

use super::{Hand, World};

/// One run's handler.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Handler {
    pub(crate) node: usize,
    pub(crate) token: Token,
    /// The batch that its source yields next, from 1.
    next: u32,
    pub(crate) doing: Doing,
    /// It was told to end.
    told: bool,
    /// Its time is up.
    aborted: bool,
}

/// What it is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) enum Doing {
    /// It waits to be told.
    Nothing,
    /// A batch; its checkpoint is still to be saved, if it has one.
    Batch { number: u32, to_save: bool },
    /// It waits until its checkpoint is safe.
    Saving { number: u32 },
    /// Finalizes.
    Finalizing,
}

/// What a handler may do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Move {
    /// Save a checkpoint.
    Save,
    /// End what it is at.
    End,
    /// Stop, because it was told to.
    Stop,
}

fn uid(number: u32) -> BatchUid {
    BatchUid::new(format!("b{number}")).expect("a short plain text is an id")
}

fn number_json(number: u32) -> Json {
    Json::encode(&number).expect("a number is JSON")
}

impl Handler {
    /// The moves it may make.
    pub(crate) fn moves(&self, obeys_at_once: bool) -> impl Iterator<Item = Move> {
        let busy = !matches!(self.doing, Doing::Nothing | Doing::Saving { .. });
        let goes_on = match self.doing {
            _ if self.aborted => None,
            Doing::Batch { to_save: true, .. } => Some(Move::Save),
            Doing::Batch { .. } | Doing::Finalizing => Some(Move::End),
            Doing::Nothing | Doing::Saving { .. } => None,
        };
        let stops = busy && (self.aborted || self.told && obeys_at_once);
        goes_on.into_iter().chain(stops.then_some(Move::Stop))
    }
}

impl World {
    /// A worker tells a handler something; what the handler answers at once.
    pub(super) fn command(
        &mut self,
        at: usize,
        hand: &mut Hand,
        run: RunId,
        command: RunCommand,
    ) -> Option<RunEvent> {
        let scope = self.scope;
        if let RunCommand::Begin(spec) = &command {
            self.watch_begin(at, hand, spec);
            hand.handlers.insert(run, begin(spec));
            return Some(RunEvent::Loaded { adapter: None });
        }
        if let RunCommand::NextBatch | RunCommand::Process { .. } = &command {
            self.watch_work(hand, run, &command);
        }
        let handler = hand.handlers.get_mut(&run)?;
        match command {
            RunCommand::Begin(_) => None,
            RunCommand::NextBatch => {
                let all = scope.batches[handler.node];
                if handler.next > all {
                    return Some(RunEvent::BatchesEnded);
                }
                let number = handler.next;
                handler.next += 1;
                Some(RunEvent::Batch {
                    batch_uid: uid(number),
                    payload: number_json(number),
                    last: scope.knows_last && number == all,
                })
            }
            RunCommand::Process {
                payload,
                checkpoint,
                ..
            } => {
                let number: u32 = payload.decode().unwrap_or(0);
                // What an earlier run saved of this batch need not be saved again.
                let to_save = scope.checkpoints && number.is_multiple_of(2) && checkpoint.is_none();
                handler.doing = Doing::Batch { number, to_save };
                None
            }
            RunCommand::CheckpointSaved(result) => {
                if let Doing::Saving { number } = handler.doing {
                    handler.doing = Doing::Batch {
                        number,
                        to_save: false,
                    };
                    if result.is_ok() {
                        let (node, token) = (handler.node, handler.token);
                        self.watch_saved(node, token, number);
                    }
                }
                None
            }
            RunCommand::Finalize { .. } if scope.slow_finalize => {
                handler.doing = Doing::Finalizing;
                None
            }
            RunCommand::Finalize { .. } => Some(finalized()),
            RunCommand::Cancel { .. } => {
                handler.told = true;
                None
            }
            RunCommand::Abort => {
                handler.aborted = true;
                // It waits for nothing any more.
                if let Doing::Saving { number } = handler.doing {
                    handler.doing = Doing::Batch {
                        number,
                        to_save: false,
                    };
                }
                None
            }
            RunCommand::Close => {
                let handler = hand.handlers.remove(&run)?;
                hand.leases.remove(&(handler.node, handler.token));
                Some(RunEvent::Closed)
            }
        }
    }

    /// A handler makes a move; what it says to the machine.
    pub(super) fn make_move(
        &mut self,
        hand: &mut Hand,
        run: RunId,
        made: Move,
    ) -> Option<RunEvent> {
        let handler = hand.handlers.get_mut(&run)?;
        let doing = std::mem::replace(&mut handler.doing, Doing::Nothing);
        Some(match (made, doing) {
            (Move::Save, Doing::Batch { number, .. }) => {
                handler.doing = Doing::Saving { number };
                let (node, token) = (handler.node, handler.token);
                self.watch_saving(node, token, number);
                RunEvent::Checkpoint(number_json(number))
            }
            (Move::End, Doing::Batch { number, .. }) => RunEvent::Processed {
                metrics: [(Arc::from("n"), number_json(number))].into(),
                artifact: None,
                result: None,
            },
            (Move::End, Doing::Finalizing) => finalized(),
            _ => RunEvent::Failed(RunFailure {
                reason_code: Arc::from("cancelled"),
                permanent: false,
                error: Arc::from("it was told to end"),
                retry_after_ms: None,
                cancelled: true,
            }),
        })
    }
}

fn finalized() -> RunEvent {
    RunEvent::Finalized {
        metrics: flowkit_core::message::Metrics::new(),
        result: None,
    }
}

/// The source resumes behind the batch whose checkpoint it gets.
fn begin(spec: &RunSpec) -> Handler {
    let node = spec.node_id.as_str().trim_start_matches('n');
    let behind: Option<u32> = spec.checkpoint.as_ref().and_then(|json| json.decode().ok());
    Handler {
        node: node.parse::<usize>().map_or(0, |node| node - 1),
        token: spec.token,
        next: behind.unwrap_or(0) + 1,
        doing: Doing::Nothing,
        told: false,
        aborted: false,
    }
}
