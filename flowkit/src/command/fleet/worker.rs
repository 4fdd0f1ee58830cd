//! `flowkit worker`: run one, and look at those that there are.

use flowkit::prelude::*;
use serde_json::{Value, json};

use crate::command::args::{FleetArgs, WorkerArgs, WorkerCommand};
use crate::command::exec::Programs;
use crate::command::failure::{Ending, Failure, Outcome};
use crate::command::interrupt::Interrupt;
use crate::command::output::{put, putln};
use crate::command::table::{Table, one_line};
use crate::roles;

pub(crate) async fn run(args: WorkerArgs) -> Outcome {
    match args.command {
        Some(WorkerCommand::List { fleet, json }) => list(&fleet, json).await,
        None => work(args).await,
    }
}

async fn work(args: WorkerArgs) -> Outcome {
    let mut interrupt = Interrupt::listen();
    let mut given = args.fleet.given()?;
    let roles = (!args.roles.is_empty()).then(|| json!(args.roles));
    given.flag("roles", "--role", roles);
    given.flag(
        "worker_id",
        "--worker-id",
        args.worker_id.map(|id| json!(id)),
    );
    given.flag("capacity", "--capacity", args.capacity.map(|n| json!(n)));
    let mut settings = given.settings().map_err(Failure::input)?;
    let programs = Programs::for_worker(&args.exec, &mut settings.fleet.roles)?;
    if settings.fleet.roles.is_empty() {
        return Err(Failure::input(format!(
            "a worker needs at least one role: --role NAME, with one of {}, or any name with a \
             program, --exec 'COMMAND'",
            roles::NAMES.join(", ")
        )));
    }
    let engine = super::connect(&settings).await?;
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
    eprintln!(
        "worker {}: roles {}, {} nodes at once; Ctrl-C stops it in order",
        worker.id(),
        settings.fleet.roles.join(", "),
        settings.fleet.capacity
    );
    match worker.run(interrupt.raised()).await {
        Ok(()) => Ok(Ending::Finished),
        Err(WorkerError::Superseded) => Err(Failure::superseded(WorkerError::Superseded)),
        Err(error) => Err(Failure::engine(error)),
    }
}

async fn list(fleet: &FleetArgs, json: bool) -> Outcome {
    let settings = fleet.given()?.settings().map_err(Failure::input)?;
    let engine = super::connect(&settings).await?;
    let client = engine.client();
    let workers = client.workers().await.map_err(Failure::engine)?;
    let mut table = Table::new(&["worker", "incarnation", "roles", "capacity", "running"]);
    let mut values: Vec<Value> = Vec::new();
    for worker in workers {
        let id = worker.worker_id.clone();
        let runs = client.active_runs(id).await.map_err(Failure::engine)?;
        let roles: Vec<&str> = worker.roles.iter().map(|role| role.as_str()).collect();
        table.row([
            one_line(worker.worker_id.as_str(), 60),
            worker.incarnation.0.to_string(),
            one_line(&roles.join(", "), 60),
            worker.capacity.to_string(),
            runs.len().to_string(),
        ]);
        values.push(json!({
            "worker_id": worker.worker_id,
            "incarnation": worker.incarnation,
            "roles": roles,
            "capacity": worker.capacity,
            "version": worker.worker_version,
            "running": runs.iter().map(|run| &run.node_id).collect::<Vec<_>>(),
        }));
    }
    if json {
        putln!("{}", json!({"workers": values}));
    } else {
        put!("{table}");
    }
    Ok(Ending::Finished)
}
