//! Names of things: tasks, nodes, workers, roles, batches, tokens.

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;
use std::borrow::Borrow;
use std::fmt;

use crate::hash::stable64;

/// Longest id in bytes. Ids are parts of store keys, and some stores bound those.
pub const ID_BYTES_MAX: usize = 200;

/// Why a text cannot be an id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdError {
    /// The text is empty.
    #[error("must not be empty")]
    Empty,
    /// The text is longer than [`ID_BYTES_MAX`].
    #[error("is {0} bytes long; the limit is {ID_BYTES_MAX}")]
    TooLong(usize),
    /// The text holds a control character (NUL included).
    #[error("holds a control character at byte {0}")]
    Control(usize),
    /// A store would refuse a key that starts so.
    #[error("must not start with `$`")]
    Dollar,
}

fn check(text: &str) -> Result<(), IdError> {
    if text.is_empty() {
        return Err(IdError::Empty);
    }
    if text.len() > ID_BYTES_MAX {
        return Err(IdError::TooLong(text.len()));
    }
    if text.starts_with('$') {
        return Err(IdError::Dollar);
    }
    match text.char_indices().find(|(_, c)| c.is_control()) {
        Some((at, _)) => Err(IdError::Control(at)),
        None => Ok(()),
    }
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {$(
        $(#[$doc])*
        ///
        /// 1 to [`ID_BYTES_MAX`] bytes, no control characters, no leading `$`. Cheap to clone.
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(transparent)]
        pub struct $name(SmolStr);

        impl $name {
            /// Checks the text and makes an id of it.
            ///
            /// # Errors
            /// [`IdError`] says what the text breaks.
            pub fn new(text: impl AsRef<str>) -> Result<Self, IdError> {
                let text = text.as_ref();
                check(text)?;
                Ok(Self(SmolStr::new(text)))
            }

            /// The id as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl std::str::FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::new(text)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
                Self::new(&text).map_err(serde::de::Error::custom)
            }
        }
    )*};
}

ids! {
    /// A task: one submitted graph.
    TaskId,
    /// A node, unique within its task's graph.
    NodeId,
    /// A worker. It outlives its processes; [`Incarnation`] tells those apart.
    WorkerId,
    /// A client, or one start of a coordinator.
    ClientId,
    /// What a worker can do; a node's `type` names the role that runs it.
    Role,
    /// A batch, unique in its node and the same in every attempt.
    BatchUid,
}

macro_rules! numbers {
    ($($(#[$doc:meta])* $name:ident($inner:ty)),* $(,)?) => {$(
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl $name {
            /// The next number.
            #[must_use]
            pub const fn next(self) -> Self {
                Self(self.0 + 1)
            }
        }
    )*};
}

numbers! {
    /// `lease_no`: the fencing token. Grows with every grant of a node, is never used again.
    Token(u64),
    /// Counts a node's attempts; grows when a new attempt begins. For people and retry rules.
    Epoch(u32),
    /// Counts the process starts of one worker id.
    Incarnation(u64),
    /// One of the S parts of all tasks.
    ShardId(u32),
    /// A place in a stream.
    Offset(u64),
    /// Names one outstanding request of a machine; the reply carries it back.
    OpId(u64),
}

impl ShardId {
    /// The shard that owns a task when a deployment has `shards` of them.
    #[must_use]
    pub fn of(task: &TaskId, shards: u32) -> Self {
        let count = u64::from(shards.max(1));
        // The remainder is below a u32, so the conversion cannot fail.
        Self(u32::try_from(stable64(&[task.as_str().as_bytes()]) % count).unwrap_or(0))
    }
}

/// The inbox partition of a worker or client when a deployment has `inboxes` of them.
#[must_use]
pub fn inbox_of(id: &str, inboxes: u32) -> u32 {
    let count = u64::from(inboxes.max(1));
    u32::try_from(stable64(&[id.as_bytes()]) % count).unwrap_or(0)
}

/// The stable identity of a message; a redelivery keeps it. Opaque to receivers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct DedupId(pub u64);

impl fmt::Debug for DedupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl Serialize for DedupId {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        if s.is_human_readable() {
            s.collect_str(&format_args!("{self:?}"))
        } else {
            s.serialize_u64(self.0)
        }
    }
}

impl<'de> Deserialize<'de> for DedupId {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        if !d.is_human_readable() {
            return u64::deserialize(d).map(Self);
        }
        let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
        // Another implementation may write ids of another shape: any text is an identity.
        let ours = (text.len() == 16)
            .then(|| u64::from_str_radix(&text, 16).ok())
            .flatten();
        Ok(Self(ours.unwrap_or_else(|| stable64(&[text.as_bytes()]))))
    }
}
