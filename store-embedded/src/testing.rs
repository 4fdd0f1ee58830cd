//! What tests of the store, and of whatever stands on it, can do to it.

use flowkit_core::id::{NodeId, TaskId, WorkerId};
use redb::StorageBackend;
use std::path::Path;
use tokio::sync::oneshot;

use crate::clock::Clock;
use crate::error::OpenError;
use crate::format::{Key, Table};
use crate::open;
use crate::store::EmbeddedStore;
use crate::writer::Work;

pub use crate::clock::TestClock;
pub use crate::disk::faulty::FaultyDisk;

impl EmbeddedStore {
    /// Opens a store on a disk that can fail, making an empty one if the disk is empty.
    ///
    /// # Errors
    /// As [`EmbeddedStore::open`].
    pub fn open_on(disk: &FaultyDisk, clock: TestClock) -> Result<Self, OpenError> {
        let path = Path::new("faulty disk");
        if disk.len().is_ok_and(|len| len == 0) {
            open::create(Box::new(disk.clone()), path)?;
        }
        Self::start(Box::new(disk.clone()), path, None, Clock::Test(clock))
    }

    /// Makes the record of a task, or of one of its nodes, one of a version that nobody knows.
    /// False if there is no such record.
    pub async fn damage(&self, task: &TaskId, node: Option<&NodeId>) -> bool {
        let (table, key) = match node {
            None => (Table::Task, task.as_str().as_bytes().to_vec()),
            Some(node) => {
                let mut key = Vec::new();
                Key::node(task, node, &mut key);
                (Table::Node, key)
            }
        };
        let (reply, answer) = oneshot::channel();
        self.writer.submit(Work::Damage { table, key }, reply);
        matches!(answer.await, Ok(Ok(_)))
    }

    /// The same with the record of a worker.
    pub async fn damage_worker(&self, worker: &WorkerId) -> bool {
        let (table, key) = (Table::Worker, worker.as_str().as_bytes().to_vec());
        let (reply, answer) = oneshot::channel();
        self.writer.submit(Work::Damage { table, key }, reply);
        matches!(answer.await, Ok(Ok(_)))
    }

    /// Puts a row of any bytes into one of the file's tables: what a file of another origin may
    /// hold. False if the store has failed.
    pub async fn plant(&self, table: usize, key: &[u8], value: &[u8]) -> bool {
        let table = Table::ALL[table % Table::ALL.len()];
        let (key, value) = (key.to_vec(), value.to_vec());
        let (reply, answer) = oneshot::channel();
        self.writer.submit(Work::Plant { table, key, value }, reply);
        matches!(answer.await, Ok(Ok(_)))
    }
}
