//! `flowkit coordinator`.

use crate::command::args::CoordinatorArgs;
use crate::command::failure::{Ending, Failure, Outcome};
use crate::command::health;
use crate::command::interrupt::Interrupt;
use crate::command::output::eputln;

pub(crate) async fn run(args: CoordinatorArgs) -> Outcome {
    let mut interrupt = Interrupt::listen();
    let settings = args.given()?.settings().map_err(Failure::input)?;
    // A stop in order, too, before there was anything to stop.
    let Some(engine) = interrupt.before(super::connect(&settings)).await else {
        return Ok(Ending::Finished);
    };
    let engine = engine?;
    let started = engine.start_with(settings.coordinator);
    let Some(started) = interrupt.before(started).await else {
        return Ok(Ending::Finished);
    };
    started.map_err(Failure::input)?;
    eputln!("coordinator: started; Ctrl-C stops it in order");
    let _health = health::serve(&settings.fleet.health_listen, &engine).await?;
    interrupt.raised().await;
    engine.stop().await;
    eputln!("coordinator: stopped");
    Ok(Ending::Finished)
}
