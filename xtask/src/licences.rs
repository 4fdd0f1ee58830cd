//! Licences, bans and sources of every dependency in the lock file, judged by `deny.toml`.
//!
//! The file is in cargo-deny's format; building that tool takes longer than the whole of
//! `cargo xtask check`, so the three checks we need are done here on `cargo metadata`.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

use crate::run::{Outcome, cargo, output, root};
use crate::spdx;

/// What `deny.toml` says.
#[derive(Debug)]
struct Rules {
    allowed: BTreeSet<String>,
    banned: Vec<Ban>,
}

/// A crate that may not be there.
#[derive(Debug)]
struct Ban {
    name: String,
    reason: String,
    /// Crates that may bring it all the same; none = nothing may.
    wrappers: BTreeSet<String>,
}

pub(crate) fn run() -> Outcome {
    println!("\n== licences: every dependency against deny.toml");
    let path = root().join("deny.toml");
    let text = std::fs::read_to_string(&path)
        .map_err(|e| format!("cannot read {}: {e}", path.display()))?;
    let rules = rules(&text)?;
    let metadata = output(cargo().args([
        "metadata",
        "--format-version",
        "1",
        "--locked",
        // Features that are off by default are shipped too.
        "--all-features",
    ]))?;
    let metadata: Value =
        serde_json::from_str(&metadata).map_err(|e| format!("cargo metadata: {e}"))?;
    let packages = metadata["packages"]
        .as_array()
        .ok_or("cargo metadata lists no packages")?;
    let dependents = dependents(&metadata);
    let none = BTreeSet::new();
    let faults: Vec<String> = packages
        .iter()
        .flat_map(|package| {
            let id = package["id"].as_str().unwrap_or_default();
            judge(package, dependents.get(id).unwrap_or(&none), &rules)
        })
        .collect();
    if faults.is_empty() {
        println!("{} packages: ok", packages.len());
        return Ok(());
    }
    Err(format!(
        "{} dependencies break deny.toml:\n  {}",
        faults.len(),
        faults.join("\n  ")
    ))
}

fn rules(text: &str) -> Outcome<Rules> {
    let table: toml::Table = text.parse().map_err(|e| format!("deny.toml: {e}"))?;
    let list = |section: &str, key: &str| {
        let value = table.get(section).and_then(|section| section.get(key));
        value
            .and_then(toml::Value::as_array)
            .ok_or_else(|| format!("deny.toml: [{section}] {key} must be a list"))
    };
    let text_of = |value: &toml::Value, key: &str| {
        let text = value.get(key).and_then(toml::Value::as_str);
        text.map(str::to_owned)
            .ok_or_else(|| format!("deny.toml: an entry of [bans] deny has no `{key}`"))
    };
    let mut allowed = BTreeSet::new();
    for licence in list("licenses", "allow")? {
        let name = licence.as_str().ok_or("deny.toml: a licence is no text")?;
        allowed.insert(name.to_owned());
    }
    let mut banned = Vec::new();
    for ban in list("bans", "deny")? {
        let wrappers = ban.get("wrappers").and_then(toml::Value::as_array);
        let wrappers = wrappers.into_iter().flatten().filter_map(|w| w.as_str());
        banned.push(Ban {
            name: text_of(ban, "crate")?,
            reason: text_of(ban, "reason")?,
            wrappers: wrappers.map(str::to_owned).collect(),
        });
    }
    Ok(Rules { allowed, banned })
}

/// Names of the packages that depend on each, by the id of the one they depend on.
fn dependents<'a>(metadata: &'a Value) -> BTreeMap<&'a str, BTreeSet<String>> {
    let list = |value: &'a Value| value.as_array().map(Vec::as_slice).unwrap_or_default();
    let names: BTreeMap<&str, &str> = list(&metadata["packages"])
        .iter()
        .filter_map(|package| Some((package["id"].as_str()?, package["name"].as_str()?)))
        .collect();
    let mut dependents: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for node in list(&metadata["resolve"]["nodes"]) {
        let name = node["id"].as_str().and_then(|id| names.get(id));
        for needed in list(&node["deps"]) {
            if let (Some(name), Some(needed)) = (name, needed["pkg"].as_str()) {
                let known = dependents.entry(needed).or_default();
                known.insert((*name).to_owned());
            }
        }
    }
    dependents
}

/// The faults of one package as cargo describes it.
fn judge(package: &Value, dependents: &BTreeSet<String>, rules: &Rules) -> Vec<String> {
    let text = |key: &str| package[key].as_str().unwrap_or_default();
    let (name, version) = (text("name"), text("version"));
    let mut faults = Vec::new();
    let licence = text("license");
    if licence.is_empty() {
        faults.push(format!("{name} {version}: names no licence"));
    } else {
        match spdx::permits(licence, &rules.allowed) {
            Ok(true) => {}
            Ok(false) => faults.push(format!("{name} {version}: licence `{licence}`")),
            Err(e) => faults.push(format!("{name} {version}: licence `{licence}`: {e}")),
        }
    }
    for ban in rules.banned.iter().filter(|ban| ban.name == name) {
        let allowed = !ban.wrappers.is_empty() && dependents.is_subset(&ban.wrappers);
        if !allowed {
            faults.push(format!("{name} {version}: banned: {}", ban.reason));
        }
    }
    // Null = a member of this workspace.
    if let Some(source) = package["source"].as_str()
        && !source.starts_with("registry+")
        && !source.starts_with("sparse+")
    {
        faults.push(format!("{name} {version}: not from the registry: {source}"));
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::{dependents, judge, rules};
    use serde_json::json;
    use std::collections::BTreeSet;

    const RULES: &str = r#"
        [licenses]
        allow = ["MIT"]
        [bans]
        deny = [{ crate = "bad", reason = "because" }]
    "#;

    #[test]
    fn licence_ban_and_source_are_each_reported() {
        let rules = rules(RULES).expect("valid rules");
        let package = json!({"name": "bad", "version": "1.0.0", "license": "GPL-3.0",
            "source": "git+https://example.org/bad"});
        assert_eq!(
            judge(&package, &BTreeSet::new(), &rules),
            [
                "bad 1.0.0: licence `GPL-3.0`",
                "bad 1.0.0: banned: because",
                "bad 1.0.0: not from the registry: git+https://example.org/bad",
            ]
        );
    }

    #[test]
    fn a_good_dependency_and_a_workspace_member_have_no_faults() {
        let rules = rules(RULES).expect("valid rules");
        let good = json!({"name": "good", "version": "1.0.0", "license": "MIT OR GPL-3.0",
            "source": "registry+https://example.org/index"});
        let member = json!({"name": "ours", "version": "0.1.0", "license": "MIT", "source": null});
        assert!(judge(&good, &BTreeSet::new(), &rules).is_empty());
        assert!(judge(&member, &BTreeSet::new(), &rules).is_empty());
    }

    #[test]
    fn a_package_without_a_licence_is_a_fault() {
        let rules = rules(RULES).expect("valid rules");
        let package = json!({"name": "x", "version": "1.0.0", "license": null, "source": null});
        assert_eq!(
            judge(&package, &BTreeSet::new(), &rules),
            ["x 1.0.0: names no licence"]
        );
    }

    #[test]
    fn a_banned_crate_may_come_by_its_wrappers_and_by_nothing_else() {
        let rules = rules(
            r#"
            [licenses]
            allow = ["MIT"]
            [bans]
            deny = [{ crate = "bad", wrappers = ["wrapper"], reason = "because" }]
        "#,
        )
        .expect("valid rules");
        let package = |name: &str| {
            json!({"id": name, "name": name, "version": "1.0.0",
            "license": "MIT", "source": null})
        };
        let metadata = |users: &[&str]| {
            let nodes: Vec<_> = users
                .iter()
                .map(|user| json!({"id": user, "deps": [{"pkg": "bad"}]}))
                .collect();
            let packages = ["bad", "wrapper", "other"].map(package);
            json!({"packages": packages, "resolve": {"nodes": nodes}})
        };
        let by_wrapper = metadata(&["wrapper"]);
        let by_both = metadata(&["wrapper", "other"]);
        assert!(judge(&package("bad"), &dependents(&by_wrapper)["bad"], &rules).is_empty());
        assert_eq!(
            judge(&package("bad"), &dependents(&by_both)["bad"], &rules),
            ["bad 1.0.0: banned: because"]
        );
    }
}
