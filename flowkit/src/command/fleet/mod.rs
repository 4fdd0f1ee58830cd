//! The engine as separate processes over Kafka and MongoDB.

pub(crate) mod coordinator;
pub(crate) mod worker;

use flowkit::prelude::*;

use super::failure::Failure;
use flowkit::settings::Settings;

/// Connects to the servers that the settings name.
#[cfg(feature = "fleet")]
pub(crate) async fn connect(settings: &Settings) -> Result<Engine, Failure> {
    let engine = flowkit::fleet::connect(settings)
        .await
        .map_err(Failure::input)?;
    let asked = settings.fleet.shards;
    if asked != 1 {
        let created = Engine::deployment_of(engine.store(), &EngineSettings::default())
            .await
            .map_err(Failure::input)?;
        if created.shards != asked {
            crate::command::output::eputln!(
                "note: this deployment was created with {} shards; --shards {asked} changes nothing",
                created.shards
            );
        }
    }
    Ok(engine)
}

/// This build has no adapters.
#[cfg(not(feature = "fleet"))]
pub(crate) async fn connect(_settings: &Settings) -> Result<Engine, Failure> {
    Err(Failure::input(
        "this `flowkit` is built for one machine, without the adapters for Kafka and MongoDB; build \
         it with them: cargo build --release --features fleet",
    ))
}
