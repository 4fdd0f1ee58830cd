//! Tokens that this process will never run (again), until the store shows them superseded.
//!
//! Per node only the greatest such token is kept: tokens of a node grow, so a smaller one is
//! superseded for certain. The size is bounded by what owners have granted to this process and not
//! yet folded the end of; beyond [`ENDED_MAX`] no START is taken.

use serde::Serialize;
use std::collections::BTreeMap;
use std::ops::Bound;

use super::run::NodeKey;
use crate::id::Token;
use crate::message::{Envelope, RefusalReason};

/// Most remembered tokens; at the limit new STARTs are refused as `busy`.
pub(super) const ENDED_MAX: usize = 65_536;

/// What a repeated START or CANCEL of an ended token is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) enum Answer {
    /// The run's terminal event, with its old seq.
    Event(Box<Envelope>),
    /// The START was refused.
    Refused(RefusalReason),
}

/// An ended token and its answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct EndedToken {
    pub(super) token: Token,
    pub(super) answer: Answer,
}

/// The memory of ended tokens.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Ended {
    tokens: BTreeMap<NodeKey, EndedToken>,
    /// Where the next grant read goes on.
    asked_to: Option<NodeKey>,
}

impl Ended {
    pub(super) fn get(&self, node: &NodeKey) -> Option<&EndedToken> {
        self.tokens.get(node)
    }

    /// Remembers a token, unless a greater one of the node is remembered.
    pub(super) fn insert(&mut self, node: NodeKey, token: Token, answer: Answer) {
        if self.tokens.get(&node).is_none_or(|old| old.token <= token) {
            self.tokens.insert(node, EndedToken { token, answer });
        }
    }

    /// A newer token of the node is known: the remembered one is superseded.
    pub(super) fn superseded_by(&mut self, node: &NodeKey, newer: Token) {
        if self.tokens.get(node).is_some_and(|old| old.token < newer) {
            self.tokens.remove(node);
        }
    }

    /// A grant read shows that the token is not current.
    pub(super) fn forget(&mut self, node: &NodeKey, token: Token) {
        if self.tokens.get(node).is_some_and(|old| old.token == token) {
            self.tokens.remove(node);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.tokens.len() >= ENDED_MAX
    }

    pub(super) fn len(&self) -> usize {
        self.tokens.len()
    }

    /// The next `limit` nodes to ask the store about, going round.
    pub(super) fn next_to_ask(&mut self, limit: usize) -> Vec<(NodeKey, Token)> {
        let from = self
            .asked_to
            .take()
            .map_or(Bound::Unbounded, Bound::Excluded);
        let mut page: Vec<_> = self
            .tokens
            .range((from, Bound::Unbounded))
            .take(limit)
            .map(|(node, ended)| (node.clone(), ended.token))
            .collect();
        if page.len() < limit && page.len() < self.tokens.len() {
            let rest = (limit - page.len()).min(self.tokens.len() - page.len());
            page.extend(
                self.tokens
                    .iter()
                    .take(rest)
                    .map(|(node, ended)| (node.clone(), ended.token)),
            );
        }
        if page.len() < self.tokens.len() {
            self.asked_to = page.last().map(|(node, _)| node.clone());
        }
        page
    }
}
