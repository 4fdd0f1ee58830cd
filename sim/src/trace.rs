//! A hash over everything that happens in a run: two runs of one plan must agree on it.

use siphasher::sip::SipHasher13;
use std::hash::Hasher;

/// The running hash.
#[derive(Clone, Debug)]
pub(crate) struct Trace {
    hasher: SipHasher13,
    events: u64,
}

impl Trace {
    pub(crate) fn new() -> Self {
        Self {
            hasher: SipHasher13::new_with_keys(1, 2),
            events: 0,
        }
    }

    /// Begins an event: when, what, where.
    pub(crate) fn event(&mut self, at: u64, tag: u8, place: u64) -> &mut Self {
        self.events += 1;
        self.hasher.write_u64(at);
        self.hasher.write_u8(tag);
        self.hasher.write_u64(place);
        self
    }

    pub(crate) fn number(&mut self, number: u64) -> &mut Self {
        self.hasher.write_u64(number);
        self
    }

    pub(crate) fn text(&mut self, text: &str) -> &mut Self {
        self.hasher.write_u64(text.len() as u64);
        self.hasher.write(text.as_bytes());
        self
    }

    pub(crate) fn events(&self) -> u64 {
        self.events
    }

    pub(crate) fn finish(&self) -> u64 {
        self.hasher.finish()
    }
}
