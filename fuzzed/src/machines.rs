//! Target `machines`: messages of strangers in the streams of a deployment at work.

use flowkit_core::id::{Incarnation, NodeId, Role, ShardId, TaskId, Token};
use flowkit_core::message::Envelope;
use flowkit_core::port::Stream;
use flowkit_sim::plan::Plan;
use flowkit_sim::runner;
use serde_json::{Value, json};
use std::sync::Arc;

/// Events of a run: the small plan comes to its end in fewer.
const EVENTS_MAX: u64 = 3_000;
/// Messages of one input.
const MESSAGES_MAX: usize = 40;

/// Reads a list of `[milliseconds, stream, message]` and lets each message appear: in the shard's
/// stream (0), an inbox (1, 2) or among the announcements (3). What cannot be decoded is left out: a
/// transport reports it before any machine sees it. No machine panics, whatever it is told.
///
/// # Panics
/// On a finding.
pub fn run(bytes: &[u8]) {
    let Ok(list) = serde_json::from_slice::<Vec<(u16, u8, Value)>>(bytes) else {
        return;
    };
    let decoded = list
        .iter()
        .take(MESSAGES_MAX)
        .filter_map(|(at_ms, stream, message)| {
            let message = Envelope::decode(message.to_string().as_bytes()).ok()?;
            let stream = match stream % 4 {
                0 => Stream::Shard(ShardId(0)),
                3 => Stream::Announcements,
                inbox => Stream::Inbox(u32::from(inbox) - 1),
            };
            Some((u64::from(*at_ms), stream, message))
        });
    let strays: Vec<(u64, Stream, Envelope)> = decoded.collect();
    for mut plan in [Plan::small(), Plan::small_embedded()] {
        plan.heal_ms = 300;
        let _ended = runner::run_some(&plan, EVENTS_MAX, &strays);
    }
}

/// Messages of every kind that name what the plan has.
#[must_use]
pub fn donor(number: u32) -> Value {
    let message = |at: u32| {
        let sample = crate::envelope::donor(at).to_string();
        let mut message = Envelope::decode(sample.as_bytes()).ok()?;
        message.task_id = TaskId::new("task-0").ok();
        let node = ["scan", "measure", "summarize"][at as usize % 3];
        message.node_id = NodeId::new(node).ok();
        message.step_type = Role::new(node).ok();
        message.lease_no = Some(Token(1 + u64::from(at % 3)));
        message.sender.id = Arc::from(["w0", "w1", "client-0"][at as usize / 3 % 3]);
        message.sender.incarnation = Incarnation(1);
        message.to = message.to.map(|_| Arc::from("w0"));
        message.to_incarnation = message.to_incarnation.map(|_| Incarnation(1));
        message.seq = message.seq.map(|_| 1 + u64::from(at % 5));
        serde_json::to_value(message.identified(u64::from(at))).ok()
    };
    let at = |place: u32| (number.wrapping_mul(31) ^ place.wrapping_mul(2_654_435_761)) >> 7;
    let list = (0..1 + number % 4).filter_map(|place| {
        let drawn = at(place);
        Some(json!([drawn % 1_500, drawn % 4, message(drawn)?]))
    });
    Value::Array(list.collect())
}
