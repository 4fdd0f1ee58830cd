//! Requests that no monitoring system sends: none may cost more than its own connection.

use flowkit_observe::{HealthOptions, HealthServer, serve, serve_with};
use flowkit_runtime::Engine;
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::client::{get, read, request, send};

async fn server(patience_ms: u64, connections_max: usize) -> HealthServer {
    let mut options = HealthOptions::default();
    options.patience = Duration::from_millis(patience_ms);
    options.connections_max = connections_max;
    let engine = Engine::memory();
    engine.start().await.expect("it starts");
    serve_with("127.0.0.1:0", &engine, options)
        .await
        .expect("it listens")
}

#[tokio::test]
async fn other_paths_and_methods_are_refused_with_what_there_is() {
    let server = server(5_000, 64).await;
    for path in [
        "/",
        "/healthz/",
        "/metrics/../etc/passwd",
        "/%00",
        "/HEALTHZ",
    ] {
        let answer = get(server.address(), path).await;
        assert_eq!(answer.status, 404, "{path}: {answer:?}");
        assert!(answer.body.contains("/readyz"), "{answer:?}");
    }
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "BREW"] {
        let answer = request(server.address(), method, "/healthz").await;
        assert_eq!(answer.status, 405, "{method}: {answer:?}");
        assert!(answer.head.contains("allow: get, head"), "{answer:?}");
    }
    let answer = request(server.address(), "HEAD", "/healthz").await;
    assert_eq!((answer.status, &answer.body[..]), (200, ""));
    // A body that comes with it is not read.
    let post = b"GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello";
    let answer = send(server.address(), post).await.expect("an answer");
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn garbage_and_heads_that_are_too_large_are_refused_and_it_serves_on() {
    let server = server(5_000, 64).await;
    let long_path = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(100_000));
    let long_header = format!(
        "GET /healthz HTTP/1.1\r\nX: {}\r\n\r\n",
        "a".repeat(100_000)
    );
    let many: String = (0..1_000).map(|n| format!("X{n}: 1\r\n")).collect();
    let many = format!("GET /healthz HTTP/1.1\r\n{many}\r\n");
    let requests: [&[u8]; 7] = [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\0\0\0\0\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /healthz HTTP/9.9\r\n\r\n",
        long_path.as_bytes(),
        long_header.as_bytes(),
        many.as_bytes(),
    ];
    for bytes in requests {
        let mut stream = TcpStream::connect(server.address())
            .await
            .expect("it listens");
        let _ = stream.write_all(bytes).await;
        let _ = stream.shutdown().await;
        if let Some(answer) = read(&mut stream).await {
            assert!((400..500).contains(&answer.status), "{answer:?}");
        }
        assert_eq!(get(server.address(), "/healthz").await.status, 200);
    }
}

#[tokio::test]
async fn a_head_that_comes_byte_by_byte_runs_out_of_time() {
    let server = server(200, 64).await;
    let mut slow = TcpStream::connect(server.address())
        .await
        .expect("it listens");
    slow.write_all(b"GET /healthz HTTP/1.1\r\nX")
        .await
        .expect("sent");
    let started = Instant::now();
    // It says no more, and is not waited for. What it is told, if anything, is no health.
    let answer = read(&mut slow).await;
    assert!(answer.is_none_or(|answer| answer.status == 408));
    assert!(
        started.elapsed() < Duration::from_secs(4),
        "{:?}",
        started.elapsed()
    );
}

#[tokio::test]
async fn connections_are_bounded_and_those_that_say_nothing_make_way() {
    let server = server(300, 2).await;
    let mut silent = Vec::new();
    // The patience with the first two begins before the last is queued.
    let started = Instant::now();
    for _ in 0..10 {
        silent.push(TcpStream::connect(server.address()).await.expect("queued"));
    }
    assert_eq!(get(server.address(), "/healthz").await.status, 200);
    // Ten before it, two at a time.
    assert!(
        started.elapsed() >= Duration::from_millis(900),
        "{:?}",
        started.elapsed()
    );
    drop(silent);
}

#[tokio::test]
async fn an_address_that_is_none_or_taken_is_named_with_the_cure() {
    let engine = Engine::memory();
    for address in ["", "one", "127.0.0.1", "127.0.0.1:99999", "localhost:1\nX"] {
        let error = serve(address, &engine)
            .await
            .expect_err("refused")
            .to_string();
        assert!(error.starts_with("health_listen: "), "{error}");
        assert!(
            error.contains("127.0.0.1:9600") && !error.contains('\n'),
            "{error}"
        );
    }
    let first = serve("127.0.0.1:0", &engine).await.expect("it listens");
    let taken = first.address().to_string();
    let error = serve(&taken, &engine).await.expect_err("taken").to_string();
    assert!(
        error.contains(&taken) && error.contains("port 0"),
        "{error}"
    );
}

#[tokio::test]
async fn once_dropped_nobody_listens() {
    let server = server(5_000, 64).await;
    let address = server.address();
    assert_eq!(get(address, "/healthz").await.status, 200);
    drop(server);
    while TcpStream::connect(address).await.is_ok() {
        tokio::task::yield_now().await;
    }
}
