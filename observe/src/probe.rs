//! Looks for itself: does the store answer, and how much waits in an inbox or a shard's stream?

use flowkit_core::id::{Offset, ShardId, WorkerId};
use flowkit_core::port::{
    PortError, StoreReply, StoreRequest, Stream, TransportReply, TransportRequest,
};
use flowkit_runtime::Engine;
use std::collections::BTreeMap;
use std::time::Duration;

/// A port that has not answered by then is away, for now.
const PATIENCE: Duration = Duration::from_secs(2);

/// Did the store answer just now?
pub(crate) async fn store(engine: &Engine, worker_id: &WorkerId) -> Result<(), String> {
    let request = StoreRequest::ReadGrants {
        worker_id: worker_id.clone(),
        nodes: Vec::new(),
    };
    match within(engine.store().call(request)).await? {
        StoreReply::Grants { .. } => Ok(()),
        _ => Err("an answer to another question".to_owned()),
    }
}

/// Messages from `next` to the end of a stream.
pub(crate) async fn lag(engine: &Engine, stream: Stream, next: Offset) -> Result<u64, String> {
    let request = TransportRequest::Bounds { stream };
    match within(engine.transport().call(request)).await? {
        TransportReply::Bounds { end, .. } => Ok(end.0.saturating_sub(next.0)),
        _ => Err("an answer to another question".to_owned()),
    }
}

/// The same for shards.
pub(crate) async fn lags(
    engine: &Engine,
    shards: impl Iterator<Item = (ShardId, Offset)>,
) -> BTreeMap<ShardId, Result<u64, String>> {
    let mut lags = BTreeMap::new();
    for (shard, next) in shards {
        let lag = lag(engine, Stream::Shard(shard), next).await;
        // What does not answer once will not answer for the other shards.
        let away = lag.is_err();
        lags.insert(shard, lag);
        if away {
            break;
        }
    }
    lags
}

async fn within<T>(call: impl Future<Output = Result<T, PortError>>) -> Result<T, String> {
    match tokio::time::timeout(PATIENCE, call).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
    }
}
