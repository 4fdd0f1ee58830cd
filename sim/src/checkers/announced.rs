//! `announced`: what a worker says of itself in its announcements is so: who it is, its roles (twice: as a list and
//! joined by commas), how much it runs at once, a version, and that it drains only if it was told to stop.

use std::collections::{BTreeMap, BTreeSet};

use flowkit_core::id::{Incarnation, WorkerId};
use flowkit_core::message::{Body, Sender, WorkerOnline};
use flowkit_core::port::Stream;

use super::{Judge, View, worker_plan};
use crate::history::{Life, Place, What};
use crate::plan::{Plan, WorkerPlan};

const NAME: &str = "announced";

#[derive(Debug, Default)]
pub(super) struct Announced {
    processes: BTreeMap<(WorkerId, Incarnation), Place>,
    /// Processes that were told to stop.
    asked: BTreeSet<Place>,
}

impl Judge for Announced {
    fn event(&mut self, view: &mut View<'_>) {
        match &view.event.what {
            What::Process {
                place,
                what: Life::Asked { .. },
            } => {
                self.asked.insert(process(*place));
            }
            What::Registered {
                place,
                worker,
                incarnation,
            } => {
                let key = (worker.clone(), *incarnation);
                self.processes.insert(key, process(*place));
            }
            What::Appended {
                stream: Stream::Announcements,
                envelope,
                ..
            } => {
                if let Body::WorkerOnline(online) = &envelope.body
                    && let Some(what) = self.untrue(view.plan, &envelope.sender, online)
                {
                    let what = format!("{} announces {what}", envelope.sender.id);
                    view.broken(NAME, what);
                }
            }
            _ => {}
        }
    }
}

/// The process of a place, whichever of its workers that is.
fn process(place: Place) -> Place {
    Place {
        machine: 0,
        ..place
    }
}

impl Announced {
    /// What of an announcement is not so.
    fn untrue(&self, plan: &Plan, sender: &Sender, online: &WorkerOnline) -> Option<String> {
        let WorkerPlan {
            roles, capacity, ..
        } = worker_plan(plan, &sender.id)?;
        let told: Vec<&str> = online
            .capabilities
            .roles
            .iter()
            .map(|r| r.as_str())
            .collect();
        if *sender.id != *online.worker_id.as_str() || sender.incarnation != online.incarnation {
            let (id, start) = (&online.worker_id, online.incarnation);
            return Some(format!("{id}#{start}, and is start {}", sender.incarnation));
        }
        if !told.iter().eq(roles.iter()) {
            return Some(format!("the roles {told:?}, and has {roles:?}"));
        }
        if *online.kind != roles.join(",") {
            return Some(format!("the type {:?}, and has {roles:?}", online.kind));
        }
        if online.capacity.tasks != *capacity {
            let tasks = online.capacity.tasks;
            return Some(format!("that it runs {tasks} at once, and runs {capacity}"));
        }
        if online.version.is_empty() {
            return Some("no version".to_owned());
        }
        let key = (online.worker_id.clone(), online.incarnation);
        let place = self.processes.get(&key)?;
        let may = match &*online.status {
            "online" => true,
            "draining" => self.asked.contains(place),
            _ => false,
        };
        (!may).then(|| format!("that it is {:?}, and was not told to stop", online.status))
    }
}
