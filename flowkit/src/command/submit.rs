//! `flowkit submit`.

use flowkit::prelude::*;
use serde_json::json;

use super::args::SubmitArgs;
use super::failure::{Ending, Failure, Outcome};
use super::graph;
use super::interrupt::Interrupt;
use super::nodes::{nodes_table, task_value, vars_line, word};
use super::output::{eputln, put, putln};
use super::session::{Followed, Session, refused};

pub(crate) async fn run(args: SubmitArgs) -> Outcome {
    let mut interrupt = Interrupt::listen();
    let settings = args.fleet.given()?.settings().map_err(Failure::input)?;
    let file = graph::read(&args.graph, None, args.json)?;
    let vars = args.vars.read()?;
    let session = interrupt.or(Session::connect(settings)).await?;
    let mut options = match args.idempotency_key {
        Some(key) => SubmitOptions::with_key(key),
        None => SubmitOptions::default(),
    };
    options.vars = vars;
    let options = args.operated.given(options);
    let client = session.client();
    let submitted = async { client.submit(&file.value, options).await.map_err(refused) };
    let task = interrupt.or(submitted).await?;
    if !args.watch {
        if args.json {
            putln!("{}", json!({"task_id": task.id()}));
        } else {
            putln!("{}", task.id());
        }
        return Ok(Ending::Finished);
    }
    eputln!("task {}: submitted", task.id());
    let followed = session.follow(&task, &mut interrupt).await?;
    let (status, ending) = followed.ending();
    if args.json {
        putln!("{}", task_value(status));
    } else {
        put!("\n{}", nodes_table(status));
        putln!("\ntask {}: {}", status.task_id, word(&status.state));
        put!("{}", vars_line(status));
    }
    if let Followed::Interrupted(_) = followed {
        eputln!(
            "the task goes on; `flowkit task show {}` looks at it",
            task.id()
        );
    } else {
        followed.explain(true);
    }
    Ok(ending)
}
