//! What is stored of tasks: does it make sense, what waits, whose leases ran out.

use flowkit::prelude::*;
use flowkit_core::doctor::{Check, Finding, Lapses, faults_of, lapses};
use flowkit_core::graph::Graph;
use flowkit_core::id::Role;
use flowkit_core::port::{ErrorKind, PortError, StoreReply, StoreRequest, TaskWithNodes};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::command::session::Session;

/// Tasks listed at once.
const PAGE: u32 = 200;
/// Faults that are shown; more are counted.
const SHOWN_MAX: usize = 50;
/// Leases that ran out before are history.
const LAPSES_WITHIN_MS: i64 = 24 * 3_600_000;

/// What was read of the tasks.
#[derive(Default)]
pub(super) struct Tasks {
    read: u32,
    /// There are more than were to be read.
    truncated: bool,
    pub(super) findings: Vec<Finding>,
    faults: usize,
    /// Ready nodes by role.
    pub(super) waiting: BTreeMap<Role, usize>,
    /// Grants that were lost because a lease ran out, by worker.
    pub(super) lapses: Lapses,
}

impl Tasks {
    /// Reads every task, or as many.
    pub(super) async fn read(session: &Session, tasks_max: u32) -> Self {
        let mut tasks = Self::default();
        let mut after: Option<TaskId> = None;
        loop {
            let list = StoreRequest::ListTasks { after, limit: PAGE };
            let page = match ask(session, list).await {
                Ok(StoreReply::Tasks(page)) => page,
                Ok(_) => return tasks,
                Err(error) => {
                    tasks.found("tasks", error.to_string());
                    return tasks;
                }
            };
            for (id, why) in &page.unreadable {
                tasks.found(id.as_str(), format!("a record cannot be read: {why}"));
            }
            let last = page.tasks.last().map(|task| task.task.task_id.clone());
            after = last.max(page.unreadable.last().map(|(id, _)| id.clone()));
            for task in page.tasks {
                if tasks.read >= tasks_max {
                    tasks.truncated = true;
                    return tasks;
                }
                tasks.read += 1;
                tasks.task(session, &task.task.task_id).await;
            }
            if !page.more || after.is_none() {
                return tasks;
            }
        }
    }

    async fn task(&mut self, session: &Session, id: &TaskId) {
        let read = StoreRequest::ReadTask {
            task_id: id.clone(),
        };
        match ask(session, read).await {
            Ok(StoreReply::Task(Some(task))) => {
                for fault in faults_of(&task) {
                    self.found(id.as_str(), fault);
                }
                self.count(&task);
                self.artifacts(session, &task).await;
            }
            // Swept meanwhile.
            Ok(_) => {}
            Err(error) => self.found(id.as_str(), error.to_string()),
        }
    }

    fn count(&mut self, task: &TaskWithNodes) {
        let plan = Graph::parse_stored(&task.task.graph)
            .ok()
            .map(|graph| graph.plan());
        let now_ms = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| {
                i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
            });
        for node in &task.nodes {
            if node.state == NodeState::Ready
                && let Some(plan) = &plan
                && let Some(at) = plan.index(&node.node_id)
            {
                *self.waiting.entry(plan.node(at).role.clone()).or_default() += 1;
            }
            for worker in lapses(node, now_ms.saturating_sub(LAPSES_WITHIN_MS)) {
                *self.lapses.entry(worker).or_default() += 1;
            }
        }
    }

    /// The newest accepted batch of each node has its artifact, and there is none beyond it.
    async fn artifacts(&mut self, session: &Session, task: &TaskWithNodes) {
        let id = &task.task.task_id;
        for node in &task.nodes {
            let read = StoreRequest::ReadAccepted {
                task_id: id.clone(),
                node_id: node.node_id.clone(),
                after: node.accepted.saturating_sub(1),
                limit: 2,
            };
            let numbers: Vec<u64> = match ask(session, read).await {
                Ok(StoreReply::Accepted(found)) => found.into_iter().map(|(n, _)| n).collect(),
                Ok(_) => continue,
                Err(error) => {
                    self.found(id.as_str(), format!("node `{}`: {error}", node.node_id));
                    continue;
                }
            };
            let wanted: &[u64] = match node.accepted {
                0 => &[],
                ref newest => std::slice::from_ref(newest),
            };
            // While it runs, more may have been accepted since it was read.
            let sound = if node.state.is_terminal() {
                numbers == wanted
            } else {
                numbers.starts_with(wanted)
            };
            if !sound {
                let (node, accepted) = (&node.node_id, node.accepted);
                self.found(
                    id.as_str(),
                    format!("node `{node}`: {accepted} batches were accepted, its newest artifacts are {numbers:?}"),
                );
            }
        }
    }

    fn found(&mut self, subject: &str, fault: String) {
        self.faults += 1;
        if self.findings.len() < SHOWN_MAX {
            let cure = "its task is set aside or will be; keep a copy of the store, and report this: no \
                        version of FlowKit should leave it behind. Does the disk or the server report damage?";
            let finding = Finding::new(Check::State, format!("task {subject}"), fault, cure);
            self.findings.push(finding);
        }
    }

    /// For people.
    pub(super) fn looked_at(&self) -> String {
        let more = if self.truncated {
            ", and there are more: --tasks-max N"
        } else {
            ""
        };
        let hidden = self.faults - self.findings.len();
        let hidden = match hidden {
            0 => String::new(),
            n => format!("; {n} more faults are not shown"),
        };
        format!("{} tasks{more}{hidden}", self.read)
    }
}

/// A worker whose record cannot be read.
pub(super) fn of_worker((id, why): &(WorkerId, Arc<str>)) -> Finding {
    Finding::new(
        Check::State,
        format!("worker {id}"),
        format!(
            "its record cannot be read: {why}; no coordinator knows it, and it cannot start again"
        ),
        "is it of a newer version of FlowKit? Then run that one. Else start the worker under another \
         worker_id, keep a copy of the store, and see whether the disk or the server reports damage",
    )
}

async fn ask(session: &Session, request: StoreRequest) -> Result<StoreReply, PortError> {
    const PATIENCE: std::time::Duration = std::time::Duration::from_secs(20);
    let call = session.engine().store().call(request);
    tokio::time::timeout(PATIENCE, call)
        .await
        .unwrap_or_else(|_| {
            Err(PortError::new(
                ErrorKind::Unknown,
                "read",
                "the store did not answer in time",
            ))
        })
}
