//! A place in the vars, as text: `a.b.c`.

use serde_json::{Map, Value};
use smol_str::SmolStr;
use std::fmt;

use super::{PATH_CHARS_MAX, PATH_DEPTH_MAX, SEGMENT_CHARS_MAX};

/// A checked path: 1 to [`PATH_DEPTH_MAX`] keys joined by dots.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct VarPath(Vec<SmolStr>);

/// Why a text is no path. It holds nothing of the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PathFault {
    pub(crate) problem: String,
    pub(crate) cure: &'static str,
}

impl fmt::Display for PathFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.problem, self.cure)
    }
}

fn fault(problem: impl Into<String>, cure: &'static str) -> PathFault {
    PathFault {
        problem: problem.into(),
        cure,
    }
}

impl VarPath {
    /// Reads a path. A key must not be empty, start with `$` or hold NUL.
    ///
    /// # Errors
    /// One sentence with what is wrong and the cure.
    pub fn parse(text: &str) -> Result<Self, String> {
        Self::read(text).map_err(|fault| fault.to_string())
    }

    pub(crate) fn read(text: &str) -> Result<Self, PathFault> {
        Self(Vec::new()).below(text.split('.'))
    }

    /// The path of a key below this one; the key may hold no dot.
    pub(crate) fn key(&self, key: &str) -> Result<Self, PathFault> {
        if key.contains('.') {
            return Err(fault(
                "a nested key holds a dot",
                "nest objects in place of it, or rename the key",
            ));
        }
        self.clone().below(std::iter::once(key))
    }

    /// The whole of the vars: the path that keys are put below.
    pub(crate) const fn root() -> Self {
        Self(Vec::new())
    }

    fn below<'a>(mut self, keys: impl Iterator<Item = &'a str>) -> Result<Self, PathFault> {
        let mut chars: usize = self.0.iter().map(|key| key.chars().count() + 1).sum();
        for key in keys {
            let length = key.chars().count();
            chars += length + 1;
            if key.is_empty() {
                let cure = "name a var as in `name` or `group.name`";
                return Err(fault("is empty, or holds an empty key", cure));
            }
            if key.starts_with('$') {
                return Err(fault("a key starts with `$`", "rename the key"));
            }
            if key.contains('\0') {
                return Err(fault("a key holds NUL", "rename the key"));
            }
            if length > SEGMENT_CHARS_MAX {
                let problem = format!("a key has {length} characters");
                return Err(fault(problem, "at most 128: shorten the key"));
            }
            if self.0.len() == PATH_DEPTH_MAX {
                return Err(fault("has more than 16 keys", "nest less deep"));
            }
            if chars > PATH_CHARS_MAX + 1 {
                return Err(fault("has more than 512 characters", "shorten the keys"));
            }
            self.0.push(SmolStr::new(key));
        }
        Ok(self)
    }

    /// Its keys, at least one.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(SmolStr::as_str)
    }

    pub(crate) fn split(&self) -> Option<(&str, &[SmolStr])> {
        let (last, parents) = self.0.split_last()?;
        Some((last.as_str(), parents))
    }

    /// This path leads through or to `other`, or the other way round.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).all(|(a, b)| a == b)
    }

    /// What stands there.
    #[must_use]
    pub fn get<'v>(&self, vars: &'v Map<String, Value>) -> Option<&'v Value> {
        let (last, parents) = self.split()?;
        let mut at = vars;
        for key in parents {
            at = at.get(key.as_str())?.as_object()?;
        }
        at.get(last)
    }
}

impl fmt::Display for VarPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, key) in self.0.iter().enumerate() {
            if at > 0 {
                f.write_str(".")?;
            }
            f.write_str(key)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_path_is_1_to_16_keys_of_bounded_length() {
        let problem = |text: &str| VarPath::read(text).map_err(|fault| fault.problem);
        for good in ["a", "a.b", "ü.🦀", "a b.c-d", &["k"; 16].join(".")] {
            assert_eq!(VarPath::read(good).map(|p| p.to_string()), Ok(good.into()));
        }
        for (bad, said) in [
            ("", "is empty, or holds an empty key"),
            (".", "is empty, or holds an empty key"),
            ("a..b", "is empty, or holds an empty key"),
            ("a.", "is empty, or holds an empty key"),
            ("a.$b", "a key starts with `$`"),
            ("a.b\0", "a key holds NUL"),
            (&"k".repeat(129), "a key has 129 characters"),
            (&["k"; 17].join("."), "has more than 16 keys"),
        ] {
            assert_eq!(problem(bad), Err(said.to_owned()), "{bad:?}");
        }
        // Characters, not bytes: four keys of 127 and their dots, and one more.
        let wide = "ü".repeat(127);
        let most = [&*wide; 4].join(".") + "x";
        assert_eq!(most.chars().count(), 512);
        assert!(VarPath::read(&most).is_ok());
        let over = problem(&(most + ".y"));
        assert_eq!(over, Err("has more than 512 characters".to_owned()));
    }

    #[test]
    fn it_leads_through_objects_only() {
        let vars = json!({"a": {"b": [{"c": 1}], "n": null}});
        let vars = vars.as_object().expect("an object");
        let get = |path: &str| VarPath::read(path).expect("a path").get(vars).cloned();
        assert_eq!(get("a.n"), Some(Value::Null));
        assert_eq!(get("a.b"), Some(json!([{"c": 1}])));
        assert_eq!((get("a.b.c"), get("a.b.0"), get("x.y")), (None, None, None));
    }
}
