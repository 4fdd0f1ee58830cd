//! The network between processes and servers: latency, loss, late and lost replies.

use flowkit_core::id::OpId;
use flowkit_core::port::{ErrorKind, PortError, StoreRequest, TransportRequest};

use super::heap::{Back, BrokerCall, Due, Given, StoreCall};
use super::{Luck, World};
use crate::dice::Dice;
use crate::history::Place;
use crate::plan::{Call, CallKind, LATE_TIMEOUTS_MAX, Rates, Server};

/// What the network does to one call.
struct Fate {
    /// When the request arrives; `None` = never.
    arrives: Option<u64>,
    /// How its reply travels.
    back: Back,
    /// What the caller is told if no reply reaches it in time.
    told: Option<(u64, ErrorKind)>,
}

/// The family that a call to a server which answers nobody counts for.
pub(super) const fn away_family(server: Server) -> &'static str {
    match server {
        Server::Store => "store_away",
        Server::Broker => "broker_away",
    }
}

impl World<'_> {
    pub(super) fn rates(&self) -> Rates {
        if self.healed {
            Rates::default()
        } else {
            self.plan.rates
        }
    }

    fn luck(&mut self, from: Place, kind: CallKind) -> (Call, Dice) {
        let host = &mut self.hosts[from.host as usize];
        host.calls[kind as usize] += 1;
        let nth = host.calls[kind as usize];
        let call = Call {
            host: from.host,
            kind,
            nth,
        };
        let key = u64::from(from.host) * 8 + kind as u64;
        (call, self.dice(Luck::Network, key, nth))
    }

    /// Time of one way.
    fn way(&mut self, dice: &mut Dice) -> u64 {
        let world = &self.plan.world;
        let usual = dice.between(world.latency_us_min, world.latency_us_max);
        if !self.healed && dice.permille(world.slow_permille) {
            self.seen.fire("message_slow");
            usual * dice.between(2, 20)
        } else {
            usual
        }
    }

    fn server_delay(&mut self, server: Server, dice: &mut Dice) -> u64 {
        let (until, extra) = self.slow[server as usize];
        if until > self.now {
            self.seen.fire(match server {
                Server::Store => "store_slow",
                Server::Broker => "broker_slow",
            });
            dice.between(0, extra)
        } else {
            0
        }
    }

    /// The way to a server and back, as partitions, windows and latency make it.
    fn fate(&mut self, from: Place, server: Server, dice: &mut Dice, timeout_ms: u64) -> Fate {
        let deadline = self.now + timeout_ms * 1_000;
        let host = &self.hosts[from.host as usize];
        let cut = host.cut(self.now, server, false);
        let cut_back = host.cut(self.now, server, true);
        let away = self.away[server as usize] > self.now;
        if cut.is_some() || away {
            self.seen
                .fire(cut.map_or(away_family(server), |lost| lost.family(server)));
            // A refused connection is known at once; a silent one only after the timeout.
            let told = if dice.permille(500) {
                (self.now + dice.between(1_000, 50_000), ErrorKind::Retry)
            } else {
                (deadline, ErrorKind::Unknown)
            };
            return Fate {
                arrives: None,
                back: Back::Lost,
                told: Some(told),
            };
        }
        let there = self.way(dice) + self.server_delay(server, dice);
        let back = self.way(dice);
        let held_until = self.hosts[from.host as usize].held_until(server);
        let arrives = (self.now + there).max(held_until);
        if held_until > self.now {
            self.seen.fire("hold");
        }
        if let Some(lost) = cut_back {
            self.seen.fire(lost.family(server));
            return Fate {
                arrives: Some(arrives),
                back: Back::Lost,
                told: Some((deadline, ErrorKind::Unknown)),
            };
        }
        if arrives + back > deadline {
            return Fate {
                arrives: Some(arrives),
                back: Back::Lost,
                told: Some((deadline, ErrorKind::Unknown)),
            };
        }
        Fate {
            arrives: Some(arrives),
            back: Back::After(back),
            told: None,
        }
    }

    fn lost(&mut self, fate: &mut Fate, timeout_ms: u64) {
        fate.arrives = None;
        self.reply_lost(fate, timeout_ms);
    }

    fn reply_lost(&mut self, fate: &mut Fate, timeout_ms: u64) {
        fate.back = Back::Lost;
        fate.told = Some((self.now + timeout_ms * 1_000, ErrorKind::Unknown));
    }

    pub(super) fn ask_store(&mut self, from: Place, op: OpId, request: StoreRequest) {
        let (call, mut dice) = self.luck(from, CallKind::Store);
        let named = self.plan.strikes(call);
        let timeout = self.plan.world.call_timeout_ms;
        let mut fate = self.fate(from, Server::Store, &mut dice, timeout);
        if self.plan.world.embedded {
            if let (Some(arrives), StoreRequest::Sync { .. }) = (&mut fate.arrives, &request) {
                let sync = self.plan.world.sync_us;
                *arrives += dice.between(sync / 4, sync * 2);
            }
        } else {
            let rates = self.rates();
            if fate.arrives.is_some() && !rates.is_quiet() {
                if dice.permille(rates.store_refused) && named {
                    self.seen.strike(call, "store_refused");
                    fate.arrives = None;
                    fate.told = Some((self.now + dice.between(500, 20_000), ErrorKind::Retry));
                } else if dice.permille(rates.store_lost) && named {
                    self.seen.strike(call, "store_lost");
                    self.lost(&mut fate, timeout);
                } else if dice.permille(rates.store_reply_lost) && named {
                    self.seen.strike(call, "store_reply_lost");
                    self.reply_lost(&mut fate, timeout);
                } else if dice.permille(rates.store_late) && named {
                    self.seen.strike(call, "store_late");
                    self.reply_lost(&mut fate, timeout);
                    let late = dice.between(timeout, LATE_TIMEOUTS_MAX * timeout) * 1_000;
                    fate.arrives = Some(self.now + late);
                }
            }
        }
        if let Some(arrives) = fate.arrives {
            let call = StoreCall {
                from,
                op,
                request,
                commits: self.servers.store.commits(),
                back: fate.back,
            };
            self.heap.push(arrives, Due::Store(Box::new(call)));
        }
        if let Some((at, kind)) = fate.told {
            let error = Err(PortError::new(kind, "store", "simulated"));
            self.heap.push(at, Due::Give(from, Given::Store(op, error)));
        }
    }

    pub(super) fn ask_broker(&mut self, from: Place, op: OpId, request: TransportRequest) {
        match request {
            TransportRequest::Append { .. } => self.ask_append(from, op, request),
            TransportRequest::Read { .. } => {
                let (call, mut dice) = self.luck(from, CallKind::Read);
                let named = self.plan.strikes(call);
                // However long a read may wait at the broker, a driver asks in slices: that one
                // was lost shows as soon as with any other call.
                let timeout = self.plan.world.call_timeout_ms;
                let mut fate = self.fate(from, Server::Broker, &mut dice, timeout);
                if fate.arrives.is_some() && dice.permille(self.rates().read_lost) && named {
                    self.seen.strike(call, "read_lost");
                    self.lost(&mut fate, timeout);
                }
                self.send_broker(from, op, request, &fate);
            }
            TransportRequest::Bounds { .. } | TransportRequest::Forget { .. } => {
                let (call, mut dice) = self.luck(from, CallKind::Look);
                let named = self.plan.strikes(call);
                let timeout = self.plan.world.call_timeout_ms;
                let mut fate = self.fate(from, Server::Broker, &mut dice, timeout);
                if fate.arrives.is_some() && dice.permille(self.rates().read_lost) && named {
                    self.seen.strike(call, "read_lost");
                    self.lost(&mut fate, timeout);
                }
                self.send_broker(from, op, request, &fate);
            }
        }
    }

    fn ask_append(&mut self, from: Place, op: OpId, request: TransportRequest) {
        let TransportRequest::Append { stream, envelope } = &request else {
            return;
        };
        let (stream, envelope) = (*stream, envelope.clone());
        let (call, mut dice) = self.luck(from, CallKind::Append);
        let named = self.plan.strikes(call);
        let timeout = self.plan.world.call_timeout_ms;
        let mut fate = self.fate(from, Server::Broker, &mut dice, timeout);
        let rates = self.rates();
        let mut overtaken = false;
        if fate.arrives.is_some() && !self.plan.world.embedded && !rates.is_quiet() {
            if dice.permille(rates.append_refused) && named {
                self.seen.strike(call, "append_refused");
                fate.arrives = None;
                fate.told = Some((self.now + dice.between(500, 20_000), ErrorKind::Retry));
            } else if dice.permille(rates.append_lost) && named {
                self.seen.strike(call, "append_lost");
                self.lost(&mut fate, timeout);
            } else if dice.permille(rates.append_overtaken) && named {
                self.seen.call_goes_wrong(call, "append_overtaken");
                overtaken = true;
                let late = dice.between(1_000, 2 * timeout * 1_000);
                if late / 1_000 > timeout {
                    self.reply_lost(&mut fate, timeout);
                }
                fate.arrives = Some(self.now + late);
            } else if dice.permille(rates.confirm_late) && named {
                self.seen.strike(call, "confirm_late");
                if let Back::After(back) = &mut fate.back {
                    *back += dice.between(1_000, timeout * 900);
                }
            } else if dice.permille(rates.confirm_lost) && named {
                self.seen.strike(call, "confirm_lost");
                self.reply_lost(&mut fate, timeout);
            }
            if dice.permille(rates.append_twice) && named {
                self.seen.strike(call, "append_twice");
                let late = dice.between(0, 3 * timeout * 1_000);
                let at = fate.arrives.unwrap_or(self.now) + late;
                self.heap.push(at, Due::Append { stream, envelope });
            }
        }
        if let Some(arrives) = &mut fate.arrives {
            let host = &mut self.hosts[from.host as usize];
            if overtaken {
                host.overtaken.insert(stream, *arrives);
            } else {
                // Appends of one process to one stream keep their order.
                let last = host.last_append.entry(stream).or_default();
                *arrives = (*arrives).max(*last + 1);
                *last = *arrives;
                if host
                    .overtaken
                    .get(&stream)
                    .is_some_and(|behind| *arrives < *behind)
                {
                    host.overtaken.remove(&stream);
                    self.seen.fire("append_overtaken");
                }
            }
        }
        self.send_broker(from, op, request, &fate);
    }

    fn send_broker(&mut self, from: Place, op: OpId, request: TransportRequest, fate: &Fate) {
        if let Some(arrives) = fate.arrives {
            let call = BrokerCall {
                from,
                op,
                request,
                back: fate.back,
            };
            self.heap.push(arrives, Due::Broker(Box::new(call)));
        }
        if let Some((at, kind)) = fate.told {
            let error = Err(PortError::new(kind, "transport", "simulated"));
            self.heap
                .push(at, Due::Give(from, Given::Transport(op, error)));
        }
    }
}
