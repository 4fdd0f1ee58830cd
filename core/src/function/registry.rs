//! The functions and detectors that a coordinator knows, by name.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, LazyLock};

use super::detect::{Detector, SECRETS, Secrets};
use super::{Function, merge, metrics, vars};
use crate::graph::quoted;

/// Longest name of a function or detector, in characters.
const NAME_CHARS_MAX: usize = 128;

/// The functions and detectors that a coordinator knows. Cheap to clone.
///
/// By default the built-in ones: `vars.set`, `vars.merge`, `vars.incr`, `vars.unset`,
/// `merge.generic`, `metrics.aggregate`, `noop`, and the detector `secrets`. Every coordinator of a
/// deployment must know the same ones: a node whose function its coordinator does not know fails.
#[derive(Clone)]
pub struct Functions {
    functions: Arc<BTreeMap<Arc<str>, Arc<dyn Function>>>,
    detectors: Arc<BTreeMap<Arc<str>, Arc<dyn Detector>>>,
    faults: Arc<Vec<String>>,
}

impl Default for Functions {
    fn default() -> Self {
        static BUILT_IN: LazyLock<Functions> = LazyLock::new(Functions::built_in);
        BUILT_IN.clone()
    }
}

impl Functions {
    fn built_in() -> Self {
        let functions: [(&str, Arc<dyn Function>); 7] = [
            ("vars.set", Arc::new(vars::Set)),
            ("vars.merge", Arc::new(vars::Merge)),
            ("vars.incr", Arc::new(vars::Incr)),
            ("vars.unset", Arc::new(vars::Unset)),
            ("merge.generic", Arc::new(merge::Generic)),
            ("metrics.aggregate", Arc::new(metrics::Aggregate)),
            ("noop", Arc::new(vars::Noop)),
        ];
        let secrets: Arc<dyn Detector> = Arc::new(Secrets);
        Self {
            functions: Arc::new(functions.map(|(name, f)| (Arc::from(name), f)).into()),
            detectors: Arc::new([(Arc::from(SECRETS), secrets)].into()),
            faults: Arc::default(),
        }
    }

    /// Adds a function. A name that is taken or makes no sense is a fault, see
    /// [`Functions::faults`].
    #[must_use]
    pub fn function(mut self, name: impl AsRef<str>, function: impl Function) -> Self {
        let taken = self.functions.contains_key(name.as_ref());
        if let Some(name) = self.checked("function", name.as_ref(), taken) {
            Arc::make_mut(&mut self.functions).insert(name, Arc::new(function));
        }
        self
    }

    /// Adds a detector of values that `block_sensitive` is to refuse.
    #[must_use]
    pub fn detector(mut self, name: impl AsRef<str>, detector: impl Detector) -> Self {
        let taken = self.detectors.contains_key(name.as_ref());
        if let Some(name) = self.checked("detector", name.as_ref(), taken) {
            Arc::make_mut(&mut self.detectors).insert(name, Arc::new(detector));
        }
        self
    }

    fn checked(&mut self, what: &str, name: &str, taken: bool) -> Option<Arc<str>> {
        let problem = if name.is_empty() {
            "a name must not be empty"
        } else if name.chars().count() > NAME_CHARS_MAX {
            "a name has at most 128 characters"
        } else if name.chars().any(char::is_control) {
            "a name holds no control characters"
        } else if taken {
            "the name is taken; choose another one"
        } else {
            return Some(Arc::from(name));
        };
        Arc::make_mut(&mut self.faults).push(format!("{what} {}: {problem}", quoted(name)));
        None
    }

    /// What was wrong with what was added, one sentence each. A coordinator does not start with
    /// any.
    #[must_use]
    pub fn faults(&self) -> &[String] {
        &self.faults
    }

    /// The names of the functions, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.functions.keys().map(|name| &**name)
    }

    /// The names of the detectors, in order.
    pub fn detector_names(&self) -> impl Iterator<Item = &str> {
        self.detectors.keys().map(|name| &**name)
    }

    pub(crate) fn get(&self, name: &str) -> Option<&dyn Function> {
        self.functions.get(name).map(|function| &**function)
    }

    pub(crate) fn detector_named(&self, name: &str) -> Option<&dyn Detector> {
        self.detectors.get(name).map(|detector| &**detector)
    }
}

impl fmt::Debug for Functions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Functions")
            .field("functions", &self.functions.keys())
            .field("detectors", &self.detectors.keys())
            .finish_non_exhaustive()
    }
}

/// By name: what stands behind a name cannot be compared.
impl PartialEq for Functions {
    fn eq(&self, other: &Self) -> bool {
        self.functions.keys().eq(other.functions.keys())
            && self.detectors.keys().eq(other.detectors.keys())
    }
}

impl Eq for Functions {}
