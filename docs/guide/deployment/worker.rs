// The worker of docs/guide/deployment.md.

use flowkit::fleet;
use flowkit::prelude::*;
use flowkit::settings::Settings;
use std::collections::BTreeMap;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let settings = Settings::load("flowkit.toml", [])?; // and FLOWKIT_KAFKA, FLOWKIT_MONGO, … over it
    let engine = fleet::connect(&settings).await?;
    let words = handler_fn(|_cx: RunContext, batch: Batch<BTreeMap<String, String>>| async move {
        let words = batch.payload.values().flat_map(|text| text.split_whitespace()).count();
        Ok(BatchResult::of(words).metric("words", words))
    });
    let worker = Worker::builder(&engine)
        .worker_id("words-1") // the same one after a restart
        .role("words", words)
        .capacity(settings.fleet.capacity)
        .settings(settings.worker)
        .build()?;
    worker.run(shutdown_signal()).await?; // until Ctrl-C or SIGTERM
    Ok(())
}
