//! Changes of JSON texts that keep them JSON: a mutator that flips bytes hardly ever gets past the
//! parser of a long document.

use serde_json::{Map, Value, json};

/// A value of the same kind as the mutated one, to take parts from.
pub type Donor = fn(u32) -> Value;

/// Bytes changed so that they stay JSON; `None` if they are none, or the result is too long: then
/// bytes are to be changed as bytes.
#[must_use]
pub fn json(bytes: &[u8], len_max: usize, seed: u32, donor: Donor) -> Option<Vec<u8>> {
    let mut random = Random(u64::from(seed).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    // Now and then the text itself is to be broken.
    if random.below(8) == 0 {
        return None;
    }
    let mut value: Value = serde_json::from_slice(bytes).ok()?;
    for _ in 0..=random.below(3) {
        let other = donor(seed ^ random.below(1 << 16) as u32);
        step(&mut value, &other, &mut random);
    }
    let text = serde_json::to_vec(&value).ok()?;
    (text.len() <= len_max).then_some(text)
}

/// One change at one place.
fn step(value: &mut Value, donor: &Value, random: &mut Random) {
    match random.below(10) {
        // A part of the donor comes to the same place.
        0..4 => graft(value, donor, random),
        // A part of the value comes to another place.
        4 => {
            let part = place(&mut value.clone(), random).clone();
            *place(value, random) = part;
        }
        5 | 6 => shape(place(value, random), random),
        _ => {
            let at = place(value, random);
            *at = scalar(at, random);
        }
    }
}

/// Somewhere within a value; leaves more often than what holds them.
fn place<'v>(value: &'v mut Value, random: &mut Random) -> &'v mut Value {
    let inner = match value {
        Value::Array(items) => items.len(),
        Value::Object(fields) => fields.len(),
        _ => 0,
    };
    if inner == 0 || random.below(6) == 0 {
        return value;
    }
    let at = random.below(inner as u64) as usize;
    let next = match value {
        Value::Array(items) => &mut items[at],
        Value::Object(fields) => fields.values_mut().nth(at).expect("it has so many"),
        _ => unreachable!("it has parts"),
    };
    place(next, random)
}

/// Goes down the same keys in both, and puts what it finds in the donor.
fn graft(value: &mut Value, donor: &Value, random: &mut Random) {
    match (value, donor) {
        (Value::Object(fields), Value::Object(theirs)) if !theirs.is_empty() => {
            let at = random.below(theirs.len() as u64) as usize;
            let (key, part) = theirs.iter().nth(at).expect("it has so many");
            match fields.get_mut(key) {
                Some(mine) if random.below(4) > 0 => graft(mine, part, random),
                _ => {
                    fields.insert(key.clone(), part.clone());
                }
            }
        }
        (Value::Array(items), Value::Array(theirs)) if !theirs.is_empty() => {
            let part = &theirs[random.below(theirs.len() as u64) as usize];
            let at = random.below(items.len() as u64 + 1) as usize;
            match items.get_mut(at) {
                Some(mine) if random.below(3) > 0 => graft(mine, part, random),
                _ => items.insert(at, part.clone()),
            }
        }
        (value, donor) => *value = donor.clone(),
    }
}

/// Takes a part away, doubles one, or gives one another name.
fn shape(value: &mut Value, random: &mut Random) {
    match value {
        Value::Array(items) if !items.is_empty() => {
            let at = random.below(items.len() as u64) as usize;
            match random.below(3) {
                0 => drop(items.remove(at)),
                1 => items.insert(at, items[at].clone()),
                _ => items.reverse(),
            }
        }
        Value::Object(fields) if !fields.is_empty() => {
            let at = random.below(fields.len() as u64) as usize;
            let key = fields.keys().nth(at).cloned().unwrap_or_default();
            let part = fields.remove(&key).unwrap_or_default();
            if random.below(2) == 0 {
                fields.insert(format!("{key}_"), part);
            }
        }
        other => *other = json!([other.clone()]),
    }
}

/// Another leaf, of the same kind for the most part.
fn scalar(old: &Value, random: &mut Random) -> Value {
    const NUMBERS: [u64; 22] = [
        0,
        1,
        2,
        3,
        64,
        255,
        1_000,
        1_001,
        10_000,
        1 << 16,
        500_000,
        1_000_000,
        60_000_000,
        86_400_000,
        1_000_000_000_000_000,
        i32::MAX as u64,
        1 << 31,
        u32::MAX as u64,
        1 << 53,
        i64::MAX as u64,
        1 << 63,
        u64::MAX,
    ];
    let kind = match old {
        Value::Number(_) if random.below(8) > 0 => 0,
        Value::String(_) if random.below(8) > 0 => 1,
        _ => random.below(7),
    };
    let number = NUMBERS[random.below(NUMBERS.len() as u64) as usize];
    match kind {
        0 => match (random.below(5), old.as_u64(), old.as_i64()) {
            (0, Some(old), _) => json!(old.wrapping_add(1)),
            (1, Some(old), _) => json!(old.saturating_sub(1)),
            (2, Some(old), _) => json!(old.wrapping_mul(1 + random.below(1_000))),
            (3, _, Some(old)) => json!(old.wrapping_neg()),
            _ => json!(number),
        },
        1 => {
            let text = old.as_str().unwrap_or("a").to_owned();
            json!(match random.below(8) {
                0 => String::new(),
                1 => format!("{text}\0"),
                2 => format!("${text}"),
                3 => "é🦀\"\\".repeat(1 + random.below(40) as usize),
                4 => text.chars().skip(1).collect(),
                5 => text.repeat(2),
                6 => number.to_string(),
                _ => format!("count:{number}"),
            })
        }
        2 => Value::Null,
        3 => json!(random.below(2) == 0),
        4 => json!(number as f64 / 7.0),
        5 => Value::Array(Vec::new()),
        _ => Value::Object(Map::new()),
    }
}

/// A small generator: the same seed, the same changes.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % end.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_text_is_json_again_and_another_one() {
        for donor in [
            crate::plan::donor,
            crate::graph::donor,
            crate::envelope::donor,
        ] {
            let text = donor(3).to_string();
            let changed = (0..200).filter_map(|seed| json(text.as_bytes(), 1 << 20, seed, donor));
            let changed: Vec<Vec<u8>> = changed.collect();
            assert!(changed.len() > 100);
            let others = changed
                .iter()
                .filter(|new| **new != text.as_bytes())
                .count();
            assert!(others > 100, "{others}");
            assert!(
                changed
                    .iter()
                    .all(|new| serde_json::from_slice::<Value>(new).is_ok())
            );
        }
    }
}
