//! `flowkit worker`: run one, and look at those that there are.

use flowkit::prelude::*;

use crate::command::args::{WorkerArgs, WorkerCommand};
use crate::command::exec::{Programs, place_of_exec};
use crate::command::failure::{Ending, Failure, Outcome};
use crate::command::health;
use crate::command::interrupt::Interrupt;
use crate::command::output::eputln;
use crate::command::workers;
use crate::roles;

pub(crate) async fn run(args: WorkerArgs) -> Outcome {
    match args.command {
        Some(WorkerCommand::List(args)) => workers::list(&args).await,
        Some(WorkerCommand::Show { id, at }) => workers::show(&id, &at).await,
        None => work(args).await,
    }
}

async fn work(args: WorkerArgs) -> Outcome {
    let mut interrupt = Interrupt::listen();
    let given = args.given()?;
    let from = place_of_exec(&given);
    let mut settings = given.settings().map_err(Failure::input)?;
    let programs = Programs::for_worker(&settings.fleet.exec, &from, &mut settings.fleet.roles)?;
    if settings.fleet.roles.is_empty() {
        return Err(Failure::input(format!(
            "a worker needs at least one role: --role NAME, with one of {}, or any name with a \
             program, --exec 'COMMAND'",
            roles::NAMES.join(", ")
        )));
    }
    let named = &settings.fleet.roles;
    let unknown = named
        .iter()
        .filter(|role| !programs.has(role) && !roles::NAMES.contains(&role.as_str()));
    let unknown: Vec<String> = unknown.map(|role| roles::unknown(role)).collect();
    if !unknown.is_empty() {
        return Err(Failure::input(unknown.join("\n  ")));
    }
    // A stop in order, too, before there was anything to stop.
    let Some(engine) = interrupt.before(super::connect(&settings)).await else {
        return Ok(Ending::Finished);
    };
    let engine = engine?;
    let mut builder = Worker::builder(&engine)
        .capacity(settings.fleet.capacity)
        .settings(settings.worker);
    if !settings.fleet.worker_id.is_empty() {
        builder = builder.worker_id(settings.fleet.worker_id);
    }
    for role in &settings.fleet.roles {
        builder = match programs.of(role) {
            Some(exec) => builder.role(role, exec.clone()),
            None => roles::with(builder, role).map_err(Failure::input)?,
        };
    }
    let worker = builder.build().map_err(Failure::input)?;
    eputln!(
        "worker {}: roles {}, {} nodes at once; Ctrl-C stops it in order",
        worker.id(),
        settings.fleet.roles.join(", "),
        settings.fleet.capacity
    );
    let _health = health::serve(&settings.fleet.health_listen, &engine).await?;
    match worker.run(interrupt.raised()).await {
        Ok(()) => Ok(Ending::Finished),
        Err(WorkerError::Superseded) => Err(Failure::superseded(WorkerError::Superseded)),
        Err(error) => Err(Failure::engine(error)),
    }
}
