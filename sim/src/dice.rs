//! Draws made during a run, each from its own key.
//!
//! A draw depends on the plan's seed and on what it is for (which host, which kind of call, the
//! how-manieth), never on the draws before it. So a change in one place of a run leaves the luck
//! of all others alone, and a shrunk or edited plan stays close to the one it came from.

/// A small generator (splitmix64) started from a key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dice(u64);

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Dice {
    /// Dice for one purpose of a run.
    pub(crate) fn keyed(seed: u64, key: [u64; 3]) -> Self {
        let mut state = mix(seed ^ 0x9e37_79b9_7f4a_7c15);
        for part in key {
            state = mix(state.wrapping_add(part).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (part << 7));
        }
        Self(state)
    }

    pub(crate) fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// Uniform in `low..=high`.
    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        if high <= low {
            return low;
        }
        low + self.draw() % (high - low + 1)
    }

    /// True so many times in 1,000.
    pub(crate) fn permille(&mut self, times: u32) -> bool {
        times > 0 && self.draw() % 1_000 < u64::from(times)
    }
}
