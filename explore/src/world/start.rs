//! The first state, and processes that start later.

use std::collections::BTreeMap;
use std::sync::Arc;

use flowkit_core::coordinator::{self, Coordinator};
use flowkit_core::id::{ClientId, Role, TaskId};
use flowkit_core::json::Json;
use flowkit_core::message::{Body, Submit};
use flowkit_core::worker::{self, Worker};
use flowkit_memory::{BrokerModel, StoreModel};

use super::step::client;
use super::watch::Watch;
use super::{Action, Hand, Owner, SHARD, Seat, Shared, World};
use crate::scope::{LEASE_TTL_MS, Scope};

/// So long that no renewal is due within a scope: when the lease lapses is an action of its own.
const SHARD_LEASE_TTL_MS: u64 = 1_000_000_000_000;
/// So long that no pause reaches it: announcements only matter where nothing else goes on.
const ANNOUNCE_INTERVAL_MS: u64 = 600_000;

impl World {
    /// Every process has started and waits; the client's submission stands in the stream.
    #[must_use]
    pub fn start(scope: &'static Scope) -> Self {
        let seat = |_| Seat {
            process: None,
            starts: 0,
        };
        let mut world = Self {
            scope,
            task: TaskId::new("t").expect("a short plain text is an id"),
            now: 1_000_000,
            store_ahead: 0,
            store: Shared::new(StoreModel::durable()),
            broker: Arc::new(BrokerModel::new()),
            log: Arc::default(),
            coordinators: (0..scope.coordinators).map(seat).collect(),
            workers: (0..scope.workers)
                .map(|_| Seat {
                    process: None,
                    starts: 0,
                })
                .collect(),
            mail: Vec::new(),
            late: Vec::new(),
            left: scope.budget,
            watch: Shared::new(Watch::default()),
            broken: None,
        };
        for at in 0..scope.workers {
            world.start_worker(at);
        }
        world.run_out();
        world.start_coordinator(0);
        world.run_out();
        let submit = Body::Submit(Submit {
            graph: scope.graph(),
            vars: Json::null(),
            idempotency_key: None,
            options: Default::default(),
            inbox: 0,
        });
        let request = flowkit_core::port::TransportRequest::Append {
            stream: SHARD,
            envelope: client(&world.task, submit),
        };
        let _ = world.execute_transport(&request);
        world
    }

    /// Does what goes on by itself until nothing but waiting is left.
    fn run_out(&mut self) {
        loop {
            let mut actions = Vec::new();
            self.ordinary(&mut actions);
            match actions.first() {
                None | Some(Action::TimePasses) => return,
                Some(action) => *self = self.after(*action),
            }
        }
    }

    pub(super) fn start_worker(&mut self, at: usize) {
        let seat = &mut self.workers[at];
        seat.starts += 1;
        let role = Role::new("work").expect("a short plain text is an id");
        let nonce = u64::from(seat.starts);
        let mut config = worker::Config::new(Scope::worker_id(at), vec![role], 1, nonce);
        config.db_cancel_poll_ms = 10_000;
        config.announce_interval_ms = ANNOUNCE_INTERVAL_MS;
        seat.process = Some(Shared::new(Hand {
            machine: Worker::new(config),
            calls: Vec::new(),
            handlers: BTreeMap::new(),
            incarnation: None,
            leases: BTreeMap::new(),
        }));
        self.feed_worker(at, worker::Input::Wake);
    }

    /// The lease of whoever has it lapses, by the store's clock, and the next one asks for it.
    pub(super) fn start_coordinator(&mut self, at: usize) {
        self.store_ahead += SHARD_LEASE_TTL_MS + 1;
        let seat = &mut self.coordinators[at];
        seat.starts += 1;
        let owner = ClientId::new(format!("c{}", at + 1)).expect("a short plain text is an id");
        let mut config = coordinator::Config::new(owner, at as u64);
        config.shard_lease_ttl_ms = SHARD_LEASE_TTL_MS;
        config.lease_ttl_ms = LEASE_TTL_MS;
        config.resend_backoff_ms = 2_000;
        config.commit_delay_ms = 0;
        seat.process = Some(Shared::new(Owner {
            machine: Coordinator::new(config),
            calls: Vec::new(),
        }));
        self.feed_coordinator(at, coordinator::Input::Wake);
    }
}
