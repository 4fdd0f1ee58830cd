//! `flowkit run`.

use super::args::RunArgs;
use super::failure::Outcome;
use super::graph;
use super::interrupt::Interrupt;
use super::nodes::{nodes_table, task_value, word};
use super::output::{put, putln};
use super::session::{DataFolder, Session};

pub(crate) async fn run(args: RunArgs) -> Outcome {
    let mut interrupt = Interrupt::listen();
    let file = graph::read(&args.graph)?;
    let data = DataFolder::new(args.data.data.as_deref())?;
    let mut session = Session::open(data).await?;
    session.start_workers(&args.data)?;
    let work = async {
        let task = session
            .task(&file.key, &file.value, |o| args.operated.given(o))
            .await?;
        session.follow(&task, &mut interrupt).await
    };
    let followed = session.unless_failed(work).await?;
    let (status, ending) = followed.ending();
    if args.json {
        putln!("{}", task_value(status));
    } else {
        put!("\n{}", nodes_table(status));
        putln!("\ntask {}: {}", status.task_id, word(&status.state));
    }
    followed.explain(session.is_kept());
    session.close().await;
    Ok(ending)
}
