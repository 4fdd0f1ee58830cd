//! One thing happens.

use std::sync::Arc;

use flowkit_core::coordinator;
use flowkit_core::id::ShardId;
use flowkit_core::message::{Body, CancelTask, Envelope, Sender, SenderRole};
use flowkit_core::port::{ErrorKind, PortError, StoreRequest, Stream, TransportRequest};
use flowkit_core::worker;

use super::carry::Answer;
use super::enabled::is_two_steps;
use super::{At, Call, Late, Mail, Process, SHARD, World, inbox_of_worker};
use crate::scope::Budget;

fn no_answer(op: &str) -> PortError {
    PortError::new(ErrorKind::Unknown, op, "no answer")
}

impl World {
    /// The state after an action, which must be one of [`World::actions`].
    #[must_use]
    pub fn after(&self, action: super::Action) -> Self {
        let mut next = self.clone();
        next.act(action);
        next.forget_what_cannot_happen();
        next
    }

    fn act(&mut self, action: super::Action) {
        use super::Action;
        match action {
            Action::Call(process, index) => self.go_on(process, index),
            Action::Fetch(at, take) => self.read(Process::Coordinator(at), SHARD, take),
            Action::Announcements(at) => {
                self.read(Process::Coordinator(at), Stream::Announcements, u32::MAX);
            }
            Action::Inbox(at, take) => self.read_inbox(at, take),
            Action::Handler(at, run, made) => {
                let Some(mut seat) = self.workers[at].process.take() else {
                    return;
                };
                let event = self.make_move(seat.change(), run, made.0);
                self.workers[at].process = Some(seat);
                if let Some(event) = event {
                    self.feed_worker(at, worker::Input::Run { run, event });
                }
            }
            Action::Wake(process) => self.wake(process),
            Action::TimePasses => {
                if let Some(at) = self.next_timer() {
                    self.now = at.max(self.now);
                }
            }
            Action::Cancel => {
                self.left.cancels -= 1;
                self.cancel();
            }
            Action::Crash(process, arrives) => self.crash(process, arrives),
            Action::Restart(at) => {
                self.left.restarts -= 1;
                self.start_worker(at);
            }
            Action::TakeOver(at) => {
                if self.coordinators.iter().any(|seat| seat.process.is_some()) {
                    Budget::spend(&mut self.left.takeovers, &mut self.left.expiries);
                }
                self.start_coordinator(at);
            }
            Action::NoAnswer(process, index) => {
                self.left.delays -= 1;
                self.without_answer_now(process, index, true);
            }
            Action::Delay(index) => {
                self.left.delays -= 1;
                let mail = self.mail.remove(index);
                self.late.push(Late::Mail(mail));
            }
            Action::LoseEvent(process, index) => {
                self.left.losses -= 1;
                self.without_answer_now(process, index, false);
            }
            Action::LoseMail(index) => {
                self.left.losses -= 1;
                self.mail.remove(index);
            }
            Action::DoubleEvent(process, index) => {
                self.left.doubles -= 1;
                if let Some(At::Transport(TransportRequest::Append { envelope, .. })) =
                    self.call(process, index).map(|call| &call.at)
                {
                    let late = Late::Event(process, self.start_of(process), envelope.clone());
                    self.late.push(late);
                }
                self.go_on(process, index);
            }
            Action::DoubleMail(index) => {
                self.left.doubles -= 1;
                let copy = self.mail[index].clone();
                self.late.push(Late::Mail(copy));
            }
            Action::Late(index) => match self.late.remove(index) {
                Late::Commit(commit) => {
                    let _ = self.execute_store(&StoreRequest::Commit(commit));
                }
                Late::Event(_, _, envelope) => self.append(envelope),
                Late::Mail(mail) => self.mail.push(mail),
            },
            Action::Pause(ms) => {
                Budget::spend(&mut self.left.pauses, &mut self.left.expiries);
                self.now += ms;
            }
        }
    }

    /// A late commit that would be refused now is refused for ever.
    fn forget_what_cannot_happen(&mut self) {
        if self.late.is_empty() {
            return;
        }
        let shard = self.store.applied().shard(ShardId(0)).copied();
        self.late.retain(|late| match (late, &shard) {
            (Late::Commit(commit), Some(shard)) => {
                commit.epoch == shard.epoch && commit.seq > shard.commit_seq
            }
            _ => true,
        });
    }

    fn call(&self, process: Process, index: usize) -> Option<&Call> {
        match process {
            Process::Coordinator(at) => self.coordinators[at].process.as_ref()?.calls.get(index),
            Process::Worker(at) => self.workers[at].process.as_ref()?.calls.get(index),
        }
    }

    fn calls_mut(&mut self, process: Process) -> Option<&mut Vec<Call>> {
        Some(match process {
            Process::Coordinator(at) => &mut self.coordinators[at].process.as_mut()?.change().calls,
            Process::Worker(at) => &mut self.workers[at].process.as_mut()?.change().calls,
        })
    }

    pub(super) fn start_of(&self, process: Process) -> u32 {
        match process {
            Process::Coordinator(at) => self.coordinators[at].starts,
            Process::Worker(at) => self.workers[at].starts,
        }
    }

    fn append(&mut self, envelope: Arc<Envelope>) {
        let request = TransportRequest::Append {
            stream: SHARD,
            envelope,
        };
        let _ = self.execute_transport(&request);
    }

    /// A call happens, or its answer arrives.
    fn go_on(&mut self, process: Process, index: usize) {
        let Some(calls) = self.calls_mut(process) else {
            return;
        };
        let call = calls.remove(index);
        let two_steps = is_two_steps(&call.at);
        let (op, done) = match call.at {
            At::Store(request) => {
                let result = self.execute_store(&request);
                // Of a commit nothing but its answer is left; a read is held against what was asked.
                let asked = matches!(request, StoreRequest::ReadGrants { .. }).then_some(request);
                (call.op, At::StoreDone(result, asked))
            }
            At::Transport(request) => {
                let envelope = match &request {
                    TransportRequest::Append { envelope, .. } => Some(envelope.clone()),
                    _ => None,
                };
                let Some(result) = self.execute_transport(&request) else {
                    return;
                };
                (call.op, At::TransportDone(result, envelope))
            }
            done => (call.op, done),
        };
        if two_steps {
            if let Some(calls) = self.calls_mut(process) {
                calls.insert(index, Call { op, at: done });
            }
            return;
        }
        match done {
            At::StoreDone(result, asked) => {
                self.watch_looked(process, &result, asked.as_ref());
                let before = self.calls(process).len();
                self.answer(process, op, Answer::Store(result.clone()));
                self.watch_accepted(process, before, &result, asked.as_ref());
            }
            At::TransportDone(result, envelope) => {
                self.watch_confirmed(process, result.is_ok(), envelope.as_deref());
                self.answer(process, op, Answer::Transport(result));
            }
            At::Store(_) | At::Transport(_) => {}
        }
    }

    fn without_answer_now(&mut self, process: Process, index: usize, may_come_late: bool) {
        let start = self.start_of(process);
        let Some(calls) = self.calls_mut(process) else {
            return;
        };
        let call = calls.remove(index);
        match call.at {
            At::Store(StoreRequest::Commit(commit)) => {
                self.late.push(Late::Commit(commit));
                let answer = Answer::Store(Err(no_answer("commit")));
                self.answer(process, call.op, answer);
            }
            At::Transport(TransportRequest::Append { envelope, .. }) => {
                if may_come_late {
                    self.late.push(Late::Event(process, start, envelope));
                }
                let answer = Answer::Transport(Err(no_answer("append")));
                self.answer(process, call.op, answer);
            }
            _ => {}
        }
    }

    /// A process reads at most `take` entries of a stream.
    fn read(&mut self, process: Process, of: Stream, take: u32) {
        let Some(calls) = self.calls_mut(process) else {
            return;
        };
        let reads = |call: &Call| matches!(&call.at, At::Transport(TransportRequest::Read { stream, .. }) if *stream == of);
        let Some(index) = calls.iter().position(reads) else {
            return;
        };
        let call = calls.remove(index);
        let At::Transport(TransportRequest::Read { stream, from, .. }) = call.at else {
            return;
        };
        let request = TransportRequest::Read {
            stream,
            from,
            limit: take,
            wait_ms: 0,
        };
        if let Some(result) = self.execute_transport(&request) {
            self.watch_read(process, &result);
            self.answer(process, call.op, Answer::Transport(result));
        }
    }

    fn read_inbox(&mut self, at: usize, take: usize) {
        let own = inbox_of_worker(at);
        let taken: Vec<usize> = self.mail_of(at).take(take).collect();
        for index in taken {
            let request = TransportRequest::Append {
                stream: own,
                envelope: self.mail[index].envelope.clone(),
            };
            let _ = self.execute_transport(&request);
        }
        let mut left = take;
        self.mail.retain(|mail: &Mail| {
            let goes = mail.stream == own && left > 0;
            left -= usize::from(goes);
            !goes
        });
        self.read(Process::Worker(at), own, u32::MAX);
    }

    fn wake(&mut self, process: Process) {
        match process {
            Process::Coordinator(at) => self.feed_coordinator(at, coordinator::Input::Wake),
            Process::Worker(at) => self.feed_worker(at, worker::Input::Wake),
        }
    }

    fn cancel(&mut self) {
        let body = Body::CancelTask(CancelTask {
            reason: Arc::from(""),
            grace_ms: None,
            inbox: 0,
        });
        let envelope = client(&self.task, body);
        self.append(envelope);
    }

    fn crash(&mut self, process: Process, arrives: bool) {
        let start = self.start_of(process);
        let calls = self.calls_mut(process).map(std::mem::take);
        for call in calls.unwrap_or_default() {
            match call.at {
                At::Store(StoreRequest::Commit(commit)) => {
                    self.late.push(Late::Commit(commit));
                }
                At::Transport(TransportRequest::Append { envelope, .. }) => {
                    self.late.push(Late::Event(process, start, envelope));
                }
                _ => {}
            }
        }
        match process {
            Process::Coordinator(at) => {
                Budget::spend(&mut self.left.coordinator_crashes, &mut self.left.crashes);
                self.coordinators[at].process = None;
                if !arrives {
                    self.mail.retain(|mail| mail.from != process);
                }
            }
            Process::Worker(at) => {
                Budget::spend(&mut self.left.worker_crashes, &mut self.left.crashes);
                self.workers[at].process = None;
                if self.left.restarts == 0 {
                    let own = inbox_of_worker(at);
                    self.mail.retain(|mail| mail.stream != own);
                    self.late
                        .retain(|late| !matches!(late, Late::Mail(mail) if mail.stream == own));
                }
            }
        }
    }
}

/// A request of the client.
pub(super) fn client(task: &flowkit_core::id::TaskId, body: Body) -> Arc<Envelope> {
    let sender = Sender {
        role: SenderRole::Client,
        id: Arc::from("client"),
        incarnation: flowkit_core::id::Incarnation(0),
    };
    let mut envelope = Envelope::new(sender, 0, body);
    envelope.task_id = Some(task.clone());
    envelope.corr_id = Some(Arc::from("1"));
    Arc::new(envelope.identified(0))
}
