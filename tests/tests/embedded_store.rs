//! The embedded store passes the suite, on a disk whose power fails and in a folder whose process
//! dies.

use async_trait::async_trait;
use flowkit_core::id::{NodeId, TaskId, WorkerId};
use flowkit_core::port::{PortError, Store, StoreReply, StoreRequest};
use flowkit_store_embedded::EmbeddedStore;
use flowkit_store_embedded::testing::{FaultyDisk, TestClock};
use flowkit_tests::{StoreBackend, StoreCaps, StoreInstance};
use std::sync::Arc;

/// What the suite holds. The backend keeps the store itself open, so that a crash can be taken
/// from it before it closes cleanly.
#[derive(Debug)]
struct Handle(Arc<EmbeddedStore>);

#[async_trait]
impl Store for Handle {
    async fn call(&self, request: StoreRequest) -> Result<StoreReply, PortError> {
        self.0.call(request).await
    }

    fn applies_before_sync(&self) -> bool {
        self.0.applies_before_sync()
    }
}

/// A store on a disk whose power fails.
struct Disk {
    store: Arc<EmbeddedStore>,
    disk: FaultyDisk,
    clock: TestClock,
    power_cut: PowerCut,
}

/// What a power cut leaves on the disk.
#[derive(Clone, Copy)]
enum PowerCut {
    /// What was synced, and nothing else.
    Synced,
    /// Everything, as when the process dies and the machine lives.
    Written,
    /// What was synced, and any sectors of what was not; the seed of the next cut.
    Torn(u64),
}

impl Disk {
    fn open(power_cut: PowerCut) -> StoreInstance {
        let (disk, clock) = (FaultyDisk::new(Vec::new()), TestClock::default());
        let store = EmbeddedStore::open_on(&disk, clock.clone()).expect("the disk is empty");
        let backend = Self {
            store: Arc::new(store),
            disk,
            clock,
            power_cut,
        };
        let handle = Arc::new(Handle(backend.store.clone()));
        StoreInstance::new(handle, StoreCaps::default(), Box::new(backend))
    }
}

#[async_trait]
impl StoreBackend for Disk {
    async fn crash_and_reopen(&mut self) -> Arc<dyn Store> {
        let image = match &mut self.power_cut {
            PowerCut::Synced => self.disk.synced(),
            PowerCut::Written => self.disk.written(),
            PowerCut::Torn(seed) => {
                *seed += 1;
                self.disk.power_cut(*seed)
            }
        };
        self.disk = FaultyDisk::new(image);
        let store = EmbeddedStore::open_on(&self.disk, self.clock.clone());
        self.store = Arc::new(store.expect("any power cut can be recovered from"));
        Arc::new(Handle(self.store.clone()))
    }

    async fn pass_time(&mut self, ms: u64) {
        self.clock.advance(ms);
    }

    async fn make_unreadable(&mut self, task: &TaskId, node: Option<&NodeId>) -> bool {
        self.store.damage(task, node).await
    }

    async fn make_worker_unreadable(&mut self, worker: &WorkerId) -> bool {
        self.store.damage_worker(worker).await
    }
}

async fn open(power_cut: PowerCut) -> StoreInstance {
    Disk::open(power_cut)
}

flowkit_tests::store_conformance!(synced_writes_survive, open(PowerCut::Synced));
flowkit_tests::store_conformance!(every_write_survives, open(PowerCut::Written));
flowkit_tests::store_conformance!(unsynced_writes_are_torn, open(PowerCut::Torn(0)));
flowkit_tests::store_matches_model!(model_and_torn_writes, open(PowerCut::Torn(0)));
flowkit_tests::store_matches_model!(model_and_lost_writes, open(PowerCut::Synced));
