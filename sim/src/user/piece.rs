//! A user's handlers and tasks, played on simulated hosts.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::future::pending;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use flowkit_core::function::Functions;
use flowkit_core::graph::Graph;
use flowkit_core::id::{NodeId, TaskId};
use flowkit_core::json::Json;
use flowkit_runtime::{
    ArtifactView, Client, ClientError, Handler, SubmitOptions, TaskState, TaskStatus, WorkerBuilder,
};
use serde_json::Value;
use tokio::time::sleep;

use super::Simulation;
use crate::checkers::Broken;
use crate::dice::Dice;
use crate::history::Place;
use crate::plan::Plan;
use crate::tier1::{self, Acting, Piece};

type Add = Rc<dyn Fn(WorkerBuilder, &str, Place) -> WorkerBuilder>;

/// Handlers by role.
#[derive(Clone, Default)]
pub(crate) struct Roles(BTreeMap<String, Add>);

impl fmt::Debug for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Roles {
    pub(super) fn add<H: Handler>(&mut self, role: String, make: impl Fn() -> H + 'static) {
        let add = move |builder: WorkerBuilder, role: &str, place: Place| {
            builder.role(role, tier1::hosted(place, make()))
        };
        self.0.insert(role, Rc::new(add));
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }
}

/// A task at its end.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct End {
    /// Which of the simulation's tasks, from 0.
    pub index: usize,
    /// The task with its nodes.
    pub status: TaskStatus,
    /// The accepted artifacts of each node, in order.
    pub artifacts: BTreeMap<NodeId, Vec<ArtifactView>>,
    /// It was asked to cancel at some time.
    pub cancelled: bool,
}

impl End {
    /// `Ok` if the task has finished (or was cancelled, where that was asked for).
    ///
    /// # Errors
    /// What it came to instead.
    pub fn finished(&self) -> Result<(), String> {
        match self.status.state {
            TaskState::Finished => Ok(()),
            TaskState::Cancelled if self.cancelled => Ok(()),
            state => Err(format!("{state:?}: {:?}", self.status.failure)),
        }
    }

    /// The artifacts of a node as JSON.
    #[must_use]
    pub fn artifacts_of(&self, node_id: &str) -> Vec<Value> {
        let mut nodes = self.artifacts.iter();
        let node = nodes.find(|(id, _)| id.as_str() == node_id);
        let views = node.map(|(_, views)| views.as_slice()).unwrap_or_default();
        let values = views.iter().map(|view| view.value.decode());
        values.filter_map(Result::ok).collect()
    }
}

/// One run of a simulation.
#[derive(Debug)]
pub(super) struct Theirs {
    simulation: Rc<Simulation>,
    seed: u64,
    /// Within this time tasks are submitted and cancelled.
    span_ms: u64,
    ends: Rc<RefCell<Vec<End>>>,
    refused: Rc<RefCell<Option<String>>>,
}

impl Theirs {
    pub(super) fn new(simulation: Rc<Simulation>, seed: u64, span_ms: u64) -> Self {
        Self {
            simulation,
            seed,
            span_ms,
            ends: Rc::default(),
            refused: Rc::default(),
        }
    }

    /// What the user requires and did not get.
    pub(super) fn unmet(&self, ended_ms: u64) -> Option<Broken> {
        let broken = |what: String| Broken::new("verify", ended_ms * 1_000, what);
        if let Some(why) = self.refused.borrow().as_ref() {
            return Some(broken(format!("a task was refused: {why}")));
        }
        let verify = self.simulation.verify.as_ref()?;
        self.ends.borrow().iter().find_map(|end| {
            let why = (verify.0)(end).err()?;
            let task = end.index;
            Some(broken(format!("task {task} at its end: {why}")))
        })
    }
}

impl Piece for Theirs {
    fn cast(
        &self,
        builder: WorkerBuilder,
        _plan: &Arc<Plan>,
        place: Place,
        _roles: &[String],
    ) -> WorkerBuilder {
        let roles = self.simulation.roles.0.iter();
        roles.fold(builder, |builder, (role, add)| add(builder, role, place))
    }

    fn clients(&self, _plan: &Plan) -> u32 {
        1
    }

    fn client(&self, _number: u32, library: Client) -> Acting {
        for (index, graph) in self.simulation.tasks.iter().enumerate() {
            let mut dice = Dice::keyed(self.seed, [301, index as u64, 0]);
            let submitted = dice.between(0, self.span_ms / 4);
            let percent = u64::from(self.simulation.cancels_percent);
            let cancels = dice.between(0, 99) < percent;
            let at = dice.between(0, self.span_ms);
            let life = Life {
                library: library.clone(),
                graph: graph.clone(),
                index,
                submitted,
                cancelled_after: cancels.then(|| at.saturating_sub(submitted)),
            };
            let (ends, refused) = (self.ends.clone(), self.refused.clone());
            tokio::task::spawn_local(async move {
                match life.live().await {
                    Ok(end) => ends.borrow_mut().push(end),
                    Err(why) => *refused.borrow_mut() = Some(why),
                }
                tier1::answered();
            });
        }
        Box::pin(pending())
    }

    fn inner_clients(&self, library: Client) -> Acting {
        self.client(0, library)
    }

    fn functions(&self) -> Functions {
        self.simulation.functions.clone()
    }

    fn answers(&self) -> usize {
        self.simulation.tasks.len()
    }

    /// Every node may use up its retries, one after the other, a day at most; the work; and what the
    /// user says.
    fn patience_ms(&self) -> u64 {
        let graphs = self.simulation.tasks.iter();
        let functions = &self.simulation.functions;
        let graphs = graphs
            .filter_map(|graph| Graph::parse_with(&Json::from(graph.clone()), functions).ok());
        let nodes = graphs.flat_map(|graph| graph.nodes().to_vec());
        nodes
            .map(|node| u64::from(node.retry.max).saturating_mul(node.retry.backoff_ms))
            .fold(0, u64::saturating_add)
            .min(86_400_000)
            .saturating_add(WORK_MS)
            .saturating_add(u64::try_from(self.simulation.patience.as_millis()).unwrap_or(u64::MAX))
            .min(366 * 86_400_000)
    }
}

/// The work of all tasks takes no longer than this, unless the user says so.
const WORK_MS: u64 = 100_000;

/// The life of one task, as its client sees it.
struct Life {
    library: Client,
    graph: Value,
    index: usize,
    submitted: u64,
    cancelled_after: Option<u64>,
}

impl Life {
    async fn live(&self) -> Result<End, String> {
        sleep(Duration::from_millis(self.submitted)).await;
        let id = TaskId::new(format!("task-{}", self.index)).map_err(|e| e.to_string())?;
        let task = insist(async || {
            let options = SubmitOptions::with_task_id(id.clone());
            self.library.submit(&self.graph, options).await
        })
        .await?;
        if let Some(after) = self.cancelled_after {
            sleep(Duration::from_millis(after)).await;
            insist(async || task.cancel("the simulation says so", None).await).await?;
        }
        insist(async || task.wait().await).await?;
        let status = insist(async || task.status().await).await?;
        let mut artifacts = BTreeMap::new();
        for node in &status.nodes {
            let id = node.node_id.as_str();
            let views = insist(async || task.artifacts(id).all().await).await?;
            artifacts.insert(node.node_id.clone(), views);
        }
        Ok(End {
            index: self.index,
            status,
            artifacts,
            cancelled: self.cancelled_after.is_some(),
        })
    }
}

/// Asks until there is an answer; a refusal is one.
async fn insist<T>(ask: impl AsyncFn() -> Result<T, ClientError>) -> Result<T, String> {
    loop {
        match ask().await {
            Ok(answer) => return Ok(answer),
            Err(error) if error.refusal().is_some() => return Err(error.to_string()),
            Err(_) => sleep(Duration::from_millis(200)).await,
        }
    }
}
