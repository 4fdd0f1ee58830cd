//! What a run shares: the servers' models, the hosts' states, and what was seen.
//!
//! All processes of a run live on one thread, each on a turmoil host of its own. What they share
//! is what stands between and around them, never what one knows: it hangs on the thread.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use flowkit_core::id::{NodeId, TaskId, Token};
use flowkit_core::json::Json;
use flowkit_core::port::Stream;
use flowkit_runtime::RunInfo;
use tokio::sync::Notify;

use super::host::{HostState, client_host, client_of};
use super::piece::Piece;
use super::servers::ServerState;
use super::wire::Parcel;
use crate::dice::Dice;
use crate::history::{Life, Place, Run, Step, What};
use crate::observer::Observer;
use crate::plan::{ClientFault, Fault, Logical, Plan, Rates, Server, When};
use crate::servers::Servers;

thread_local! {
    static STAGE: RefCell<Option<Stage>> = const { RefCell::new(None) };
}

/// What a draw is for; part of its key.
#[derive(Clone, Copy, Debug)]
pub(super) enum Luck {
    Network = 1,
    Process = 2,
    Pace = 3,
    Handler = 4,
    World = 5,
    Client = 6,
    Slow = 7,
}

/// The shared part of one run.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) plan: Arc<Plan>,
    /// True time of what was noted last, in microseconds.
    pub(super) now: u64,
    pub(super) servers: Servers,
    pub(super) at: [ServerState; 2],
    pub(super) seen: Observer,
    pub(super) hosts: Vec<HostState>,
    /// Clients that have hosts of their own.
    pub(super) clients: Vec<HostState>,
    /// What frames on the network stand for.
    parcels: BTreeMap<u64, Parcel>,
    /// Readers at the end of a stream are told when it grows.
    grown: BTreeMap<Stream, Arc<Notify>>,
    runs: BTreeMap<(Place, TaskId, NodeId, Token), Rc<Run>>,
    counter: u64,
    pub(super) healed: bool,
    /// Actions that are due and have not had their last answer.
    pub(super) open_actions: BTreeSet<usize>,
    /// How many have had theirs.
    actions_done: usize,
    /// Clients are told of actions that are due.
    pub(super) due: Arc<Notify>,
    pub(super) piece: Rc<dyn Piece>,
    answers_due: usize,
    /// Faults that wait for an event.
    waiting_faults: Vec<(When, usize)>,
    waiting_actions: Vec<(When, usize)>,
    /// Faults that are due since the director last looked.
    pub(super) due_faults: Vec<usize>,
}

/// Takes the stage down however a run ends.
#[derive(Debug)]
pub(super) struct Standing;

impl Drop for Standing {
    fn drop(&mut self) {
        // Taken out first: what falls may look for the stage once more.
        let stage = STAGE.with(|stage| stage.borrow_mut().take());
        drop(stage);
    }
}

/// Sets up the stage of this thread.
pub(super) fn set_up(stage: Stage) -> Standing {
    STAGE.with(|here| *here.borrow_mut() = Some(stage));
    Standing
}

/// Looks at the stage of this thread. Time goes on to that of the host that looks.
pub(super) fn with<T>(look: impl FnOnce(&mut Stage) -> T) -> T {
    let elapsed = turmoil::sim_elapsed();
    STAGE.with(|stage| {
        let mut stage = stage.borrow_mut();
        let stage = stage.as_mut().expect("a run is on this thread");
        if let Some(elapsed) = elapsed {
            stage.reach(u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX));
        }
        look(stage)
    })
}

/// The same where there may be no stage any more.
pub(super) fn if_standing(look: impl FnOnce(&mut Stage)) {
    let standing = STAGE.with(|stage| stage.try_borrow().is_ok_and(|stage| stage.is_some()));
    if standing {
        with(look);
    }
}

impl Stage {
    pub(super) fn new(plan: &Plan, piece: Rc<dyn Piece>, keep_history: bool) -> Self {
        let waiting_faults = plan.faults.iter().enumerate();
        let waiting_faults = waiting_faults
            .filter_map(|(index, fault)| Some((fault.when()?, index)))
            .collect();
        let actions = plan.actions.iter().enumerate();
        let mut servers = Servers::new(plan);
        if !plan.world.embedded {
            // Created by an earlier process: what others would propose does not matter.
            servers.create(plan.world.shards, plan.world.inboxes);
        }
        Self {
            now: 0,
            servers,
            at: Default::default(),
            seen: Observer::new(plan, keep_history),
            hosts: Vec::new(),
            clients: Vec::new(),
            parcels: BTreeMap::new(),
            grown: BTreeMap::new(),
            runs: BTreeMap::new(),
            counter: 0,
            healed: false,
            open_actions: BTreeSet::new(),
            actions_done: 0,
            due: Arc::default(),
            answers_due: plan.actions.len() + piece.answers(),
            piece,
            waiting_faults,
            waiting_actions: actions
                .map(|(index, action)| (action.when, index))
                .collect(),
            due_faults: Vec::new(),
            plan: Arc::new(plan.clone()),
        }
    }

    /// Time goes on; hosts of one tick run one after the other, so some come late.
    pub(super) fn reach(&mut self, now: u64) {
        self.now = self.now.max(now);
    }

    pub(super) fn dice(&self, luck: Luck, a: u64, b: u64) -> Dice {
        Dice::keyed(self.plan.seed, [100 + luck as u64, a, b])
    }

    pub(super) fn next_number(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }

    pub(super) fn rates(&self) -> Rates {
        if self.healed {
            Rates::default()
        } else {
            self.plan.rates
        }
    }

    pub(super) fn put(&mut self, parcel: Parcel) -> u64 {
        let slot = self.next_number();
        self.parcels.insert(slot, parcel);
        slot
    }

    pub(super) fn take(&mut self, slot: u64) -> Option<Parcel> {
        self.parcels.remove(&slot)
    }

    pub(super) fn grown(&mut self, stream: Stream) -> Arc<Notify> {
        self.grown.entry(stream).or_default().clone()
    }

    pub(super) fn server(&mut self, server: Server) -> &mut ServerState {
        &mut self.at[server as usize]
    }

    /// A host by its number, be it a client's.
    pub(super) fn state(&mut self, host: u32) -> Option<&mut HostState> {
        match client_of(host) {
            Some(client) => self.clients.get_mut(client as usize),
            None => self.hosts.get_mut(host as usize),
        }
    }

    /// The same for one that there is.
    pub(super) fn known(&mut self, host: u32) -> &mut HostState {
        self.state(host).expect("a host of this run")
    }

    /// The numbers of all hosts, clients' last.
    pub(super) fn numbers(&self) -> Vec<u32> {
        let hosts = (0..).zip(&self.hosts).map(|(host, _)| host);
        let clients = (0..).zip(&self.clients);
        let clients = clients.map(|(client, _)| client_host(client));
        hosts.chain(clients).collect()
    }

    pub(super) fn host(&mut self, place: Place) -> Option<&mut HostState> {
        self.state(place.host)
            .filter(|host| host.generation == place.generation && host.alive)
    }

    pub(super) fn alive(&mut self, place: Place) -> bool {
        self.host(place).is_some()
    }

    pub(super) fn note(&mut self, what: What) {
        self.seen.note(self.now, what);
        self.triggered();
    }

    /// What waited for an event that has happened is due; whom it strikes does nothing more.
    pub(super) fn triggered(&mut self) {
        if self.seen.fresh.is_empty() {
            return;
        }
        for (what, nth) in std::mem::take(&mut self.seen.fresh) {
            self.event(When::Event { what, nth }, None);
        }
    }

    /// A process asked a server for something: its n-th effect.
    pub(super) fn effect(&mut self, place: Place) {
        let now = self.now;
        let Some(host) = self.host(place) else { return };
        let nth = host.asks(now);
        self.event(When::Effect { nth }, Some(place.host));
    }

    fn event(&mut self, event: When, by: Option<u32>) {
        let faults = self.plan.clone();
        let mut struck = Vec::new();
        self.waiting_faults.retain(|(when, index)| {
            let fault = &faults.faults[*index];
            let at = match fault {
                Fault::Client { client, .. } => Some(client_host(*client)),
                other => other.host(),
            };
            let due = *when == event && by.is_none_or(|by| at == Some(by));
            if due {
                struck.push(*index);
            }
            !due
        });
        for index in &struck {
            // It is carried out between two ticks; until then it holds whom it strikes.
            let held = match &faults.faults[*index] {
                Fault::Crash { host, .. }
                | Fault::PowerLoss { host, .. }
                | Fault::Stall { host, .. } => Some(*host),
                Fault::Client {
                    client,
                    what: ClientFault::Crash { .. } | ClientFault::Stall { .. },
                    ..
                } => Some(client_host(*client)),
                _ => None,
            };
            if let Some(host) = held
                && !self.healed
                && let Some(host) = self.state(host)
            {
                host.gate.shut();
            }
        }
        self.due_faults.extend(struck);
        self.act_if(|when| *when == event);
    }

    /// What has its time now is due; at the end, so is whatever is left.
    pub(super) fn clock_strikes(&mut self) {
        let now_ms = self.now / 1_000;
        let due = |when: &When| matches!(when, When::At { ms } if *ms <= now_ms);
        let faults = &mut self.due_faults;
        self.waiting_faults.retain(|(when, index)| {
            if due(when) {
                faults.push(*index);
            }
            !due(when)
        });
        let healed = self.healed;
        self.act_if(|when| due(when) || (healed && !matches!(when, When::At { .. })));
    }

    /// Actions whose time has come are open.
    fn act_if(&mut self, come: impl Fn(&When) -> bool) {
        let open = &mut self.open_actions;
        let before = open.len();
        self.waiting_actions.retain(|(when, index)| {
            if come(when) {
                open.insert(*index);
            }
            !come(when)
        });
        if open.len() > before {
            self.due.notify_waiters();
        }
    }

    /// An action has had its last answer.
    pub(super) fn action_done(&mut self, index: usize) {
        self.actions_done += usize::from(self.open_actions.remove(&index));
    }

    /// A client has had an answer that is no plan's action.
    pub(crate) fn answered(&mut self) {
        self.actions_done += 1;
    }

    /// Every client has had its last answer.
    pub(super) fn content(&self) -> bool {
        self.actions_done == self.answers_due
    }

    /// A run begins.
    pub(super) fn began(&mut self, place: Place, info: &RunInfo, checkpoint: Option<Json>) {
        if !self.alive(place) {
            return;
        }
        let run = Rc::new(Run {
            place,
            worker: info.worker_id.clone(),
            run_id: self.next_number(),
            task: info.task_id.clone(),
            node: info.node_id.clone(),
            token: info.token,
            epoch: info.epoch,
            checkpoint,
            accepted: info.accepted,
        });
        self.runs.insert(key(place, info), run.clone());
        let step = Step::Begin;
        self.note(What::Handler { run, step });
    }

    /// Something that faults wait for, with nothing to write down.
    pub(super) fn happens(&mut self, what: Logical) {
        self.seen.logical(what);
        self.triggered();
    }

    /// A handler's later step.
    pub(super) fn step(&mut self, place: Place, info: &RunInfo, step: Step) {
        if !self.alive(place) {
            return;
        }
        let key = key(place, info);
        let Some(run) = self.runs.get(&key).cloned() else {
            return;
        };
        if step == Step::Closed {
            self.runs.remove(&key);
        }
        self.note(What::Handler { run, step });
    }

    /// A process begins; the n-th on its host.
    pub(super) fn begins(&mut self, host: u32) -> Place {
        let grace_ms = self.next_grace_ms(host).unwrap_or(Plan::PROCESS_GRACE_MS);
        let state = &mut self.hosts[host as usize];
        state.grace_ms = grace_ms;
        state.generation += 1;
        state.alive = true;
        let place = Place {
            host,
            generation: state.generation,
            machine: 0,
        };
        let what = Life::Started;
        self.note(What::Process { place, what });
        place
    }

    /// The grace of the stop that a process of the host meets next, which it is given at its start: a
    /// process reads its settings then. Of stops that wait for events nobody knows which comes first.
    fn next_grace_ms(&self, host: u32) -> Option<u64> {
        let due = self.waiting_faults.iter().filter_map(|(when, index)| {
            let Fault::Shutdown {
                host: at, grace_ms, ..
            } = self.plan.faults[*index]
            else {
                return None;
            };
            let at_ms = match when {
                When::At { ms } => *ms,
                When::Effect { .. } | When::Event { .. } => u64::MAX,
            };
            (at == host).then_some((at_ms, *index, grace_ms))
        });
        due.min().map(|(.., grace_ms)| grace_ms)
    }

    /// A client begins, or who takes its place.
    pub(super) fn client_begins(&mut self, client: u32) -> Place {
        let host = client_host(client);
        let state = self.known(host);
        state.generation += 1;
        state.alive = true;
        let place = state.place(host);
        if place.generation > 1 {
            self.note_life(host, Life::Started);
        }
        place
    }

    /// Something happens to the process of a host.
    pub(super) fn note_life(&mut self, host: u32, what: Life) {
        let place = self.known(host).place(host);
        self.note(match client_of(host) {
            Some(client) => What::Client { client, what },
            None => What::Process { place, what },
        });
    }

    /// The process of a host is no more, and what ran in it.
    pub(super) fn ends(&mut self, host: u32, what: Life) {
        let state = self.known(host);
        state.alive = false;
        state.stalled_until = 0;
        state.overtaken.clear();
        state.stop = None;
        state.panics = false;
        state.gate.open();
        self.note_life(host, what);
        let lost: Vec<_> = self
            .runs
            .keys()
            .filter(|(at, ..)| at.host == host)
            .cloned()
            .collect();
        for key in lost {
            if let Some(run) = self.runs.remove(&key) {
                let step = Step::Lost;
                self.note(What::Handler { run, step });
            }
        }
    }

    /// Whether a driver, handler or client of a host may go on; now and then it lets others go first.
    pub(super) fn poll_pace(&mut self, place: Place, luck: Luck, cx: &Context<'_>) -> Poll<()> {
        let Some(host) = self.host(place) else {
            // Its process is dead: it never goes on.
            return Poll::Pending;
        };
        if host.gate.is_shut() {
            return host.gate.poll_pass(cx);
        }
        host.paces += 1;
        let paces = host.paces;
        let key = u64::from(place.host) << 8 | u64::from(place.machine);
        let yields = self.plan.world.yield_permille;
        if self.dice(luck, key, paces).permille(yields) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(())
    }
}

fn key(place: Place, info: &RunInfo) -> (Place, TaskId, NodeId, Token) {
    (
        place,
        info.task_id.clone(),
        info.node_id.clone(),
        info.token,
    )
}
