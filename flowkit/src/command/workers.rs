//! `flowkit worker list` and `show`: the workers, what each runs, and when it was heard.

use flowkit::prelude::*;
use serde_json::{Value, json};
use std::sync::Arc;

use super::args::TaskArgs;
use super::failure::{Ending, Failure, Outcome};
use super::nodes::word;
use super::output::{put, putln};
use super::session::Session;
use super::table::{Table, one_line, thousands};

/// `flowkit worker list`.
pub(crate) async fn list(args: &TaskArgs) -> Outcome {
    let session = Session::to_look(args).await?;
    let client = session.client();
    let found = async {
        Ok((
            client.worker_views().await?,
            client.unreadable_workers().await?,
        ))
    };
    let found: Result<_, ClientError> = found.await;
    session.close().await;
    let (views, unreadable) = found.map_err(Failure::engine)?;
    if args.json {
        let workers: Vec<Value> = views.iter().map(list_value).collect();
        let set_aside = unreadable
            .iter()
            .map(|(worker, why)| json!({"worker_id": worker, "why": why}));
        let set_aside: Vec<Value> = set_aside.collect();
        putln!("{}", json!({"workers": workers, "unreadable": set_aside}));
        return Ok(Ending::Finished);
    }
    put!("{}", table(&views));
    for (worker, why) in &unreadable {
        putln!("{}", set_aside(worker, why));
    }
    Ok(Ending::Finished)
}

/// A worker that is in no list, since its record cannot be read.
fn set_aside(worker: &WorkerId, why: &str) -> String {
    format!(
        "set aside, its record cannot be read: worker {}: {}",
        one_line(worker.as_str(), 60),
        one_line(why, 200)
    )
}

fn table(views: &[WorkerView]) -> Table {
    let headings = [
        "worker", "status", "heard", "roles", "capacity", "running", "version",
    ];
    let mut table = Table::new(&headings);
    for view in views {
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
    table
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
    let found = async {
        let workers = client.unreadable_workers().await?;
        let view = client.worker(&worker_id).await?;
        Ok((view, workers, client.unreadable().await?))
    };
    let found: Result<_, ClientError> = found.await;
    session.close().await;
    let (view, workers, unreadable) = found.map_err(Failure::engine)?;
    if let Some((_, why)) = workers.iter().find(|(id, _)| *id == worker_id) {
        return Err(Failure::engine(format!(
            "worker {worker_id} has registered, and its record cannot be read: {}; look with a version of \
             FlowKit as new as the one that wrote it. Until then start it under another worker_id",
            one_line(why, 200)
        )));
    }
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
    put!("{}", page(&view, &unreadable));
    Ok(Ending::Finished)
}

/// All that is known of a worker, and of tasks whose nodes are in no list of runs.
fn page(view: &WorkerView, unreadable: &[(TaskId, Arc<str>)]) -> String {
    let status = match view.heard {
        Some(_) => format!("{}, heard {}", status(view), heard(view)),
        None => "not heard lately".to_owned(),
    };
    let mut lines = vec![
        format!(
            "{}: {status}",
            one_line(view.record.worker_id.as_str(), 200)
        ),
        format!(
            "roles {}; {} nodes at once; version {}; process start {}",
            one_line(&roles(view).join(", "), 200),
            view.record.capacity,
            one_line(&view.record.worker_version, 40),
            view.record.incarnation
        ),
    ];
    if let Some(heard) = &view.heard {
        let beat = heard.heartbeat_age_ms.map_or_else(
            || "none lately".to_owned(),
            |age| format!("{} ago", span(age)),
        );
        lines.push(format!(
            "last heartbeat: {beat}; messages that wait to be folded: {}",
            heard.lag
        ));
        if heard.abandoned > 0 {
            lines.push(format!(
                "{} handlers ignore that they were told to end and hold slots: restart the worker to free them",
                heard.abandoned
            ));
        }
        if heard.conflicts > 0 {
            let cure = "stop one, or give it another --worker-id";
            lines.push(format!("two live processes share this id: {cure}"));
        }
    }
    if view.runs.is_empty() {
        lines.push("it runs nothing".to_owned());
    } else {
        lines.push(format!("\n{}", runs(view).to_string().trim_end()));
    }
    lines.extend(unreadable.iter().map(|(task, why)| {
        format!(
            "set aside, a record cannot be read: task {}: {}",
            one_line(task.as_str(), 60),
            one_line(why, 200)
        )
    }));
    lines.join("\n") + "\n"
}

fn runs(view: &WorkerView) -> Table {
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
    table
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
    use super::*;

    /// A worker `w` of two slots that runs node `n` of task `t`, as a client sees it.
    async fn seen() -> WorkerView {
        let engine = Engine::memory();
        engine.start().await.expect("started");
        let hold = handler_fn(|cx: RunContext, _: Batch<Value>| async move {
            cx.cancelled().await;
            Ok(BatchResult::of(()))
        });
        let settings = WorkerSettings::default().shutdown_grace_sec(0.0);
        let worker = Worker::builder(&engine).worker_id("w").capacity(2);
        let worker = worker.role("hold", hold).settings(settings);
        worker.build().expect("a worker").start();
        let client = engine.client();
        let graph =
            json!({"nodes": [{"node_id": "n", "type": "hold", "io": {"input_inline": {}}}]});
        let options = SubmitOptions::with_task_id("t".parse().expect("an id"));
        let task = client.submit(&graph, options).await.expect("submitted");
        let mut watch = task.watch(std::time::Duration::from_millis(10));
        while let Some(status) = watch.next().await.expect("a status") {
            if status.nodes[0].state == NodeState::Running {
                break;
            }
        }
        let view = client.worker(&"w".parse().expect("an id")).await;
        let view = view.expect("read").expect("it registered");
        engine.stop().await;
        view
    }

    #[tokio::test]
    async fn a_worker_is_shown_word_for_word_in_each_of_its_states() {
        let mut view = seen().await;
        let heard = view.heard.as_mut().expect("it announced itself");
        heard.age_ms = 30_000;
        heard.heartbeat_age_ms = Some(41_000);
        heard.lag = 7;
        view.runs[0].beat = Some((3, 4_200));
        view.runs[0].node.batches = 1_234;
        view.runs[0].node.checkpoint = Some(Json::encode(&json!({"page": 7})).expect("JSON"));
        assert_eq!(
            page(&view, &[]),
            "w: online, heard 30 s ago\n\
             roles hold; 2 nodes at once; version 2.0.0; process start 1\n\
             last heartbeat: 41 s ago; messages that wait to be folded: 7\n\
             \n\
             task  node  state    batches  in batch  checkpoint\n\
             t     n     running    1,234  4.2 s     {\"page\":7}\n"
        );
        assert_eq!(
            table(std::slice::from_ref(&view)).to_string(),
            "worker  status  heard     roles  capacity  running  version\n\
             w       online  30 s ago  hold          2        1  2.0.0\n"
        );

        let heard = view.heard.as_mut().expect("it announced itself");
        heard.age_ms = 600_000;
        heard.heartbeat_age_ms = None;
        heard.abandoned = 2;
        heard.conflicts = 3;
        view.runs[0].told_to_end = Some(CancelReason::UserRequest);
        view.runs[0].beat = None;
        view.runs[0].node.checkpoint = None;
        let of_newer = ("u".parse().expect("an id"), Arc::from("version 9"));
        assert_eq!(
            page(&view, &[of_newer]),
            "w: silent, heard 10 min ago\n\
             roles hold; 2 nodes at once; version 2.0.0; process start 1\n\
             last heartbeat: none lately; messages that wait to be folded: 7\n\
             2 handlers ignore that they were told to end and hold slots: restart the worker to free them\n\
             two live processes share this id: stop one, or give it another --worker-id\n\
             \n\
             task  node  state                       batches  in batch  checkpoint\n\
             t     n     told to end (user_request)    1,234\n\
             set aside, a record cannot be read: task u: version 9\n"
        );

        // What it last said of its end holds, however long ago it was.
        "offline".clone_into(&mut view.heard.as_mut().expect("it announced itself").status);
        view.runs.clear();
        assert!(page(&view, &[]).starts_with("w: offline, heard 10 min ago\n"));
        view.heard = None;
        assert_eq!(
            page(&view, &[]),
            "w: not heard lately\n\
             roles hold; 2 nodes at once; version 2.0.0; process start 1\n\
             it runs nothing\n"
        );
    }

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
