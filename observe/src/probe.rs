//! Looks for itself: does the store answer, and how much waits in an inbox or a shard's stream?

use flowkit_core::id::{Offset, ShardId, WorkerId};
use flowkit_core::port::{
    PortError, StoreReply, StoreRequest, Stream, TransportReply, TransportRequest,
};
use flowkit_runtime::Engine;
use futures_util::StreamExt;
use std::collections::BTreeMap;
use std::time::Duration;

/// A port that has not answered by then is away, for now.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);
/// The same where only the drivers matter, and the answer is not to be late for the sake of servers.
pub(crate) const SHORT_PATIENCE: Duration = Duration::from_millis(500);

/// Did the store answer just now?
pub(crate) async fn store(
    engine: &Engine,
    worker_id: &WorkerId,
    patience: Duration,
) -> Result<(), String> {
    let request = StoreRequest::ReadGrants {
        worker_id: worker_id.clone(),
        nodes: Vec::new(),
    };
    match within(patience, engine.store().call(request)).await? {
        StoreReply::Grants { .. } => Ok(()),
        _ => Err("an answer to another question".to_owned()),
    }
}

/// Messages from `next` to the end of a stream.
pub(crate) async fn lag(
    engine: &Engine,
    stream: Stream,
    next: Offset,
    patience: Duration,
) -> Result<u64, String> {
    let request = TransportRequest::Bounds { stream };
    match within(patience, engine.transport().call(request)).await? {
        TransportReply::Bounds { end, .. } => Ok(end.0.saturating_sub(next.0)),
        _ => Err("an answer to another question".to_owned()),
    }
}

/// How many streams are asked about at once: a call to a server that hangs may hold a thread for longer
/// than anybody waits for it.
const AT_ONCE: usize = 8;

/// The same for shards: of one, and of the others if it answers. Of those that do not the first stands
/// for all.
pub(crate) async fn lags(
    engine: &Engine,
    shards: impl Iterator<Item = (ShardId, Offset)>,
    patience: Duration,
) -> BTreeMap<ShardId, Result<u64, String>> {
    let shards: Vec<_> = shards.collect();
    let mut asked = shards.into_iter().map(|(shard, next)| async move {
        let lag = lag(engine, Stream::Shard(shard), next, patience).await;
        (shard, lag)
    });
    let Some(first) = asked.next() else {
        return BTreeMap::new();
    };
    let mut lags = vec![first.await];
    if lags[0].1.is_ok() {
        let others = futures_util::stream::iter(asked).buffered(AT_ONCE);
        lags.extend(others.collect::<Vec<_>>().await);
    }
    let mut away = false;
    let lags = lags.into_iter();
    lags.filter(|(_, lag)| lag.is_ok() || !std::mem::replace(&mut away, true))
        .collect()
}

async fn within<T>(
    patience: Duration,
    call: impl Future<Output = Result<T, PortError>>,
) -> Result<T, String> {
    match tokio::time::timeout(patience, call).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no answer within {} ms", patience.as_millis())),
    }
}
