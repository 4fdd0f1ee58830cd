//! A thread for reads that may be long, so that they hold up nobody else.

use std::io;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

type Scan = Box<dyn FnOnce() + Send>;

/// Hands scans to their thread; ends it when dropped.
#[derive(Debug)]
pub(crate) struct Scans {
    inbox: Option<mpsc::Sender<Scan>>,
    thread: Option<JoinHandle<()>>,
}

impl Scans {
    pub(crate) fn start() -> io::Result<Self> {
        let (inbox, scans) = mpsc::channel::<Scan>();
        let thread = thread::Builder::new()
            .name("flowkit-store-scan".to_owned())
            .spawn(move || {
                for scan in scans {
                    scan();
                }
            })?;
        Ok(Self {
            inbox: Some(inbox),
            thread: Some(thread),
        })
    }

    /// Queues a scan. It catches its own panics.
    pub(crate) fn submit(&self, scan: impl FnOnce() + Send + 'static) {
        if let Some(inbox) = &self.inbox {
            // The thread lives as long as this handle.
            let _ = inbox.send(Box::new(scan));
        }
    }
}

impl Drop for Scans {
    fn drop(&mut self) {
        self.inbox = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
