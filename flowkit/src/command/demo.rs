//! `flowkit demo`.

use flowkit::prelude::*;
use std::path::{Path, PathBuf};

use super::args::DemoArgs;
use super::demo_job::{Answer, COUNTING_NODE, LAST_NODE, graph};
use super::exec::Programs;
use super::failure::{Ending, Failure, Outcome};
use super::interrupt::Interrupt;
use super::output::putln;
use super::session::{DataFolder, Session};
use crate::roles::{FileReport, path_text};

pub(crate) async fn run(args: DemoArgs) -> Outcome {
    let mut interrupt = Interrupt::listen();
    let settings = args.given()?.settings().map_err(Failure::input)?;
    let dir = folder_to_read(&args.dir)?;
    let (mut session, graph) = if args.means_servers()? {
        if args.data.data.is_some() {
            return Err(Failure::input(
                "--data names a folder on this machine, --kafka and --mongo name servers: leave one out",
            ));
        }
        let session = interrupt.or(Session::connect(settings)).await?;
        interrupt.or(session.coordinate()).await?;
        (session, graph(&dir, None))
    } else {
        let data = DataFolder::new(args.data.data.as_deref())?;
        if data.path() == dir {
            return Err(Failure::input(format!(
                "--data {} is the folder to be read itself; name another, such as {}",
                dir.display(),
                dir.join(".flowkit").display()
            )));
        }
        let graph = graph(&dir, Some(data.path()));
        let session = interrupt.or(Session::open(data, settings)).await?;
        (session, graph)
    };
    let _health = session.serve_health().await?;
    session.start_workers(&args.data, &Programs::default())?;
    let key = format!("demo {}", path_text::encode(&dir));
    let work = work(&session, &key, &graph, &mut interrupt, args.json);
    let ending = session.unless_failed(work).await;
    if ending.is_ok() || interrupt.is_raised() {
        session.close().await;
    }
    ending
}

async fn work(
    session: &Session,
    key: &str,
    graph: &serde_json::Value,
    interrupt: &mut Interrupt,
    json: bool,
) -> Outcome {
    let task = session.task(key, graph, None, None);
    let task = interrupt.or(task).await?;
    let followed = session.follow(&task, interrupt).await?;
    let (status, ending) = followed.ending();
    let source = match ending {
        Ending::Finished => LAST_NODE,
        _ => COUNTING_NODE,
    };
    let answer = Answer {
        task: status,
        report: sum_of(&task, source).await?,
    };
    if let Some(text) = answer.contradiction() {
        return Err(Failure::engine(format!("{text}; this is a bug of FlowKit")));
    }
    if json {
        putln!("{}", answer.json());
    } else {
        putln!("{}", answer.text().trim_end());
    }
    followed.explain(session.is_kept());
    Ok(ending)
}

/// The folder's canonical path, if it can be read.
fn folder_to_read(dir: &Path) -> Result<PathBuf, Failure> {
    let shown = dir.display();
    let cannot = |e| Failure::input(format!("cannot read the folder {shown}: {e}"));
    let path = std::fs::canonicalize(dir).map_err(cannot)?;
    if !path.is_dir() {
        return Err(Failure::input(format!(
            "{shown} is no folder; name the folder whose files are to be counted"
        )));
    }
    std::fs::read_dir(&path).map_err(cannot)?;
    Ok(path)
}

/// The sum of a node's accepted artifacts.
async fn sum_of(task: &TaskHandle, node: &str) -> Result<FileReport, Failure> {
    let mut sum = FileReport::default();
    let mut artifacts = task.artifacts(node);
    while let Some(artifact) = artifacts.next().await.map_err(Failure::engine)? {
        let report: FileReport = artifact.value.decode().map_err(|e| {
            Failure::engine(format!("artifact {} of `{node}`: {e}", artifact.number))
        })?;
        sum += report;
    }
    Ok(sum)
}
