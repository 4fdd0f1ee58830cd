//! What may happen next.

use flowkit_core::id::Offset;
use flowkit_core::message::Body;
use flowkit_core::port::{StoreRequest, Stream, TransportRequest};
use flowkit_core::time::Mono;
use flowkit_core::worker::RunId;

use super::handler::Move;
use super::{At, Call, Late, Process, SHARD, World, inbox_of_worker};

/// Waiting longer than this is no waiting: what is due by then is no part of a scope.
pub(crate) const WAIT_MAX_MS: u64 = 3_600_000;

/// One thing that may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A call of a process happens, or its answer arrives.
    Call(Process, usize),
    /// A coordinator folds so many entries of the stream.
    Fetch(usize, u32),
    /// A coordinator reads the announcements.
    Announcements(usize),
    /// A worker reads so many messages of its inbox.
    Inbox(usize, usize),
    /// A handler makes a move.
    Handler(usize, RunId, Moved),
    /// A timer of a process is due.
    Wake(Process),
    /// Nothing else is to be done: time passes until the next timer is due.
    TimePasses,
    /// The client cancels the task.
    Cancel,
    /// A process dies. What it sent and nobody has read yet arrives, or is lost with it.
    Crash(Process, bool),
    /// A worker's process is started again.
    Restart(usize),
    /// The lease on the shard lapses, and the next coordinator is started.
    TakeOver(usize),
    /// A call gets no answer; it happens later, or never.
    NoAnswer(Process, usize),
    /// A message to a worker arrives later, or never.
    Delay(usize),
    /// An event is lost, and its sender has no answer.
    LoseEvent(Process, usize),
    /// A message to a worker is lost.
    LoseMail(usize),
    /// A message is sent twice; its copy arrives later, or never.
    DoubleEvent(Process, usize),
    /// A message to a worker is sent twice; its copy arrives later, or never.
    DoubleMail(usize),
    /// Something without an answer happens after all.
    Late(usize),
    /// So much time passes, and everything under way stays where it is.
    Pause(u64),
}

/// What a handler does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moved(pub(crate) Move);

/// The answer may be overtaken by other things, so that it arrives outdated.
pub(super) fn is_two_steps(at: &At) -> bool {
    match at {
        At::Store(request) => matches!(
            request,
            StoreRequest::Commit(_) | StoreRequest::ReadGrants { .. }
        ),
        At::Transport(TransportRequest::Append { envelope, .. }) => !matches!(
            envelope.body,
            Body::BatchOk(_) | Body::TaskRefused(_) | Body::SlotFree
        ),
        At::Transport(_) => true,
        At::StoreDone(..) | At::TransportDone(..) => false,
    }
}

fn is_event(call: &Call) -> bool {
    matches!(&call.at, At::Transport(TransportRequest::Append { .. }))
}

impl World {
    pub(super) fn calls(&self, process: Process) -> &[Call] {
        match process {
            Process::Coordinator(at) => self.coordinators[at]
                .process
                .as_ref()
                .map_or(&[][..], |owner| &owner.calls),
            Process::Worker(at) => self.workers[at]
                .process
                .as_ref()
                .map_or(&[][..], |hand| &hand.calls),
        }
    }

    /// The processes that live.
    pub(super) fn processes(&self) -> impl Iterator<Item = Process> {
        let coordinators = self.coordinators.iter().enumerate();
        let coordinators = coordinators.filter(|(_, seat)| seat.process.is_some());
        let workers = self.workers.iter().enumerate();
        let workers = workers.filter(|(_, seat)| seat.process.is_some());
        coordinators
            .map(|(at, _)| Process::Coordinator(at))
            .chain(workers.map(|(at, _)| Process::Worker(at)))
    }

    pub(super) fn due(&self, process: Process) -> Option<Mono> {
        match process {
            Process::Coordinator(at) => self.coordinators[at]
                .process
                .as_ref()?
                .machine
                .poll_timeout(),
            Process::Worker(at) => self.workers[at].process.as_ref()?.machine.poll_timeout(),
        }
    }

    /// What goes on by itself, without any fault.
    pub(crate) fn ordinary(&self, out: &mut Vec<Action>) {
        for process in self.processes() {
            self.ordinary_of(process, out);
        }
        // Without an owner only a worker's regular looks would go on, for ever.
        let owned = self.coordinators.iter().any(|seat| seat.process.is_some());
        if out.is_empty() && owned && !self.is_settled() && self.next_timer().is_some() {
            out.push(Action::TimePasses);
        }
    }

    fn ordinary_of(&self, process: Process, out: &mut Vec<Action>) {
        let mut sent = false;
        let mut confirmed = false;
        for (index, call) in self.calls(process).iter().enumerate() {
            match &call.at {
                At::Transport(TransportRequest::Read { stream, from, .. }) => {
                    self.reads(process, *stream, *from, out);
                }
                // In order, and so are the answers.
                At::Transport(TransportRequest::Append { .. }) => {
                    if !std::mem::replace(&mut sent, true) {
                        out.push(Action::Call(process, index));
                    }
                }
                At::TransportDone(_, Some(_)) => {
                    if !std::mem::replace(&mut confirmed, true) {
                        out.push(Action::Call(process, index));
                    }
                }
                _ => out.push(Action::Call(process, index)),
            }
        }
        if let Process::Worker(at) = process
            && let Some(hand) = &self.workers[at].process
        {
            for (run, handler) in &hand.handlers {
                for made in handler.moves(self.scope.obeys_at_once) {
                    out.push(Action::Handler(at, *run, Moved(made)));
                }
            }
        }
        if self.due(process).is_some_and(|at| at.0 <= self.now) {
            out.push(Action::Wake(process));
        }
    }

    fn reads(&self, process: Process, stream: Stream, from: Offset, out: &mut Vec<Action>) {
        match process {
            Process::Coordinator(at) => {
                let there = self.end(stream).saturating_sub(from.0);
                if stream == SHARD {
                    let there = u32::try_from(there).unwrap_or(u32::MAX);
                    out.extend((1..=there).map(|take| Action::Fetch(at, take)));
                } else if there > 0 {
                    out.push(Action::Announcements(at));
                }
            }
            Process::Worker(at) => {
                let waiting = self.mail_of(at).count();
                out.extend((1..=waiting).map(|take| Action::Inbox(at, take)));
            }
        }
    }

    pub(super) fn mail_of(&self, worker: usize) -> impl Iterator<Item = usize> {
        let own = inbox_of_worker(worker);
        let all = self.mail.iter().enumerate();
        all.filter(move |(_, mail)| mail.stream == own)
            .map(|(at, _)| at)
    }

    /// When the next timer of anybody is due, if that is worth waiting for.
    pub(super) fn next_timer(&self) -> Option<u64> {
        let next = self.processes().filter_map(|process| self.due(process));
        let next = next.min()?.0;
        (next <= self.now + WAIT_MAX_MS).then_some(next)
    }

    /// Everything that may happen next.
    #[must_use]
    pub fn actions(&self) -> Vec<Action> {
        let mut out = Vec::new();
        if self.broken.is_some() {
            return out;
        }
        self.ordinary(&mut out);
        let left = self.left;
        if left.cancels > 0 {
            out.push(Action::Cancel);
        }
        self.late_ones(&mut out);
        self.starts(&mut out);
        // What nobody waits for any more cannot go wrong.
        if self.is_settled() {
            return out;
        }
        if left.delays > 0 {
            self.without_answer(&mut out);
            out.extend((0..self.mail.len()).map(Action::Delay));
        }
        if left.doubles > 0 {
            for process in self.processes() {
                let first = self.next_event(process);
                out.extend(first.map(|at| Action::DoubleEvent(process, at)));
            }
            out.extend((0..self.mail.len()).map(Action::DoubleMail));
        }
        if left.losses > 0 {
            for process in self.processes() {
                out.extend(
                    self.next_event(process)
                        .map(|at| Action::LoseEvent(process, at)),
                );
            }
            out.extend((0..self.mail.len()).map(Action::LoseMail));
        }
        if left.pause() {
            let pauses = self.scope.pauses_ms.iter();
            let pauses = pauses.filter(|ms| left.pauses > 0 || self.lapses_within(**ms));
            out.extend(pauses.map(|ms| Action::Pause(*ms)));
        }
        self.crashes(&mut out);
        out
    }

    fn late_ones(&self, out: &mut Vec<Action>) {
        let mut senders = Vec::new();
        for (index, late) in self.late.iter().enumerate() {
            if let Late::Event(process, start, _) = late {
                if senders.contains(&(process, start)) {
                    continue;
                }
                senders.push((process, start));
            }
            out.push(Action::Late(index));
        }
    }

    fn starts(&self, out: &mut Vec<Action>) {
        if self.left.restarts > 0 {
            for (at, seat) in self.workers.iter().enumerate() {
                if seat.process.is_none() && seat.starts > 0 {
                    out.push(Action::Restart(at));
                }
            }
        }
        let unowned = self.coordinators.iter().all(|seat| seat.process.is_none());
        let next = self.coordinators.iter().position(|seat| seat.starts == 0);
        if let Some(next) = next
            && (unowned || self.left.takeover())
        {
            out.push(Action::TakeOver(next));
        }
    }

    /// Somebody must run the engine: if all coordinators, or all workers, are dead, one is started.
    pub(crate) fn replaces_the_dead(&self) -> Option<Action> {
        let mut starts = Vec::new();
        self.starts(&mut starts);
        let no_owner = self.coordinators.iter().all(|seat| seat.process.is_none());
        let no_worker = self.workers.iter().all(|seat| seat.process.is_none());
        starts.into_iter().find(|action| match action {
            Action::TakeOver(_) => no_owner,
            _ => no_worker,
        })
    }

    /// The lease of a run on a worker that lives ends within so much time.
    fn lapses_within(&self, ms: u64) -> bool {
        let hands = self.workers.iter().filter_map(|seat| seat.process.as_ref());
        let mut leases = hands.flat_map(|hand| hand.leases.values());
        leases.any(|lease| self.now < lease.until.0 && lease.until.0 <= self.now + ms)
    }

    /// The call with the next event that a process sends.
    fn next_event(&self, process: Process) -> Option<usize> {
        self.calls(process).iter().position(is_event)
    }

    fn without_answer(&self, out: &mut Vec<Action>) {
        for process in self.processes() {
            let mut sent = false;
            for (index, call) in self.calls(process).iter().enumerate() {
                let may = match &call.at {
                    At::Store(request) => matches!(request, StoreRequest::Commit(_)),
                    At::Transport(TransportRequest::Append { .. }) => {
                        !std::mem::replace(&mut sent, true)
                    }
                    _ => false,
                };
                if may {
                    out.push(Action::NoAnswer(process, index));
                }
            }
        }
    }

    fn crashes(&self, out: &mut Vec<Action>) {
        let living = |at: usize| self.workers[at].process.is_some();
        if self.left.crash_of_worker() {
            for at in (0..self.workers.len()).filter(|at| living(*at)) {
                let others = (0..self.workers.len()).any(|other| other != at && living(other));
                if others || self.left.restarts > 0 {
                    out.push(Action::Crash(Process::Worker(at), true));
                }
            }
        }
        if self.left.crash_of_coordinator() {
            let successor = self.coordinators.iter().any(|seat| seat.starts == 0);
            for (at, seat) in self.coordinators.iter().enumerate() {
                if seat.process.is_none() {
                    continue;
                }
                let superseded = self.coordinators[at + 1..]
                    .iter()
                    .any(|later| later.process.is_some());
                if !successor && !superseded {
                    continue;
                }
                let process = Process::Coordinator(at);
                let unread = self.mail.iter().any(|mail| mail.from == process);
                out.push(Action::Crash(process, true));
                if unread {
                    out.push(Action::Crash(process, false));
                }
            }
        }
    }
}
