//! Asks processes how they are, over HTTP: are they ready, and does their memory grow?

use flowkit_core::doctor::{Check, Finding, memory_growth};
use serde_json::Value;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Report;
use crate::command::table::one_line;

const PATIENCE: Duration = Duration::from_secs(10);
/// More than this is no health.
const ANSWER_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Asks every address that was named.
pub(super) async fn processes(addresses: &[String], report: &mut Report) {
    if addresses.is_empty() {
        let why =
            "name where workers serve health: --health HOST:PORT (their setting health_listen)";
        report.skipped(Check::Health, why);
        return report.skipped(Check::Memory, why);
    }
    let (mut health, mut memory, mut answered) = (Vec::new(), Vec::new(), 0);
    for address in addresses {
        let answer = tokio::time::timeout(PATIENCE, health_of(address)).await;
        let answer = answer.unwrap_or_else(|_| Err("no answer in time".to_owned()));
        let value = match answer {
            Ok(value) => value,
            Err(error) => {
                let cure = "is the process alive, and is this its health_listen?";
                health.push(Finding::new(Check::Health, address, error, cure));
                continue;
            }
        };
        answered += 1;
        let name = value["worker_id"].as_str().unwrap_or(address);
        let name = one_line(name, 80);
        let reasons = value["not_ready"].as_array().into_iter().flatten();
        for reason in reasons.filter_map(Value::as_str) {
            let cure = "see what it names; its log (RUST_LOG=info) says more";
            health.push(Finding::new(
                Check::Health,
                &name,
                one_line(reason, 400),
                cure,
            ));
        }
        for worker in value["workers"].as_array().into_iter().flatten() {
            let abandoned = worker["abandoned"].as_u64().unwrap_or(0);
            if abandoned > 0 {
                health.push(Finding::new(
                    Check::Health,
                    &name,
                    format!("{abandoned} handlers ignore that they were told to end, and hold slots"),
                    "let them look at `cx.is_cancelled()` between steps; restart the worker to free its slots",
                ));
            }
        }
        let samples = value["memory"].as_array().into_iter().flatten();
        let samples: Vec<(u64, u64)> = samples
            .filter_map(|sample| Some((sample[0].as_u64()?, sample[1].as_u64()?)))
            .collect();
        memory.extend(memory_growth(&name, &samples));
    }
    let looked_at = format!("{answered} of {} processes answered", addresses.len());
    report.checked(Check::Health, looked_at.clone(), health);
    match answered {
        0 => report.skipped(Check::Memory, "no process answered"),
        _ => report.checked(Check::Memory, looked_at, memory),
    }
}

/// The object that a process serves. Asked so, it gives its servers time to answer.
async fn health_of(address: &str) -> Result<Value, String> {
    let failed = |error: std::io::Error| error.to_string();
    let mut stream = TcpStream::connect(address).await.map_err(failed)?;
    let request = "GET /readyz HTTP/1.1\r\nHost: flowkit\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await.map_err(failed)?;
    let mut bytes = Vec::new();
    let mut answer = stream.take(ANSWER_BYTES_MAX);
    answer.read_to_end(&mut bytes).await.map_err(failed)?;
    let text = String::from_utf8_lossy(&bytes);
    let (_, body) = text.split_once("\r\n\r\n").ok_or("the answer is no HTTP")?;
    serde_json::from_str(body).map_err(|_| "the answer is no health of FlowKit".to_owned())
}
