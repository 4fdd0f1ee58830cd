//! Clients: they do the plan's actions with the real client library.

use flowkit_core::id::{NodeId, TaskId};
use flowkit_core::json::Json;
use flowkit_core::message::{ErrorReply, Reply, ReplyError};
use flowkit_core::port::ErrorKind;
use flowkit_runtime::{
    Client, ClientError, RerunOptions, SubmitOptions, TaskOutcome, TaskState, TaskStatus,
};
use serde_json::json;
use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

use super::Watcher;
use crate::judge::{Ask, CallError, Seen, Shown};
use crate::plan::{Action, ActionKind, Plan};

/// A request that failed is made again after this long.
const AGAIN: Duration = Duration::from_millis(200);
/// How often a task that is watched is looked at.
const WATCHED: Duration = Duration::from_millis(300);
/// Tasks of one page of a list: few, so that there are several.
const PAGE: u32 = 2;

/// Whether tasks' submissions were answered, and how. Who waits is woken in order: a run repeats.
#[derive(Debug, Default)]
struct Answers {
    known: Mutex<BTreeMap<u32, bool>>,
    grown: Notify,
}

impl Answers {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u32, bool>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn of(&self, task: u32) -> Option<bool> {
        self.lock().get(&task).copied()
    }

    fn add(&self, task: u32, ok: bool) {
        *self.lock().entry(task).or_default() |= ok;
        self.grown.notify_waiters();
    }

    async fn wait(&self, task: u32) -> bool {
        loop {
            let mut grown = pin!(self.grown.notified());
            grown.as_mut().enable();
            if let Some(answer) = self.of(task) {
                return answer;
            }
            grown.await;
        }
    }
}

/// Ways to look at a task.
#[derive(Clone, Copy, Debug)]
enum Way {
    Status,
    List,
    Why,
    Workers,
    Artifacts,
    Watch,
}

/// The clients of a plan.
#[derive(Debug)]
pub struct Clients {
    plan: Arc<Plan>,
    watcher: Arc<dyn Watcher>,
    answers: Answers,
    /// Whether tasks are settled; false for those that will never be.
    settled: Answers,
    /// Looks so far.
    looks: AtomicU64,
}

impl Clients {
    /// Clients that have asked for nothing yet.
    #[must_use]
    pub fn new(plan: &Arc<Plan>, watcher: Arc<dyn Watcher>) -> Self {
        Self {
            plan: plan.clone(),
            watcher,
            answers: Answers::default(),
            settled: Answers::default(),
            looks: AtomicU64::new(0),
        }
    }

    /// Does one thing with the library, until it has its last answer.
    ///
    /// # Errors
    /// The plan makes no sense.
    pub async fn act(&self, library: &Client, action: &Action) -> Result<(), String> {
        let asking = Asking {
            clients: self,
            library,
            client: action.client,
        };
        asking.act(action.kind).await
    }
}

/// A client on its way through an action.
struct Asking<'a> {
    clients: &'a Clients,
    library: &'a Client,
    client: u32,
}

impl Asking<'_> {
    async fn act(&self, kind: ActionKind) -> Result<(), String> {
        match kind {
            ActionKind::Submit { task } => {
                if !self.may_run_again(task).await {
                    self.clients.answers.add(task, false);
                    self.clients.settled.add(task, false);
                    return Ok(());
                }
                let reply = self.ask(task, Ask::Submit).await?;
                self.clients.answers.add(task, reply.ok);
                if reply.ok {
                    self.ask(task, Ask::Wait).await?;
                }
                self.clients.settled.add(task, reply.ok);
                Ok(())
            }
            ActionKind::SubmitOther { task } => self.once_there(task, Ask::SubmitOther).await,
            ActionKind::Cancel { task, grace_ms } => {
                self.once_there(task, Ask::Cancel { grace_ms }).await
            }
            ActionKind::Look { task } => self.look(task).await,
            ActionKind::Pause { task, for_ms } => {
                if self.clients.answers.wait(task).await {
                    self.ask(task, Ask::Pause).await?;
                    let most = self.clients.plan.heal_ms;
                    tokio::time::sleep(Duration::from_millis(for_ms.min(most))).await;
                    self.ask(task, Ask::Resume).await?;
                }
                Ok(())
            }
        }
    }

    /// Looks at a task in each way that there is.
    async fn look(&self, task: u32) -> Result<(), String> {
        if !self.clients.answers.wait(task).await {
            return Ok(());
        }
        let plan = self.clients.plan.tasks.get(task as usize);
        let plan = plan.ok_or_else(|| format!("the plan has no task {task}"))?;
        let id = TaskId::new(&plan.id).map_err(|e| format!("{}: {e}", plan.id))?;
        let ways = [
            Way::Status,
            Way::List,
            Way::Why,
            Way::Workers,
            Way::Artifacts,
            Way::Watch,
        ];
        for way in ways {
            self.show(&id, way).await;
        }
        Ok(())
    }

    /// Looks until a server answers, and says what it shows.
    async fn show(&self, task: &TaskId, way: Way) {
        let (client, watcher) = (self.client, &self.clients.watcher);
        loop {
            let look = self.clients.looks.fetch_add(1, Ordering::Relaxed);
            watcher.saw(Seen::Looks {
                client,
                task: task.clone(),
                look,
            });
            let shown = match self.shown(task, way).await {
                Ok(shown) => shown,
                Err(ClientError::Swept(_)) => Shown::Swept,
                Err(error) => match told(&error) {
                    Some(error) => Shown::Failed(error.text),
                    None => {
                        tokio::time::sleep(AGAIN).await;
                        continue;
                    }
                },
            };
            watcher.saw(Seen::Shown {
                client,
                task: task.clone(),
                look,
                shown,
            });
            return;
        }
    }

    async fn shown(&self, task: &TaskId, way: Way) -> Result<Shown, ClientError> {
        let handle = self.library.task(task.clone());
        match way {
            Way::Status => {
                let status = handle.status().await?;
                Ok(shown_of(status))
            }
            Way::List => {
                let mut after = None;
                loop {
                    let page = self.library.list(after, PAGE).await?;
                    if let Some(found) = page.tasks.iter().find(|found| found.task_id == *task) {
                        return Ok(Shown::Listed(Some(found.state)));
                    }
                    after = page.next;
                    if after.is_none() {
                        return Ok(Shown::Listed(None));
                    }
                }
            }
            Way::Why => {
                let why = handle.why().await?;
                let nodes = why.nodes.into_iter().map(|node| node.node_id);
                Ok(Shown::Why(why.state, nodes.collect()))
            }
            Way::Workers => {
                let views = self.library.worker_views().await?;
                let runs = views.into_iter().flat_map(|view| view.runs);
                let mine = runs.filter(|run| run.node.task_id == *task);
                let held =
                    mine.filter_map(|run| Some((run.node.worker_id?, run.node.node_id, run.token)));
                Ok(Shown::Held(held.collect()))
            }
            Way::Artifacts => {
                let plan = self.clients.plan.tasks.iter();
                let plan = plan.filter(|plan| plan.id == task.as_str());
                let mut found = Vec::new();
                for node in plan.flat_map(|plan| &plan.graph.nodes) {
                    let artifacts = handle.artifacts(&node.id).all().await?;
                    let artifacts = artifacts.into_iter().map(|a| (a.number, a.batch_uid));
                    if let Ok(id) = NodeId::new(&node.id) {
                        found.push((id, artifacts.collect()));
                    }
                }
                Ok(Shown::Artifacts(found))
            }
            Way::Watch => {
                let mut watch = handle.watch(WATCHED);
                let mut last = None;
                loop {
                    match watch.next().await {
                        Ok(Some(status)) => last = Some(status),
                        Ok(None) => break,
                        // Nobody says any more how it ends: it was set aside.
                        Err(ClientError::Refused {
                            kind: ReplyError::Invalid,
                            ..
                        }) if last.is_some() => {
                            return Ok(last.map_or(Shown::Swept, shown_of));
                        }
                        Err(error) => return Err(error),
                    }
                }
                Ok(match last {
                    Some(status) if status.settled => shown_of(status),
                    last => Shown::Failed(format!("a watch that ends with {last:?}")),
                })
            }
        }
    }

    /// Waits for what a task runs again, if it does; false if that will never be.
    async fn may_run_again(&self, task: u32) -> bool {
        let plan = self.clients.plan.tasks.get(task as usize);
        match plan.and_then(|plan| plan.rerun.as_ref()) {
            None => true,
            Some(rerun) if rerun.early => self.clients.answers.wait(rerun.of).await,
            Some(rerun) => self.clients.settled.wait(rerun.of).await,
        }
    }

    /// Asks once the submission is acknowledged.
    async fn once_there(&self, task: u32, ask: Ask) -> Result<(), String> {
        if self.clients.answers.wait(task).await {
            self.ask(task, ask).await?;
        }
        Ok(())
    }

    /// Asks until there is an answer.
    async fn ask(&self, task: u32, ask: Ask) -> Result<Reply, String> {
        let plan = self.clients.plan.tasks.get(task as usize);
        let plan = plan.ok_or_else(|| format!("the plan has no task {task}"))?;
        let id = TaskId::new(&plan.id).map_err(|e| format!("{}: {e}", plan.id))?;
        let (library, client) = (self.library, self.client);
        let watcher = &self.clients.watcher;
        loop {
            watcher.saw(Seen::Asked {
                client,
                task: id.clone(),
                ask,
            });
            let mut graph = plan.graph.to_json();
            let mut made = id.clone();
            let outcome = match (ask, &plan.rerun) {
                (Ask::Submit, Some(rerun)) => {
                    let source = self.clients.plan.tasks.get(rerun.of as usize);
                    let source = source.and_then(|source| TaskId::new(&source.id).ok());
                    let source = source.ok_or("a rerun of nothing")?;
                    let mut options = RerunOptions::with_task_id(id.clone());
                    options.from.clone_from(&rerun.from);
                    options.all = rerun.all;
                    let made = library.task(source).rerun(options).await;
                    made.map(|_| answer(None))
                }
                (Ask::Submit | Ask::SubmitOther, _) => {
                    if ask == Ask::SubmitOther {
                        graph["nodes"][0]["retry_policy"]["max"] = json!(77);
                    }
                    // A key names the task that has this very id.
                    let options = match &plan.key {
                        Some(key) => SubmitOptions::with_key(key),
                        None => SubmitOptions::with_task_id(id.clone()),
                    };
                    let mut options = options.vars(Json::from(plan.vars.clone()));
                    options.operated = plan.options.clone();
                    let submitted = library.submit(&graph, options).await;
                    submitted.map(|handle| {
                        made.clone_from(handle.id());
                        answer(None)
                    })
                }
                (Ask::Cancel { grace_ms }, _) => {
                    let grace = grace_ms.map(Duration::from_millis);
                    let task = library.task(id.clone());
                    task.cancel("the plan says so", grace).await.map(answer)
                }
                (Ask::Pause, _) => {
                    let task = library.task(id.clone());
                    task.pause("the plan says so").await.map(answer)
                }
                (Ask::Resume, _) => {
                    let task = library.task(id.clone());
                    task.resume("the plan says so").await.map(answer)
                }
                (Ask::Wait, _) => {
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
                }) if !ask.is_repeated_after(kind) => Reply {
                    ok: false,
                    state: None,
                    failure: None,
                    error: Some(ErrorReply {
                        kind,
                        message,
                        faults,
                    }),
                },
                Err(error) => {
                    let task = id.clone();
                    if let ClientError::Refused { kind, .. } = error {
                        // A coordinator had a reason, and the same call is answered later.
                        watcher.saw(Seen::Denied {
                            client,
                            task,
                            ask,
                            kind,
                        });
                    } else if let Some(error) = told(&error) {
                        watcher.saw(Seen::Failed {
                            client,
                            task,
                            ask,
                            error,
                        });
                    }
                    if let ClientError::Unreadable { .. } = error {
                        // A person looks at what is stored; asking again changes nothing.
                        unreadable()
                    } else {
                        tokio::time::sleep(AGAIN).await;
                        continue;
                    }
                }
            };
            watcher.saw(Seen::Answered {
                client,
                task: made,
                ask,
                reply: reply.clone(),
            });
            return Ok(reply);
        }
    }
}

fn shown_of(status: TaskStatus) -> Shown {
    let nodes = status.nodes.into_iter();
    Shown::Status {
        state: status.state,
        settled: status.settled,
        nodes: nodes.map(|n| (n.node_id, n.state, n.batches)).collect(),
    }
}

/// An error that says more than that a server could not be reached just now.
fn told(error: &ClientError) -> Option<CallError> {
    let unanswered_ms = match error {
        ClientError::Port(error) if matches!(error.kind, ErrorKind::Retry | ErrorKind::Unknown) => {
            return None;
        }
        ClientError::NoAnswer(patience) => u64::try_from(patience.as_millis()).ok(),
        _ => None,
    };
    let text = error.to_string();
    Some(CallError {
        text,
        unanswered_ms,
    })
}

fn unreadable() -> Reply {
    Reply {
        ok: false,
        ..answer(Some(TaskState::Quarantined))
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
