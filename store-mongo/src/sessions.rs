//! One session per shard and owner.
//!
//! A process that dies in the middle of a commit leaves a transaction open. The server ends it only
//! after a minute, and until then whoever writes the same documents waits. So the owner's session
//! stands in the shard record, and the next owner ends that session before it takes over. A commit of
//! the same owner after a broken connection ends what the last one left by itself: the server knows
//! only one transaction per session.

use flowkit_core::id::ShardId;
use mongodb::ClientSession;
use mongodb::bson::{Bson, Document, doc};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::store::Mongo;

/// A session; its lock is held while it carries out a commit.
pub(crate) type Seat = Arc<tokio::sync::Mutex<ClientSession>>;

/// The sessions of the shards that this process has taken over, each with its epoch.
#[derive(Default)]
pub(crate) struct Sessions(Mutex<BTreeMap<u32, (u64, Seat)>>);

impl Sessions {
    /// The session of an owner's commits. Not there if somebody else took the shard over.
    pub(crate) fn of(&self, shard: ShardId, epoch: u64) -> Option<Seat> {
        let sessions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (of, seat) = sessions.get(&shard.0)?;
        (*of == epoch).then(|| seat.clone())
    }

    pub(crate) fn keep(&self, shard: ShardId, epoch: u64, session: ClientSession) {
        let seat = Arc::new(tokio::sync::Mutex::new(session));
        let mut sessions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.insert(shard.0, (epoch, seat));
    }
}

/// What the shard record says about a session.
pub(crate) fn id_of(session: &ClientSession) -> Bson {
    session.id().get("id").cloned().unwrap_or(Bson::Null)
}

impl Mongo {
    /// Ends what the last owner of a shard has left open. An owner that still lives is not harmed:
    /// its commit is refused, it tries again, and is fenced by then.
    pub(crate) async fn end_session(&self, shard: &Document) {
        let Some(id) = shard.get("session").filter(|id| **id != Bson::Null) else {
            return;
        };
        let command = doc! { "killSessions": [{ "id": id.clone() }] };
        let admin = self.client.database("admin");
        if let Err(error) = admin.run_command(command).await {
            // Then its transaction ends with the server's patience.
            tracing::warn!("the last owner's session cannot be ended: {}", error.kind);
        }
    }
}
