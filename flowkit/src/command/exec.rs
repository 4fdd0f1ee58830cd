//! `--exec`: roles that programs run.

use flowkit::prelude::*;
use std::collections::BTreeMap;

use super::failure::Failure;
use crate::roles;

/// Programs by role.
#[derive(Debug, Default)]
pub(crate) struct Programs {
    by_role: BTreeMap<String, Exec>,
    /// Nodes of the type `exec` run the command that the graph names.
    of_graphs: bool,
}

impl Programs {
    /// Those of `flowkit run`: every flag names its role.
    pub(crate) fn for_run(flags: &[String]) -> Result<Self, Failure> {
        let programs = Self::read(flags, &mut Vec::new(), |flag| {
            Err(format!(
                "--exec {flag:?}: name its role: --exec ROLE={flag:?}"
            ))
        });
        programs.map(|programs| Self {
            of_graphs: true,
            ..programs
        })
    }

    /// Those of a worker with these roles: a flag without a role is for the only one. A role that only
    /// a flag names is added.
    pub(crate) fn for_worker(flags: &[String], roles: &mut Vec<String>) -> Result<Self, Failure> {
        let given = roles.clone();
        Self::read(flags, roles, |flag| match given.as_slice() {
            [role] => Ok(role.clone()),
            [] => Err(format!("--exec {flag:?}: name its role with --role NAME")),
            many => Err(format!(
                "--exec {flag:?}: this worker has {} roles; say which one it is for: --exec ROLE={flag:?}",
                many.len()
            )),
        })
    }

    fn read(
        flags: &[String],
        roles: &mut Vec<String>,
        role_of_plain: impl Fn(&str) -> Result<String, String>,
    ) -> Result<Self, Failure> {
        let mut programs = Self::default();
        let mut faults = Vec::new();
        for flag in flags {
            if let Err(fault) = programs.add(flag, roles, &role_of_plain) {
                faults.push(fault);
            }
        }
        match faults.is_empty() {
            true => Ok(programs),
            false => Err(Failure::input(faults.join("\n  "))),
        }
    }

    fn add(
        &mut self,
        flag: &str,
        roles: &mut Vec<String>,
        role_of_plain: impl Fn(&str) -> Result<String, String>,
    ) -> Result<(), String> {
        let (role, line) = match role_and_command(flag) {
            Some((role, line)) => (role.to_owned(), line),
            None => (role_of_plain(flag)?, flag),
        };
        let exec = Exec::parse(line).map_err(|error| format!("--exec {flag:?}: {error}"))?;
        exec.check()
            .map_err(|error| format!("--exec {flag:?}: {error}"))?;
        let fault = match Role::new(&role) {
            Err(error) => Some(error.to_string()),
            Ok(_) => role
                .contains(',')
                .then(|| "must not hold a comma".to_owned()),
        };
        if let Some(fault) = fault {
            return Err(format!("--exec {flag:?}: the role {fault}"));
        }
        if !roles.contains(&role) {
            roles.push(role.clone());
        }
        if self.by_role.contains_key(&role) {
            return Err(format!("--exec {flag:?}: role `{role}` has two programs"));
        }
        self.by_role.insert(role, exec);
        Ok(())
    }

    /// The program of a role.
    pub(crate) fn of(&self, role: &str) -> Option<&Exec> {
        self.by_role.get(role)
    }

    /// A program runs this role.
    pub(crate) fn has(&self, role: &str) -> bool {
        self.by_role.contains_key(role)
    }

    /// Adds every program to a worker, and the built-in roles that no program replaces.
    pub(crate) fn with_built_in(&self, mut worker: WorkerBuilder) -> WorkerBuilder {
        for name in roles::NAMES.iter().filter(|name| !self.has(name)) {
            worker = match roles::with(worker, name) {
                Ok(worker) => worker,
                Err(error) => unreachable!("a built-in role: {error}"),
            };
        }
        if self.of_graphs && !self.has(roles::EXEC) {
            worker = worker.role(roles::EXEC, roles::GraphExec);
        }
        for (role, exec) in &self.by_role {
            worker = worker.role(role, exec.clone());
        }
        worker
    }
}

/// `ROLE=COMMAND`, if the first word has a `=`: no program is named so.
fn role_and_command(flag: &str) -> Option<(&str, &str)> {
    let (role, line) = flag.split_once('=')?;
    let is_name =
        !role.is_empty() && !role.contains(|c: char| c.is_whitespace() || c == '\'' || c == '"');
    is_name.then_some((role, line))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker(flags: &[&str], roles: &[&str]) -> Result<(Programs, Vec<String>), String> {
        let flags: Vec<String> = flags.iter().map(ToString::to_string).collect();
        let mut roles: Vec<String> = roles.iter().map(ToString::to_string).collect();
        let programs = Programs::for_worker(&flags, &mut roles);
        programs
            .map(|programs| (programs, roles))
            .map_err(|failure| failure.to_string())
    }

    #[test]
    fn a_program_is_for_the_only_role_or_for_the_one_it_names() {
        let (programs, roles) = worker(&["sh -c 'x=1'"], &["ocr"]).unwrap();
        assert_eq!(programs.of("ocr"), Some(&Exec::new("sh", ["-c", "x=1"])));
        assert_eq!(roles, ["ocr"]);

        let (programs, roles) = worker(&["a=sh -e", "b='sh' -x"], &["echo"]).unwrap();
        assert_eq!(programs.of("a"), Some(&Exec::new("sh", ["-e"])));
        assert_eq!(programs.of("b"), Some(&Exec::new("sh", ["-x"])));
        assert!(!programs.has("echo"));
        assert_eq!(roles, ["echo", "a", "b"]);
    }

    #[test]
    fn faults_are_listed_at_once_with_their_cures() {
        let flags = [
            "sh",
            "a=",
            "b='open",
            "c=no-such-program",
            "d=sh",
            "d=sh",
            "$e=sh",
            "f,g=sh",
        ];
        let faults = worker(&flags, &[]).unwrap_err();
        for part in [
            "--role NAME",
            "the command is empty",
            "within a quote",
            "\"no-such-program\" is not there",
            "role `d` has two programs",
            "--exec \"$e=sh\": the role must not start with `$`",
            "--exec \"f,g=sh\": the role must not hold a comma",
        ] {
            assert!(faults.contains(part), "{part}: {faults}");
        }
        let faults = worker(&["sh"], &["a", "b"]).unwrap_err();
        assert!(faults.contains("has 2 roles"), "{faults}");
        let faults = Programs::for_run(&["sh".to_owned()]).unwrap_err();
        assert!(faults.to_string().contains("ROLE="), "{faults}");
    }
}
