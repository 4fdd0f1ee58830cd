//! Limits: how many nodes run at once, and how many start within a time; of all, of a type, of a key.
//!
//! What runs is counted by grants, so a new owner knows it from the records. When something started
//! is in no record: a new owner believes that everything has just been started that could be.

use serde::{Deserialize, Deserializer, Serialize};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::config::Config;
use crate::control::TaskOptions;
use crate::id::Role;
use crate::planted::{Bug, is_planted};
use crate::time::Mono;

/// Most starts that one limit may allow within its time: each is remembered for so long.
pub const STARTS_MAX: u32 = 10_000;
/// Longest time of a limit on starts: a day.
pub const WINDOW_MS_MAX: u64 = 86_400_000;

/// What may run at once, and how often something may start. Nothing is limited by default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Limits {
    /// Most nodes that run at once.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub running_max: Option<u32>,
    /// Limits of nodes by their type.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub types: BTreeMap<Role, Limit>,
    /// Limits of nodes by the `limit_key` of their task.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub keys: BTreeMap<Arc<str>, Limit>,
    /// The limit of each key that is not named in `keys`.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub key_default: Option<Limit>,
}

/// A limit of one type or key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Limit {
    /// Most nodes that run at once.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub running_max: Option<u32>,
    /// Most nodes that start within any `window_ms`, retries and repeats included.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub starts_max: Option<u32>,
    /// The time that `starts_max` is about; default 1,000.
    pub window_ms: u64,
}

impl Default for Limit {
    fn default() -> Self {
        Self {
            running_max: None,
            starts_max: None,
            window_ms: 1_000,
        }
    }
}

impl Limit {
    /// At most so many nodes run at once.
    #[must_use]
    pub fn running(max: u32) -> Self {
        Self {
            running_max: Some(max),
            ..Self::default()
        }
    }

    /// At most so many nodes start within any time of this length.
    #[must_use]
    pub fn starts(max: u32, window_ms: u64) -> Self {
        Self {
            starts_max: Some(max),
            window_ms,
            ..Self::default()
        }
    }

    /// And at most so many of them run at once.
    #[must_use]
    pub const fn and_running(mut self, max: u32) -> Self {
        self.running_max = Some(max);
        self
    }
}

impl Limits {
    /// At most so many nodes of all tasks run at once.
    #[must_use]
    pub const fn all(mut self, running_max: u32) -> Self {
        self.running_max = Some(running_max);
        self
    }

    /// Limits the nodes of a type.
    #[must_use]
    pub fn of_type(mut self, role: Role, limit: Limit) -> Self {
        self.types.insert(role, limit);
        self
    }

    /// Limits the nodes of tasks with this `limit_key`.
    #[must_use]
    pub fn of_key(mut self, key: impl Into<Arc<str>>, limit: Limit) -> Self {
        self.keys.insert(key.into(), limit);
        self
    }

    /// Limits the nodes of each other `limit_key` by itself.
    #[must_use]
    pub const fn of_each_other_key(mut self, limit: Limit) -> Self {
        self.key_default = Some(limit);
        self
    }

    /// Nothing is limited.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// Every value that is impossible, one sentence each with its place and the cure.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if self.running_max == Some(0) {
            faults.push(zero("running_max"));
        }
        let types = self
            .types
            .iter()
            .map(|(role, limit)| (format!("types.{role}"), limit));
        let keys = self
            .keys
            .iter()
            .map(|(key, limit)| (format!("keys.{key}"), limit));
        let default = self
            .key_default
            .iter()
            .map(|limit| ("key_default".to_owned(), limit));
        for (place, limit) in types.chain(keys).chain(default) {
            if limit.running_max == Some(0) {
                faults.push(zero(&format!("{place}.running_max")));
            }
            if limit.starts_max == Some(0) {
                faults.push(zero(&format!("{place}.starts_max")));
            }
            if let Some(max) = limit.starts_max.filter(|max| *max > STARTS_MAX) {
                faults.push(format!(
                    "{place}.starts_max must be at most {STARTS_MAX}, not {max}; take a shorter window_ms"
                ));
            }
            let window_ms = limit.window_ms;
            if !(1..=WINDOW_MS_MAX).contains(&window_ms) {
                faults.push(format!(
                    "{place}.window_ms must be from 1 to {WINDOW_MS_MAX}, not {window_ms}"
                ));
            }
        }
        for key in self.keys.keys() {
            let options = TaskOptions {
                limit_key: Some(key.clone()),
                ..TaskOptions::default()
            };
            if !options.faults().is_empty() {
                faults.push(format!("keys.{key:?}: no task can have such a limit_key"));
            }
        }
        faults
    }

    /// The limit of a key: its own, or that of each other key.
    pub(crate) fn for_key(&self, key: &Arc<str>) -> Option<&Limit> {
        self.keys.get(key).or(self.key_default.as_ref())
    }
}

fn zero(place: &str) -> String {
    format!(
        "{place} must be 1 or more, not 0; leave it out for no limit, and pause tasks to hold them back"
    )
}

/// A value that is there must be one: what came to be `null` on the way (NaN in TOML) is not "no limit".
fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Option<T>, D::Error> {
    T::deserialize(from).map(Some)
}

/// Whom a limit is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(super) enum Scope {
    Type(Role),
    Key(Arc<str>),
}

/// Whether one more may be granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    Free,
    /// As many run as may.
    Running,
    /// As many have started as may for now.
    Starts,
}

/// What stands against the limits of a shard.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Meters {
    #[serde(skip)]
    limits: Limits,
    /// Twice the declared clock rate error, in parts per million.
    #[serde(skip)]
    slow_ppm: u64,
    /// The longest time that a start counts.
    #[serde(skip)]
    window_ms_max: u64,
    running: u32,
    meters: BTreeMap<Scope, Meter>,
    /// When a start is no longer counted.
    due: BTreeSet<(Mono, Scope)>,
    /// When the shard was taken over from somebody who may have started nodes.
    taken_at: Option<Mono>,
}

#[derive(Clone, Debug, Default, Serialize)]
struct Meter {
    running: u32,
    /// Starts whose commits are not in the store.
    open: u32,
    /// When starts were known to be in the store: not before they were.
    started: VecDeque<Mono>,
}

impl Meters {
    pub(super) fn new(config: &Config) -> Self {
        let mut meters = Self {
            limits: config.limits.clone(),
            slow_ppm: 2 * config.clock_rate_error_ppm,
            ..Self::default()
        };
        let limits = &meters.limits;
        let all = limits.types.values().chain(limits.keys.values());
        let windows = all.chain(&limits.key_default).map(|l| meters.window_ms(l));
        meters.window_ms_max = windows.max().unwrap_or(0);
        meters
    }

    /// The key that limits a task's nodes, if one does.
    pub(super) fn key_of(&self, options: &TaskOptions) -> Option<Arc<str>> {
        let key = options.limit_key.as_ref()?;
        self.limits.for_key(key).map(|_| key.clone())
    }

    /// The shard had an owner before: what it started last is not known.
    pub(super) fn taken_over(&mut self, now: Mono) {
        if !is_planted(Bug::StartsForgotten) {
            self.taken_at = Some(now);
        }
    }

    /// What is known of starts; what runs is counted anew.
    pub(super) fn of_starts(mut self) -> Self {
        self.running = 0;
        for meter in self.meters.values_mut() {
            (meter.running, meter.open) = (0, 0);
        }
        // What is not known of a meter that is gone is believed again.
        let guessed = self.taken_at.is_some();
        self.meters
            .retain(|_, meter| guessed || !meter.started.is_empty());
        self
    }

    fn limit(&self, scope: &Scope) -> Option<Limit> {
        match scope {
            Scope::Type(role) => self.limits.types.get(role).copied(),
            Scope::Key(key) => self.limits.for_key(key).copied(),
        }
    }

    /// How long a start counts: the limit's time by the slowest clock.
    fn window_ms(&self, limit: &Limit) -> u64 {
        limit.window_ms + limit.window_ms * self.slow_ppm / 1_000_000 + 2
    }

    fn meter(&mut self, scope: &Scope, limit: &Limit) -> &mut Meter {
        let window_ms = self.window_ms(limit);
        let (taken_at, due) = (self.taken_at, &mut self.due);
        self.meters.entry(scope.clone()).or_insert_with(|| {
            let mut meter = Meter::default();
            if let (Some(at), Some(max)) = (taken_at, limit.starts_max) {
                meter.started.extend((0..max).map(|_| at));
                due.insert((at.after(window_ms), scope.clone()));
            }
            meter
        })
    }

    fn room(&mut self, now: Mono, scope: &Scope) -> Room {
        let Some(limit) = self.limit(scope) else {
            return Room::Free;
        };
        let window_ms = self.window_ms(&limit);
        let meter = self.meter(scope, &limit);
        let full = limit.running_max.is_some_and(|max| meter.running >= max);
        if full && !is_planted(Bug::LimitIgnored) {
            return Room::Running;
        }
        let Some(max) = limit.starts_max else {
            return Room::Free;
        };
        while meter
            .started
            .front()
            .is_some_and(|at| at.after(window_ms) <= now)
        {
            meter.started.pop_front();
        }
        let full = meter.open as usize + meter.started.len() >= max as usize;
        if full && !is_planted(Bug::StartsUnlimited) {
            return Room::Starts;
        }
        Room::Free
    }

    /// Whether one more of all may run.
    pub(super) fn room_of_all(&self) -> Room {
        match self.limits.running_max {
            Some(max) if self.running >= max && !is_planted(Bug::LimitIgnored) => Room::Running,
            _ => Room::Free,
        }
    }

    pub(super) fn room_of_type(&mut self, now: Mono, role: &Role) -> Room {
        if self.limits.types.is_empty() {
            return Room::Free;
        }
        self.room(now, &Scope::Type(role.clone()))
    }

    pub(super) fn room_of_key(&mut self, now: Mono, key: &Arc<str>) -> Room {
        self.room(now, &Scope::Key(key.clone()))
    }

    fn scopes(&self, role: &Role, key: Option<&Arc<str>>) -> impl Iterator<Item = Scope> + use<> {
        let limited = self.limits.types.contains_key(role);
        let of_type = limited.then(|| Scope::Type(role.clone()));
        of_type.into_iter().chain(key.cloned().map(Scope::Key))
    }

    /// A grant begins. Scopes whose starts are limited count it as open until it is in the store.
    pub(super) fn begin(
        &mut self,
        role: &Role,
        key: Option<&Arc<str>>,
        mut starts: Option<&mut Vec<Scope>>,
    ) {
        self.running += 1;
        for scope in self.scopes(role, key) {
            let Some(limit) = self.limit(&scope) else {
                continue;
            };
            let meter = self.meter(&scope, &limit);
            meter.running += 1;
            if let Some(starts) = &mut starts
                && limit.starts_max.is_some()
            {
                meter.open += 1;
                starts.push(scope);
            }
        }
    }

    /// A grant ended.
    pub(super) fn end(&mut self, role: &Role, key: Option<&Arc<str>>) {
        self.running = self.running.saturating_sub(1);
        if is_planted(Bug::LimitLeaked) {
            return;
        }
        for scope in self.scopes(role, key) {
            if let Some(meter) = self.meters.get_mut(&scope) {
                meter.running = meter.running.saturating_sub(1);
                self.forget_idle(&scope);
            }
        }
    }

    /// A start is in the store: from now on its time runs.
    pub(super) fn started(&mut self, now: Mono, scope: Scope) {
        let (Some(limit), Some(meter)) = (self.limit(&scope), self.meters.get_mut(&scope)) else {
            return;
        };
        meter.open = meter.open.saturating_sub(1);
        meter.started.push_back(now);
        let until = now.after(self.window_ms(&limit));
        self.due.insert((until, scope));
    }

    /// Keys that may have room again because starts count no more.
    pub(super) fn passed(&mut self, now: Mono) -> Vec<Arc<str>> {
        let known = |at: Mono| at.after(self.window_ms_max) <= now;
        if self.taken_at.is_some_and(known) {
            self.taken_at = None;
        }
        let mut keys = Vec::new();
        while let Some((at, scope)) = self.due.first().cloned()
            && at <= now
        {
            self.due.pop_first();
            self.room(now, &scope);
            self.forget_idle(&scope);
            if let Scope::Key(key) = scope {
                keys.push(key);
            }
        }
        keys
    }

    fn forget_idle(&mut self, scope: &Scope) {
        let idle =
            |meter: &Meter| meter.running == 0 && meter.open == 0 && meter.started.is_empty();
        let limited = self
            .limit(scope)
            .is_some_and(|limit| limit.starts_max.is_some());
        // What a new owner cannot know is believed of every meter that it has not made yet.
        let unknown = limited && self.taken_at.is_some();
        if self.meters.get(scope).is_some_and(idle) && !unknown {
            self.meters.remove(scope);
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Mono> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Grants counted of all, of a type and of a key, to be held against the records.
    pub(super) fn counted(&self) -> (u32, impl Iterator<Item = (&Scope, u32)>) {
        let meters = self.meters.iter().filter(|(_, meter)| meter.running > 0);
        (
            self.running,
            meters.map(|(scope, meter)| (scope, meter.running)),
        )
    }
}
