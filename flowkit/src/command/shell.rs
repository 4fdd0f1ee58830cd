//! `flowkit completions` and `flowkit man`: made from the same definition as the help.

use clap::CommandFactory;
use clap_complete::Shell;
use std::path::Path;

use super::args::Cli;
use super::failure::{Ending, Failure, Outcome};
use super::output::put;

/// Prints a shell's completions.
pub(crate) fn completions(shell: Shell) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "flowkit", &mut script);
    put!("{}", String::from_utf8_lossy(&script));
    Ok(Ending::Finished)
}

/// Prints the man page, or writes one per command into a folder.
pub(crate) fn man(folder: Option<&Path>) -> Outcome {
    if let Some(folder) = folder {
        let shown = folder.display();
        let cannot = |e| Failure::input(format!("cannot write man pages to {shown}: {e}"));
        std::fs::create_dir_all(folder).map_err(cannot)?;
        clap_mangen::generate_to(Cli::command(), folder).map_err(cannot)?;
        return Ok(Ending::Finished);
    }
    let mut page = Vec::new();
    clap_mangen::Man::new(Cli::command())
        .render(&mut page)
        .map_err(Failure::engine)?;
    put!("{}", String::from_utf8_lossy(&page));
    Ok(Ending::Finished)
}
