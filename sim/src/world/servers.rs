//! The two servers carry out what reaches them.

use std::rc::Rc;
use std::sync::Arc;

use flowkit_core::id::OpId;
use flowkit_core::message::Envelope;
use flowkit_core::port::{
    Commit, ErrorKind, PortError, Record, StoreReply, StoreRequest, Stream, TransportReply,
    TransportRequest,
};
use flowkit_memory::Outcome;

use super::World;
use super::heap::{Back, BrokerCall, Due, Given, StoreCall};
use super::observer::CommitSeen;
use crate::history::{Place, What};
use crate::ledger::Fact;
use crate::plan::{Fault, Server};

/// A read that waits at the broker.
#[derive(Debug)]
pub(super) struct Parked {
    call: BrokerCall,
    stream: Stream,
}

/// The store's clock shows this at the start of a run.
const STORE_START_MS: u64 = 5_000_000;

impl World<'_> {
    fn store_ms(&self) -> u64 {
        (STORE_START_MS + self.now / 1_000).saturating_add_signed(self.store_ahead_ms)
    }

    /// A reply that meets a partition on its way is lost; the driver gives up at its timeout.
    fn back(&mut self, from: Place, server: Server, back: Back) -> Option<u64> {
        let Back::After(after) = back else {
            return None;
        };
        let host = &self.hosts[from.host as usize];
        if host.generation != from.generation {
            return None;
        }
        if host.cut(self.now, server, true) || self.away[server as usize] > self.now {
            self.seen.fire("partition_replies");
            return None;
        }
        Some(self.now + after)
    }

    fn lost_on_the_way(&self) -> (u64, PortError) {
        let at = self.now + self.plan.world.call_timeout_ms * 1_000;
        (
            at,
            PortError::new(ErrorKind::Unknown, "call", "no reply in time"),
        )
    }

    pub(super) fn store_call(&mut self, call: StoreCall) {
        let StoreCall {
            from,
            op,
            request,
            back,
        } = call;
        let result = match request {
            StoreRequest::Commit(commit) => self.commit(from, Arc::unwrap_or_clone(commit)),
            request => self.other(from, &request),
        };
        if let Back::After(_) = back {
            let (at, result) = match self.back(from, Server::Store, back) {
                Some(at) => (at, result),
                None => {
                    let (at, error) = self.lost_on_the_way();
                    (at, Err(error))
                }
            };
            self.heap
                .push(at, Due::Give(from, Given::Store(op, result)));
        }
    }

    fn commit(&mut self, from: Place, commit: Commit) -> Result<StoreReply, PortError> {
        let host = from.host;
        let embedded_dead =
            self.plan.world.embedded && self.hosts[host as usize].generation != from.generation;
        if embedded_dead
            || (self.plan.world.embedded && self.hosts[host as usize].process.is_none())
        {
            // The store died with the process that asked.
            return Err(PortError::new(ErrorKind::Unknown, "commit", "dead"));
        }
        self.commits += 1;
        let (shard, epoch, seq, next) = (commit.shard, commit.epoch, commit.seq, commit.next);
        let stored = self.store.applied().shard(shard).copied();
        let fresh =
            stored.is_some_and(|stored| stored.commit_seq + 1 == seq && stored.epoch == epoch);
        if fresh && self.refuses(&commit) {
            self.note(What::Refused {
                host,
                kind: ErrorKind::Invalid,
                epoch,
                seq,
            });
            return Err(PortError::new(ErrorKind::Invalid, "commit", "simulated"));
        }
        let facts: Vec<Fact> = if fresh {
            commit.records.iter().map(Fact::of).collect()
        } else {
            Vec::new()
        };
        let result = self.store.commit(self.store_ms(), commit);
        match &result {
            Ok(_) if fresh => {
                let seen = CommitSeen {
                    host,
                    epoch,
                    seq,
                    next,
                    facts,
                };
                self.seen
                    .committed(self.now, seen, self.plan.world.embedded);
            }
            Ok(_) => self.seen.fire("commit_repeated"),
            Err(error) => {
                self.seen.fire(match error.kind {
                    ErrorKind::Fenced => "commit_fenced",
                    ErrorKind::Conflict => "commit_conflict",
                    _ => "commit_refused",
                });
                self.note(What::Refused {
                    host,
                    kind: error.kind,
                    epoch,
                    seq,
                });
            }
        }
        result
    }

    /// Whether a fault of the plan makes the store refuse this commit.
    fn refuses(&mut self, commit: &Commit) -> bool {
        let mut family = None;
        for fault in &self.plan.faults {
            match fault {
                Fault::RefuseCommit { nth } if *nth == self.commits => {
                    family = Some("refuse_commit");
                }
                Fault::RefuseBatches { task, node } => {
                    let id = &self.plan.tasks[*task as usize].id;
                    let hit = commit.records.iter().any(|record| {
                        matches!(record, Record::Artifact(artifact)
                            if artifact.task_id.as_str() == id && artifact.node_id.as_str() == node)
                    });
                    if hit {
                        family = Some("refuse_batches");
                    }
                }
                Fault::RefuseTask { task } => {
                    let id = &self.plan.tasks[*task as usize].id;
                    let hit = commit.records.iter().any(|record| {
                        matches!(record, Record::Task(task) if task.task_id.as_str() == id)
                    });
                    if hit {
                        family = Some("refuse_task");
                    }
                }
                _ => {}
            }
        }
        if let Some(family) = family {
            self.seen.fire(family);
        }
        family.is_some()
    }

    fn other(&mut self, from: Place, request: &StoreRequest) -> Result<StoreReply, PortError> {
        if self.plan.world.embedded && self.hosts[from.host as usize].generation != from.generation
        {
            return Err(PortError::new(ErrorKind::Unknown, "store", "dead"));
        }
        let result = self.store.apply(self.store_ms(), request);
        if self.plan.world.embedded {
            // A durable write of its own carries every commit before it along.
            let seq = self.synced_seq();
            self.seen.ledger.synced(seq);
        }
        match (request, &result) {
            (StoreRequest::RaiseEpoch { shard, .. }, Ok(StoreReply::Shard(record))) => {
                let (shard, epoch) = (*shard, record.epoch);
                self.note(What::EpochRaised {
                    host: from.host,
                    shard,
                    epoch,
                });
                let seq = self.synced_seq();
                self.seen.ledger.synced(seq);
            }
            (StoreRequest::Sync { .. }, Ok(_)) => {
                let seq = self.synced_seq();
                self.seen.ledger.synced(seq);
            }
            (StoreRequest::RegisterWorker { worker_id, .. }, Ok(StoreReply::Registered(n))) => {
                let incarnation = *n;
                self.registered(from, incarnation);
                self.note(What::Registered {
                    place: from,
                    worker: worker_id.clone(),
                    incarnation,
                });
            }
            (StoreRequest::ReadGrants { nodes, .. }, Ok(_)) if !nodes.is_empty() => {
                let nodes: Rc<[_]> = Rc::from(nodes.as_slice());
                self.note(What::GrantsRead { place: from, nodes });
            }
            _ => {}
        }
        result
    }

    pub(super) fn broker_call(&mut self, call: BrokerCall) {
        if self.plan.world.embedded
            && self.hosts[call.from.host as usize].generation != call.from.generation
        {
            return;
        }
        if let TransportRequest::Append { stream, envelope } = &call.request {
            let (stream, envelope) = (*stream, envelope.clone());
            let reply = self.append(stream, envelope);
            self.answer_broker(call.from, call.op, call.back, reply);
            return;
        }
        match self.broker.apply(self.store_ms(), &call.request) {
            Outcome::Done(result) => self.answer_broker(call.from, call.op, call.back, result),
            Outcome::Wait => {
                if let TransportRequest::Read {
                    stream, wait_ms, ..
                } = call.request
                {
                    let parked = self.next_number();
                    let until = self.now + wait_ms * 1_000;
                    self.parked.insert(parked, Parked { call, stream });
                    self.heap.push(until, Due::ReadExpires { parked });
                }
            }
        }
    }

    fn answer_broker(
        &mut self,
        from: Place,
        op: OpId,
        back: Back,
        result: Result<TransportReply, PortError>,
    ) {
        if let Back::After(_) = back {
            let (at, result) = match self.back(from, Server::Broker, back) {
                Some(at) => (at, result),
                None => {
                    let (at, error) = self.lost_on_the_way();
                    (at, Err(error))
                }
            };
            self.heap
                .push(at, Due::Give(from, Given::Transport(op, result)));
        }
    }

    pub(super) fn read_expires(&mut self, parked: u64) {
        if let Some(parked) = self.parked.remove(&parked) {
            let TransportRequest::Read { from, .. } = parked.call.request else {
                return;
            };
            let empty = TransportReply::Entries {
                entries: Vec::new(),
                next: from,
            };
            self.answer_broker(
                parked.call.from,
                parked.call.op,
                parked.call.back,
                Ok(empty),
            );
        }
    }

    /// A message comes to stand in a stream.
    pub(super) fn append(
        &mut self,
        stream: Stream,
        envelope: Arc<Envelope>,
    ) -> Result<TransportReply, PortError> {
        let request = TransportRequest::Append {
            stream,
            envelope: envelope.clone(),
        };
        let result = match self.broker.apply(self.store_ms(), &request) {
            Outcome::Done(result) => result,
            Outcome::Wait => Err(PortError::new(ErrorKind::Retry, "append", "busy")),
        };
        if let Ok(TransportReply::Appended { offset }) = &result {
            self.note(What::Appended {
                stream,
                offset: *offset,
                envelope: envelope.clone(),
            });
            self.wake_readers(stream);
            if matches!(stream, Stream::Inbox(_)) {
                self.reply_appended(&envelope);
            }
        }
        result
    }

    /// Reads that wait at the end of a stream are answered.
    pub(super) fn wake_readers(&mut self, stream: Stream) {
        let waiting: Vec<u64> = self
            .parked
            .iter()
            .filter(|(_, parked)| parked.stream == stream)
            .map(|(number, _)| *number)
            .collect();
        for number in waiting {
            if let Some(parked) = self.parked.remove(&number) {
                let call = parked.call;
                match self.broker.apply(self.store_ms(), &call.request) {
                    Outcome::Done(result) => {
                        self.answer_broker(call.from, call.op, call.back, result);
                    }
                    Outcome::Wait => {
                        self.parked.insert(number, Parked { call, stream });
                    }
                }
            }
        }
    }
}
