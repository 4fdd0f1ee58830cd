//! `flowkit task list`, `show`, `cancel`, `pause` and `resume`; which command `rerun` is, too.

use flowkit::prelude::*;
use serde_json::{Value, json};
use std::time::{SystemTime, UNIX_EPOCH};

use super::args::{CancelArgs, ControlArgs, RerunArgs, TaskArgs, TaskCommand};
use super::failure::{Ending, Failure, Outcome};
use super::history;
use super::interrupt::Interrupt;
use super::nodes::{failure_line, nodes_table, task_value, vars_line, word};
use super::output::{eputln, put, putln};
use super::rerun::rerun;
use super::session::{DataFolder, Session};
use super::table::{Table, one_line};

/// Tasks read at once.
const PAGE: u32 = 200;
/// In place of its state: the record of a task cannot be read.
const UNREADABLE: &str = "unreadable";

pub(crate) async fn run(command: TaskCommand) -> Outcome {
    let args = match &command {
        TaskCommand::List(args)
        | TaskCommand::Show { task: args, .. }
        | TaskCommand::Cancel(CancelArgs { task: args, .. })
        | TaskCommand::Pause(ControlArgs { task: args, .. })
        | TaskCommand::Resume(ControlArgs { task: args, .. })
        | TaskCommand::Rerun(RerunArgs { task: args, .. }) => args,
    };
    let mut interrupt = Interrupt::listen();
    let mut session = interrupt.or(session_for(&command, args)).await?;
    let outcome = match &command {
        TaskCommand::Rerun(args) => rerun(&mut session, args, &mut interrupt).await,
        other => interrupt.or(at_once(&session, other)).await,
    };
    session.close().await;
    outcome
}

async fn session_for(command: &TaskCommand, args: &TaskArgs) -> Result<Session, Failure> {
    match (&args.data, command) {
        (None, _) | (_, TaskCommand::List(_) | TaskCommand::Show { .. }) => {
            Session::to_look(args).await
        }
        // It takes a coordinator to change a task.
        (Some(data), _) => {
            let settings = args.given()?.settings().map_err(Failure::input)?;
            Session::open(DataFolder::existing(data)?, settings).await
        }
    }
}

/// Commands that are done once they are answered.
async fn at_once(session: &Session, command: &TaskCommand) -> Outcome {
    match command {
        TaskCommand::List(args) => list(session, args).await,
        TaskCommand::Show { id, history, task } => show(session, id, *history, task).await,
        TaskCommand::Cancel(args) => cancel(session, args).await,
        TaskCommand::Pause(args) => control(session, args, true).await,
        TaskCommand::Resume(args) => control(session, args, false).await,
        TaskCommand::Rerun(_) => unreachable!("it is followed"),
    }
}

async fn list(session: &Session, args: &TaskArgs) -> Outcome {
    let client = session.client();
    let (mut tasks, mut unreadable) = (Vec::new(), Vec::new());
    let mut after = None;
    loop {
        let page = client.list(after, PAGE).await.map_err(Failure::engine)?;
        tasks.extend(page.tasks);
        unreadable.extend(page.unreadable);
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    tasks.sort_by(|a, b| (a.created_at_ms, &a.task_id).cmp(&(b.created_at_ms, &b.task_id)));
    if args.json {
        let tasks: Vec<Value> = tasks
            .iter()
            .map(|task| {
                json!({
                    "task_id": task.task_id,
                    "status": task.state,
                    "settled": task.settled,
                    "created_at_ms": task.created_at_ms,
                })
            })
            .chain(unreadable.iter().map(|(id, why)| {
                json!({"task_id": id, "status": UNREADABLE, "settled": null, "created_at_ms": null, "why": why})
            }))
            .collect();
        putln!("{}", json!({"tasks": tasks}));
        return Ok(Ending::Finished);
    }
    let mut table = Table::new(&["task", "state", "submitted", "nodes"]);
    for task in &tasks {
        table.row([
            one_line(task.task_id.as_str(), 60),
            word(&task.state),
            ago(task.created_at_ms),
            one_line(&node_names(task), 60),
        ]);
    }
    for (id, why) in &unreadable {
        let id = one_line(id.as_str(), 60);
        table.row([id, UNREADABLE.to_owned(), "?".to_owned(), one_line(why, 60)]);
    }
    put!("{table}");
    Ok(Ending::Finished)
}

/// The nodes of a task's graph, for people.
fn node_names(task: &TaskStatus) -> String {
    let graph: Value = task.graph.decode().unwrap_or_default();
    let nodes = graph["nodes"].as_array();
    let names = nodes.into_iter().flatten();
    let names: Vec<&str> = names.filter_map(|node| node["node_id"].as_str()).collect();
    names.join(", ")
}

/// How long ago a wall time was, roughly; clocks may have been set in between.
fn ago(at_ms: i64) -> String {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX));
    let seconds = now.saturating_sub(at_ms) / 1_000;
    match seconds {
        ..0 => "in the future".to_owned(),
        0..120 => format!("{seconds} s ago"),
        120..7_200 => format!("{} min ago", seconds / 60),
        7_200..172_800 => format!("{} h ago", seconds / 3_600),
        _ => format!("{} days ago", seconds / 86_400),
    }
}

async fn show(session: &Session, id: &str, with_history: bool, args: &TaskArgs) -> Outcome {
    let task = session.client().task(task_id(id, args)?);
    let status = task.status().await.map_err(|e| no_task(e, args))?;
    if args.json {
        putln!("{}", history::with_history(task_value(&status), &status));
        return Ok(Ending::Finished);
    }
    print_task(&status, args);
    if with_history {
        put!("\n{}", history::text(&status));
    }
    Ok(Ending::Finished)
}

async fn cancel(session: &Session, cancel: &CancelArgs) -> Outcome {
    let args = &cancel.task;
    let task = session.client().task(task_id(&cancel.id, args)?);
    let before = task.status().await.map_err(|e| no_task(e, args))?;
    if before.state.is_terminal() {
        print_task(&before, args);
        eputln!("{}", ended_before(before.state));
        return Ok(Ending::Failed);
    }
    // In a folder no handler of it runs: this process has it to itself, and no workers.
    task.cancel(&cancel.reason, cancel.grace_sec)
        .await
        .map_err(|e| no_task(e, args))?;
    task.wait().await.map_err(Failure::engine)?;
    let status = task.status().await.map_err(Failure::engine)?;
    print_task(&status, args);
    Ok(if status.state == TaskState::Cancelled {
        Ending::Finished
    } else {
        eputln!("{}", ended_before(status.state));
        Ending::Failed
    })
}

/// Why a task is not cancelled.
fn ended_before(state: TaskState) -> String {
    match state {
        TaskState::Cancelled => "the task was cancelled before".to_owned(),
        state => format!(
            "the task had ended before: {}; a terminal state never changes",
            word(&state)
        ),
    }
}

async fn control(session: &Session, args: &ControlArgs, pause: bool) -> Outcome {
    let (reason, args, id) = (&args.reason, &args.task, &args.id);
    let task = session.client().task(task_id(id, args)?);
    let state = if pause {
        task.pause(reason).await
    } else {
        task.resume(reason).await
    };
    let state = state.map_err(|e| no_task(e, args))?;
    let status = task.status().await.map_err(Failure::engine)?;
    print_task(&status, args);
    let state = state.unwrap_or(status.state);
    Ok(match (state, pause) {
        (TaskState::Paused, true) | (TaskState::Queued | TaskState::Running, false) => {
            Ending::Finished
        }
        (TaskState::Paused, false) | (TaskState::Queued | TaskState::Running, true) => {
            eputln!("another client asked for the opposite meanwhile; type it again");
            Ending::Failed
        }
        _ => {
            eputln!("the task stays as it was: {}", word(&state));
            Ending::Failed
        }
    })
}

pub(crate) fn print_task(status: &TaskStatus, args: &TaskArgs) {
    if args.json {
        putln!("{}", task_value(status));
        return;
    }
    put!("{}", nodes_table(status));
    putln!("\ntask {}: {}", status.task_id, word(&status.state));
    put!("{}", vars_line(status));
    if let Some(of) = &status.rerun_of {
        putln!("it runs {of} again");
    }
    if let Some(failure) = &status.failure {
        putln!("{}", failure_line(failure));
    }
}

pub(crate) fn task_id(id: &str, args: &TaskArgs) -> Result<TaskId, Failure> {
    TaskId::new(id).map_err(|e| {
        Failure::input(format!(
            "no task has the id `{}`: it {e}; `{}` shows them",
            one_line(id, 60),
            lister(args)
        ))
    })
}

/// The command that lists the tasks.
fn lister(args: &TaskArgs) -> String {
    match &args.data {
        Some(data) => format!("flowkit task list --data {}", data.display()),
        None => "flowkit task list".to_owned(),
    }
}

pub(crate) fn no_task(error: ClientError, args: &TaskArgs) -> Failure {
    match error {
        ClientError::NoSuchTask(id) => Failure::input(format!(
            "there is no task {id}; `{}` shows them",
            lister(args)
        )),
        error @ ClientError::Swept(_) => Failure::input(error),
        error if error.refusal() == Some(ReplyError::Swept) => Failure::input(error),
        error => Failure::engine(error),
    }
}
