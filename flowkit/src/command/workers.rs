//! `flowkit worker list` and `show`: the workers, what each runs, and when it was heard.

use flowkit::prelude::*;
use serde_json::{Value, json};

use super::args::TaskArgs;
use super::failure::{Ending, Failure, Outcome};
use super::nodes::word;
use super::output::{put, putln};
use super::session::Session;
use super::table::{Table, one_line, thousands};

/// `flowkit worker list`.
pub(crate) async fn list(args: &TaskArgs) -> Outcome {
    let session = Session::to_look(args).await?;
    let views = session.client().worker_views().await;
    session.close().await;
    let views = views.map_err(Failure::engine)?;
    if args.json {
        let workers: Vec<Value> = views.iter().map(list_value).collect();
        putln!("{}", json!({"workers": workers}));
        return Ok(Ending::Finished);
    }
    let headings = [
        "worker", "status", "heard", "roles", "capacity", "running", "version",
    ];
    let mut table = Table::new(&headings);
    for view in &views {
        table.row([
            one_line(view.record.worker_id.as_str(), 60),
            status(view),
            heard(view),
            one_line(&roles(view).join(", "), 60),
            view.record.capacity.to_string(),
            view.runs.len().to_string(),
            one_line(&view.record.worker_version, 20),
        ]);
    }
    put!("{table}");
    Ok(Ending::Finished)
}

/// `flowkit worker show ID`.
pub(crate) async fn show(id: &str, args: &TaskArgs) -> Outcome {
    let worker_id = WorkerId::new(id).map_err(|e| {
        Failure::input(format!(
            "no worker has the id `{}`: it {e}; `flowkit worker list` shows them",
            one_line(id, 60)
        ))
    })?;
    let session = Session::to_look(args).await?;
    let client = session.client();
    let found = async { Ok((client.worker(&worker_id).await?, client.unreadable().await?)) };
    let found: Result<_, ClientError> = found.await;
    session.close().await;
    let (view, unreadable) = found.map_err(Failure::engine)?;
    let Some(view) = view else {
        return Err(Failure::input(format!(
            "no worker {worker_id} ever registered; `flowkit worker list` shows them"
        )));
    };
    if args.json {
        let mut value = list_value(&view);
        value["runs"] = view.runs.iter().map(run_value).collect();
        let set_aside = unreadable
            .iter()
            .map(|(task, why)| json!({"task_id": task, "why": why}));
        value["unreadable"] = set_aside.collect();
        putln!("{value}");
        return Ok(Ending::Finished);
    }
    putln!(
        "{}: {}, heard {}",
        view.record.worker_id,
        status(&view),
        heard(&view)
    );
    putln!(
        "roles {}; {} nodes at once; version {}; process start {}",
        one_line(&roles(&view).join(", "), 200),
        view.record.capacity,
        one_line(&view.record.worker_version, 40),
        view.record.incarnation
    );
    if let Some(heard) = &view.heard {
        let beat = heard.heartbeat_age_ms.map_or_else(
            || "none lately".to_owned(),
            |age| format!("{} ago", span(age)),
        );
        putln!(
            "last heartbeat: {beat}; messages that wait to be folded: {}",
            heard.lag
        );
        if heard.abandoned > 0 {
            putln!(
                "{} handlers ignore that they were told to end and hold slots: restart the worker to free them",
                heard.abandoned
            );
        }
        if heard.conflicts > 0 {
            putln!("two live processes share this id: stop one, or give it another --worker-id");
        }
    }
    let mut table = Table::new(&["task", "node", "state", "batches", "in batch", "checkpoint"]);
    for run in &view.runs {
        let told = run.told_to_end.as_ref().map(word);
        table.row([
            one_line(run.node.task_id.as_str(), 60),
            one_line(run.node.node_id.as_str(), 40),
            told.map_or_else(
                || "running".to_owned(),
                |why| format!("told to end ({why})"),
            ),
            thousands(run.node.batches),
            run.beat.map_or_else(String::new, |(_, ms)| span(ms)),
            run.node
                .checkpoint
                .as_ref()
                .map_or_else(String::new, |json| one_line(json.text(), 60)),
        ]);
    }
    if view.runs.is_empty() {
        putln!("it runs nothing");
    } else {
        put!("\n{table}");
    }
    for (task, why) in &unreadable {
        putln!(
            "set aside, a record cannot be read: task {}: {}",
            one_line(task.as_str(), 60),
            one_line(why, 200)
        );
    }
    Ok(Ending::Finished)
}

fn roles(view: &WorkerView) -> Vec<&str> {
    view.record.roles.iter().map(|role| role.as_str()).collect()
}

fn status(view: &WorkerView) -> String {
    let heard = view.heard.as_ref();
    match heard {
        None => "not heard".to_owned(),
        // What it last said of itself holds no longer.
        Some(h) if h.is_silent() && h.status != "offline" => "silent".to_owned(),
        Some(h) => one_line(&h.status, 20),
    }
}

fn heard(view: &WorkerView) -> String {
    let heard = view.heard.as_ref();
    heard.map_or_else(
        || "not lately".to_owned(),
        |h| format!("{} ago", span(h.age_ms)),
    )
}

/// A length of time for people.
pub(crate) fn span(ms: u64) -> String {
    match ms {
        0..10_000 => format!("{}.{} s", ms / 1_000, ms % 1_000 / 100),
        10_000..120_000 => format!("{} s", ms / 1_000),
        120_000..7_200_000 => format!("{} min", ms / 60_000),
        _ => format!("{} h", ms / 3_600_000),
    }
}

fn list_value(view: &WorkerView) -> Value {
    let record = &view.record;
    let mut value = json!({
        "worker_id": record.worker_id,
        "incarnation": record.incarnation,
        "roles": roles(view),
        "capacity": record.capacity,
        "version": record.worker_version,
        "running": view.runs.iter().map(|run| &run.node.node_id).collect::<Vec<_>>(),
        "status": Value::Null,
        "heard_ms_ago": Value::Null,
        "heartbeat_ms_ago": Value::Null,
        "lag": Value::Null,
    });
    if let Some(heard) = &view.heard {
        value["status"] = json!(status(view));
        value["heard_ms_ago"] = json!(heard.age_ms);
        value["heartbeat_ms_ago"] = json!(heard.heartbeat_age_ms);
        value["free_slots"] = json!(heard.free_slots);
        value["abandoned"] = json!(heard.abandoned);
        value["silent_after_ms"] = json!(heard.silent_after_ms);
        value["lag"] = json!(heard.lag);
        value["conflicts"] = json!(heard.conflicts);
    }
    value
}

fn run_value(run: &ActiveRun) -> Value {
    json!({
        "task_id": run.node.task_id,
        "node_id": run.node.node_id,
        "token": run.token,
        "attempt": run.node.attempts,
        "batches": run.node.batches,
        "checkpoint": run.node.checkpoint,
        "lease_ttl_ms": run.lease_ttl_ms,
        "granted_at_ms": run.granted_at_ms,
        "told_to_end": run.told_to_end,
        "batches_of_run": run.beat.map(|(batches, _)| batches),
        "in_batch_ms": run.beat.map(|(_, ms)| ms),
    })
}

#[cfg(test)]
mod tests {
    use super::span;

    #[test]
    fn times_are_told_in_the_unit_that_fits() {
        for (ms, text) in [
            (0, "0.0 s"),
            (1_234, "1.2 s"),
            (41_900, "41 s"),
            (180_000, "3 min"),
            (9_000_000, "2 h"),
        ] {
            assert_eq!(span(ms), text);
        }
    }
}
