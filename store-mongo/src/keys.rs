//! Keys and numbers as MongoDB keeps them.
//!
//! Ids hold no control characters, so parts joined by a newline are unique and sort by their parts.

use flowkit_core::id::{BatchUid, NodeId, TaskId, Token};
use flowkit_core::port::StagedKey;
use mongodb::bson::{Bson, Document};

/// Key of a node.
pub(crate) fn node(task: &TaskId, node: &NodeId) -> String {
    format!("{task}\n{node}")
}

/// Key of an artifact by its number.
pub(crate) fn artifact(task: &TaskId, node: &NodeId, number: u64) -> String {
    format!("{task}\n{node}\n{number:020}")
}

/// What sorts behind every artifact of a node: `:` comes after the digits.
pub(crate) fn artifacts_end(task: &TaskId, node: &NodeId) -> String {
    format!("{task}\n{node}\n:")
}

/// Key of a staged body.
pub(crate) fn staged(task: &TaskId, node: &NodeId, uid: &BatchUid, token: Token) -> String {
    format!("{task}\n{node}\n{uid}\n{:020}", token.0)
}

/// Everything whose key begins with a name and a newline lies from here...
pub(crate) fn below(name: &str) -> String {
    format!("{name}\n")
}

/// ...to here: a vertical tab comes after the newline.
pub(crate) fn below_end(name: &str) -> String {
    format!("{name}\u{b}")
}

/// Node, batch and token in the key of a staged body.
pub(crate) fn parse_staged(key: &str) -> Option<(&str, StagedKey)> {
    let mut parts = key.split('\n');
    let task = parts.next()?;
    let key = StagedKey {
        node_id: NodeId::new(parts.next()?).ok()?,
        batch_uid: BatchUid::new(parts.next()?).ok()?,
        token: Token(parts.next()?.parse().ok()?),
    };
    Some((task, key))
}

/// A number as MongoDB has it: 64 bits, the sign being one of them. Numbers that are compared on the
/// server (tokens, counters) never grow that far.
pub(crate) const fn int(number: u64) -> i64 {
    number.cast_signed()
}

/// The number of a field; 0 if it is absent.
pub(crate) fn number(document: &Document, field: &str) -> u64 {
    match document.get(field) {
        Some(Bson::Int64(number)) => number.cast_unsigned(),
        Some(Bson::Int32(number)) => u64::try_from(*number).unwrap_or(0),
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "the server makes doubles of differences of dates"
        )]
        Some(Bson::Double(number)) => *number as u64,
        _ => 0,
    }
}

/// The text of a field.
pub(crate) fn text<'a>(document: &'a Document, field: &str) -> Option<&'a str> {
    document.get_str(field).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_all_their_bits() {
        for number_ in [0, 1, u64::MAX, 1 << 63, 12_345] {
            let document = mongodb::bson::doc! { "n": int(number_) };
            assert_eq!(number(&document, "n"), number_);
        }
    }

    #[test]
    fn artifacts_of_a_node_sort_by_number_and_end_before_the_bound() {
        let (task, node) = (TaskId::new("t").expect("id"), NodeId::new("n").expect("id"));
        assert!(artifact(&task, &node, 9) < artifact(&task, &node, 10));
        assert!(artifact(&task, &node, u64::MAX) < artifacts_end(&task, &node));
    }
}
