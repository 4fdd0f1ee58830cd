//! `--exec`: roles that programs run.

use flowkit::prelude::*;
use flowkit::settings::{Given, role_and_command};
use std::collections::BTreeMap;

use super::failure::Failure;
use super::table::one_line;
use crate::roles;

/// Where the programs stand that were given, for errors: `--exec`, or the key of the settings and where it
/// has its value from.
pub(crate) fn place_of_exec(given: &Given) -> String {
    match given.place("exec") {
        None | Some(FLAG) => FLAG.to_owned(),
        Some(from) => format!("exec ({})", one_line(from, 200)),
    }
}

/// What names a program on a command line.
pub(crate) const FLAG: &str = "--exec";

/// Programs by role.
#[derive(Debug, Default)]
pub(crate) struct Programs {
    by_role: BTreeMap<String, Exec>,
    /// Nodes of the type `exec` run the command that the graph names.
    of_graphs: bool,
}

impl Programs {
    /// Those of `flowkit run`: each names its role. `from` is where they were given.
    pub(crate) fn for_run(given: &[String], from: &str) -> Result<Self, Failure> {
        let programs = Self::read(given, from, &mut Vec::new(), || {
            Err("name its role: ROLE=COMMAND".to_owned())
        });
        programs.map(|programs| Self {
            of_graphs: true,
            ..programs
        })
    }

    /// Those of a worker with these roles: one without a role is for the only one. A role that only
    /// a program names is added.
    pub(crate) fn for_worker(
        given: &[String],
        from: &str,
        roles: &mut Vec<String>,
    ) -> Result<Self, Failure> {
        let of_worker = roles.clone();
        Self::read(given, from, roles, || match of_worker.as_slice() {
            [role] => Ok(role.clone()),
            [] => Err("name its role with --role NAME, or as ROLE=COMMAND".to_owned()),
            many => Err(format!(
                "this worker has {} roles; say which one it is for: ROLE=COMMAND",
                many.len()
            )),
        })
    }

    fn read(
        given: &[String],
        from: &str,
        roles: &mut Vec<String>,
        role_of_plain: impl Fn() -> Result<String, String>,
    ) -> Result<Self, Failure> {
        let mut programs = Self::default();
        let mut faults = Vec::new();
        for (at, item) in given.iter().enumerate() {
            if let Err(fault) = programs.add(at, item, roles, &role_of_plain) {
                faults.push(format!("{from}: {fault}"));
            }
        }
        match faults.is_empty() {
            true => Ok(programs),
            false => Err(Failure::input(faults.join("\n  "))),
        }
    }

    /// Its faults name the role and the program, and no more of the command: there may be a token in it.
    fn add(
        &mut self,
        at: usize,
        item: &str,
        roles: &mut Vec<String>,
        role_of_plain: impl Fn() -> Result<String, String>,
    ) -> Result<(), String> {
        let (name, role, line) = match role_and_command(item) {
            Some((role, line)) => {
                let name = format!("role `{}`", one_line(role, 60));
                (name, Ok(role.to_owned()), line)
            }
            None => (format!("command {}", at + 1), role_of_plain(), item),
        };
        let role = role.map_err(|cure| format!("{name}: {cure}"))?;
        let exec = Exec::parse(line).map_err(|error| format!("{name}: {error}"))?;
        exec.check().map_err(|error| format!("{name}: {error}"))?;
        let fault = match Role::new(&role) {
            Err(error) => Some(error.to_string()),
            Ok(_) => role
                .contains(',')
                .then(|| "must not hold a comma".to_owned()),
        };
        if let Some(fault) = fault {
            return Err(format!("{name}: the role {fault}"));
        }
        if !roles.contains(&role) {
            roles.push(role.clone());
        }
        if self.by_role.contains_key(&role) {
            return Err(format!("role `{role}` has two programs"));
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

#[cfg(test)]
mod tests {
    use super::*;

    fn worker(flags: &[&str], roles: &[&str]) -> Result<(Programs, Vec<String>), String> {
        let flags: Vec<String> = flags.iter().map(ToString::to_string).collect();
        let mut roles: Vec<String> = roles.iter().map(ToString::to_string).collect();
        let programs = Programs::for_worker(&flags, FLAG, &mut roles);
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
            "sh geheim",
            "a=",
            "b='geheim",
            "c=no-such-program geheim",
            "d=sh",
            "d=sh geheim",
            "$e=sh geheim",
            "f,g=sh geheim",
            "'geheim",
        ];
        let faults = worker(&flags, &[]).unwrap_err();
        assert!(!faults.contains("geheim"), "{faults}");
        for part in [
            "--role NAME",
            "the command is empty",
            "within a quote",
            "\"no-such-program\" is not there",
            "role `d` has two programs",
            "--exec: role `$e`: the role must not start with `$`",
            "--exec: role `f,g`: the role must not hold a comma",
        ] {
            assert!(faults.contains(part), "{part}: {faults}");
        }
        let faults = worker(&["sh"], &["a", "b"]).unwrap_err();
        assert!(faults.contains("has 2 roles"), "{faults}");
        let faults = Programs::for_run(&["sh geheim".to_owned()], FLAG).unwrap_err();
        assert_eq!(
            faults.to_string(),
            "--exec: command 1: name its role: ROLE=COMMAND"
        );
    }
}
