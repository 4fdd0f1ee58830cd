//! What runs on hosts: the real library, as its programs use it.

use std::collections::BTreeSet;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use flowkit_core::id::WorkerId;
use flowkit_runtime::{
    Client, CoordinatorSettings, Engine, EngineSettings, StartError, Worker, WorkerError,
    WorkerSettings,
};
use tokio::sync::watch;
use tokio::time::sleep;

use super::embedded;
use super::environment::Surroundings;
use super::host::{Ended, Kind};
use super::hosted::paced;
use super::port::Port;
use super::stage::{self, Luck};
use crate::acting::Clients;
use crate::history::Place;
use crate::plan::{Action, Plan, Server};

/// One process of a host, from its start until it ends or dies.
pub(super) async fn run(host: u32) -> turmoil::Result {
    let first = stage::with(|stage| {
        let generation = stage.hosts[host as usize].generation;
        let mut dice = stage.dice(Luck::World, u64::from(host), 0);
        (generation == 0).then(|| dice.between(0, 20))
    });
    if let Some(after_ms) = first {
        sleep(Duration::from_millis(after_ms)).await;
    }
    let (place, kind, plan) = stage::with(|stage| {
        let place = stage.begins(host);
        let kind = stage.hosts[host as usize].kind.clone();
        (place, kind, stage.plan.clone())
    });
    let (stop, stopped) = watch::channel(false);
    stage::with(|stage| stage.hosts[host as usize].stop = Some(stop));
    let ended = match kind {
        Kind::Coordinator => coordinator(place, &plan, stopped).await,
        Kind::Worker { plan: index, id } => worker(place, &plan, (index, &id), stopped).await,
        Kind::Embedded => embedded::run(place, &plan, stopped).await,
        Kind::Client => pending().await,
    };
    stage::with(|stage| stage.hosts[host as usize].ended = Some(ended));
    // The director clears up behind it.
    pending().await
}

/// An engine over the network. How the deployment was created is not its business.
fn engine(place: Place, plan: &Plan) -> Engine {
    let mut settings = EngineSettings::default();
    settings.rpc_timeout = Duration::from_millis(plan.world.call_timeout_ms);
    // Some adapters give up a call by themselves, with others it is the driver that does.
    let patient = stage::with(|stage| {
        let (host, generation) = (u64::from(place.host), u64::from(place.generation));
        stage
            .dice(Luck::World, 10_000 + host, generation)
            .permille(500)
    });
    let timeout = settings.rpc_timeout * if patient { 3 } else { 1 };
    let store = Port::open(place, Server::Store, timeout);
    let transport = Port::open(place, Server::Broker, timeout);
    let functions = stage::with(|stage| stage.piece.functions());
    Engine::with_settings(Arc::new(store), Arc::new(transport), settings).with_functions(functions)
}

pub(super) async fn raised(stop: &mut watch::Receiver<bool>) {
    // Nobody left to raise it: its process is dead.
    if stop.wait_for(|stop| *stop).await.is_err() {
        pending::<()>().await;
    }
}

fn seconds(ms: u64) -> f64 {
    Duration::from_millis(ms).as_secs_f64()
}

pub(super) fn coordinator_settings(plan: &Plan) -> CoordinatorSettings {
    let world = &plan.world;
    let settings = CoordinatorSettings::default();
    let in_flight_max = world.tasks_in_flight_max.map(|most| most as usize);
    let in_flight_max = in_flight_max.unwrap_or(settings.tasks_in_flight_max);
    settings
        .tasks_in_flight_max(in_flight_max)
        .cancel_grace_sec(seconds(world.cancel_grace_ms))
        .lease_ttl_sec(seconds(world.lease_ttl_ms))
        .shard_lease_ttl_sec(seconds(world.shard_lease_ttl_ms))
        .limits(world.limits.clone())
        .retention_finished_sec(world.retention_finished_ms.map_or(0.0, seconds))
        .retention_failed_sec(world.retention_failed_ms.map_or(0.0, seconds))
        .sweep_interval_sec(seconds(world.sweep_interval_ms))
}

pub(super) fn worker_settings(plan: &Plan, grace_ms: u64) -> WorkerSettings {
    let world = &plan.world;
    let settings = WorkerSettings::default();
    let remembered = world.dedup_cache_size.map(|most| most as usize);
    let remembered = remembered.unwrap_or(settings.dedup_cache_size);
    let dedup_ttl_ms = world.dedup_ttl_ms.unwrap_or(settings.dedup_ttl_ms);
    settings
        .dedup_cache_size(remembered)
        .dedup_ttl_ms(dedup_ttl_ms)
        .strict_input_adapters(world.strict_adapters)
        .hb_interval_sec(seconds(world.hb_interval_ms))
        .announce_interval_sec(seconds(world.announce_interval_ms))
        .db_cancel_poll_ms(world.db_cancel_poll_ms)
        .shutdown_grace_sec(seconds(grace_ms))
}

/// A coordinator that starts as soon as it can reach its store.
pub(super) async fn start(engine: &Engine, plan: &Plan) {
    loop {
        match engine.start_with(coordinator_settings(plan)).await {
            Ok(()) => return,
            Err(StartError::Store(_)) => sleep(Duration::from_millis(200)).await,
            Err(error) => panic!("a plan's settings are faultless: {error}"),
        }
    }
}

async fn coordinator(place: Place, plan: &Plan, mut stop: watch::Receiver<bool>) -> Ended {
    let engine = engine(place, plan).within(Arc::new(Surroundings::of(place)));
    tokio::select! {
        biased;
        () = start(&engine, plan) => {}
        () = raised(&mut stop) => return Ended::Stopped,
    }
    raised(&mut stop).await;
    engine.stop().await;
    Ended::Stopped
}

async fn worker(
    place: Place,
    plan: &Arc<Plan>,
    (index, id): (usize, &WorkerId),
    mut stop: watch::Receiver<bool>,
) -> Ended {
    let engine = engine(place, plan).within(Arc::new(Surroundings::of(place)));
    let mine = &plan.world.workers[index];
    let grace_ms = stage::with(|stage| stage.hosts[place.host as usize].grace_ms);
    let builder = Worker::builder(&engine)
        .worker_id(id.as_str())
        .capacity(mine.capacity)
        .settings(worker_settings(plan, grace_ms));
    let piece = stage::with(|stage| stage.piece.clone());
    let builder = piece.cast(builder, plan, place, &mine.roles);
    let worker = builder.build().expect("a plan's workers are faultless");
    match worker.run(raised(&mut stop)).await {
        Ok(()) => Ended::Stopped,
        Err(WorkerError::Superseded) => Ended::Superseded,
        // Its supervisor would start it again.
        Err(WorkerError::Store(_)) => Ended::Failed,
        // Planned: any other panic is kept where it happens.
        Err(WorkerError::Panicked(_)) => Ended::Failed,
        Err(error) => panic!("{error}"),
    }
}

/// A client on a host of its own.
pub(super) async fn client(number: u32) -> turmoil::Result {
    let (place, plan, piece) = stage::with(|stage| {
        let place = stage.client_begins(number);
        (place, stage.plan.clone(), stage.piece.clone())
    });
    let surroundings = Arc::new(Surroundings::of_client(place));
    let engine = engine(place, &plan).within(surroundings);
    let playing = piece.client(number, engine.client());
    paced(place, Luck::Client, playing).await
}

/// Does the actions that are due, each until it has its last answer.
pub(super) async fn act<T>(
    place: Place,
    library: &Client,
    clients: &Arc<Clients>,
    mine: impl Fn(&Action) -> bool,
) -> T {
    let (plan, due) = stage::with(|stage| (stage.plan.clone(), stage.due.clone()));
    let mut begun = BTreeSet::new();
    loop {
        let more = due.notified();
        let open = stage::with(|stage| stage.open_actions.clone());
        for index in open {
            let action = &plan.actions[index];
            if mine(action) && begun.insert(index) {
                let (library, clients, action) = (library.clone(), clients.clone(), *action);
                let acting = async move {
                    let done = clients.act(&library, &action).await;
                    done.expect("a plan's actions are about its own tasks");
                    stage::with(|stage| stage.action_done(index));
                };
                tokio::spawn(paced(place, Luck::Client, acting));
            }
        }
        more.await;
    }
}
