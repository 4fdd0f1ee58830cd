//! The settings that a command was given: a file, the environment over it, the command's flags over both.

use serde_json::json;
use std::path::Path;

use super::args::{
    CoordinatorArgs, DemoArgs, FleetArgs, HealthArgs, RerunArgs, RunArgs, TaskArgs, WorkerArgs,
};
use super::failure::Failure;
use flowkit::settings::Given;

/// How long running batches may take to end after Ctrl-C, by default, in a process that somebody waits for.
const STOP_GRACE_SEC: f64 = 5.0;

impl FleetArgs {
    /// What a command over servers is given.
    pub(crate) fn given(&self) -> Result<Given, Failure> {
        self.over(Given::default())
    }

    fn over(&self, given: Given) -> Result<Given, Failure> {
        let mut given = read(given, self.config.as_deref())?;
        let text = |value: &Option<String>| value.as_ref().map(|v| json!(v));
        given.flag("kafka_bootstrap", "--kafka", text(&self.kafka));
        given.flag("mongo_uri", "--mongo", text(&self.mongo));
        given.flag("database", "--database", text(&self.database));
        given.flag("topic_prefix", "--topic-prefix", text(&self.topic_prefix));
        given.flag("shards", "--shards", self.shards.map(|v| json!(v)));
        Ok(given)
    }

    /// Flags that say that servers are meant, not a data folder.
    pub(crate) const fn is_given(&self) -> bool {
        self.kafka.is_some()
            || self.mongo.is_some()
            || self.database.is_some()
            || self.topic_prefix.is_some()
            || self.shards.is_some()
    }
}

impl HealthArgs {
    fn give(&self, given: &mut Given) {
        let listen = self.health_listen.as_ref().map(|at| json!(at));
        given.flag("health_listen", "--health-listen", listen);
        let traces = self.otlp_endpoint.as_ref().map(|at| json!(at));
        given.flag("otlp_endpoint", "--otlp-endpoint", traces);
    }
}

impl CoordinatorArgs {
    pub(crate) fn given(&self) -> Result<Given, Failure> {
        let mut given = self.fleet.given()?;
        self.health.give(&mut given);
        Ok(given)
    }
}

impl WorkerArgs {
    pub(crate) fn given(&self) -> Result<Given, Failure> {
        let mut given = self.fleet.given()?;
        self.health.give(&mut given);
        given.flag("roles", "--role", list(&self.roles));
        given.flag("exec", "--exec", list(&self.exec));
        let id = self.worker_id.as_ref().map(|id| json!(id));
        given.flag("worker_id", "--worker-id", id);
        given.flag("capacity", "--capacity", self.capacity.map(|n| json!(n)));
        Ok(given)
    }
}

impl RunArgs {
    pub(crate) fn given(&self) -> Result<Given, Failure> {
        let mut given = read(watched(), self.config.as_deref())?;
        self.health.give(&mut given);
        given.flag("exec", "--exec", list(&self.exec));
        Ok(given)
    }
}

impl DemoArgs {
    pub(crate) fn given(&self) -> Result<Given, Failure> {
        let mut given = self.fleet.over(watched())?;
        self.health.give(&mut given);
        Ok(given)
    }

    /// Servers are meant, not this machine: a flag names them; or the file does, and no flag a folder.
    pub(crate) fn means_servers(&self) -> Result<bool, Failure> {
        let file = self.fleet.config.as_deref();
        let Some(path) = file.filter(|_| self.data.data.is_none()) else {
            return Ok(self.fleet.is_given());
        };
        let mut file = Given::default();
        file.file(path).map_err(Failure::input)?;
        Ok(self.fleet.is_given() || file.has("kafka_bootstrap") || file.has("mongo_uri"))
    }
}

impl TaskArgs {
    pub(crate) fn given(&self) -> Result<Given, Failure> {
        self.fleet.over(watched())
    }
}

impl RerunArgs {
    /// Roles that programs run here, by the flags, else by the settings.
    pub(crate) fn programs<'a>(&'a self, settings: &'a [String]) -> &'a [String] {
        match self.exec.as_slice() {
            [] => settings,
            flags => flags,
        }
    }
}

/// Defaults of a command that runs work while somebody waits for it.
fn watched() -> Given {
    let mut given = Given::default();
    let grace = Some(json!(STOP_GRACE_SEC));
    given.flag("shutdown_grace_sec", "the command's default", grace);
    given
}

/// The file, and the environment over it.
fn read(mut given: Given, config: Option<&Path>) -> Result<Given, Failure> {
    if let Some(path) = config {
        given.file(path).map_err(Failure::input)?;
    }
    // A name or value that is no text is none of ours.
    given.environment(
        std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        }),
    );
    Ok(given)
}

/// A flag that may be repeated; none if it was not typed.
fn list(values: &[String]) -> Option<serde_json::Value> {
    (!values.is_empty()).then(|| json!(values))
}
