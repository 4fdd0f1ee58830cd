//! The comparison finds stores that are wrong in one thing each, and nothing in a right one.

use async_trait::async_trait;
use flowkit_core::id::{NodeId, TaskId, WorkerId};
use flowkit_core::port::{PortError, Store, StoreReply, StoreRequest};
use flowkit_memory::{MemoryStore, StoreFault, StoreModel, monotonic_clock};
use flowkit_tests::fidelity::{Budget, store};
use flowkit_tests::{StoreBackend, StoreCaps, StoreInstance};
use std::sync::Arc;

/// What is wrong with a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wrong {
    Nothing,
    /// Commits of another epoch pass.
    Unfenced,
    /// The epoch is raised without a look at `commit_seq`.
    RaisesBlindly,
    /// A crash takes what was not synced, in a store that answers only for durable commits.
    LosesCommitted,
    /// Scratch of an older token passes.
    ScratchUnfenced,
    /// Accepted batches are read from `after` on instead of above it.
    PagesOverlap,
    /// No run is active.
    NoActiveRuns,
    /// A commit is applied a second time: it is refused for its own artifacts.
    ForgetsCommitId,
    /// A record that cannot be decoded is shown as if it could.
    NeverRots,
}

#[derive(Debug)]
struct Planted {
    wrong: Wrong,
    store: Arc<MemoryStore>,
}

#[async_trait]
impl Store for Planted {
    async fn call(&self, mut request: StoreRequest) -> Result<StoreReply, PortError> {
        let shard = |shard| self.store.model().applied().shard(shard).copied();
        match (&mut request, self.wrong) {
            (StoreRequest::Commit(commit), Wrong::Unfenced) => {
                let commit = Arc::make_mut(commit);
                commit.epoch = shard(commit.shard).map_or(commit.epoch, |shard| shard.epoch);
            }
            (StoreRequest::Commit(commit), Wrong::ForgetsCommitId) => {
                let stored = shard(commit.shard);
                if stored.is_some_and(|stored| stored.commit_seq == commit.seq) {
                    Arc::make_mut(commit).id = u64::MAX;
                }
            }
            (
                StoreRequest::RaiseEpoch {
                    shard: id,
                    commit_seq,
                    ..
                },
                Wrong::RaisesBlindly,
            ) => *commit_seq = shard(*id).map_or(0, |shard| shard.commit_seq),
            (
                StoreRequest::PutScratch { token, .. } | StoreRequest::TakeScratch { token, .. },
                Wrong::ScratchUnfenced,
            ) => token.0 = 100,
            (StoreRequest::ReadAccepted { after, .. }, Wrong::PagesOverlap) => *after -= 1,
            _ => {}
        }
        match self.store.call(request).await? {
            StoreReply::Nodes(_) if self.wrong == Wrong::NoActiveRuns => {
                Ok(StoreReply::Nodes(vec![]))
            }
            reply => Ok(reply),
        }
    }

    fn applies_before_sync(&self) -> bool {
        self.wrong != Wrong::LosesCommitted && self.store.applies_before_sync()
    }
}

struct Backend {
    wrong: Wrong,
    store: Arc<MemoryStore>,
}

#[async_trait]
impl StoreBackend for Backend {
    async fn crash_and_reopen(&mut self) -> Arc<dyn Store> {
        self.store.model().crash();
        Arc::new(Planted {
            wrong: self.wrong,
            store: self.store.clone(),
        })
    }

    async fn pass_time(&mut self, _: u64) {}

    async fn make_unreadable(&mut self, task: &TaskId, node: Option<&NodeId>) -> bool {
        let mut model = self.store.model();
        let is_there = match node {
            Some(node) => model.applied().node(task, node).is_some(),
            None => model.applied().task(task).is_some(),
        };
        let is_rotten = is_there && self.wrong != Wrong::NeverRots;
        if is_rotten {
            model.inject(StoreFault::Poison {
                task_id: task.clone(),
                node_id: node.cloned(),
            });
        }
        is_there
    }

    async fn make_worker_unreadable(&mut self, worker: &WorkerId) -> bool {
        let mut model = self.store.model();
        let is_there = model.workers().any(|known| known.worker_id == *worker);
        if is_there && self.wrong != Wrong::NeverRots {
            model.inject(StoreFault::PoisonWorker {
                worker_id: worker.clone(),
            });
        }
        is_there
    }
}

async fn open(wrong: Wrong, model: StoreModel) -> StoreInstance {
    let store = Arc::new(MemoryStore::over(model, monotonic_clock()));
    let planted = Planted {
        wrong,
        store: store.clone(),
    };
    let backend = Backend { wrong, store };
    StoreInstance::new(Arc::new(planted), StoreCaps::default(), Box::new(backend))
}

fn is_found(wrong: Wrong, model: fn() -> StoreModel) -> bool {
    let budget = Budget {
        operations: 8_000,
        seed: 0,
        at_once: 2,
        shrink_ms: 1_000,
    };
    let shape = store::Shape::IN_PROCESS;
    store::compare(budget, shape, async || open(wrong, model()).await).is_err()
}

#[test]
fn a_right_store_shows_no_difference_in_either_mode() {
    for model in [StoreModel::durable, StoreModel::two_phase] {
        assert!(!is_found(Wrong::Nothing, model));
    }
}

#[test]
fn a_store_that_is_wrong_in_one_thing_is_found() {
    for wrong in [
        Wrong::Unfenced,
        Wrong::RaisesBlindly,
        Wrong::ScratchUnfenced,
        Wrong::PagesOverlap,
        Wrong::NoActiveRuns,
        Wrong::ForgetsCommitId,
    ] {
        assert!(
            is_found(wrong, StoreModel::durable),
            "{wrong:?} in a server"
        );
        assert!(
            is_found(wrong, StoreModel::two_phase),
            "{wrong:?} in a process"
        );
    }
    assert!(is_found(Wrong::LosesCommitted, StoreModel::two_phase));
    assert!(is_found(Wrong::NeverRots, StoreModel::durable));
}
