//! Colours: on a terminal only, and not if NO_COLOR is set.

use std::ffi::OsStr;
use std::io::IsTerminal;

/// Whether standard error may be coloured.
pub(crate) fn on_stderr() -> bool {
    let no_color = std::env::var_os("NO_COLOR");
    wanted(std::io::stderr().is_terminal(), no_color.as_deref())
}

/// An empty NO_COLOR is none (no-color.org).
fn wanted(terminal: bool, no_color: Option<&OsStr>) -> bool {
    terminal && no_color.is_none_or(OsStr::is_empty)
}

/// The style of a bar: `coloured` with colours, without them else.
pub(crate) fn bar() -> &'static str {
    if on_stderr() {
        "{bar:30.cyan/dim}"
    } else {
        "{bar:30}"
    }
}

#[cfg(test)]
mod tests {
    use super::wanted;
    use std::ffi::OsStr;

    #[test]
    fn colours_need_a_terminal_and_no_word_against_them() {
        assert!(wanted(true, None));
        assert!(wanted(true, Some(OsStr::new(""))));
        assert!(!wanted(true, Some(OsStr::new("1"))));
        assert!(!wanted(false, None));
    }
}
