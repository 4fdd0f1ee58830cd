//! `flowkit task rerun`.

use flowkit::prelude::*;
use flowkit_core::graph::Graph;
use serde_json::json;
use std::collections::BTreeSet;

use super::args::{DataArgs, RerunArgs};
use super::exec::{FLAG, Programs};
use super::failure::{Ending, Failure, Outcome};
use super::graph;
use super::interrupt::Interrupt;
use super::output::{eputln, putln};
use super::session::{Followed, Session, refused};
use super::table::one_line;
use super::task::{no_task, print_task, task_id};

pub(crate) async fn rerun(
    session: &mut Session,
    args: &RerunArgs,
    interrupt: &mut Interrupt,
) -> Outcome {
    // Over servers the workers have the programs.
    let here = args.task.data.is_some();
    let programs = if here {
        let from = match args.exec.as_slice() {
            [] => "exec (in the settings)",
            _ => FLAG,
        };
        Programs::for_run(args.programs(&session.settings().fleet.exec), from)?
    } else {
        Programs::default()
    };
    let old = session.client().task(task_id(&args.id, &args.task)?);
    let task = interrupt.or(made(session, args, &old, here.then_some(&programs)));
    let task = task.await?;
    if !args.watch && !here {
        if args.task.json {
            putln!("{}", json!({"task_id": task.id(), "rerun_of": old.id()}));
        } else {
            putln!("{}", task.id());
        }
        return Ok(Ending::Finished);
    }
    eputln!("task {}: runs {} again", task.id(), old.id());
    if here {
        let workers = DataArgs {
            data: None,
            workers: None,
        };
        session.start_workers(&workers, &programs)?;
    }
    let followed = session.unless_failed(session.follow(&task, interrupt));
    let followed = followed.await?;
    let (status, ending) = followed.ending();
    print_task(status, &args.task);
    if let (Followed::Interrupted(_), false) = (&followed, here) {
        eputln!(
            "the task goes on; `flowkit task show {}` looks at it",
            task.id()
        );
    } else {
        followed.explain(true);
    }
    Ok(ending)
}

/// The new task, or the one that an earlier command made. Nothing is submitted that nobody would run: with
/// `programs`, nobody but this command does.
async fn made(
    session: &Session,
    args: &RerunArgs,
    old: &TaskHandle,
    programs: Option<&Programs>,
) -> Result<TaskHandle, Failure> {
    let mut options = RerunOptions::default();
    options.from.clone_from(&args.from);
    options.all = args.all;
    options.idempotency_key.clone_from(&args.idempotency_key);
    if programs.is_some() && args.idempotency_key.is_none() {
        // The same command again goes on with what an earlier one left unfinished.
        let what = format!("rerun {} {:?} {}", old.id(), args.from, args.all);
        options.idempotency_key = Some(session.unfinished(&what).await?);
    }
    // What cannot be read or run again the engine refuses, in its own words.
    if let Ok(status) = old.status().await {
        for node in &args.from {
            if status.node(node).is_none() {
                return Err(Failure::input(format!(
                    "--from: task {} has no node `{}`",
                    old.id(),
                    one_line(node, 60)
                )));
            }
        }
        if let Some(programs) = programs.filter(|_| status.settled) {
            let nodes = match &options.idempotency_key {
                Some(key) => unfinished(&session.client().task_of_key(key)).await,
                None => None,
            };
            let nodes = nodes.unwrap_or_else(|| run_again(&status, args));
            all_are_run(&status, &nodes, programs)?;
        }
    }
    match old.rerun(options).await {
        Ok(task) => Ok(task),
        Err(error) if error.refusal() == Some(ReplyError::NotFound) => Err(no_task(
            ClientError::NoSuchTask(old.id().clone()),
            &args.task,
        )),
        Err(error) => Err(refused(error)),
    }
}

/// The nodes of an earlier rerun that have not ended, if there is one.
async fn unfinished(task: &TaskHandle) -> Option<BTreeSet<String>> {
    let status = task.status().await.ok()?;
    let nodes = status.nodes.iter().filter(|n| !n.state.is_terminal());
    Some(nodes.map(|node| node.node_id.to_string()).collect())
}

/// The nodes that a rerun would not keep: those that did not finish or are named, and all below them.
fn run_again(old: &TaskStatus, args: &RerunArgs) -> BTreeSet<String> {
    let Ok(graph) = Graph::parse(&old.graph) else {
        return BTreeSet::new();
    };
    let plan = graph.plan();
    let mut again = BTreeSet::new();
    for at in plan.topological_order() {
        let node = plan.node(at);
        let id = node.id.as_str();
        let finished = |node: &NodeStatus| node.state == NodeState::Finished;
        let above = |parent: usize| again.contains(plan.node(parent).id.as_str());
        if args.all
            || !old.node(id).is_some_and(finished)
            || args.from.iter().any(|from| from == id)
            || node.parents.iter().any(|parent| above(parent.node))
        {
            again.insert(id.to_owned());
        }
    }
    again
}

fn all_are_run(
    status: &TaskStatus,
    nodes: &BTreeSet<String>,
    programs: &Programs,
) -> Result<(), Failure> {
    let others = graph::roles_of_others(&status.graph, programs, |node| nodes.contains(node));
    let Some(role) = others.first() else {
        return Ok(());
    };
    Err(Failure::input(format!(
        "nobody here runs the role `{role}`, so nothing was submitted; give it to a program with --exec \
         {role}='COMMAND'"
    )))
}
