//! `flowkit run`.

use super::args::RunArgs;
use super::exec::{Programs, place_of_exec};
use super::failure::{Failure, Outcome};
use super::graph;
use super::interrupt::Interrupt;
use super::nodes::{nodes_table, task_value, vars_line, word};
use super::output::{put, putln};
use super::session::{DataFolder, Session};
use super::vars::key_with;

pub(crate) async fn run(args: RunArgs) -> Outcome {
    let mut interrupt = Interrupt::listen();
    let given = args.given()?;
    let from = place_of_exec(&given);
    let settings = given.settings().map_err(Failure::input)?;
    let programs = Programs::for_run(&settings.fleet.exec, &from)?;
    let file = graph::read(&args.graph, Some(&programs), args.json)?;
    let vars = args.vars.read()?;
    let key = key_with(&file.key, vars.as_ref());
    let data = DataFolder::new(args.data.data.as_deref())?;
    let mut session = interrupt.or(Session::open(data, settings)).await?;
    let _health = session.serve_health().await?;
    session.start_workers(&args.data, &programs)?;
    let work = async {
        let task = session.task(&key, &file.value, vars, Some(&args.operated));
        let task = interrupt.or(task).await?;
        session.follow(&task, &mut interrupt).await
    };
    let followed = match session.unless_failed(work).await {
        Ok(followed) => followed,
        Err(failure) => {
            // Workers may have begun what else is in the folder: they hand it back.
            if interrupt.is_raised() {
                session.close().await;
            }
            return Err(failure);
        }
    };
    let (status, ending) = followed.ending();
    if args.json {
        putln!("{}", task_value(status));
    } else {
        put!("\n{}", nodes_table(status));
        putln!("\ntask {}: {}", status.task_id, word(&status.state));
        put!("{}", vars_line(status));
    }
    followed.explain(session.is_kept());
    session.close().await;
    Ok(ending)
}
