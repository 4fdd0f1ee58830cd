//! Results on standard output. A reader that went away (`| head`) is no failure of the command.

use std::fmt::Arguments;
use std::io::{ErrorKind, Write};

/// Writes text to standard output, as `print!` does, but a closed pipe is not a panic.
pub(crate) fn write_out(text: Arguments<'_>) {
    let mut stdout = std::io::stdout().lock();
    let written = stdout.write_fmt(text).and_then(|()| stdout.flush());
    if let Err(error) = written
        && error.kind() != ErrorKind::BrokenPipe
    {
        eprintln!("error: cannot write the result to standard output: {error}");
        std::process::exit(2);
    }
}

/// `print!` that survives a closed pipe.
macro_rules! put {
    ($($text:tt)*) => { $crate::command::output::write_out(format_args!($($text)*)) };
}

/// `println!` that survives a closed pipe.
macro_rules! putln {
    ($($text:tt)*) => { $crate::command::output::write_out(format_args!("{}\n", format_args!($($text)*))) };
}

pub(crate) use {put, putln};
