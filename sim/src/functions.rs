//! The coordinator functions of a user that generated graphs name beside the built-in ones.

use flowkit_core::function::{Call, Changes, Check, Function, FunctionError, Functions, SECRETS};
use flowkit_core::vars::VarPath;

use crate::acting::PlannedPanic;
use crate::plan::GraphPlan;

/// Its name: `sim.double {path}` makes a whole number twice as large and one more.
pub const DOUBLE: &str = "sim.double";

/// Its name: `sim.panics` breaks the machine that calls it. Only whole processes know it: they survive
/// that.
pub const PANICS: &str = "sim.panics";
/// `sim.leak {path, to}` puts what looks like a secret at `to` if the number at `path` is odd, else the
/// number; and wants no secrets.
pub const LEAK: &str = "sim.leak";

struct Double;
struct Leak;

impl Function for Double {
    fn check(&self, check: &mut Check<'_>) {
        match check.args()["path"].as_str().map(VarPath::parse) {
            Some(Ok(_)) => {}
            Some(Err(error)) => check.fault("path", error, "name a var"),
            None => check.fault("path", "is no text", "name a var"),
        }
    }

    fn run(&self, call: &Call<'_>) -> Result<Changes, FunctionError> {
        let path = call.text_arg("path")?;
        let number = call.var(path).and_then(serde_json::Value::as_i64);
        let number = number.filter(|number| number.unsigned_abs() < 1 << 40);
        let number =
            number.ok_or_else(|| FunctionError::new("no_number", "it is no small whole number"))?;
        Ok(Changes::new().set(path, 2 * number + 1))
    }
}

/// Whether a function of the graph breaks the machine that calls it.
pub(crate) fn breaks_machine(graph: &GraphPlan) -> bool {
    let mut functions = graph.nodes.iter().filter_map(|node| node.function.as_ref());
    functions.any(|function| function.name == PANICS)
}

struct Panics(fn());

impl Function for Panics {
    fn check(&self, _check: &mut Check<'_>) {}

    fn run(&self, _call: &Call<'_>) -> Result<Changes, FunctionError> {
        (self.0)();
        std::panic::panic_any(PlannedPanic)
    }
}

/// What coordinators in whole processes know, too; `struck` hears of each panic.
#[must_use]
pub(crate) fn functions_of_processes(struck: fn()) -> Functions {
    functions().function(PANICS, Panics(struck))
}

impl Function for Leak {
    fn run(&self, call: &Call<'_>) -> Result<Changes, FunctionError> {
        let number = call.var(call.text_arg("path")?);
        let number = number.and_then(serde_json::Value::as_i64).unwrap_or(0);
        let changes = if number % 2 == 0 {
            Changes::new().set(call.text_arg("to")?, number)
        } else {
            Changes::new().set(call.text_arg("to")?, format!("sk-{number:024}"))
        };
        Ok(changes.block_sensitive([SECRETS]))
    }
}

/// What coordinators of a simulation know.
#[must_use]
pub fn functions() -> Functions {
    Functions::default()
        .function(DOUBLE, Double)
        .function(LEAK, Leak)
}
