//! Target `envelope`: bytes as they arrive from a transport.

use flowkit_core::message::{Body, Envelope, MESSAGE_BYTES_MAX};
use serde_json::Value;

/// Decodes the bytes; what can be decoded is the same again after another round.
///
/// # Panics
/// On a finding.
pub fn run(bytes: &[u8]) {
    let first = match Envelope::decode(bytes) {
        Ok(envelope) => envelope,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    // Numbers written out and absent fields filled in make it longer, but not so much longer.
    let encoded = match first.encode() {
        Ok(encoded) => encoded,
        Err(error) => {
            assert!(bytes.len() > MESSAGE_BYTES_MAX / 64, "not sent: {error}");
            assert!(!first.is_within_limit());
            return;
        }
    };
    assert!(first.is_within_limit());
    let second = Envelope::decode(&encoded).expect("what was encoded can be decoded");
    assert_eq!(first, second);
    let again = second.encode().expect("it could be encoded before");
    assert!(encoded == again, "the encoded form is no fixed point");
    assert_eq!(first.clone().identified(7), second.identified(7));
    if let Body::Submit(submit) = &first.body {
        crate::graph::judge(&submit.graph);
        let _ = flowkit_core::graph::check_vars(&submit.vars);
    }
}

/// A message of every kind, as JSON.
#[must_use]
pub fn donor(number: u32) -> Value {
    let lines: Vec<&str> = include_str!("envelopes.jsonl").lines().collect();
    let line = lines[number as usize % lines.len()];
    serde_json::from_str(line).expect("the samples are JSON")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_samples_are_messages_of_every_kind() {
        let samples = include_str!("envelopes.jsonl").lines();
        let kinds: BTreeSet<String> = samples
            .map(|line| {
                let message =
                    Envelope::decode(line.as_bytes()).unwrap_or_else(|e| panic!("{e}: {line}"));
                run(line.as_bytes());
                message.body.kind().to_owned()
            })
            .collect();
        let known = Body::KINDS.iter().map(|kind| (*kind).to_owned());
        let unknown = "FROM_THE_FUTURE".to_owned();
        assert_eq!(kinds, known.chain([unknown]).collect());
    }
}
