//! SPDX licence expressions, as far as crates use them: names, `WITH`, `OR`, `AND`, parentheses,
//! and the old `/` for `OR`.

use std::collections::BTreeSet;

/// Whether someone who accepts `allowed` may use something under `expression`.
///
/// # Errors
/// When the text is no licence expression.
pub(crate) fn permits(expression: &str, allowed: &BTreeSet<String>) -> Result<bool, String> {
    let spaced = expression
        .replace('/', " OR ")
        .replace('(', " ( ")
        .replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut parser = Parser {
        words: &words,
        at: 0,
        allowed,
    };
    let permitted = parser.any()?;
    match parser.words.get(parser.at) {
        None => Ok(permitted),
        Some(word) => Err(format!("unexpected `{word}` in `{expression}`")),
    }
}

struct Parser<'a> {
    words: &'a [&'a str],
    at: usize,
    allowed: &'a BTreeSet<String>,
}

impl Parser<'_> {
    fn take(&mut self, word: &str) -> bool {
        let found = self.words.get(self.at) == Some(&word);
        self.at += usize::from(found);
        found
    }

    fn any(&mut self) -> Result<bool, String> {
        let mut permitted = self.all()?;
        while self.take("OR") {
            permitted |= self.all()?;
        }
        Ok(permitted)
    }

    fn all(&mut self) -> Result<bool, String> {
        let mut permitted = self.one()?;
        while self.take("AND") {
            permitted &= self.one()?;
        }
        Ok(permitted)
    }

    fn one(&mut self) -> Result<bool, String> {
        if self.take("(") {
            let permitted = self.any()?;
            if !self.take(")") {
                return Err("a `(` is not closed".to_owned());
            }
            return Ok(permitted);
        }
        let name = match self.words.get(self.at) {
            Some(word) if !["OR", "AND", "WITH", ")"].contains(word) => *word,
            Some(word) => return Err(format!("a licence name expected, `{word}` found")),
            None => return Err("a licence name is missing at the end".to_owned()),
        };
        self.at += 1;
        if !self.take("WITH") {
            return Ok(self.allowed.contains(name));
        }
        let exception = self
            .words
            .get(self.at)
            .ok_or_else(|| "an exception's name is missing after WITH".to_owned())?;
        self.at += 1;
        // An exception only adds rights: the plain licence being allowed is enough.
        Ok(self.allowed.contains(name)
            || self.allowed.contains(&format!("{name} WITH {exception}")))
    }
}

#[cfg(test)]
mod tests {
    use super::permits;
    use std::collections::BTreeSet;

    fn allowed() -> BTreeSet<String> {
        ["MIT", "Apache-2.0", "Unicode-3.0"]
            .map(str::to_owned)
            .into()
    }

    #[test]
    fn expressions_are_judged_as_written() {
        for (expression, expected) in [
            ("MIT", true),
            ("GPL-3.0", false),
            ("MIT OR GPL-3.0", true),
            ("MIT/GPL-3.0", true),
            ("MIT AND GPL-3.0", false),
            ("(MIT OR Apache-2.0) AND Unicode-3.0", true),
            ("(MIT OR Apache-2.0) AND NCSA", false),
            ("GPL-3.0 OR MIT AND Unicode-3.0", true),
            ("Apache-2.0 WITH LLVM-exception", true),
            ("GPL-2.0 WITH Classpath-exception-2.0", false),
        ] {
            assert_eq!(
                permits(expression, &allowed()),
                Ok(expected),
                "{expression}"
            );
        }
    }

    #[test]
    fn what_is_no_expression_is_an_error() {
        for expression in ["", "MIT OR", "(MIT", "MIT)", "MIT Apache-2.0", "AND MIT"] {
            assert!(permits(expression, &allowed()).is_err(), "{expression}");
        }
    }
}
