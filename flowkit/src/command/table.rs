//! Tables of text for people.

use std::fmt;
use std::fmt::Write as _;

/// Columns of text; a column whose every cell is a number stands to the right.
#[derive(Debug)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these headings.
    pub(crate) fn new(headings: &[&str]) -> Self {
        Self {
            rows: vec![headings.iter().map(|h| (*h).to_owned()).collect()],
        }
    }

    /// Adds a row; missing cells are empty.
    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.to_vec());
    }

    fn cell(&self, row: usize, column: usize) -> &str {
        self.rows[row].get(column).map_or("", String::as_str)
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let layout: Vec<(usize, bool)> = (0..columns)
            .map(|column| {
                let cells = || (0..self.rows.len()).map(|row| self.cell(row, column));
                let width = cells().map(|cell| cell.chars().count()).max();
                let number = |cell: &str| cell.bytes().all(|b| b.is_ascii_digit() || b == b',');
                (width.unwrap_or(0), cells().skip(1).all(number))
            })
            .collect();
        for row in 0..self.rows.len() {
            let mut line = String::new();
            for (column, (width, right)) in layout.iter().enumerate() {
                let cell = self.cell(row, column);
                let gap = if column == 0 { "" } else { "  " };
                if *right {
                    write!(line, "{gap}{cell:>width$}")?;
                } else {
                    write!(line, "{gap}{cell:<width$}")?;
                }
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// A number with its thousands apart.
pub(crate) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// How many faults there are, in words.
pub(crate) fn counted(faults: usize) -> String {
    match faults {
        1 => "1 fault".to_owned(),
        n => format!("{n} faults"),
    }
}

/// A user's text on one line of at most this many characters: what could move a terminal's cursor
/// is shown as an escape.
pub(crate) fn one_line(text: &str, chars_max: usize) -> String {
    let mut shown = String::new();
    for (at, c) in text.chars().enumerate() {
        if at == chars_max {
            shown.push('…');
            break;
        }
        if c.is_control() {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::{Table, counted, one_line, thousands};

    #[test]
    fn text_stands_left_and_numbers_right() {
        let mut table = Table::new(&["node", "batches"]);
        table.row(["scan".to_owned(), thousands(1_234)]);
        table.row(["summarize".to_owned(), thousands(7)]);
        assert_eq!(
            table.to_string(),
            "node       batches\nscan         1,234\nsummarize        7\n"
        );
    }

    #[test]
    fn thousands_stand_apart() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (1_234_567, "1,234,567"),
        ] {
            assert_eq!(thousands(number), text);
        }
    }

    #[test]
    fn one_fault_is_one() {
        let said = [0, 1, 2].map(counted);
        assert_eq!(said, ["0 faults", "1 fault", "2 faults"]);
    }

    #[test]
    fn a_hostile_name_stays_on_its_line() {
        assert_eq!(one_line("a\x1b[2J\nb", 40), "a\\u{1b}[2J\\nb");
        assert_eq!(one_line("abcdef", 3), "abc…");
    }
}
