//! One stream: an ordered, append-only log with a moving start.

use flowkit_core::id::Offset;
use flowkit_core::message::{DecodeError, Envelope};
use flowkit_core::port::{Entry, ErrorKind, PortError, TransportReply};
use std::collections::VecDeque;
use std::sync::Arc;

pub(crate) type Message = Result<Arc<Envelope>, DecodeError>;

/// The entries of one stream, from `start` on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log {
    start: u64,
    entries: VecDeque<(u64, Message)>,
    version: u64,
}

impl Log {
    pub(crate) fn starting_at(start: Offset) -> Self {
        Self {
            start: start.0,
            ..Self::default()
        }
    }

    pub(crate) fn start(&self) -> Offset {
        Offset(self.start)
    }

    pub(crate) fn end(&self) -> Offset {
        Offset(self.start + self.entries.len() as u64)
    }

    #[cfg(feature = "process")]
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Changes with every change of the log.
    pub(crate) const fn version(&self) -> u64 {
        self.version
    }

    pub(crate) fn append(&mut self, now_ms: u64, message: Message) -> Offset {
        let offset = self.end();
        self.entries.push_back((now_ms, message));
        self.version += 1;
        offset
    }

    /// `None`: there is nothing at `from` yet.
    pub(crate) fn read(
        &self,
        from: Offset,
        limit: u32,
    ) -> Result<Option<TransportReply>, PortError> {
        let (start, end) = (self.start(), self.end());
        if from < start || from > end {
            let detail = format!("offset {from} is outside of the log, {start} to {end}");
            return Err(PortError::new(ErrorKind::Invalid, "read", detail));
        }
        if from == end {
            return Ok(None);
        }
        // The difference is below the number of entries in memory.
        let skip = usize::try_from(from.0 - self.start).unwrap_or(usize::MAX);
        let limit = usize::try_from(limit).unwrap_or(usize::MAX).max(1);
        let entries: Vec<Entry> = (from.0..)
            .zip(self.entries.range(skip..))
            .take(limit)
            .map(|(offset, (_, message))| Entry {
                offset: Offset(offset),
                message: message.clone(),
            })
            .collect();
        let next = Offset(from.0 + entries.len() as u64);
        Ok(Some(TransportReply::Entries { entries, next }))
    }

    pub(crate) fn bounds(&self) -> TransportReply {
        TransportReply::Bounds {
            start: self.start(),
            end: self.end(),
        }
    }

    /// Drops what lies below `before`.
    pub(crate) fn forget(&mut self, before: Offset) {
        while self.start < before.0 && self.drop_first() {}
    }

    /// Drops entries that are older than `retention_ms`.
    pub(crate) fn expire(&mut self, now_ms: u64, retention_ms: u64) {
        let old = |at: u64| at.saturating_add(retention_ms) < now_ms;
        while self.entries.front().is_some_and(|(at, _)| old(*at)) {
            self.drop_first();
        }
    }

    pub(crate) fn drop_first(&mut self) -> bool {
        let dropped = self.entries.pop_front().is_some();
        if dropped {
            self.start += 1;
            self.version += 1;
        }
        dropped
    }

    pub(crate) fn get(&self, offset: Offset) -> Option<&Message> {
        let index = usize::try_from(offset.0.checked_sub(self.start)?).ok()?;
        self.entries.get(index).map(|(_, message)| message)
    }

    /// Drops what stands at `end` and above.
    pub(crate) fn truncate(&mut self, end: Offset) {
        let keep = end.0.saturating_sub(self.start);
        self.entries
            .truncate(usize::try_from(keep).unwrap_or(usize::MAX));
        self.version += 1;
    }

    /// Another log takes the place of this one.
    pub(crate) fn replace(&mut self, start: Offset) {
        *self = Self {
            version: self.version + 1,
            ..Self::starting_at(start)
        };
    }
}
