//! Requests on their way to the store and the transport.

use flowkit_core::id::OpId;
use flowkit_core::planted::{Bug, is_planted};
use flowkit_core::port::{
    ErrorKind, PortError, Store, StoreReply, StoreRequest, Transport, TransportReply,
    TransportRequest,
};
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// A finished request.
#[derive(Debug)]
pub(crate) enum Answer {
    Store(OpId, Result<StoreReply, PortError>),
    Transport(OpId, Result<TransportReply, PortError>),
}

/// The requests of one machine.
///
/// Every call is polled once where it is made: in-process ports answer at once, without a task or
/// a channel, and a transport has taken an append over when its first poll returns, so appends
/// keep the order of the effects. Calls that do not answer at once wait in a set that the
/// driver's own task polls.
pub(crate) struct Calls<'a> {
    store: &'a dyn Store,
    transport: &'a dyn Transport,
    timeout: Duration,
    ready: VecDeque<Answer>,
    /// With each answer: was it a store call or an append, which are let finish at the end?
    waiting: FuturesUnordered<BoxFuture<'a, (bool, Answer)>>,
    /// Store calls and appends that wait.
    to_finish: usize,
}

impl<'a> Calls<'a> {
    pub(crate) fn new(
        store: &'a dyn Store,
        transport: &'a dyn Transport,
        timeout: Duration,
    ) -> Self {
        Self {
            store,
            transport,
            timeout,
            ready: VecDeque::new(),
            waiting: FuturesUnordered::new(),
            to_finish: 0,
        }
    }

    pub(crate) fn store(&mut self, op: OpId, request: StoreRequest) {
        let mut call = self.store.call(request);
        match poll_once(&mut call) {
            Some(result) => self.ready.push_back(Answer::Store(op, result)),
            None => {
                let timeout = self.timeout;
                let call = async move {
                    let answer = within(timeout, "store call", call).await;
                    (true, Answer::Store(op, answer))
                };
                self.to_finish += 1;
                self.waiting.push(Box::pin(call));
            }
        }
    }

    pub(crate) fn transport(&mut self, op: OpId, request: TransportRequest) {
        let patience = match &request {
            TransportRequest::Read { wait_ms, .. } => Duration::from_millis(*wait_ms),
            _ => Duration::ZERO,
        };
        let is_append = matches!(request, TransportRequest::Append { .. });
        let call = self.transport.call(request);
        let mut call = if is_append && op.0.is_multiple_of(2) && is_planted(Bug::AppendsUnordered) {
            Box::pin(late(call))
        } else {
            call
        };
        match poll_once(&mut call) {
            Some(result) => self.ready.push_back(Answer::Transport(op, result)),
            None => {
                let timeout = self.timeout.saturating_add(patience);
                let call = async move {
                    let answer = within(timeout, "transport call", call).await;
                    (is_append, Answer::Transport(op, answer))
                };
                self.to_finish += usize::from(is_append);
                self.waiting.push(Box::pin(call));
            }
        }
    }

    /// A finished request, if there is one at hand.
    pub(crate) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Answer> {
        if let Some(answer) = self.ready.pop_front() {
            return Poll::Ready(answer);
        }
        match self.waiting.poll_next_unpin(cx) {
            Poll::Ready(Some((finished, answer))) => {
                self.to_finish -= usize::from(finished);
                Poll::Ready(answer)
            }
            // An empty set is woken by nothing; the driver waits for its other inputs.
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }

    /// Waits for the answers of store calls and appends, which nobody reads any more.
    pub(crate) async fn finish(&mut self, patience: Duration) {
        let finish = async {
            while self.to_finish > 0 {
                std::future::poll_fn(|cx| self.poll_ready(cx)).await;
            }
        };
        // Too slow: a lease lapses by itself, and who is gone is noticed.
        let _ = tokio::time::timeout(patience, finish).await;
    }

    /// Forgets every request: whoever asked is gone. They may still happen.
    pub(crate) fn clear(&mut self) {
        self.ready.clear();
        self.waiting.clear();
        self.to_finish = 0;
    }
}

type Call<'a, T> = Pin<Box<dyn Future<Output = Result<T, PortError>> + Send + 'a>>;

fn poll_once<T>(call: &mut Call<'_, T>) -> Option<Result<T, PortError>> {
    // Not lost when it is pending: the set polls every new call again, with a real waker.
    match call.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => Some(result),
        Poll::Pending => None,
    }
}

/// A call that takes too long may have happened.
async fn within<T>(timeout: Duration, what: &str, call: Call<'_, T>) -> Result<T, PortError> {
    if let Ok(answer) = tokio::time::timeout(timeout, call).await {
        return answer;
    }
    if is_planted(Bug::TimeoutUnanswered) {
        std::future::pending::<()>().await;
    }
    let detail = format!("no answer within {} ms", timeout.as_millis());
    Err(PortError::new(ErrorKind::Unknown, what, detail))
}

/// Only a planted bug sends a call late.
async fn late<T>(call: Call<'_, T>) -> Result<T, PortError> {
    tokio::time::sleep(Duration::from_millis(3)).await;
    call.await
}

#[cfg(test)]
mod tests {
    use super::*;
    use async_trait::async_trait;
    use std::future::poll_fn;

    #[derive(Debug)]
    struct Slow;

    #[async_trait]
    impl Store for Slow {
        async fn call(&self, request: StoreRequest) -> Result<StoreReply, PortError> {
            if matches!(request, StoreRequest::ReadWorkers) {
                return Ok(StoreReply::Workers(Default::default()));
            }
            std::future::pending().await
        }
    }

    #[async_trait]
    impl Transport for Slow {
        async fn call(&self, _: TransportRequest) -> Result<TransportReply, PortError> {
            std::future::pending().await
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_without_an_answer_ends_as_unknown() {
        let mut calls = Calls::new(&Slow, &Slow, Duration::from_secs(10));
        let forget = flowkit_core::port::Stream::Announcements;
        calls.transport(OpId(1), TransportRequest::Bounds { stream: forget });
        calls.store(OpId(2), StoreRequest::ReadWorkers);
        let first = poll_fn(|cx| calls.poll_ready(cx)).await;
        assert!(matches!(first, Answer::Store(OpId(2), Ok(_))));
        let second = poll_fn(|cx| calls.poll_ready(cx)).await;
        let Answer::Transport(OpId(1), Err(error)) = second else {
            panic!("{second:?}");
        };
        assert_eq!(error.kind, ErrorKind::Unknown);
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_poll_is_given_its_own_time_on_top() {
        let mut calls = Calls::new(&Slow, &Slow, Duration::from_secs(10));
        let started = tokio::time::Instant::now();
        let read = TransportRequest::Read {
            stream: flowkit_core::port::Stream::Announcements,
            from: flowkit_core::id::Offset(0),
            limit: 1,
            wait_ms: 30_000,
        };
        calls.transport(OpId(1), read);
        poll_fn(|cx| calls.poll_ready(cx)).await;
        assert_eq!(started.elapsed(), Duration::from_secs(40));
    }
}
