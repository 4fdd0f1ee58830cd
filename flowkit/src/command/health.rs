//! `--health-listen`: health and metrics of this process over HTTP.

use flowkit::health::HealthServer;
use flowkit::prelude::*;

use super::failure::Failure;
use super::output::eputln;

/// Serves health where `listen` says; nowhere if it is empty.
pub(crate) async fn serve(listen: &str, engine: &Engine) -> Result<Option<HealthServer>, Failure> {
    if listen.is_empty() {
        return Ok(None);
    }
    let server = flowkit::health::serve(listen, engine)
        .await
        .map_err(Failure::input)?;
    eputln!(
        "health: http://{}/healthz /readyz /metrics",
        server.address()
    );
    Ok(Some(server))
}
