//! A gate that can be shut in front of whoever wants to go on.

use std::task::{Context, Poll, Waker};

/// Open at first.
#[derive(Debug, Default)]
pub(super) struct Gate {
    shut: bool,
    waiting: Vec<Waker>,
}

impl Gate {
    pub(super) fn shut(&mut self) {
        self.shut = true;
    }

    pub(super) fn open(&mut self) {
        self.shut = false;
        self.waiting.drain(..).for_each(Waker::wake);
    }

    pub(super) fn is_shut(&self) -> bool {
        self.shut
    }

    pub(super) fn poll_pass(&mut self, cx: &Context<'_>) -> Poll<()> {
        if self.shut {
            self.waiting.push(cx.waker().clone());
            Poll::Pending
        } else {
            Poll::Ready(())
        }
    }
}
