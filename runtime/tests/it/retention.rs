//! Settings of retention.

use flowkit_runtime::{CoordinatorSettings, Engine};

#[tokio::test]
async fn a_retention_that_makes_no_sense_does_not_start() {
    let engine = Engine::memory();
    let settings = CoordinatorSettings::default()
        .retention_finished_sec(f64::NAN)
        .retention_failed_sec(-1.0)
        .sweep_interval_sec(0.0);
    let error = engine.start_with(settings).await.unwrap_err().to_string();
    for key in [
        "retention_finished_sec",
        "retention_failed_sec",
        "sweep_interval_sec",
    ] {
        assert!(error.contains(key), "{error}");
    }
}
