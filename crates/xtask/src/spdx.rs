//! Licence expressions: whether the licences we allow satisfy one.
//!
//! Grammar: identifiers, `WITH exception`, `AND`, `OR`, parentheses; the old `/` reads as `OR`. What does not parse
//! is satisfied by nothing. Source: SPDX specification 2.3, annex D.

/// Whether `expression` can be met with the licences for which `allows` is true. An exception only widens what a
/// licence permits, so `X WITH e` is met where either `X` or the whole is allowed.
pub(crate) fn is_met(expression: &str, allows: &dyn Fn(&str) -> bool) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let mut parser = Parser { words: spaced.split_whitespace().collect(), at: 0, allows };
    let met = parser.any_of();
    met == Some(true) && parser.at == parser.words.len()
}

struct Parser<'a> {
    words: Vec<&'a str>,
    at: usize,
    allows: &'a dyn Fn(&str) -> bool,
}

impl<'a> Parser<'a> {
    fn any_of(&mut self) -> Option<bool> {
        let mut met = self.all_of()?;
        while self.takes("OR") {
            met |= self.all_of()?;
        }
        Some(met)
    }

    fn all_of(&mut self) -> Option<bool> {
        let mut met = self.one()?;
        while self.takes("AND") {
            met &= self.one()?;
        }
        Some(met)
    }

    fn one(&mut self) -> Option<bool> {
        if self.takes("(") {
            let met = self.any_of()?;
            return self.takes(")").then_some(met);
        }
        let licence = self.word()?;
        if ["OR", "AND", "WITH", ")"].contains(&licence) {
            return None;
        }
        let mut met = (self.allows)(licence);
        if self.takes("WITH") {
            met |= (self.allows)(&format!("{licence} WITH {}", self.word()?));
        }
        Some(met)
    }

    fn takes(&mut self, word: &str) -> bool {
        let found = self.words.get(self.at) == Some(&word);
        self.at += usize::from(found);
        found
    }

    fn word(&mut self) -> Option<&'a str> {
        let word = self.words.get(self.at).copied();
        self.at += usize::from(word.is_some());
        word
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn met(expression: &str) -> bool {
        is_met(expression, &|licence| ["MIT", "Apache-2.0", "ISC"].contains(&licence))
    }

    #[test]
    fn one_allowed_choice_is_enough_and_every_part_of_a_sum_is_needed() {
        for expression in
            ["MIT", "MIT OR GPL-3.0", "GPL-3.0/MIT", "(MIT OR GPL-3.0) AND ISC", "LGPL-2.1 OR MIT AND ISC"]
        {
            assert!(met(expression), "{expression}");
        }
        for expression in
            ["GPL-3.0", "MIT AND GPL-3.0", "(MIT OR ISC) AND GPL-3.0", "GPL-3.0 OR ISC AND MPL-2.0"]
        {
            assert!(!met(expression), "{expression}");
        }
    }

    #[test]
    fn an_exception_widens_a_licence() {
        assert!(met("Apache-2.0 WITH LLVM-exception"));
        assert!(!met("GPL-3.0 WITH Classpath-exception-2.0"));
        assert!(is_met("GPL-3.0 WITH x", &|licence| licence == "GPL-3.0 WITH x"));
    }

    #[test]
    fn what_does_not_parse_is_met_by_nothing() {
        for expression in ["", "(MIT", "MIT)", "MIT MIT", "OR MIT", "MIT OR", "MIT WITH", "AND"] {
            assert!(!met(expression), "{expression:?}");
        }
    }
}
