//! `flowkit why TASK`.

use flowkit::prelude::*;
use serde_json::json;

use super::args::TaskArgs;
use super::failure::{Ending, Outcome};
use super::nodes::word;
use super::output::{put, putln};
use super::session::Session;
use super::table::one_line;
use super::task::{no_task, task_id};

pub(crate) async fn run(id: &str, args: &TaskArgs) -> Outcome {
    let task_id = task_id(id, args)?;
    let session = Session::to_look(args).await?;
    let limits = &session.settings().coordinator.limits;
    let why = session.client().task(task_id).why_within(limits).await;
    session.close().await;
    let why = why.map_err(|error| no_task(error, args))?;
    if args.json {
        putln!("{}", json!(why));
    } else {
        put!("{}", text(&why, args));
    }
    Ok(Ending::Finished)
}

/// One sentence per node that has not ended, and the cure below it.
fn text(why: &Why, args: &TaskArgs) -> String {
    let mut text = format!(
        "task {} ({}): {}\n",
        why.task_id,
        word(&why.state),
        one_line(&why.why, 600)
    );
    if why.state == TaskState::Paused {
        let data = args.data.as_ref();
        let data = data.map_or_else(String::new, |data| format!(" --data {}", data.display()));
        text.push_str(&format!(
            "  -> resume it: flowkit task resume {}{data}\n",
            why.task_id
        ));
    } else if let Some(cure) = &why.cure {
        text.push_str(&format!("  -> {}\n", one_line(cure, 600)));
    }
    for node in &why.nodes {
        text.push_str(&format!(
            "\n{} ({}): {}\n",
            one_line(node.node_id.as_str(), 60),
            word(&node.state),
            one_line(&node.why, 600)
        ));
        if let Some(cure) = &node.cure {
            text.push_str(&format!("  -> {}\n", one_line(cure, 600)));
        }
    }
    text
}
