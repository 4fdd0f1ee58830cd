//! Frames on simulated TCP. A frame carries two numbers: which call it belongs to, and where on
//! the stage the request or answer lies that it stands for. So bytes are lost, late and in order as
//! on a network, and nothing is encoded that no checker looks at.

use std::io;

use flowkit_core::port::{PortError, StoreReply, StoreRequest, TransportReply, TransportRequest};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Length of a frame.
pub(super) const FRAME: usize = 16;

/// What a frame stands for.
#[derive(Debug)]
pub(super) enum Parcel {
    AskStore(StoreRequest),
    AskBroker(TransportRequest),
    StoreSays(Result<StoreReply, PortError>),
    BrokerSays(Result<TransportReply, PortError>),
}

/// Call and slot.
pub(super) fn frame(call: u64, slot: u64) -> [u8; FRAME] {
    let mut frame = [0; FRAME];
    frame[..8].copy_from_slice(&call.to_le_bytes());
    frame[8..].copy_from_slice(&slot.to_le_bytes());
    frame
}

pub(super) fn parse(frame: [u8; FRAME]) -> (u64, u64) {
    let number = |at: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&frame[at..at + 8]);
        u64::from_le_bytes(bytes)
    };
    (number(0), number(8))
}

/// Reads frames; what it holds of one outlives a dropped read.
#[derive(Debug)]
pub(super) struct Frames<R> {
    from: R,
    held: Vec<u8>,
}

impl<R: AsyncRead + Unpin> Frames<R> {
    pub(super) fn new(from: R) -> Self {
        Self {
            from,
            held: Vec::with_capacity(4 * FRAME),
        }
    }

    /// The next frame; `None` at the end of the stream. Cancel safe.
    pub(super) async fn next(&mut self) -> io::Result<Option<(u64, u64)>> {
        loop {
            if let Some(whole) = self.held.first_chunk::<FRAME>() {
                let parsed = parse(*whole);
                self.held.drain(..FRAME);
                return Ok(Some(parsed));
            }
            if self.from.read_buf(&mut self.held).await? == 0 {
                return Ok(None);
            }
        }
    }
}
