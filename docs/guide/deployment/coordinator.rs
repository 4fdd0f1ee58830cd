// The coordinator of docs/guide/deployment.md.

use flowkit::fleet;
use flowkit::function::{Call, Changes, Functions};
use flowkit::prelude::*;
use flowkit::settings::Settings;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let settings = Settings::load("flowkit.toml", [])?;
    let functions = Functions::default().function("price.gross", |call: &Call<'_>| {
        let net = call.var("net").and_then(|net| net.as_i64()).unwrap_or(0);
        Ok(Changes::new().set("gross", net * 119 / 100))
    });
    let engine = fleet::connect(&settings).await?.with_functions(functions);
    engine.start_with(settings.coordinator).await?;
    shutdown_signal().await;
    engine.stop().await; // another coordinator has its shards at once
    Ok(())
}
