//! Results on standard output, and what is said beside them on standard error. A reader that went away
//! (`| head`) is no failure of the command.

use std::fmt::Arguments;
use std::io::{ErrorKind, Write};

/// Writes text to standard output, as `print!` does, but a closed pipe is not a panic.
pub(crate) fn write_out(text: Arguments<'_>) {
    let mut stdout = std::io::stdout().lock();
    let written = stdout.write_fmt(text).and_then(|()| stdout.flush());
    if let Err(error) = written
        && error.kind() != ErrorKind::BrokenPipe
    {
        say(format_args!(
            "error: cannot write the result to standard output: {error}\n"
        ));
        std::process::exit(2);
    }
}

/// Says something on standard error. Where nobody can hear it, nothing is to be done about that.
pub(crate) fn say(text: Arguments<'_>) {
    let _ = std::io::stderr().lock().write_fmt(text);
}

/// `print!` that survives a closed pipe.
macro_rules! put {
    ($($text:tt)*) => { $crate::command::output::write_out(format_args!($($text)*)) };
}

/// `println!` that survives a closed pipe.
macro_rules! putln {
    ($($text:tt)*) => { $crate::command::output::write_out(format_args!("{}\n", format_args!($($text)*))) };
}

/// `eprintln!` that survives a closed pipe.
macro_rules! eputln {
    ($($text:tt)*) => { $crate::command::output::say(format_args!("{}\n", format_args!($($text)*))) };
}

pub(crate) use {eputln, put, putln};
