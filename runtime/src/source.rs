//! Where a handler's batches come from.

use flowkit_core::json::Json;
use flowkit_core::planted::{Bug, is_planted};
use futures_util::stream::{self, BoxStream, Stream, StreamExt};
use serde::de::DeserializeOwned;
use std::fmt;
use tokio::sync::mpsc;

use crate::{Batch, HandlerError, TaskInput};

/// The batches of a node, in an order that is the same in every attempt.
///
/// Drawn one at a time, the next one after the last was processed. An error in the stream ends the
/// attempt. Dropped when the run ends, wherever it is.
pub struct BatchStream<T> {
    batches: BoxStream<'static, Result<Batch<T>, HandlerError>>,
}

impl<T: Send + 'static> BatchStream<T> {
    /// Batches at hand, or computed without waiting.
    pub fn iter<I>(batches: I) -> Self
    where
        I: IntoIterator<Item = Batch<T>>,
        I::IntoIter: Send + 'static,
    {
        Self::from_stream(stream::iter(batches.into_iter().map(Ok)))
    }

    /// No batch: the node finishes with count 0.
    pub fn empty() -> Self {
        Self::from_stream(stream::empty())
    }

    /// One batch.
    pub fn one(batch: Batch<T>) -> Self {
        Self::from_stream(stream::iter([Ok(batch)]))
    }

    /// Batches of any stream.
    pub fn from_stream<S>(batches: S) -> Self
    where
        S: Stream<Item = Result<Batch<T>, HandlerError>> + Send + 'static,
    {
        Self {
            batches: batches.boxed(),
        }
    }

    /// Batches one by one out of a state: an open file, a database cursor, a page number.
    ///
    /// ```
    /// use flowkit_runtime::{Batch, BatchStream};
    ///
    /// let pages = BatchStream::unfold(0_u64, |page| async move {
    ///     Ok((page < 3).then(|| (Batch::new(format!("page-{page}"), page), page + 1)))
    /// });
    /// # let _: BatchStream<u64> = pages;
    /// ```
    pub fn unfold<S, F, Fut>(state: S, next: F) -> Self
    where
        S: Send + 'static,
        F: FnMut(S) -> Fut + Send + 'static,
        Fut: Future<Output = Result<Option<(Batch<T>, S)>, HandlerError>> + Send + 'static,
    {
        Self::from_stream(stream::try_unfold(state, next))
    }

    /// Batches from code that blocks (files, directories), on a thread of its own.
    ///
    /// `produce` runs at most one batch ahead of the handler. When the run ends early, its next
    /// [`BatchSink::send`] fails with a cancelled error, which it returns with `?`. A panic in it
    /// is a transient failure.
    ///
    /// ```
    /// use flowkit_runtime::{Batch, BatchStream};
    ///
    /// let lines = BatchStream::blocking(|out| {
    ///     for (number, line) in std::fs::read_to_string("words.txt")?.lines().enumerate() {
    ///         out.send(Batch::new(format!("line-{number}"), line.to_owned()))?;
    ///     }
    ///     Ok(())
    /// });
    /// # let _: BatchStream<String> = lines;
    /// ```
    pub fn blocking<F>(produce: F) -> Self
    where
        F: FnOnce(&BatchSink<T>) -> Result<(), HandlerError> + Send + 'static,
    {
        let source = stream::once(async move {
            // The thread starts with the first draw, not when the stream is made.
            let (sender, receiver) = mpsc::channel(1);
            let thread = tokio::task::spawn_blocking(move || produce(&BatchSink { sender }));
            stream::unfold(
                (receiver, Some(thread)),
                |(mut receiver, thread)| async move {
                    if let Some(batch) = receiver.recv().await {
                        return Some((Ok(batch), (receiver, thread)));
                    }
                    let error = match thread?.await {
                        Ok(Ok(())) => return None,
                        Ok(Err(error)) => error,
                        Err(join) => HandlerError::panic(&join.to_string()),
                    };
                    Some((Err(error), (receiver, None)))
                },
            )
        });
        Self::from_stream(source.flatten())
    }

    /// The next batch, and whether the source knows that none follows.
    pub(crate) async fn next(&mut self) -> Result<Option<(Batch<T>, bool)>, HandlerError> {
        match self.batches.next().await {
            None => Ok(None),
            Some(Err(error)) => Err(error),
            Some(Ok(batch)) => {
                let (least, most) = self.batches.size_hint();
                let last = most == Some(0) || least == 0 && is_planted(Bug::LastWrong);
                Ok(Some((batch, last)))
            }
        }
    }
}

impl<T: DeserializeOwned + Send + 'static> BatchStream<T> {
    /// The whole input as one batch with the uid `input`: what a handler without a source of its
    /// own does. The payload is `input_inline`, or `null` where the node has none.
    pub fn whole_input(input: &TaskInput) -> Self {
        let inline = input.inline.clone().unwrap_or_else(Json::null);
        let batch = inline
            .decode()
            .map(|payload| Batch::new("input", payload))
            .map_err(|error| HandlerError::bad_input(&error));
        Self::from_stream(stream::iter([batch]))
    }
}

impl<T> fmt::Debug for BatchStream<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BatchStream")
    }
}

/// Where [`BatchStream::blocking`] sends its batches.
#[derive(Debug)]
pub struct BatchSink<T> {
    sender: mpsc::Sender<Batch<T>>,
}

impl<T> BatchSink<T> {
    /// Hands a batch over; waits while the one before is in work.
    ///
    /// # Errors
    /// Cancelled, when the run has ended.
    pub fn send(&self, batch: Batch<T>) -> Result<(), HandlerError> {
        self.sender
            .blocking_send(batch)
            .map_err(|_| HandlerError::cancelled())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_source_of_known_length_says_which_batch_is_the_last() {
        let mut source = BatchStream::iter((0..2).map(|n| Batch::new(format!("b{n}"), n)));
        let (first, last) = source.next().await.unwrap().unwrap();
        assert_eq!((&*first.uid, last), ("b0", false));
        let (second, last) = source.next().await.unwrap().unwrap();
        assert_eq!((&*second.uid, last), ("b1", true));
        assert!(source.next().await.unwrap().is_none());
    }

    #[tokio::test]
    async fn a_blocking_source_delivers_in_order_and_then_its_error() {
        let mut source = BatchStream::blocking(|out| {
            for n in 0..3 {
                out.send(Batch::new(format!("b{n}"), n))?;
            }
            Err(HandlerError::permanent("broken", "the disk is gone"))
        });
        for n in 0..3 {
            assert_eq!(source.next().await.unwrap().unwrap().0.payload, n);
        }
        assert_eq!(
            source.next().await.unwrap_err().to_string(),
            "the disk is gone"
        );
    }

    #[tokio::test]
    async fn a_blocking_source_ends_when_its_run_is_dropped() {
        let (ended, done) = tokio::sync::oneshot::channel();
        let mut source = BatchStream::blocking(move |out| {
            let mut n = 0_u64;
            let error = loop {
                n += 1;
                if let Err(error) = out.send(Batch::new(format!("b{n}"), n)) {
                    break error;
                }
            };
            let _ = ended.send(());
            Err(error)
        });
        assert!(source.next().await.unwrap().is_some());
        drop(source);
        done.await.unwrap();
    }

    #[tokio::test]
    async fn a_panic_in_a_blocking_source_is_a_transient_failure() {
        let mut source: BatchStream<u32> = BatchStream::blocking(|_| panic!("lost"));
        let error = source.next().await.unwrap_err();
        assert!(format!("{error:?}").starts_with("HandlerError(panic"));
    }
}
