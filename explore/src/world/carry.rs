//! What follows from one input of a machine: calls under way, mail, handlers' work. Nothing here
//! decides; what may happen at different moments becomes a state of its own.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use flowkit_core::coordinator;
use flowkit_core::id::OpId;
use flowkit_core::message::{Body, Envelope};
use flowkit_core::port::{
    PortError, StoreReply, StoreRequest, Stream, TransportReply, TransportRequest,
};
use flowkit_core::report::ReportKind;
use flowkit_core::worker;
use flowkit_memory::Outcome;

use super::watch::Broken;
use super::{At, Call, Hand, Mail, Owner, Process, SHARD, World};
use crate::canon::{Canon, Frame};

/// An answer of a port.
#[derive(Clone, Debug)]
pub(super) enum Answer {
    Store(Result<StoreReply, PortError>),
    Transport(Result<TransportReply, PortError>),
}

impl World {
    /// A coordinator gets an input.
    pub(super) fn feed_coordinator(&mut self, at: usize, input: coordinator::Input) {
        let Some(mut seat) = self.coordinators[at].process.take() else {
            return;
        };
        let owner = seat.change();
        let mut inputs = vec![input];
        while let Some(input) = inputs.pop() {
            let mut effects = Vec::new();
            let now = self.clock();
            let handled = catch_unwind(AssertUnwindSafe(|| {
                owner.machine.handle(now, input, &mut effects);
                owner.machine.check_invariants();
            }));
            if let Err(panic) = handled {
                self.panicked(Process::Coordinator(at), panic.as_ref());
                break;
            }
            if !self.carry_coordinator(at, owner, effects, &mut inputs) {
                return; // It lost its shard: the process ends.
            }
        }
        self.coordinators[at].process = Some(seat);
    }

    /// False if the process ends.
    fn carry_coordinator(
        &mut self,
        at: usize,
        owner: &mut Owner,
        effects: Vec<coordinator::Effect>,
        inputs: &mut Vec<coordinator::Input>,
    ) -> bool {
        for effect in effects {
            match effect {
                coordinator::Effect::Store { op, request } => {
                    let owns = owner.machine.shards_owned() > 0;
                    let at_once = matches!(request, StoreRequest::AcquireShard { .. })
                        || matches!(request, StoreRequest::ReadWorkers) && !owns;
                    if at_once {
                        let result = self.execute_store(&request);
                        inputs.insert(0, coordinator::Input::StoreDone { op, result });
                    } else {
                        owner.calls.push(Call {
                            op,
                            at: At::Store(request),
                        });
                    }
                }
                coordinator::Effect::Transport { op, request } => match request {
                    TransportRequest::Append { stream, envelope } => {
                        self.post(Process::Coordinator(at), stream, envelope);
                    }
                    TransportRequest::Forget { .. } => {}
                    request => {
                        let owns = owner.machine.shards_owned() > 0;
                        let at_once = match &request {
                            TransportRequest::Bounds { stream } => *stream != SHARD || !owns,
                            TransportRequest::Read { wait_ms, .. } => *wait_ms == 0,
                            _ => false,
                        };
                        if at_once && let Some(result) = self.execute_transport(&request) {
                            inputs.insert(0, coordinator::Input::TransportDone { op, result });
                        } else {
                            owner.calls.push(Call {
                                op,
                                at: At::Transport(request),
                            });
                        }
                    }
                },
                coordinator::Effect::Report(report) => {
                    if report.kind == ReportKind::ShardLost {
                        return false;
                    }
                }
                coordinator::Effect::Stopped => return false,
            }
        }
        true
    }

    /// A worker gets an input.
    pub(super) fn feed_worker(&mut self, at: usize, input: worker::Input) {
        let Some(mut seat) = self.workers[at].process.take() else {
            return;
        };
        let hand = seat.change();
        let mut inputs = vec![input];
        while let Some(input) = inputs.pop() {
            if let worker::Input::StoreDone { result, .. } = &input
                && let Ok(StoreReply::Registered(incarnation)) = result
            {
                hand.incarnation = Some(*incarnation);
            }
            let mut effects = Vec::new();
            let now = self.clock();
            let handled = catch_unwind(AssertUnwindSafe(|| {
                hand.machine.handle(now, input, &mut effects);
                hand.machine.check_invariants();
            }));
            if let Err(panic) = handled {
                self.panicked(Process::Worker(at), panic.as_ref());
                break;
            }
            if !self.carry_worker(at, hand, effects, &mut inputs) {
                return;
            }
        }
        self.workers[at].process = Some(seat);
    }

    /// False if the process ends.
    fn carry_worker(
        &mut self,
        at: usize,
        hand: &mut Hand,
        effects: Vec<worker::Effect>,
        inputs: &mut Vec<worker::Input>,
    ) -> bool {
        for effect in effects {
            match effect {
                worker::Effect::Store { op, request } => {
                    if matches!(request, StoreRequest::RegisterWorker { .. }) {
                        let result = self.execute_store(&request);
                        inputs.insert(0, worker::Input::StoreDone { op, result });
                    } else {
                        hand.calls.push(Call {
                            op,
                            at: At::Store(request),
                        });
                    }
                }
                worker::Effect::Transport { op, request } => {
                    let at_once = match &request {
                        TransportRequest::Bounds { .. } => true,
                        TransportRequest::Append { stream, .. } => *stream != SHARD,
                        _ => false,
                    };
                    let own = self.own_inbox(at, request);
                    if at_once && let Some(result) = self.execute_transport(&own) {
                        inputs.insert(0, worker::Input::TransportDone { op, result });
                    } else {
                        hand.calls.push(Call {
                            op,
                            at: At::Transport(own),
                        });
                    }
                }
                worker::Effect::Run { run, command } => {
                    if let Some(event) = self.command(at, hand, run, command) {
                        inputs.insert(0, worker::Input::Run { run, event });
                    }
                }
                worker::Effect::Report(_) => {}
                worker::Effect::Stopped { .. } | worker::Effect::Unregistered(_) => return false,
            }
        }
        true
    }

    /// Every worker has an inbox of its own, whatever number its id has.
    fn own_inbox(&self, at: usize, request: TransportRequest) -> TransportRequest {
        let own = super::inbox_of_worker(at);
        match request {
            TransportRequest::Read {
                stream: Stream::Inbox(_),
                from,
                limit,
                wait_ms,
            } => TransportRequest::Read {
                stream: own,
                from,
                limit,
                wait_ms,
            },
            TransportRequest::Bounds {
                stream: Stream::Inbox(_),
            } => TransportRequest::Bounds { stream: own },
            other => other,
        }
    }

    /// A coordinator sends a message: to a client, whom it reaches at once, or to a worker.
    fn post(&mut self, from: Process, stream: Stream, envelope: Arc<Envelope>) {
        if let Body::Reply(reply) = &envelope.body {
            self.watch_reply(reply);
            return;
        }
        let worker = self.worker_named(envelope.to.as_deref());
        if let (Stream::Inbox(_), Some(worker)) = (stream, worker) {
            self.watch_mail(&envelope);
            if self.workers[worker].process.is_some() || self.left.restarts > 0 {
                let stream = super::inbox_of_worker(worker);
                self.mail.push(Mail {
                    from,
                    stream,
                    envelope,
                });
            }
        }
    }

    pub(super) fn worker_named(&self, name: Option<&str>) -> Option<usize> {
        let name = name?;
        (0..self.workers.len()).find(|at| crate::scope::Scope::worker_id(*at).as_str() == name)
    }

    pub(super) fn execute_store(
        &mut self,
        request: &StoreRequest,
    ) -> Result<StoreReply, PortError> {
        let now = self.store_now();
        let before = matches!(request, StoreRequest::Commit(_)).then(|| self.store.clone());
        let reply = self.store.change().apply(now, request);
        if let (StoreRequest::Commit(commit), Some(before)) = (request, before) {
            self.watch_commit(&before, commit, &reply);
        }
        reply
    }

    /// `None`: it waits.
    pub(super) fn execute_transport(
        &mut self,
        request: &TransportRequest,
    ) -> Option<Result<TransportReply, PortError>> {
        let now = self.now;
        let outcome = Arc::make_mut(&mut self.broker).apply(now, request);
        if let TransportRequest::Append { stream, envelope } = request
            && *stream == SHARD
        {
            let mut canon = Canon::new(Frame::default());
            canon.add(&**envelope);
            Arc::make_mut(&mut self.log).push((canon.finish(), now));
        }
        match outcome {
            Outcome::Done(result) => Some(result),
            Outcome::Wait => None,
        }
    }

    /// The answer to a call of a process arrives.
    pub(super) fn answer(&mut self, process: Process, op: OpId, answer: Answer) {
        match process {
            Process::Coordinator(at) => {
                let input = match answer {
                    Answer::Store(result) => coordinator::Input::StoreDone { op, result },
                    Answer::Transport(result) => coordinator::Input::TransportDone { op, result },
                };
                self.feed_coordinator(at, input);
            }
            Process::Worker(at) => {
                let input = match answer {
                    Answer::Store(result) => worker::Input::StoreDone { op, result },
                    Answer::Transport(result) => worker::Input::TransportDone { op, result },
                };
                self.feed_worker(at, input);
            }
        }
    }

    fn panicked(&mut self, process: Process, panic: &(dyn std::any::Any + Send)) {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
        let what = format!("{process}: {}", text.unwrap_or_default());
        self.breaks(Broken::new("no_panic", what));
    }
}
