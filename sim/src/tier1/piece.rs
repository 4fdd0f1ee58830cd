//! What is played on the hosts: which handlers workers have, and what clients do.

use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use flowkit_core::function::Functions;
use flowkit_runtime::{Client, WorkerBuilder};

use super::host::client_host;
use super::hosted::{Hosted, OnStage};
use super::process;
use super::stage;
use crate::acting::{Clients, Scripted, Watcher};
use crate::history::{Place, What};
use crate::judge::Seen;
use crate::plan::Plan;

/// What a client does, for ever.
pub(crate) type Acting = Pin<Box<dyn Future<Output = turmoil::Result>>>;

/// A piece to be played.
pub(crate) trait Piece: Debug {
    /// Adds handlers to a worker of a process that begins.
    fn cast(
        &self,
        builder: WorkerBuilder,
        plan: &Arc<Plan>,
        place: Place,
        roles: &[String],
    ) -> WorkerBuilder;

    /// What its coordinators know.
    fn functions(&self) -> Functions {
        crate::functions::functions_of_processes(|| {
            stage::with(|stage| {
                stage.seen.fire("function_panics");
                stage.note(What::Broke);
            });
        })
    }

    /// How many clients have hosts of their own.
    fn clients(&self, plan: &Plan) -> u32;

    /// A client at work.
    fn client(&self, number: u32, library: Client) -> Acting;

    /// The clients of a process that is a whole engine.
    fn inner_clients(&self, library: Client) -> Acting;

    /// Answers that clients wait for before all is done, beside those to the plan's actions.
    fn answers(&self) -> usize {
        0
    }

    /// How much longer than the plan says it may take until all is settled, in milliseconds.
    fn patience_ms(&self) -> u64 {
        0
    }
}

/// The plan's own scripts and actions.
#[derive(Debug)]
pub(crate) struct Scripts(Arc<Clients>);

impl Scripts {
    pub(crate) fn of(plan: &Plan) -> Self {
        let plan = Arc::new(plan.clone());
        Self(Arc::new(Clients::new(&plan, Arc::new(Audience))))
    }
}

impl Piece for Scripts {
    fn cast(
        &self,
        builder: WorkerBuilder,
        plan: &Arc<Plan>,
        place: Place,
        roles: &[String],
    ) -> WorkerBuilder {
        let handler = Arc::new(Hosted {
            place,
            handler: Scripted {
                plan: plan.clone(),
                journal: Arc::new(OnStage(place)),
            },
            keeps_journal: true,
        });
        roles
            .iter()
            .fold(builder, |builder, role| builder.role(role, handler.clone()))
    }

    fn clients(&self, plan: &Plan) -> u32 {
        if plan.world.embedded {
            0
        } else {
            plan.world.clients
        }
    }

    fn client(&self, number: u32, library: Client) -> Acting {
        let clients = self.0.clone();
        Box::pin(async move {
            let host = client_host(number);
            let place = stage::with(|stage| stage.known(host).place(host));
            process::act(place, &library, &clients, |action| action.client == number).await
        })
    }

    fn inner_clients(&self, library: Client) -> Acting {
        let clients = self.0.clone();
        Box::pin(async move {
            let place = stage::with(|stage| stage.known(0).place(0));
            process::act(place, &library, &clients, |_| true).await
        })
    }
}

#[derive(Debug)]
struct Audience;

impl Watcher for Audience {
    fn saw(&self, seen: Seen) {
        let what = match seen {
            Seen::Asked { client, task, ask } => What::Asked { client, task, ask },
            Seen::Answered {
                client,
                task,
                ask,
                reply,
            } => What::Answered {
                client,
                task,
                ask,
                reply,
            },
            Seen::Failed {
                client,
                task,
                ask,
                error,
            } => What::Failed {
                client,
                task,
                ask,
                error,
            },
            Seen::Denied {
                client,
                task,
                ask,
                kind,
            } => What::Denied {
                client,
                task,
                ask,
                kind,
            },
            Seen::Looks { client, task, look } => What::Looks { client, task, look },
            Seen::Shown {
                client,
                task,
                look,
                shown,
            } => What::Shown {
                client,
                task,
                look,
                shown,
            },
            _ => return,
        };
        stage::with(|stage| stage.note(what));
    }
}
