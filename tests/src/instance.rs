//! One opened backend and what can be done to it from outside.

use async_trait::async_trait;
use flowkit_core::id::{NodeId, TaskId, WorkerId};
use flowkit_core::port::{
    ErrorKind, PortError, Store, StoreReply, StoreRequest, Stream, Transport, TransportReply,
    TransportRequest,
};
use std::fmt;
use std::sync::Arc;

/// What a store backend can and cannot do.
#[derive(Clone, Copy, Debug)]
pub struct StoreCaps {
    /// [`StoreBackend::make_unreadable`] works. Default true.
    pub unreadable: bool,
    /// Length of a lease that [`StoreBackend::pass_time`] outlasts without much waiting, in
    /// milliseconds. With a clock of the test's own any value will do. Default 1,000.
    pub lease_ms: u64,
}

impl Default for StoreCaps {
    fn default() -> Self {
        Self {
            unreadable: true,
            lease_ms: 1_000,
        }
    }
}

/// What can be done to a store from outside.
#[async_trait]
pub trait StoreBackend: Send {
    /// The store's process dies without warning, losing whatever it may lose, and opens again over
    /// the same namespace. No handle of the old store is left when this is called.
    async fn crash_and_reopen(&mut self) -> Arc<dyn Store>;

    /// Lets at least this much store time pass.
    async fn pass_time(&mut self, ms: u64);

    /// Makes the stored record of a task (or of one of its nodes) undecodable, as damage or a
    /// newer version would. False: this backend has no way to do it.
    async fn make_unreadable(&mut self, task: &TaskId, node: Option<&NodeId>) -> bool;

    /// The same with the stored record of a worker.
    async fn make_worker_unreadable(&mut self, worker: &WorkerId) -> bool;
}

/// An opened store in a namespace of its own.
pub struct StoreInstance {
    store: Option<Arc<dyn Store>>,
    backend: Box<dyn StoreBackend>,
    /// What the backend can do.
    pub caps: StoreCaps,
}

impl fmt::Debug for StoreInstance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreInstance")
            .field("store", &self.store)
            .field("caps", &self.caps)
            .finish_non_exhaustive()
    }
}

impl StoreInstance {
    /// An instance over an open store and its backend.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, caps: StoreCaps, backend: Box<dyn StoreBackend>) -> Self {
        Self {
            store: Some(store),
            backend,
            caps,
        }
    }

    /// The store as it is open now.
    ///
    /// # Panics
    /// If a reopen failed before.
    #[must_use]
    pub fn store(&self) -> &dyn Store {
        self.store.as_deref().expect("an earlier reopen failed")
    }

    /// Carries out one request.
    ///
    /// # Errors
    /// The store's.
    pub async fn call(&self, request: StoreRequest) -> Result<StoreReply, PortError> {
        self.store().call(request).await
    }

    /// Carries out a request that must succeed.
    ///
    /// # Panics
    /// If it does not.
    pub async fn ok(&self, request: StoreRequest) -> StoreReply {
        let told = format!("{request:?}");
        match self.call(request).await {
            Ok(reply) => reply,
            Err(error) => panic!("{error}, for {told:.300}"),
        }
    }

    /// Carries out a request that must be refused.
    ///
    /// # Panics
    /// If it is not.
    pub async fn refused(&self, request: StoreRequest) -> ErrorKind {
        let told = format!("{request:?}");
        match self.call(request).await {
            Ok(reply) => panic!("not refused but {reply:?}, for {told:.300}"),
            Err(error) => error.kind,
        }
    }

    /// `Commit` answers when applied and `Sync` makes it durable.
    #[must_use]
    pub fn is_two_phase(&self) -> bool {
        self.store().applies_before_sync()
    }

    /// See [`StoreBackend::crash_and_reopen`].
    pub async fn crash_and_reopen(&mut self) {
        self.store = None;
        self.store = Some(self.backend.crash_and_reopen().await);
    }

    /// See [`StoreBackend::pass_time`].
    pub async fn pass_time(&mut self, ms: u64) {
        self.backend.pass_time(ms).await;
    }

    /// See [`StoreBackend::make_unreadable`].
    pub async fn make_unreadable(&mut self, task: &TaskId, node: Option<&NodeId>) -> bool {
        self.backend.make_unreadable(task, node).await
    }

    /// See [`StoreBackend::make_worker_unreadable`].
    pub async fn make_worker_unreadable(&mut self, worker: &WorkerId) -> bool {
        self.backend.make_worker_unreadable(worker).await
    }
}

/// What a transport backend can and cannot do.
#[derive(Clone, Copy, Debug)]
pub struct TransportCaps {
    /// `Forget` on a shard's stream drops entries; a log with a retention of its own keeps them.
    pub forgets: bool,
    /// Entries outlive [`TransportBackend::reopen`]; otherwise the streams are empty then.
    pub durable: bool,
    /// [`TransportBackend::append_foreign`] works.
    pub foreign: bool,
}

/// What can be done to a transport from outside.
#[async_trait]
pub trait TransportBackend: Send {
    /// The process of the transport's client ends, and another one opens the same namespace.
    async fn reopen(&mut self) -> Arc<dyn Transport>;

    /// Appends any bytes, as a program that is none of ours may. False: this backend has no way to
    /// do it.
    async fn append_foreign(&mut self, stream: Stream, bytes: &[u8]) -> bool;
}

/// An opened transport in a namespace of its own.
pub struct TransportInstance {
    transport: Option<Arc<dyn Transport>>,
    backend: Box<dyn TransportBackend>,
    /// What the backend can do.
    pub caps: TransportCaps,
}

impl fmt::Debug for TransportInstance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TransportInstance")
            .field("transport", &self.transport)
            .field("caps", &self.caps)
            .finish_non_exhaustive()
    }
}

impl TransportInstance {
    /// An instance over an open transport and its backend.
    #[must_use]
    pub fn new(
        transport: Arc<dyn Transport>,
        caps: TransportCaps,
        backend: Box<dyn TransportBackend>,
    ) -> Self {
        Self {
            transport: Some(transport),
            backend,
            caps,
        }
    }

    /// The transport as it is open now; tasks of a case share it.
    ///
    /// # Panics
    /// If a reopen failed before.
    #[must_use]
    pub fn transport(&self) -> Arc<dyn Transport> {
        self.transport.clone().expect("an earlier reopen failed")
    }

    /// Carries out one request.
    ///
    /// # Errors
    /// The transport's.
    pub async fn call(&self, request: TransportRequest) -> Result<TransportReply, PortError> {
        self.transport().call(request).await
    }

    /// See [`TransportBackend::reopen`].
    pub async fn reopen(&mut self) {
        self.transport = None;
        self.transport = Some(self.backend.reopen().await);
    }

    /// See [`TransportBackend::append_foreign`].
    pub async fn append_foreign(&mut self, stream: Stream, bytes: &[u8]) -> bool {
        self.backend.append_foreign(stream, bytes).await
    }
}
