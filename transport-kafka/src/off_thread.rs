//! Clients of librdkafka are dropped on a thread of their own: closing one waits for its threads,
//! and for seconds if its broker is away.

use std::ops::Deref;

/// A value that is dropped on another thread.
pub(crate) struct OffThread<T: Send + 'static>(Option<T>);

impl<T: Send + 'static> OffThread<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(Some(value))
    }
}

impl<T: Send + 'static> Deref for OffThread<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_ref().expect("taken only when it is dropped")
    }
}

impl<T: Send + 'static> Drop for OffThread<T> {
    fn drop(&mut self) {
        if let Some(value) = self.0.take() {
            let name = "flowkit-kafka-close".to_owned();
            // Without a thread to spare it is dropped here: `spawn` drops what it was given.
            let _ = std::thread::Builder::new()
                .name(name)
                .spawn(move || drop(value));
        }
    }
}
