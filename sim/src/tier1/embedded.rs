//! A whole engine in one process, over a store that dies with it: what it had not synced is gone.

use std::future::{pending, poll_fn};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use flowkit_core::port::{
    PortError, Store, StoreReply, StoreRequest, Transport, TransportReply, TransportRequest,
};
use flowkit_memory::LocalTransport;
use flowkit_runtime::{Engine, Worker};
use tokio::sync::watch;
use tokio::time::sleep;

use super::environment::Surroundings;
use super::host::Ended;
use super::hosted::paced;
use super::process::{raised, start, worker_settings};
use super::stage::{self, Luck};
use crate::history::{Place, What};
use crate::plan::Plan;
use crate::strays::strays;

/// The process's own store: what it holds survives on the stage.
#[derive(Debug)]
struct OwnStore(Place);

#[async_trait]
impl Store for OwnStore {
    async fn call(&self, request: StoreRequest) -> Result<StoreReply, PortError> {
        let place = self.0;
        let (alive, pause, commits) = stage::with(|stage| {
            stage.effect(place);
            let pause = match &request {
                StoreRequest::Sync { .. } => {
                    let (number, sync_us) = (stage.next_number(), stage.plan.world.sync_us);
                    let mut dice = stage.dice(Luck::World, 1, number);
                    Duration::from_micros(dice.between(sync_us / 4, sync_us * 2))
                }
                _ => Duration::ZERO,
            };
            (stage.alive(place), pause, stage.servers.store.commits())
        });
        if !alive {
            return pending().await;
        }
        if pause > Duration::ZERO {
            sleep(pause).await;
        }
        // Its crash may be due right now.
        poll_fn(|cx| stage::with(|stage| stage.poll_pace(place, Luck::Pace, cx))).await;
        stage::with(|stage| {
            if let StoreRequest::Sync { .. } = request {
                stage.servers.store.sync_covers(commits);
            }
            let place = asker(&stage.plan, place, &request);
            let result = stage
                .servers
                .store(stage.now, place, request, &mut stage.seen);
            stage.triggered();
            result
        })
    }

    fn applies_before_sync(&self) -> bool {
        true
    }
}

/// Which machine of the process asks: its coordinator, or one of its workers.
fn asker(plan: &Plan, place: Place, request: &StoreRequest) -> Place {
    let (StoreRequest::RegisterWorker { worker_id, .. }
    | StoreRequest::ReadGrants { worker_id, .. }) = request
    else {
        return place;
    };
    let workers = (1..).zip(&plan.world.workers);
    let mut mine = workers.filter(|(_, worker)| worker.id == worker_id.as_str());
    let machine = mine.next().map_or(0, |(machine, _)| machine);
    Place { machine, ..place }
}

/// The process's own streams, with what is appended noted.
#[derive(Debug)]
struct OwnStreams(Place, LocalTransport);

impl OwnStreams {
    /// Nothing from outside gets into the streams of a process; a fault may.
    async fn strays(&self) {
        let shards = stage::with(|stage| {
            let host = stage.host(self.0);
            host.map_or_else(Vec::new, |host| std::mem::take(&mut host.strays))
        });
        for shard in shards {
            let all = stage::with(|stage| {
                stage.seen.fire("poison");
                let nonce = stage.next_number();
                strays(&stage.plan, shard, stage.now + nonce)
            });
            for (stream, strays) in all {
                for stray in strays {
                    let envelope = Arc::new(stray);
                    let append = TransportRequest::Append { stream, envelope };
                    let _ = self.append(append).await;
                }
            }
        }
    }

    async fn append(&self, request: TransportRequest) -> Result<TransportReply, PortError> {
        let appended = match &request {
            TransportRequest::Append { stream, envelope } => Some((*stream, envelope.clone())),
            _ => None,
        };
        let reply = self.1.call(request).await;
        if let (Some((stream, envelope)), Ok(TransportReply::Appended { offset })) =
            (appended, &reply)
        {
            let offset = *offset;
            stage::with(|stage| {
                stage.note(What::Appended {
                    stream,
                    offset,
                    envelope,
                });
            });
        }
        reply
    }
}

#[async_trait]
impl Transport for OwnStreams {
    async fn call(&self, request: TransportRequest) -> Result<TransportReply, PortError> {
        self.strays().await;
        self.append(request).await
    }
}

/// The process from its start on.
pub(super) async fn run(place: Place, plan: &Arc<Plan>, mut stop: watch::Receiver<bool>) -> Ended {
    let store = Arc::new(OwnStore(place));
    let streams = loop {
        match Engine::local_streams(&*store).await {
            Ok(streams) => break Arc::new(OwnStreams(place, streams)),
            Err(_) => sleep(Duration::from_millis(50)).await,
        }
    };
    let functions = stage::with(|stage| stage.piece.functions());
    let engine = Engine::alone(store, streams)
        .with_functions(functions)
        .within(Arc::new(Surroundings::of(place)));
    start(&engine, plan).await;
    let piece = stage::with(|stage| stage.piece.clone());
    let grace_ms = stage::with(|stage| stage.hosts[place.host as usize].grace_ms);
    for (machine, mine) in (1..).zip(&plan.world.workers) {
        let place = Place { machine, ..place };
        let builder = Worker::builder(&engine)
            .worker_id(&mine.id)
            .capacity(mine.capacity)
            .settings(worker_settings(plan, grace_ms));
        let worker = piece.cast(builder, plan, place, &mine.roles);
        worker
            .build()
            .expect("a plan's workers are faultless")
            .start();
    }
    tokio::select! {
        biased;
        () = raised(&mut stop) => {}
        _ = paced(place, Luck::Client, piece.inner_clients(engine.client())) => {}
    }
    engine.stop().await;
    Ended::Stopped
}
