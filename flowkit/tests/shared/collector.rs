//! A collector of traces: a small server that takes OTLP over HTTP and reads the protobuf by itself.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// One span, as far as it is looked at.
#[derive(Clone, Debug, Default)]
pub(crate) struct Span {
    pub(crate) trace: u128,
    pub(crate) id: u64,
    pub(crate) parent: u64,
    pub(crate) name: String,
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) attributes: BTreeMap<String, String>,
    /// 1 ok, 2 error.
    pub(crate) status: u64,
    pub(crate) service: String,
    pub(crate) pid: String,
}

/// The fields of a protobuf message: number and bytes; numbers are little-endian bytes.
fn fields(mut bytes: &[u8]) -> Vec<(u64, Vec<u8>)> {
    fn varint(bytes: &mut &[u8]) -> u64 {
        let mut value = 0;
        for shift in (0..).step_by(7) {
            let (byte, rest) = bytes.split_first().expect("a byte");
            *bytes = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
        }
        value
    }
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        let length = match key & 7 {
            0 => {
                let value = varint(&mut bytes);
                found.push((key >> 3, value.to_le_bytes().to_vec()));
                continue;
            }
            1 => 8,
            2 => usize::try_from(varint(&mut bytes)).expect("a length"),
            5 => 4,
            other => panic!("wire type {other}"),
        };
        let (value, rest) = bytes.split_at(length);
        found.push((key >> 3, value.to_vec()));
        bytes = rest;
    }
    found
}

fn number(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes.try_into().expect("8 bytes"))
}

fn id(bytes: &[u8]) -> u64 {
    u64::from_be_bytes(bytes.try_into().expect("8 bytes"))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

/// `KeyValue {key = 1, value = 2 {string = 1, bool = 2, int = 3}}`.
fn attribute(bytes: &[u8]) -> (String, String) {
    let mut pair = (String::new(), String::new());
    for (field, value) in fields(bytes) {
        match field {
            1 => pair.0 = text(&value),
            2 => {
                for (kind, value) in fields(&value) {
                    pair.1 = match kind {
                        1 => text(&value),
                        3 => number(&value).to_string(),
                        _ => format!("{value:?}"),
                    };
                }
            }
            _ => {}
        }
    }
    pair
}

/// `Span` of opentelemetry/proto/trace/v1.
fn span(bytes: &[u8]) -> Span {
    let mut span = Span::default();
    for (field, value) in fields(bytes) {
        match field {
            1 => span.trace = u128::from_be_bytes(value.try_into().expect("16 bytes")),
            2 => span.id = id(&value),
            4 if !value.is_empty() => span.parent = id(&value),
            5 => span.name = text(&value),
            7 => span.start = number(&value),
            8 => span.end = number(&value),
            9 => {
                let (key, value) = attribute(&value);
                span.attributes.insert(key, value);
            }
            15 => {
                for (field, value) in fields(&value) {
                    if field == 3 {
                        span.status = number(&value);
                    }
                }
            }
            _ => {}
        }
    }
    span
}

/// `ExportTraceServiceRequest {resource_spans = 1 {resource = 1, scope_spans = 2 {spans = 2}}}`.
fn spans(request: &[u8]) -> Vec<Span> {
    let mut found = Vec::new();
    for (_, group) in fields(request) {
        let mut resource = BTreeMap::new();
        for (field, part) in fields(&group) {
            let of_resource =
                |(field, value): (u64, Vec<u8>)| (field == 1).then(|| attribute(&value));
            match field {
                1 => resource.extend(fields(&part).into_iter().filter_map(of_resource)),
                2 => {
                    let of_scope = fields(&part).into_iter().filter(|(field, _)| *field == 2);
                    found.extend(of_scope.map(|(_, bytes)| span(&bytes)));
                }
                _ => {}
            }
        }
        for span in &mut found {
            let said = |key: &str| resource.get(key).cloned().unwrap_or_default();
            span.service = said("service.name");
            span.pid = said("process.pid");
        }
    }
    found
}

type Received = Arc<(Mutex<Vec<Span>>, Condvar)>;

/// A collector that keeps what it receives.
pub(crate) struct Collector {
    pub(crate) base: String,
    received: Received,
}

impl Collector {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let base = format!("http://{}", listener.local_addr().expect("an address"));
        let received = Received::default();
        let kept = received.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                take(&stream.expect("a connection"), &kept);
            }
        });
        Self { base, received }
    }

    pub(crate) fn spans(&self) -> Vec<Span> {
        self.received.0.lock().expect("not poisoned").clone()
    }

    /// Waits until a span fits.
    pub(crate) fn wait(&self, fits: impl Fn(&Span) -> bool) -> Span {
        let mut spans = self.received.0.lock().expect("not poisoned");
        loop {
            if let Some(span) = spans.iter().find(|span| fits(span)) {
                return span.clone();
            }
            let patience = Duration::from_secs(60);
            let (more, late) = self
                .received
                .1
                .wait_timeout(spans, patience)
                .expect("not poisoned");
            assert!(!late.timed_out(), "no such span: {:?}", *more);
            spans = more;
        }
    }
}

/// Takes one request and says that it was taken.
fn take(stream: &TcpStream, received: &Received) {
    let mut reader = BufReader::new(stream);
    let mut length = 0;
    let mut head = String::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).expect("a line");
        let lower = line.to_lowercase();
        if let Some(value) = lower.strip_prefix("content-length: ") {
            length = value.trim().parse().expect("a number");
        }
        if line.trim().is_empty() {
            break;
        }
        head.push_str(&lower);
    }
    assert!(head.starts_with("post /v1/traces http/1.1\r\n"), "{head}");
    assert!(
        head.contains("content-type: application/x-protobuf\r\n"),
        "{head}"
    );
    assert!(head.contains("host: 127.0.0.1:"), "{head}");
    let mut body = vec![0; length];
    reader.read_exact(&mut body).expect("the body");
    received
        .0
        .lock()
        .expect("not poisoned")
        .extend(spans(&body));
    received.1.notify_all();
    let mut stream = stream;
    let answer =
        b"HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\n\r\n";
    // Whoever does not wait for the answer is gone.
    let _ = stream.write_all(answer);
}
