//! Clients: they do the plan's actions with the real client library.

use flowkit_core::id::TaskId;
use flowkit_core::message::{ErrorReply, Reply, ReplyError};
use flowkit_runtime::{Client, ClientError, SubmitOptions, TaskOutcome, TaskState};
use flowkit_sim::judge::{Ask, Seen};
use flowkit_sim::plan::{Action, ActionKind, Plan, When};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::timeline::Timeline;

/// A request that failed is made again after this long.
const AGAIN: Duration = Duration::from_millis(200);

/// Whether a task's submission was answered, and how.
type Answers = BTreeMap<u32, watch::Sender<Option<bool>>>;

struct Shared {
    plan: Arc<Plan>,
    clients: Vec<Client>,
    timeline: Timeline,
    answers: Answers,
}

/// Starts every action of the plan; the set is empty once all have had their last answer.
pub(crate) fn start(
    plan: &Arc<Plan>,
    clients: Vec<Client>,
    timeline: &Timeline,
    start: Instant,
) -> Result<JoinSet<Result<(), String>>, String> {
    let tasks = 0..u32::try_from(plan.tasks.len()).unwrap_or(0);
    let shared = Arc::new(Shared {
        plan: plan.clone(),
        clients,
        timeline: timeline.clone(),
        answers: tasks.map(|task| (task, watch::Sender::new(None))).collect(),
    });
    let mut running = JoinSet::new();
    for action in plan.actions.clone() {
        let When::At { ms } = action.when else {
            return Err(format!(
                "{:?} is not a time; real processes know no other",
                action.when
            ));
        };
        let shared = shared.clone();
        running.spawn(async move {
            tokio::time::sleep_until(start + Duration::from_millis(ms)).await;
            shared.act(&action).await
        });
    }
    Ok(running)
}

impl Shared {
    async fn act(&self, action: &Action) -> Result<(), String> {
        let client = action.client;
        match action.kind {
            ActionKind::Submit { task } => {
                let reply = self.ask(client, task, Ask::Submit).await?;
                if let Some(answer) = self.answers.get(&task) {
                    answer.send_if_modified(|answer| {
                        let better = *answer != Some(true);
                        *answer = if better { Some(reply.ok) } else { *answer };
                        better
                    });
                }
                if reply.ok {
                    self.ask(client, task, Ask::Wait).await?;
                }
                Ok(())
            }
            ActionKind::SubmitOther { task } => {
                self.once_there(client, task, Ask::SubmitOther).await
            }
            ActionKind::Cancel { task, grace_ms } => {
                self.once_there(client, task, Ask::Cancel { grace_ms })
                    .await
            }
        }
    }

    /// Asks once the submission is acknowledged.
    async fn once_there(&self, client: u32, task: u32, ask: Ask) -> Result<(), String> {
        let answer = self.answers.get(&task);
        let mut answer = answer
            .ok_or_else(|| format!("the plan has no task {task}"))?
            .subscribe();
        let there = answer.wait_for(Option::is_some).await;
        let there = there.map_err(|e| e.to_string())?.unwrap_or(false);
        if there {
            self.ask(client, task, ask).await?;
        }
        Ok(())
    }

    /// Asks until there is an answer.
    async fn ask(&self, client: u32, task: u32, ask: Ask) -> Result<Reply, String> {
        let plan = self.plan.tasks.get(task as usize);
        let plan = plan.ok_or_else(|| format!("the plan has no task {task}"))?;
        let id = TaskId::new(&plan.id).map_err(|e| format!("{}: {e}", plan.id))?;
        let library = &self.clients[client as usize % self.clients.len()];
        loop {
            self.timeline.note(Seen::Asked {
                client,
                task: id.clone(),
                ask,
            });
            let mut graph = plan.graph.to_json();
            let outcome = match ask {
                Ask::Submit | Ask::SubmitOther => {
                    if ask == Ask::SubmitOther {
                        graph["nodes"][0]["retry_policy"]["max"] = json!(77);
                    }
                    let options = SubmitOptions::with_task_id(id.clone());
                    library.submit(&graph, options).await.map(|_| answer(None))
                }
                Ask::Cancel { grace_ms } => {
                    let grace = grace_ms.map(Duration::from_millis);
                    let task = library.task(id.clone());
                    task.cancel("the plan says so", grace).await.map(answer)
                }
                Ask::Wait => {
                    let outcome: Result<TaskOutcome, _> = library.task(id.clone()).wait().await;
                    outcome.map(|outcome| answer(Some(outcome.state)))
                }
            };
            let reply = match outcome {
                Ok(reply) => reply,
                Err(ClientError::Refused {
                    kind,
                    message,
                    faults,
                    ..
                }) if kind != ReplyError::Overloaded => Reply {
                    ok: false,
                    state: None,
                    failure: None,
                    error: Some(ErrorReply {
                        kind,
                        message,
                        faults,
                    }),
                },
                Err(_) => {
                    tokio::time::sleep(AGAIN).await;
                    continue;
                }
            };
            self.timeline.note(Seen::Answered {
                client,
                task: id,
                ask,
                reply: reply.clone(),
            });
            return Ok(reply);
        }
    }
}

fn answer(state: Option<TaskState>) -> Reply {
    Reply {
        ok: true,
        state,
        failure: None,
        error: None,
    }
}
