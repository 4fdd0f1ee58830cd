//! Plain HTTP over a socket.

use serde_json::Value;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What came back: the status, the head, the body.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }
}

/// Sends these bytes and reads to the end; `None` if nothing came back.
pub(crate) async fn send(address: SocketAddr, bytes: &[u8]) -> Option<Answer> {
    let mut stream = TcpStream::connect(address).await.expect("it listens");
    // Whoever is refused early may find the connection closed.
    let _ = stream.write_all(bytes).await;
    read(&mut stream).await
}

/// Reads an answer to its end.
pub(crate) async fn read(stream: &mut TcpStream) -> Option<Answer> {
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes).await;
    let text = String::from_utf8(bytes).expect("text");
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some(Answer {
        status,
        head: head.to_lowercase(),
        body: body.to_owned(),
    })
}

pub(crate) async fn request(address: SocketAddr, method: &str, path: &str) -> Answer {
    let head = format!("{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n");
    send(address, head.as_bytes()).await.expect("an answer")
}

pub(crate) async fn get(address: SocketAddr, path: &str) -> Answer {
    request(address, "GET", path).await
}
