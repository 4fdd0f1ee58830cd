//! A hash that is the same on every platform, in every version and in every process.

use siphasher::sip::SipHasher13;
use siphasher::sip128::{Hasher128, SipHasher13 as SipHasher128};
use std::hash::Hasher;

// Changing the keys changes shards, dedup ids and batch uids of every deployment.
const KEYS: (u64, u64) = (0x666c_6f77_6b69_7431, 0x7374_6162_6c65_3634);

/// 64 bits over the parts. Part boundaries count: `["ab", "c"]` differs from `["a", "bc"]`.
#[must_use]
pub fn stable64(parts: &[&[u8]]) -> u64 {
    let mut hasher = SipHasher13::new_with_keys(KEYS.0, KEYS.1);
    for part in parts {
        hasher.write(&(part.len() as u64).to_le_bytes());
        hasher.write(part);
    }
    hasher.finish()
}

/// 128 bits over the parts, for identities whose collision would be visible to users.
#[must_use]
pub fn stable128(parts: &[&[u8]]) -> u128 {
    let mut hasher = SipHasher128::new_with_keys(KEYS.0, KEYS.1);
    for part in parts {
        hasher.write(&(part.len() as u64).to_le_bytes());
        hasher.write(part);
    }
    hasher.finish128().as_u128()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_never_change_between_versions() {
        assert_eq!(stable64(&[b"task", b"1"]), stable64(&[b"task", b"1"]));
        assert_ne!(stable64(&[b"ab", b"c"]), stable64(&[b"a", b"bc"]));
        assert_ne!(stable128(&[b"ab", b"c"]), stable128(&[b"a", b"bc"]));
    }
}
