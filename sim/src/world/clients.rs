//! Clients: they ask until they are answered.

use std::sync::Arc;

use flowkit_core::id::{Incarnation, NodeId, ShardId, TaskId, inbox_of};
use flowkit_core::json::Json;
use flowkit_core::message::{
    Body, CancelTask, ControlTask, Envelope, Reply, RerunTask, Sender, SenderRole, Submit, WaitTask,
};
use flowkit_core::port::Stream;
use flowkit_core::record::TaskState;

use super::heap::Due;
use super::{Luck, World};
use crate::history::{Ask, What};
use crate::plan::{Action, ActionKind, Call, CallKind};

/// A client asks again after so long without an answer.
const RETRY_US: u64 = 700_000;
/// A wait is not durable: it is repeated now and then.
const WAIT_AGAIN_US: u64 = 2_000_000;

/// One client.
#[derive(Debug)]
pub(super) struct Client {
    id: Arc<str>,
    /// Open requests by number.
    open: Vec<Open>,
    /// Tasks whose submission was acknowledged to this client.
    acknowledged: Vec<TaskId>,
    /// Tasks that it knows to be settled.
    settled: Vec<u32>,
    /// Tasks that the engine would not take, once for each time that this client submitted them.
    refused: Vec<u32>,
    /// Cancels and pauses that wait for the submission's acknowledgement; reruns that wait for the
    /// end of what they run again.
    held: Vec<(u32, Ask, u64)>,
    /// Actions of the plan that are still to come.
    to_come: usize,
}

#[derive(Debug)]
struct Open {
    number: u64,
    ask: Ask,
    task: u32,
    corr: Arc<str>,
    tries: u64,
    /// The next control of the task, as the store had it.
    control_no: u64,
    /// How long a task is to be paused.
    for_ms: u64,
}

impl Client {
    pub(super) fn new(number: u32) -> Self {
        Self {
            id: Arc::from(format!("client-{number}")),
            open: Vec::new(),
            acknowledged: Vec::new(),
            settled: Vec::new(),
            refused: Vec::new(),
            held: Vec::new(),
            to_come: 0,
        }
    }

    /// Everything it asked for is answered, and it will ask for nothing more.
    pub(super) fn is_content(&self) -> bool {
        self.open.is_empty() && self.held.is_empty() && self.to_come == 0
    }
}

impl World<'_> {
    pub(super) fn task_id(&self, task: u32) -> TaskId {
        TaskId::new(&self.plan.tasks[task as usize].id).expect("a plan's task ids are valid")
    }

    /// Counts what every client is still going to do.
    pub(super) fn count_actions(&mut self) {
        for action in &self.plan.actions {
            self.clients[action.client as usize].to_come += 1;
        }
    }

    pub(super) fn action(&mut self, index: usize) {
        let action = &self.plan.actions[index];
        let client = action.client;
        self.clients[client as usize].to_come -= 1;
        match action.kind {
            ActionKind::Submit { task } => match self.source_of(task) {
                Some(source) if self.is_refused(source) => {
                    self.refused(client, task);
                }
                Some(source) if !self.may_run_again(source, self.is_early(task)) => {
                    let held = &mut self.clients[client as usize].held;
                    held.push((task, Ask::Submit, 0));
                }
                _ => self.ask(client, task, Ask::Submit, 0),
            },
            ActionKind::SubmitOther { task } => {
                self.hold_or_ask(client, task, Ask::SubmitOther, 0);
            }
            ActionKind::Cancel { task, grace_ms } => {
                self.hold_or_ask(client, task, Ask::Cancel { grace_ms }, 0);
            }
            ActionKind::Look { .. } => {}
            ActionKind::Pause { task, for_ms } => {
                self.hold_or_ask(client, task, Ask::Pause, for_ms);
            }
        }
    }

    /// The task that a task runs again.
    fn source_of(&self, task: u32) -> Option<u32> {
        let rerun = self.plan.tasks[task as usize].rerun.as_ref()?;
        Some(rerun.of)
    }

    /// It is asked for before the task that it runs again has ended.
    fn is_early(&self, task: u32) -> bool {
        let rerun = self.plan.tasks[task as usize].rerun.as_ref();
        rerun.is_some_and(|rerun| rerun.early)
    }

    fn may_run_again(&self, source: u32, early: bool) -> bool {
        let id = self.task_id(source);
        self.clients.iter().any(|client| {
            client.settled.contains(&source) || early && client.acknowledged.contains(&id)
        })
    }

    /// None of those who submit the task got it taken: a store may refuse it for a while only.
    fn is_refused(&self, task: u32) -> bool {
        let refused = self.clients.iter().flat_map(|client| &client.refused);
        let submits = |action: &&Action| action.kind == ActionKind::Submit { task };
        let submitted = self.plan.actions.iter().filter(submits).count();
        refused.filter(|of| **of == task).count() >= submitted
    }

    /// A task will never be, if nobody else submits it: there is nothing to cancel or to run again.
    fn refused(&mut self, client: u32, task: u32) {
        self.clients[client as usize].refused.push(task);
        if !self.is_refused(task) {
            return;
        }
        let mut reruns = Vec::new();
        for (number, client) in (0..).zip(&mut self.clients) {
            for (index, ask, for_ms) in std::mem::take(&mut client.held) {
                let rerun = self.plan.tasks[index as usize].rerun.as_ref();
                if ask == Ask::Submit && rerun.is_some_and(|rerun| rerun.of == task) {
                    reruns.push((number, index));
                } else if index != task || ask == Ask::Submit {
                    client.held.push((index, ask, for_ms));
                }
            }
        }
        for (client, task) in reruns {
            self.refused(client, task);
        }
    }

    /// A task is settled: it may be run again.
    fn settled(&mut self, client: u32, task: u32) {
        self.clients[client as usize].settled.push(task);
        for client in 0..super::host_number(self.clients.len()) {
            let held = std::mem::take(&mut self.clients[client as usize].held);
            for (index, ask, for_ms) in held {
                if ask == Ask::Submit && self.source_of(index) == Some(task) {
                    self.ask(client, index, ask, for_ms);
                } else {
                    let held = &mut self.clients[client as usize].held;
                    held.push((index, ask, for_ms));
                }
            }
        }
    }

    /// Asks once the submission is acknowledged.
    fn hold_or_ask(&mut self, client: u32, task: u32, ask: Ask, for_ms: u64) {
        let id = self.task_id(task);
        if self.clients.iter().any(|c| c.acknowledged.contains(&id)) {
            self.ask(client, task, ask, for_ms);
        } else if !self.is_refused(task) {
            self.clients[client as usize].held.push((task, ask, for_ms));
        }
    }

    /// A client that paused a task wants it to go on.
    pub(super) fn resumes(&mut self, client: u32, task: u32) {
        self.clients[client as usize].to_come -= 1;
        self.ask(client, task, Ask::Resume, 0);
    }

    /// What follows from the answer to a pause or resume: each is made again until it holds, or the
    /// task has ended.
    fn controlled(&mut self, open: &Open, client: u32, reply: &Reply) {
        let paused = reply.state == Some(TaskState::Paused);
        let goes_on = matches!(reply.state, Some(TaskState::Queued | TaskState::Running));
        match open.ask {
            Ask::Pause if paused => {
                let heal = self.plan.heal_ms * 1_000;
                let at = (self.now + open.for_ms * 1_000).min(heal).max(self.now);
                self.clients[client as usize].to_come += 1;
                let task = open.task;
                self.heap.push(at, Due::ClientResumes { client, task });
            }
            Ask::Pause if goes_on => self.ask(client, open.task, Ask::Pause, open.for_ms),
            Ask::Resume if paused => self.ask(client, open.task, Ask::Resume, 0),
            _ => {}
        }
    }

    fn ask(&mut self, client: u32, task: u32, ask: Ask, for_ms: u64) {
        let stored = self.servers.store.synced().task(&self.task_id(task));
        let control_no = stored.map_or(0, |stored| stored.control.no) + 1;
        let number = self.next_number();
        let corr: Arc<str> = Arc::from(format!("c{client}-{number}"));
        self.clients[client as usize].open.push(Open {
            number,
            ask,
            task,
            corr,
            tries: 0,
            control_no,
            for_ms,
        });
        self.client_retries(client, number);
    }

    /// Sends a request that is still open (again).
    pub(super) fn client_retries(&mut self, client: u32, number: u64) {
        let mine = &mut self.clients[client as usize];
        let Some(open) = mine.open.iter_mut().find(|open| open.number == number) else {
            return;
        };
        open.tries += 1;
        let (ask, task, corr, tries) = (open.ask, open.task, open.corr.clone(), open.tries);
        let control_no = open.control_no;
        let id = mine.id.clone();
        let world = &self.plan.world;
        let inbox = inbox_of(&id, world.inboxes);
        let rerun = self.plan.tasks[task as usize].rerun.as_ref();
        let body = match (ask, rerun) {
            (Ask::Submit, Some(rerun)) => Body::RerunTask(RerunTask {
                of: self.task_id(rerun.of),
                from: node_ids(&rerun.from),
                all: rerun.all,
                inbox,
            }),
            (Ask::Submit | Ask::SubmitOther, _) => Body::Submit(Submit {
                graph: self.graph(task, ask == Ask::SubmitOther),
                vars: Json::from(self.plan.tasks[task as usize].vars.clone()),
                idempotency_key: None,
                options: self.plan.tasks[task as usize].options.clone(),
                inbox,
            }),
            (Ask::Cancel { grace_ms }, _) => Body::CancelTask(CancelTask {
                reason: Arc::from("the plan says so"),
                grace_ms,
                inbox,
            }),
            (Ask::Pause | Ask::Resume, _) => {
                let control = ControlTask {
                    control_no,
                    reason: Arc::from("the plan says so"),
                    inbox,
                };
                match ask {
                    Ask::Pause => Body::PauseTask(control),
                    _ => Body::ResumeTask(control),
                }
            }
            (Ask::Wait, _) => Body::WaitTask(WaitTask { inbox }),
        };
        let sender = Sender {
            role: SenderRole::Client,
            id,
            incarnation: Incarnation(0),
        };
        let task_id = self.task_id(task);
        let stream = Stream::Shard(ShardId::of(&task_id, world.shards));
        let mut envelope = Envelope::new(sender, 0, body);
        envelope.task_id = Some(task_id.clone());
        envelope.corr_id = Some(corr);
        let envelope = Arc::new(envelope.identified(0));
        self.note(What::Asked {
            client,
            task: task_id,
            ask,
        });
        let mut dice = self.dice(Luck::Client, number, tries);
        let latency = dice.between(
            self.plan.world.latency_us_min,
            self.plan.world.latency_us_max,
        );
        let call = Call {
            host: client,
            kind: CallKind::Ask,
            nth: number << 16 | tries,
        };
        let (rates, named) = (self.rates(), self.plan.strikes(call));
        let down = self.plan.world.embedded && self.hosts[0].process.is_none();
        let away = self.away[crate::plan::Server::Broker as usize] > self.now;
        let lost = !down && !away && dice.permille(rates.append_lost) && named;
        if lost {
            self.seen.strike(call, "append_lost");
        }
        if !down && !away && !lost {
            let at = self.now + latency;
            if dice.permille(rates.append_twice) && named {
                self.seen.strike(call, "append_twice");
                let late = dice.between(0, 3_000_000);
                let envelope = envelope.clone();
                self.heap.push(at + late, Due::Append { stream, envelope });
            }
            self.heap.push(at, Due::Append { stream, envelope });
        }
        let again = match ask {
            Ask::Wait => WAIT_AGAIN_US,
            _ => RETRY_US,
        };
        self.heap.push(
            self.now + again,
            Due::ClientRetries {
                client,
                ask: number,
            },
        );
    }

    /// What a client submits, or one with another graph; written once, however often it is sent.
    fn graph(&mut self, task: u32, other: bool) -> Json {
        let graph = &self.plan.tasks[task as usize].graph;
        let written = self.graphs.entry((task, other)).or_insert_with(|| {
            let mut value = graph.to_json();
            if other {
                value["nodes"][0]["retry_policy"]["max"] = serde_json::json!(77);
            }
            Json::from(value)
        });
        written.clone()
    }

    /// A message stands in an inbox: it may be a reply to a client.
    pub(super) fn reply_appended(&mut self, envelope: &Arc<Envelope>) {
        if !matches!(envelope.body, Body::Reply(_)) {
            return;
        }
        let Some(to) = &envelope.to else { return };
        let Some(client) = self.clients.iter().position(|client| client.id == *to) else {
            return;
        };
        let number = self.next_number();
        let mut dice = self.dice(Luck::Client, 1 << 40, number);
        let call = Call {
            host: super::host_number(client),
            kind: CallKind::Reply,
            nth: number,
        };
        if dice.permille(self.rates().client_reply_lost) && self.plan.strikes(call) {
            self.seen.strike(call, "client_reply_lost");
            return;
        }
        let latency = dice.between(
            self.plan.world.latency_us_min,
            self.plan.world.latency_us_max,
        );
        self.heap.push(
            self.now + latency,
            Due::ClientGets {
                client: super::host_number(client),
                envelope: envelope.clone(),
            },
        );
    }

    pub(super) fn client_gets(&mut self, client: u32, envelope: &Arc<Envelope>) {
        let Body::Reply(reply) = &envelope.body else {
            return;
        };
        let mine = &mut self.clients[client as usize];
        let Some(at) = mine
            .open
            .iter()
            .position(|open| Some(&open.corr) == envelope.corr_id.as_ref())
        else {
            return;
        };
        let refused = reply.error.as_ref().map(|error| error.kind);
        let ask = mine.open[at].ask;
        if let Some(kind) = refused.filter(|kind| ask.is_repeated_after(*kind)) {
            let task = self.task_id(self.clients[client as usize].open[at].task);
            return self.note(What::Denied {
                client,
                task,
                ask,
                kind,
            });
        }
        let open = mine.open.swap_remove(at);
        let task = self.task_id(open.task);
        self.note(What::Answered {
            client,
            task: task.clone(),
            ask: open.ask,
            reply: reply.clone(),
        });
        self.controlled(&open, client, reply);
        if open.ask == Ask::Submit && !reply.ok {
            self.refused(client, open.task);
        }
        if open.ask == Ask::Wait && reply.ok {
            self.settled(client, open.task);
        }
        if open.ask == Ask::Submit && reply.ok {
            self.clients[client as usize]
                .acknowledged
                .push(task.clone());
            self.ask(client, open.task, Ask::Wait, 0);
            for client in 0..super::host_number(self.clients.len()) {
                let held = std::mem::take(&mut self.clients[client as usize].held);
                for (index, ask, for_ms) in held {
                    let rerun = ask == Ask::Submit;
                    let early = self.source_of(index) == Some(open.task) && self.is_early(index);
                    if rerun && early || index == open.task && !rerun {
                        self.ask(client, index, ask, for_ms);
                    } else {
                        self.clients[client as usize]
                            .held
                            .push((index, ask, for_ms));
                    }
                }
            }
        }
    }
}

fn node_ids(names: &[String]) -> Vec<NodeId> {
    let ids = names.iter().map(NodeId::new);
    ids.map(|id| id.expect("a plan's node ids are valid"))
        .collect()
}
