//! Where MongoDB is, and how it is used.

use std::fmt;
use std::time::Duration;

/// Settings of a [`MongoStore`](crate::MongoStore).
#[derive(Clone)]
#[non_exhaustive]
pub struct MongoSettings {
    /// The connection string; it may hold a password, and is never shown.
    pub uri: String,
    /// The database; default `flowkit`.
    pub database: String,
    /// Most connections; default 64.
    pub pool_max: u32,
    /// Longest wait for a usable server; default 5 s.
    pub server_timeout: Duration,
    /// Longest time until an operation is answered; default 10 s. After that it goes on unseen, and
    /// its outcome is unknown. A transaction is given no longer than this on the server either.
    pub operation_timeout: Duration,
}

impl MongoSettings {
    /// Defaults for a connection string.
    #[must_use]
    pub fn new(uri: &str) -> Self {
        Self {
            uri: uri.to_owned(),
            database: "flowkit".to_owned(),
            pool_max: 64,
            server_timeout: Duration::from_secs(5),
            operation_timeout: Duration::from_secs(10),
        }
    }

    /// Sets the database.
    #[must_use]
    pub fn database(mut self, database: &str) -> Self {
        database.clone_into(&mut self.database);
        self
    }

    /// Sets the most connections.
    #[must_use]
    pub fn pool_max(mut self, pool_max: u32) -> Self {
        self.pool_max = pool_max;
        self
    }

    /// Sets the longest wait for a usable server, and for a connection to it.
    #[must_use]
    pub fn server_timeout(mut self, timeout: Duration) -> Self {
        self.server_timeout = timeout;
        self
    }

    /// Sets the longest time of one operation.
    #[must_use]
    pub fn operation_timeout(mut self, timeout: Duration) -> Self {
        self.operation_timeout = timeout;
        self
    }
}

impl fmt::Debug for MongoSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MongoSettings")
            .field("database", &self.database)
            .field("pool_max", &self.pool_max)
            .finish_non_exhaustive()
    }
}
