//! The unconfirmed events of one run, in order, numbered from 1.
//!
//! Sends are pipelined. When one fails, it and all later ones are sent again in order, with the
//! same seq and identity, even those that were confirmed: an event leaves the queue only when
//! every earlier one has.

use serde::Serialize;
use std::collections::VecDeque;

use crate::id::OpId;
use crate::message::Envelope;

/// Unconfirmed events at which a run stops drawing batches.
pub(super) const UNCONFIRMED_MAX: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
enum State {
    Waiting,
    InFlight(OpId),
    Confirmed,
}

#[derive(Clone, Debug, Serialize)]
struct Event {
    seq: u64,
    envelope: Envelope,
    state: State,
}

/// The outgoing events of one run.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Outgoing {
    last_seq: u64,
    queue: VecDeque<Event>,
    /// Nothing is sent until the timer that ends this wait.
    waiting: bool,
    /// Failures in a row.
    failures: u32,
    /// The newest event ends the run.
    terminal: bool,
    /// The terminal event, once it and all before it are confirmed.
    settled: Option<Box<Envelope>>,
}

impl Outgoing {
    /// The number that the next event will have.
    pub(super) const fn next_seq(&self) -> u64 {
        self.last_seq + 1
    }

    /// Queues an event whose seq is [`Self::next_seq`].
    pub(super) fn push(&mut self, envelope: Envelope, terminal: bool) {
        assert!(!self.terminal, "nothing follows a terminal event");
        assert_eq!(envelope.seq, Some(self.next_seq()));
        self.last_seq += 1;
        self.terminal = terminal;
        self.queue.push_back(Event {
            seq: self.last_seq,
            envelope,
            state: State::Waiting,
        });
    }

    /// The next event to send, if sending is not held back.
    pub(super) fn next_to_send(&self) -> Option<(u64, &Envelope)> {
        if self.waiting {
            return None;
        }
        self.queue
            .iter()
            .find(|event| event.state == State::Waiting)
            .map(|event| (event.seq, &event.envelope))
    }

    pub(super) fn sent(&mut self, seq: u64, op: OpId) {
        if let Some(event) = self.queue.iter_mut().find(|event| event.seq == seq) {
            event.state = State::InFlight(op);
        }
    }

    /// The event with this seq is in the stream. Answers of an earlier round are ignored.
    pub(super) fn confirmed(&mut self, seq: u64, op: OpId) {
        if let Some(event) = self.in_flight(seq, op) {
            event.state = State::Confirmed;
            self.failures = 0;
        }
        while let Some(event) = self
            .queue
            .pop_front_if(|event| event.state == State::Confirmed)
        {
            if self.terminal && event.seq == self.last_seq {
                self.settled = Some(Box::new(event.envelope));
            }
        }
    }

    /// The event may not be in the stream: it and all later ones wait to be sent again. Returns the
    /// number of failures in a row, or `None` if the answer is of an earlier round.
    pub(super) fn failed(&mut self, seq: u64, op: OpId) -> Option<u32> {
        self.in_flight(seq, op)?;
        for event in self.queue.iter_mut().filter(|event| event.seq >= seq) {
            event.state = State::Waiting;
        }
        self.waiting = true;
        self.failures += 1;
        Some(self.failures)
    }

    /// The wait after a failure is over.
    pub(super) fn resume(&mut self) {
        self.waiting = false;
    }

    /// Whether the event of this answer is the terminal one; `None` if the answer is of an earlier
    /// round.
    pub(super) fn is_terminal(&mut self, seq: u64, op: OpId) -> Option<bool> {
        self.in_flight(seq, op)?;
        Some(self.terminal && seq == self.last_seq)
    }

    /// Takes back the event with this seq and all later ones: they can never be sent.
    pub(super) fn take_back(&mut self, seq: u64) {
        self.queue.retain(|event| event.seq < seq);
        self.last_seq = seq - 1;
        self.terminal = false;
    }

    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    /// The run's end was sent.
    pub(super) const fn has_terminal(&self) -> bool {
        self.terminal
    }

    /// The terminal event, if it and all before it are confirmed.
    pub(super) const fn settled(&self) -> Option<&Envelope> {
        match &self.settled {
            Some(envelope) => Some(envelope),
            None => None,
        }
    }

    fn in_flight(&mut self, seq: u64, op: OpId) -> Option<&mut Event> {
        self.queue
            .iter_mut()
            .find(|event| event.seq == seq && event.state == State::InFlight(op))
    }

    pub(super) fn check_invariants(&self) {
        let first = self.last_seq + 1 - self.queue.len() as u64;
        for (event, seq) in self.queue.iter().zip(first..) {
            assert_eq!(event.seq, seq, "seq is contiguous");
            assert_eq!(event.envelope.seq, Some(seq));
        }
        assert!(
            self.queue.len() <= UNCONFIRMED_MAX + 2,
            "events are bounded"
        );
    }
}
