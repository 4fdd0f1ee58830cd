//! One hash per state: what cannot change what happens next is left out of it.
//!
//! A serializer that hashes instead of writing. It knows a few names of the machines' fields and
//! types and normalises them; `docs/guide/exploration.md` says why each of these is sound. Fields it
//! has never heard of are hashed as they are, so a new field can only make states differ.

use serde::ser::{self, Serialize};
use std::fmt;

/// What numbers are relative to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Frame {
    /// Now, in milliseconds.
    pub(crate) now: u64,
    /// End of the stream that is read: a worker's inbox, or the shard's stream.
    pub(crate) end: u64,
    /// End of the announcements.
    pub(crate) announcements_end: u64,
    /// Seq and id of the newest commit in the store.
    pub(crate) commit: (u64, u64),
}

/// Which stream's end offsets are relative to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Base {
    /// The process's own stream.
    Own,
    Announcements,
}

/// How the next number is to be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Plain,
    Time,
    Place,
    Op,
    Run,
    /// Relative to the newest commit.
    Seq,
    /// Only whether it is the newest commit's.
    CommitId,
}

/// Hashes what is serialized into it.
#[derive(Debug)]
pub(crate) struct Canon {
    state: (u64, u64),
    frame: Frame,
    base: Base,
    next: Next,
    /// Times are left out: a cache whose age nothing in a scope reaches.
    timeless: bool,
    ops: Vec<u64>,
    runs: Vec<u64>,
}

/// Times further back than this are all alike: no limit in a scope is as long.
const AGE_MAX_MS: i64 = 200_000;

impl Canon {
    pub(crate) fn new(frame: Frame) -> Self {
        Self {
            state: (0x243f_6a88_85a3_08d3, 0x1319_8a2e_0370_7344),
            frame,
            base: Base::Own,
            next: Next::Plain,
            timeless: false,
            ops: Vec::new(),
            runs: Vec::new(),
        }
    }

    /// Hashes one more value.
    pub(crate) fn add(&mut self, value: &impl Serialize) {
        // This serializer has no error to give.
        let _ = value.serialize(&mut *self);
    }

    pub(crate) fn finish(&self) -> u64 {
        let (a, b) = self.state;
        mix(a ^ 0xa409_3822_299f_31d0, b ^ 0x082e_fa98_ec4e_6c89)
    }

    pub(crate) fn word(&mut self, word: u64) {
        let (a, b) = self.state;
        self.state = (
            mix(a ^ word, 0x9e37_79b9_7f4a_7c15 ^ b),
            b.rotate_left(23).wrapping_add(word ^ a),
        );
    }

    fn number(&mut self, value: u64) {
        let frame = self.frame;
        let word = match std::mem::replace(&mut self.next, Next::Plain) {
            Next::Plain => value,
            Next::Time if self.timeless => 0,
            Next::Time => {
                let relative = value.wrapping_sub(frame.now).cast_signed();
                relative.max(-AGE_MAX_MS).cast_unsigned()
            }
            // "None" in some fields.
            Next::Place if value == 0 => u64::MAX,
            Next::Place => {
                let end = match self.base {
                    Base::Own => frame.end,
                    Base::Announcements => frame.announcements_end,
                };
                end.wrapping_sub(value)
            }
            Next::Op => renamed(&mut self.ops, value),
            Next::Run => renamed(&mut self.runs, value),
            Next::Seq => value.wrapping_sub(frame.commit.0),
            Next::CommitId => u64::from(value == frame.commit.1),
        };
        self.word(word);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.word(bytes.len() as u64);
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.word(u64::from_le_bytes(word));
        }
    }
}

/// The place of an id among those met so far: ids are only names.
fn renamed(known: &mut Vec<u64>, value: u64) -> u64 {
    let at = known.iter().position(|id| *id == value);
    let at = at.unwrap_or_else(|| {
        known.push(value);
        known.len() - 1
    });
    at as u64
}

const fn mix(a: u64, b: u64) -> u64 {
    let wide = (a as u128).wrapping_mul((b | 1) as u128);
    (wide >> 64) as u64 ^ wide as u64
}

/// What becomes of a field of a struct.
fn rule(of: &str, field: &str) -> Rule {
    match field {
        // For people, or constant within a scope.
        "history" | "ts_ms" | "at_ms" | "created_at_ms" | "in_batch_ms" | "subject" | "config"
        | "graph" | "worker_version" | "submission_hash" => Rule::Skip,
        // Names of messages; who compares them never meets two alike.
        "dedup_id" | "last_entry" | "corr_id" => Rule::Skip,
        // Counters that only name what comes.
        "last_op" | "last_run" | "last_nonce" | "random" => Rule::Skip,
        "newest" if of == "Ops" => Rule::Skip,
        // Times that no limit of a scope asks for, and counts for people.
        "stream_ok_at" | "owned_since" | "forgotten" | "issued" | "until_ms" | "written_ms"
        | "durable_writes" => Rule::Skip,
        "since" if of == "InWork" => Rule::Skip,
        "order" if of == "Dedup" => Rule::Skip,
        "seen" => Rule::Timeless,
        "commit_seq" => Rule::As(Next::Seq),
        "seq" if of == "Commit" => Rule::As(Next::Seq),
        "commit_id" => Rule::As(Next::CommitId),
        "id" if of == "Commit" => Rule::As(Next::CommitId),
        _ => Rule::Plain,
    }
}

enum Rule {
    Plain,
    Skip,
    Timeless,
    As(Next),
}

/// Never made.
#[derive(Debug)]
pub(crate) struct Never;

impl fmt::Display for Never {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("hashing cannot fail")
    }
}

impl std::error::Error for Never {}

impl ser::Error for Never {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self
    }
}

type Done = Result<(), Never>;

macro_rules! numbers {
    ($($method:ident: $type:ty),*) => {$(
        fn $method(self, value: $type) -> Done {
            self.number(value as u64);
            Ok(())
        }
    )*};
}

impl<'a> ser::Serializer for &'a mut Canon {
    type Ok = ();
    type Error = Never;
    type SerializeSeq = Self;
    type SerializeTuple = Self;
    type SerializeTupleStruct = Self;
    type SerializeTupleVariant = Self;
    type SerializeMap = Self;
    type SerializeStruct = Fields<'a>;
    type SerializeStructVariant = Fields<'a>;

    numbers!(serialize_bool: bool, serialize_i8: i8, serialize_i16: i16, serialize_i32: i32,
        serialize_i64: i64, serialize_u8: u8, serialize_u16: u16, serialize_u32: u32,
        serialize_u64: u64, serialize_char: char);

    fn is_human_readable(&self) -> bool {
        false
    }

    fn serialize_u128(self, value: u128) -> Done {
        self.word(value as u64);
        self.word((value >> 64) as u64);
        Ok(())
    }

    fn serialize_f32(self, value: f32) -> Done {
        self.word(u64::from(value.to_bits()));
        Ok(())
    }

    fn serialize_f64(self, value: f64) -> Done {
        self.word(value.to_bits());
        Ok(())
    }

    fn serialize_str(self, value: &str) -> Done {
        self.bytes(value.as_bytes());
        Ok(())
    }

    fn serialize_bytes(self, value: &[u8]) -> Done {
        self.bytes(value);
        Ok(())
    }

    fn serialize_none(self) -> Done {
        self.word(0x6e);
        Ok(())
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Done {
        self.word(0x73);
        value.serialize(self)
    }

    fn serialize_unit(self) -> Done {
        self.word(0x75);
        Ok(())
    }

    fn serialize_unit_struct(self, _: &'static str) -> Done {
        Ok(())
    }

    fn serialize_unit_variant(self, _: &'static str, index: u32, _: &'static str) -> Done {
        self.word(u64::from(index));
        Ok(())
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        value: &T,
    ) -> Done {
        self.next = match name {
            "Mono" => Next::Time,
            "Offset" => Next::Place,
            "OpId" => Next::Op,
            "RunId" => Next::Run,
            _ => Next::Plain,
        };
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        index: u32,
        _: &'static str,
        value: &T,
    ) -> Done {
        self.word(u64::from(index));
        value.serialize(self)
    }

    fn serialize_seq(self, length: Option<usize>) -> Result<Self, Never> {
        self.word(length.unwrap_or(usize::MAX) as u64);
        Ok(self)
    }

    fn serialize_tuple(self, _: usize) -> Result<Self, Never> {
        Ok(self)
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Self, Never> {
        Ok(self)
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        index: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self, Never> {
        self.word(u64::from(index));
        Ok(self)
    }

    fn serialize_map(self, length: Option<usize>) -> Result<Self, Never> {
        self.word(length.unwrap_or(usize::MAX) as u64);
        Ok(self)
    }

    fn serialize_struct(self, name: &'static str, _: usize) -> Result<Fields<'a>, Never> {
        Ok(Fields::of(self, name))
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        index: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Fields<'a>, Never> {
        self.word(u64::from(index));
        Ok(Fields::of(self, variant))
    }
}

/// The fields of one struct.
pub(crate) struct Fields<'a> {
    canon: &'a mut Canon,
    of: &'static str,
    base: Base,
}

impl<'a> Fields<'a> {
    fn of(canon: &'a mut Canon, of: &'static str) -> Self {
        let base = canon.base;
        if of == "Announcements" {
            canon.base = Base::Announcements;
        }
        Self { canon, of, base }
    }

    fn field<T: Serialize + ?Sized>(&mut self, field: &'static str, value: &T) -> Done {
        match rule(self.of, field) {
            Rule::Skip => return Ok(()),
            Rule::Plain => {}
            Rule::Timeless => {
                self.canon.timeless = true;
                let done = value.serialize(&mut *self.canon);
                self.canon.timeless = false;
                return done;
            }
            Rule::As(next) => self.canon.next = next,
        }
        value.serialize(&mut *self.canon)
    }
}

impl ser::SerializeStruct for Fields<'_> {
    type Ok = ();
    type Error = Never;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, key: &'static str, value: &T) -> Done {
        self.field(key, value)
    }

    fn end(self) -> Done {
        self.canon.base = self.base;
        Ok(())
    }
}

impl ser::SerializeStructVariant for Fields<'_> {
    type Ok = ();
    type Error = Never;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, key: &'static str, value: &T) -> Done {
        self.field(key, value)
    }

    fn end(self) -> Done {
        self.canon.base = self.base;
        Ok(())
    }
}

macro_rules! elements {
    ($($trait:ident: $method:ident),*) => {$(
        impl ser::$trait for &mut Canon {
            type Ok = ();
            type Error = Never;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Done {
                value.serialize(&mut **self)
            }

            fn end(self) -> Done {
                Ok(())
            }
        }
    )*};
}

elements!(SerializeSeq: serialize_element, SerializeTuple: serialize_element,
    SerializeTupleStruct: serialize_field, SerializeTupleVariant: serialize_field);

impl ser::SerializeMap for &mut Canon {
    type Ok = ();
    type Error = Never;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Done {
        key.serialize(&mut **self)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Done {
        value.serialize(&mut **self)
    }

    fn end(self) -> Done {
        Ok(())
    }
}
