//! The two servers carry out what reaches them.

use std::sync::Arc;

use flowkit_core::id::OpId;
use flowkit_core::message::Envelope;
use flowkit_core::port::{
    ErrorKind, PortError, StoreReply, StoreRequest, Stream, TransportReply, TransportRequest,
};
use flowkit_memory::Outcome;

use super::World;
use super::calls::away_family;
use super::heap::{Back, BrokerCall, Due, Given, StoreCall};
use crate::history::Place;
use crate::plan::Server;

/// A read that waits at the broker.
#[derive(Debug)]
pub(super) struct Parked {
    call: BrokerCall,
    stream: Stream,
}

impl World<'_> {
    /// A reply that meets a partition on its way is lost; the driver gives up at its timeout.
    fn back(&mut self, from: Place, server: Server, back: Back) -> Option<u64> {
        let Back::After(after) = back else {
            return None;
        };
        let host = &self.hosts[from.host as usize];
        if host.generation != from.generation {
            return None;
        }
        let away = self.away[server as usize] > self.now;
        let cut = host.cut(self.now, server, true);
        let cut = cut.map(|lost| lost.family(server));
        if let Some(family) = cut.or(away.then(|| away_family(server))) {
            self.seen.fire(family);
            return None;
        }
        let held_until = host.held_until(server);
        let late = held_until > self.now + self.plan.world.call_timeout_ms * 1_000;
        (!late).then(|| (self.now + after).max(held_until))
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
            commits,
            back,
        } = call;
        if let StoreRequest::Sync { .. } = request {
            self.servers.store.sync_covers(commits);
        }
        let result = if self.dead_with_its_store(from) {
            Err(PortError::new(ErrorKind::Unknown, "store", "dead"))
        } else {
            self.servers.store(self.now, from, request, &mut self.seen)
        };
        if let Ok(StoreReply::Registered(incarnation)) = &result {
            self.registered(from, *incarnation);
        }
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

    /// The store died with the process that asked.
    fn dead_with_its_store(&self, from: Place) -> bool {
        let host = &self.hosts[from.host as usize];
        self.plan.world.embedded && (host.generation != from.generation || host.process.is_none())
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
        match self.servers.broker(self.now, &call.request, &mut self.seen) {
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
        let result = self
            .servers
            .append(self.now, stream, &envelope, &mut self.seen);
        if result.is_ok() {
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
                match self.servers.broker(self.now, &call.request, &mut self.seen) {
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
