//! A TCP proxy between one process and one server, with a gate in each direction.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What becomes of bytes in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Way {
    /// They are passed on.
    #[default]
    Open,
    /// They wait, and are passed on later.
    Held,
    /// They vanish.
    Lost,
}

/// The state of a proxy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Gate {
    pub(crate) requests: Way,
    pub(crate) replies: Way,
    /// How much longer a piece takes at most.
    pub(crate) slow_ms: u64,
    /// Raised to cut every connection.
    pub(crate) cuts: u64,
}

/// What a proxy did to connections, so that nobody believes in a fault that met nothing.
#[derive(Debug, Default)]
pub(crate) struct Done {
    /// Pieces that vanished.
    pub(crate) lost: AtomicU64,
    /// Pieces that came late, since they were held.
    pub(crate) held: AtomicU64,
    /// Pieces that took longer.
    pub(crate) slowed: AtomicU64,
    /// Connections that were cut.
    pub(crate) cut: AtomicU64,
}

/// A proxy that runs; it ends with its runtime.
#[derive(Debug)]
pub(crate) struct Proxy {
    gate: watch::Sender<Gate>,
    port: u16,
    done: Arc<Done>,
}

impl Proxy {
    /// Listens on a port (0 = any) and passes everything on to another one of this machine.
    pub(crate) async fn start(port: u16, to: u16) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", port)).await?;
        let port = listener.local_addr()?.port();
        let (gate, seen) = watch::channel(Gate::default());
        let done = Arc::new(Done::default());
        let count = done.clone();
        tokio::spawn(async move {
            // Fails for one connection at most (it was gone at once, or no number was left for it).
            loop {
                if let Ok((client, _)) = listener.accept().await {
                    tokio::spawn(pass(client, to, seen.clone(), count.clone()));
                } else {
                    tokio::task::yield_now().await;
                }
            }
        });
        Ok(Self { gate, port, done })
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn done(&self) -> &Done {
        &self.done
    }

    pub(crate) fn set(&self, change: impl FnOnce(&mut Gate)) {
        self.gate.send_modify(change);
    }
}

/// One connection, until either side ends it or it is cut.
async fn pass(client: TcpStream, to: u16, gate: watch::Receiver<Gate>, done: Arc<Done>) {
    let Ok(server) = TcpStream::connect(("127.0.0.1", to)).await else {
        return; // dropped: the client sees a closed connection
    };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let requests = pump(from_client, to_server, gate.clone(), &done, |gate| {
        gate.requests
    });
    let replies = pump(from_server, to_client, gate, &done, |gate| gate.replies);
    tokio::select! {
        () = requests => {}
        () = replies => {}
    }
}

async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut gate: watch::Receiver<Gate>,
    done: &Done,
    way: impl Fn(&Gate) -> Way,
) {
    let began = *gate.borrow_and_update();
    let mut torn = false;
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = tokio::select! {
            read = from.read(&mut buffer) => read,
            changed = gate.changed() => {
                let now = *gate.borrow_and_update();
                if now.cuts != began.cuts {
                    add(&done.cut);
                }
                // A stream with a hole in it is of no use any more.
                if changed.is_err() || now.cuts != began.cuts || (torn && way(&now) != Way::Lost) {
                    return;
                }
                continue;
            }
        };
        let Ok(length @ 1..) = read else { return };
        let slow_ms = gate.borrow().slow_ms;
        if slow_ms > 0 {
            tokio::time::sleep(Duration::from_millis(up_to(slow_ms))).await;
            add(&done.slowed);
        }
        let mut held = false;
        let passed = loop {
            let now = *gate.borrow_and_update();
            if now.cuts != began.cuts {
                add(&done.cut);
                return;
            }
            match way(&now) {
                Way::Open => break !torn,
                Way::Lost => break false,
                Way::Held => {
                    held = true;
                    if gate.changed().await.is_err() {
                        return;
                    }
                }
            }
        };
        if held {
            add(&done.held);
        }
        if !passed {
            torn = true;
            add(&done.lost);
        } else if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}

fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Spread evenly up to a limit; nothing rests on it being random.
fn up_to(limit: u64) -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let next = NEXT.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
    (next >> 32) % (limit + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that sends every byte back, and a client of it through a proxy.
    async fn echo() -> (Proxy, TcpStream) {
        let server = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let to = server.local_addr().expect("bound").port();
        tokio::spawn(async move {
            while let Ok((stream, _)) = server.accept().await {
                tokio::spawn(async move {
                    let (mut read, mut write) = stream.into_split();
                    let _ = tokio::io::copy(&mut read, &mut write).await;
                });
            }
        });
        let proxy = Proxy::start(0, to).await.expect("a port");
        let client = TcpStream::connect(("127.0.0.1", proxy.port())).await;
        (proxy, client.expect("connected"))
    }

    async fn said(client: &mut TcpStream, text: &[u8]) -> io::Result<Vec<u8>> {
        client.write_all(text).await?;
        let mut back = vec![0; text.len()];
        client.read_exact(&mut back).await?;
        Ok(back)
    }

    #[tokio::test]
    async fn an_open_gate_passes_everything_on() {
        let (_proxy, mut client) = echo().await;
        assert_eq!(said(&mut client, b"hello").await.expect("echo"), b"hello");
    }

    #[tokio::test]
    async fn held_bytes_come_later() {
        let (proxy, mut client) = echo().await;
        said(&mut client, b"1").await.expect("echo");
        proxy.set(|gate| gate.replies = Way::Held);
        client.write_all(b"2").await.expect("sent");
        let mut byte = [0];
        let early = tokio::time::timeout(Duration::from_millis(50), client.read(&mut byte)).await;
        assert!(early.is_err(), "{early:?}");
        proxy.set(|gate| gate.replies = Way::Open);
        client.read_exact(&mut byte).await.expect("it comes");
        assert_eq!(byte, *b"2");
    }

    #[tokio::test]
    async fn a_stream_that_lost_bytes_ends_when_the_way_is_open_again() {
        let (proxy, mut client) = echo().await;
        said(&mut client, b"1").await.expect("echo");
        proxy.set(|gate| gate.requests = Way::Lost);
        client.write_all(b"2").await.expect("sent");
        let mut byte = [0];
        let early = tokio::time::timeout(Duration::from_millis(50), client.read(&mut byte)).await;
        assert!(early.is_err(), "{early:?}");
        proxy.set(|gate| gate.requests = Way::Open);
        assert!(matches!(client.read(&mut byte).await, Ok(0) | Err(_)));
        let mut next = TcpStream::connect(("127.0.0.1", proxy.port()))
            .await
            .expect("connected");
        assert_eq!(said(&mut next, b"3").await.expect("echo"), b"3");
    }

    #[tokio::test]
    async fn a_cut_ends_every_connection() {
        let (proxy, mut client) = echo().await;
        said(&mut client, b"1").await.expect("echo");
        proxy.set(|gate| gate.cuts += 1);
        let mut byte = [0];
        assert!(matches!(client.read(&mut byte).await, Ok(0) | Err(_)));
    }
}
