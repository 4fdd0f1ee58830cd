//! What is heard in the streams, beside what the store knows of who speaks.

use flowkit::prelude::*;
use flowkit_core::doctor::Listed;
use flowkit_core::port::{StoreReply, StoreRequest};
use flowkit_core::record::DeploymentRecord;
use flowkit_core::why::WorkerFacts;
use std::collections::BTreeMap;

use crate::command::session::Session;

/// Who runs, as seen from here.
pub(super) struct Seen {
    pub(super) presence: Presence,
    pub(super) records: Vec<WorkerRecord>,
    pub(super) listed: Vec<Listed>,
    pub(super) inboxes: u32,
}

/// Reads the streams.
pub(super) async fn streams(session: &Session) -> Result<Seen, ClientError> {
    let client = session.client();
    let presence = client.presence().await?;
    let records = client.workers().await?;
    let facts = client.worker_facts(&presence).await?;
    let leases = leases(&client.worker_views().await?);
    let mut listed = Vec::new();
    for facts in facts {
        let record = records.iter().find(|r| r.worker_id == facts.worker_id);
        let registered = record.map(|record| record.incarnation);
        let lease_ttl_ms = leases.get(&facts.worker_id).copied();
        listed.push(of(facts, registered, &presence, lease_ttl_ms));
    }
    let unreadable = client.unreadable_workers().await?;
    for (id, heard) in &presence.workers {
        let is_listed = listed.iter().any(|known| known.facts.worker_id == *id);
        if is_listed || unreadable.iter().any(|(unreadable, _)| unreadable == id) {
            continue;
        }
        let stranger = WorkerFacts {
            worker_id: id.clone(),
            roles: Vec::new(),
            capacity: 0,
            held: 0,
            heard_ms: Some(heard.age_ms),
            leaving: heard.status != "online",
            silent_after_ms: heard.silent_after_ms,
            free_slots: heard.free_slots,
            abandoned: heard.abandoned,
        };
        listed.push(of(stranger, None, &presence, None));
    }
    // Not created by this: there is one, since workers and tasks were read.
    let propose = DeploymentRecord {
        shards: 1,
        inboxes: 16,
    };
    let asked = session
        .engine()
        .store()
        .call(StoreRequest::Deployment { propose });
    let inboxes = match asked.await? {
        StoreReply::Deployment(record) => record.inboxes,
        _ => u32::MAX,
    };
    Ok(Seen {
        presence,
        records,
        listed,
        inboxes,
    })
}

/// The length of the leases that workers hold.
fn leases(views: &[WorkerView]) -> BTreeMap<WorkerId, u64> {
    let held = views.iter().filter_map(|view| {
        let lease_ttl_ms = view.runs.iter().map(|run| run.lease_ttl_ms).max()?;
        Some((view.record.worker_id.clone(), lease_ttl_ms))
    });
    held.collect()
}

fn of(
    facts: WorkerFacts,
    registered: Option<flowkit_core::id::Incarnation>,
    presence: &Presence,
    lease_ttl_ms: Option<u64>,
) -> Listed {
    let heard = presence.workers.get(&facts.worker_id);
    Listed {
        registered,
        heard: heard.map(|heard| heard.incarnation),
        older_heard: heard.map_or(0, |heard| heard.conflicts),
        batch_ms_max: heard.map_or(0, |heard| heard.batch_ms_max),
        heartbeat_ms: heard.and_then(|heard| heard.heartbeat_age_ms),
        lease_ttl_ms: lease_ttl_ms.unwrap_or(0),
        facts,
    }
}
