//! A run's history as a table: one row per event.

use flowkit_core::message::Body;
use flowkit_core::port::Stream;

use crate::history::{Change, Event, Step, What};

/// One row per event; reads and checks only if `verbose`.
pub(super) fn rows(history: &[Event], verbose: bool) -> Vec<String> {
    history
        .iter()
        .filter(|event| verbose || shown(&event.what))
        .map(row)
        .collect()
}

fn shown(what: &What) -> bool {
    match what {
        What::GrantsRead { .. } => false,
        What::Appended { envelope, .. } => !matches!(
            envelope.body,
            Body::Heartbeat(_) | Body::WorkerOnline(_) | Body::InputReady(_)
        ),
        What::Committed { changes, .. } => !changes.is_empty(),
        _ => true,
    }
}

fn row(event: &Event) -> String {
    let (place, text) = cells(&event.what);
    format!(
        "{:>7}.{:03} {place:<8} {text}",
        event.at / 1_000,
        event.at % 1_000
    )
}

fn cells(what: &What) -> (String, String) {
    match what {
        What::Appended {
            stream,
            offset,
            envelope,
        } => {
            let place = match stream {
                Stream::Shard(shard) => format!("S{shard}"),
                Stream::Inbox(inbox) => format!("in{inbox}"),
                Stream::Announcements => "ann".to_owned(),
            };
            let mut text = format!(
                "@{offset} {} from {}",
                envelope.body.kind(),
                envelope.sender.id
            );
            if let Some(to) = &envelope.to {
                text.push_str(&format!(" to {to}"));
            }
            if let (Some(task), Some(node)) = (&envelope.task_id, &envelope.node_id) {
                text.push_str(&format!(" {task}/{node}"));
            }
            if let Some(token) = envelope.lease_no {
                text.push_str(&format!(" t{token}"));
            }
            if let Some(seq) = envelope.seq {
                text.push_str(&format!(" seq {seq}"));
            }
            text.push_str(&detail(&envelope.body));
            (place, text)
        }
        What::Committed {
            host,
            epoch,
            seq,
            next,
            changes,
            ..
        } => {
            let mut text = format!("COMMIT e{epoch} #{seq} next {next}");
            for change in changes {
                text.push_str(" | ");
                text.push_str(&change_text(change));
            }
            (format!("h{host}"), text)
        }
        What::Refused {
            host,
            kind,
            epoch,
            seq,
        } => (
            format!("h{host}"),
            format!("commit e{epoch} #{seq} refused: {kind:?}"),
        ),
        What::Undone { changes } => {
            let text: Vec<String> = changes.iter().map(change_text).collect();
            ("store".to_owned(), format!("LOST {}", text.join(" | ")))
        }
        What::Released { host, shard } => (format!("h{host}"), format!("gives S{shard} back")),
        What::EpochRaised { host, shard, epoch } => (
            format!("h{host}"),
            format!("TAKEOVER S{shard} epoch {epoch}"),
        ),
        What::Registered {
            place,
            worker,
            incarnation,
        } => (
            format!("h{}", place.host),
            format!("{worker} is incarnation {incarnation}"),
        ),
        What::GrantsRead { place, nodes } => {
            let nodes: Vec<String> = nodes.iter().map(|(t, n)| format!("{t}/{n}")).collect();
            (
                format!("h{}.{}", place.host, place.machine),
                format!("reads grants of {}", nodes.join(", ")),
            )
        }
        What::ToldFenced {
            place,
            task,
            node,
            token,
        } => (
            format!("h{}.{}", place.host, place.machine),
            format!("is told that {task}/{node} t{token} is fenced"),
        ),
        What::Kept {
            task,
            node,
            token,
            uid,
            value,
        } => (
            "store".to_owned(),
            format!("keeps {value:?} for {uid} of {task}/{node} t{token}"),
        ),
        What::Staged {
            task,
            node,
            uid,
            token,
        } => (
            "store".to_owned(),
            format!("has the body of {uid} of {task}/{node} t{token}"),
        ),
        What::BodiesSwept { task } => ("store".to_owned(), format!("sweeps bodies of {task}")),
        What::Handler { run, step } => {
            let place = format!("h{}.{}", run.place.host, run.place.machine);
            let text = format!(
                "  {} {}/{} t{} {}",
                run.worker,
                run.task,
                run.node,
                run.token,
                step_text(step)
            );
            (place, text)
        }
        What::Asked { client, task, ask } => {
            (format!("c{client}"), format!("asks {ask:?} of {task}"))
        }
        What::Answered {
            client,
            task,
            ask,
            reply,
        } => {
            let error = reply.error.as_ref().map(|error| error.kind);
            let text = format!(
                "gets {ask:?} of {task}: ok {} {:?} {error:?}",
                reply.ok, reply.state
            );
            (format!("c{client}"), text)
        }
        What::Looks { client, task, .. } => (format!("c{client}"), format!("looks at {task}")),
        What::Shown {
            client,
            task,
            shown,
            ..
        } => (format!("c{client}"), format!("sees of {task}: {shown:?}")),
        What::Process { place, what } => (
            format!("h{}", place.host),
            format!("*** {what:?} (process {})", place.generation),
        ),
        What::Failed {
            client,
            task,
            ask,
            error,
        } => (
            format!("c{client}"),
            format!("fails {ask:?} of {task}: {}", error.text),
        ),
        What::Denied {
            client,
            task,
            ask,
            kind,
        } => (
            format!("c{client}"),
            format!("is to ask again for {ask:?} of {task}: {kind:?}"),
        ),
        What::Client { client, what } => (format!("c{client}"), format!("*** {what:?}")),
        What::Fault { text } => ("fault".to_owned(), format!("*** {text}")),
        What::StoreClock { by_ms } => (
            "store".to_owned(),
            format!("*** its clock jumps by {by_ms} ms"),
        ),
        What::Rotten { task } => (
            "store".to_owned(),
            format!("*** a record of {task} can no longer be read"),
        ),
        What::LogLost { shard, from, end } => (
            format!("S{shard}"),
            format!("*** entries @{from} to @{end} are lost"),
        ),
        What::Healed => ("heal".to_owned(), "*** faults are over".to_owned()),
        What::Broke => ("fault".to_owned(), "*** a machine breaks".to_owned()),
    }
}

fn detail(body: &Body) -> String {
    match body {
        Body::BatchOk(batch) => format!(" {}", batch.batch_uid),
        Body::TaskDone(done) => {
            let counts = done.counts;
            let last = done.last_batch.as_ref().map(|b| b.batch_uid.clone());
            format!(
                " new {} skipped {} behind {} last {last:?}",
                counts.new, counts.skipped, counts.behind_checkpoint
            )
        }
        Body::TaskFailed(failed) => {
            format!(" {} permanent {}", failed.reason_code, failed.permanent)
        }
        Body::TaskReleased(released) => format!(" {:?}", released.reason),
        Body::TaskRefused(refused) => format!(" {:?}", refused.reason),
        Body::TaskCancel(cancel) => format!(" {:?} grace {}", cancel.reason, cancel.grace_ms),
        Body::Cancelled(cancelled) => format!(" {:?}", cancelled.reason),
        Body::Heartbeat(beat) => {
            let runs: Vec<String> = beat
                .runs
                .iter()
                .map(|run| format!("{}/{} t{}", run.task_id, run.node_id, run.token))
                .collect();
            format!(" [{}]", runs.join(", "))
        }
        _ => String::new(),
    }
}

fn change_text(change: &Change) -> String {
    match change {
        Change::Task { task, new, .. } => {
            format!("{task} {:?} settled {}", new.state, new.settled)
        }
        Change::Node { node, new, .. } => {
            let holder = new
                .holder
                .as_ref()
                .map_or(String::new(), |(worker, incarnation)| {
                    format!(" by {worker}#{incarnation}")
                });
            let told = new
                .told_to_end
                .map_or(String::new(), |why| format!(" told {why:?}"));
            let code = new
                .failure_code
                .as_deref()
                .map_or(String::new(), |code| format!(" ({code})"));
            format!(
                "{node} {:?} t{}{holder}{told} seq {} acc {} fail {} loss {}{code}",
                new.state, new.token, new.last_seq, new.accepted, new.failures, new.losses
            )
        }
        Change::Artifact { node, fact, .. } => format!("{node} += {}:{}", fact.number, fact.uid),
        Change::Tombstone { task, state, .. } => format!("{task} {state:?} is swept"),
        Change::Removed { removal, .. } => format!("removed {removal:?}"),
    }
}

fn step_text(step: &Step) -> String {
    match step {
        Step::Process { uid, checkpoint } => match checkpoint {
            Some(checkpoint) => format!("process {uid} from {checkpoint:?}"),
            None => format!("process {uid}"),
        },
        Step::Checkpoint { uid, .. } => format!("saves a checkpoint in {uid}"),
        Step::CheckpointSaved { uid, ok, .. } => format!("checkpoint in {uid} safe: {ok}"),
        Step::Processed { uid } => format!("did {uid}"),
        Step::Failed {
            permanent,
            cancelled,
            ..
        } => format!("failed (permanent {permanent}, cancelled {cancelled})"),
        Step::Cancel { reason, grace_ms } => format!("told to end: {reason:?} in {grace_ms} ms"),
        Step::CleansUp => "cleans up, which takes long".to_owned(),
        other => format!("{other:?}").to_lowercase(),
    }
}
