//! A client's inbox: replies on their way to whoever asked.

use flowkit_core::id::{Incarnation, Offset, inbox_of};
use flowkit_core::message::{Body, Reply, Sender, SenderRole};
use flowkit_core::planted::{Bug, is_planted};
use flowkit_core::port::{ErrorKind, PortError, Stream, TransportReply, TransportRequest};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use crate::engine::{Engine, unexpected};

/// Requests that wait for their reply, by number.
type Waiting = Arc<Mutex<BTreeMap<u64, oneshot::Sender<Reply>>>>;

/// Reads replies in a task of its own until dropped.
#[derive(Debug)]
pub(crate) struct Inbox {
    id: Arc<str>,
    partition: u32,
    waiting: Waiting,
    requests: AtomicU64,
    reader: AbortHandle,
}

/// One request that waits. Dropped: its reply is ignored.
pub(crate) struct Expected {
    number: u64,
    waiting: Waiting,
    receiver: oneshot::Receiver<Reply>,
}

impl Inbox {
    /// Looks the end of the inbox up, then reads from there.
    pub(crate) async fn open(engine: Engine) -> Result<Self, PortError> {
        let id: Arc<str> = Arc::from(engine.client_id("client").as_str());
        let partition = inbox_of(&id, engine.deployment().await?.inboxes);
        let stream = Stream::Inbox(partition);
        let from = end_of(&engine, stream).await?;
        let waiting = Waiting::default();
        let read = read_replies(engine, stream, from, id.clone(), waiting.clone());
        Ok(Self {
            id,
            partition,
            waiting,
            requests: AtomicU64::new(1),
            reader: tokio::spawn(read).abort_handle(),
        })
    }

    pub(crate) fn partition(&self) -> u32 {
        self.partition
    }

    pub(crate) fn sender(&self) -> Sender {
        Sender {
            role: SenderRole::Client,
            id: self.id.clone(),
            incarnation: Incarnation(0),
        }
    }

    pub(crate) fn expect_reply(&self) -> Expected {
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        lock(&self.waiting).insert(number, sender);
        Expected {
            number,
            waiting: self.waiting.clone(),
            receiver,
        }
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Expected {
    pub(crate) fn corr_id(&self) -> Arc<str> {
        Arc::from(self.number.to_string())
    }

    /// The reply. Cancel safe.
    pub(crate) async fn reply(&mut self) -> Reply {
        match (&mut self.receiver).await {
            Ok(reply) => reply,
            // The reader never drops a sender without using it; the inbox outlives its requests.
            Err(_) => std::future::pending().await,
        }
    }
}

impl Drop for Expected {
    fn drop(&mut self) {
        lock(&self.waiting).remove(&self.number);
    }
}

fn lock(
    waiting: &Mutex<BTreeMap<u64, oneshot::Sender<Reply>>>,
) -> std::sync::MutexGuard<'_, BTreeMap<u64, oneshot::Sender<Reply>>> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Who waits for the reply to this request.
fn asker_of(waiting: &Waiting, number: u64) -> Option<oneshot::Sender<Reply>> {
    let mut waiting = lock(waiting);
    if waiting.len() > 1 && is_planted(Bug::ReplyMisdelivered) {
        return waiting.pop_first().map(|(_, asker)| asker);
    }
    waiting.remove(&number)
}

async fn end_of(engine: &Engine, stream: Stream) -> Result<Offset, PortError> {
    let call = engine.transport().call(TransportRequest::Bounds { stream });
    match tokio::time::timeout(engine.rpc_timeout(), call).await {
        Ok(Ok(TransportReply::Bounds { end, .. })) => Ok(end),
        Ok(Ok(other)) => Err(unexpected("look the inbox up", &other)),
        Ok(Err(error)) => Err(error),
        Err(_) => {
            let detail = "the transport did not answer in time";
            Err(PortError::new(
                ErrorKind::Unknown,
                "look the inbox up",
                detail,
            ))
        }
    }
}

const READ_LIMIT: u32 = 512;
const READ_WAIT: Duration = Duration::from_secs(20);

async fn read_replies(
    engine: Engine,
    stream: Stream,
    mut from: Offset,
    id: Arc<str>,
    waiting: Waiting,
) {
    let mut pause = Duration::from_millis(50);
    loop {
        let read = engine.transport().call(TransportRequest::Read {
            stream,
            from,
            limit: READ_LIMIT,
            wait_ms: READ_WAIT.as_millis() as u64,
        });
        let error = match tokio::time::timeout(READ_WAIT + engine.rpc_timeout(), read).await {
            Ok(Ok(TransportReply::Entries { entries, next })) => {
                from = next;
                pause = Duration::from_millis(50);
                for entry in entries {
                    if let Ok(envelope) = entry.message
                        && (envelope.to.as_ref() == Some(&id) || is_planted(Bug::RepliesOfOthers))
                        && let Body::Reply(reply) = &envelope.body
                        && let Some(number) = envelope.corr_id.as_ref()
                        && let Ok(number) = number.parse()
                        && let Some(asker) = asker_of(&waiting, number)
                    {
                        let _ = asker.send(reply.clone());
                    }
                }
                continue;
            }
            Ok(Ok(other)) => unexpected("read replies", &other),
            Ok(Err(error)) if error.kind == ErrorKind::Invalid => {
                // Fallen out of what the log holds: go on at its end. Requests are repeated.
                match end_of(&engine, stream).await {
                    Ok(_) if is_planted(Bug::GapIsEnd) => error,
                    Ok(end) => {
                        from = end;
                        continue;
                    }
                    Err(error) => error,
                }
            }
            Ok(Err(error)) => error,
            Err(_) => continue,
        };
        tracing::debug!("replies cannot be read: {error}");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(2));
    }
}
