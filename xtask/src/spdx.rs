//! SPDX licence expressions (SPDX 2.3, annex D): parsed, and held against a list of allowed licences.
//!
//! `WITH` binds tighter than `AND`, and `AND` tighter than `OR`. The slash of old manifests
//! (`MIT/Apache-2.0`) is an `OR`, as crates.io defines it.

/// An expression.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Expression {
    /// One licence, with its exception if it has one. A `+` behind the licence is dropped: the version named
    /// is one of those offered.
    Licence(String, Option<String>),
    /// All of them at once.
    And(Vec<Expression>),
    /// One of them, as one likes.
    Or(Vec<Expression>),
}

impl Expression {
    /// Parses an expression.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut spaced = String::with_capacity(text.len() + 8);
        for c in text.chars() {
            match c {
                '(' | ')' => spaced.extend([' ', c, ' ']),
                '/' => spaced.push_str(" OR "),
                _ => spaced.push(c),
            }
        }
        let tokens: Vec<&str> = spaced.split_whitespace().collect();
        let mut parser = Parser { tokens: &tokens };
        let expression = parser.or(0)?;
        match parser.tokens.first() {
            None => Ok(expression),
            Some(token) => Err(format!("'{token}' is not expected there")),
        }
    }

    /// Whether the terms can be met with allowed licences only. An exception only adds permissions, so it
    /// does not matter which.
    pub(crate) fn allows(&self, allowed: &[&str]) -> bool {
        match self {
            Self::Licence(id, _) => allowed.contains(&id.as_str()),
            Self::And(parts) => parts.iter().all(|part| part.allows(allowed)),
            Self::Or(parts) => parts.iter().any(|part| part.allows(allowed)),
        }
    }
}

/// How deep parentheses may be.
const DEPTH_MAX: usize = 32;

struct Parser<'a> {
    tokens: &'a [&'a str],
}

impl Parser<'_> {
    fn take(&mut self, wanted: &str) -> bool {
        let found = self.tokens.first().is_some_and(|token| token.eq_ignore_ascii_case(wanted));
        if found {
            self.tokens = &self.tokens[1..];
        }
        found
    }

    fn or(&mut self, depth: usize) -> Result<Expression, String> {
        let mut parts = vec![self.and(depth)?];
        while self.take("OR") {
            parts.push(self.and(depth)?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Expression::Or(parts) })
    }

    fn and(&mut self, depth: usize) -> Result<Expression, String> {
        let mut parts = vec![self.term(depth)?];
        while self.take("AND") {
            parts.push(self.term(depth)?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Expression::And(parts) })
    }

    fn term(&mut self, depth: usize) -> Result<Expression, String> {
        if self.take("(") {
            if depth == DEPTH_MAX {
                return Err(format!("more than {DEPTH_MAX} parentheses"));
            }
            let inner = self.or(depth + 1)?;
            return if self.take(")") { Ok(inner) } else { Err("a ')' is missing".into()) };
        }
        let licence = self.id()?;
        let exception = if self.take("WITH") { Some(self.id()?) } else { None };
        Ok(Expression::Licence(licence.trim_end_matches('+').to_owned(), exception))
    }

    fn id(&mut self) -> Result<String, String> {
        let Some((token, rest)) = self.tokens.split_first() else {
            return Err("it ends where a licence is expected".into());
        };
        let is_word = ["AND", "OR", "WITH"].iter().any(|word| token.eq_ignore_ascii_case(word));
        let fits = token.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.+:".contains(&b));
        if is_word || !fits {
            return Err(format!("'{token}' stands where a licence is expected"));
        }
        self.tokens = rest;
        Ok((*token).to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALLOWED: &[&str] = &["MIT", "Apache-2.0", "Unicode-3.0"];

    fn allows(text: &str) -> bool {
        Expression::parse(text).unwrap().allows(ALLOWED)
    }

    #[test]
    fn one_allowed_alternative_is_enough_and_every_joint_licence_is_needed() {
        assert!(allows("MIT"));
        assert!(allows("GPL-3.0-only OR MIT"));
        assert!(allows("Unlicense/MIT"));
        assert!(allows("(MIT OR GPL-2.0) AND Unicode-3.0"));
        assert!(allows("Apache-2.0 WITH LLVM-exception OR GPL-2.0"));
        assert!(allows("Apache-2.0+"));
        assert!(!allows("MIT AND OpenSSL"));
        assert!(!allows("GPL-3.0-only"));
        assert!(!allows("LGPL-2.1-or-later WITH LLVM-exception"));
    }

    #[test]
    fn and_binds_tighter_than_or() {
        assert!(allows("MIT OR MIT AND GPL-2.0"));
        assert!(allows("GPL-2.0 AND MIT OR MIT"));
        assert!(!allows("GPL-2.0 AND (MIT OR MIT)"));
    }

    #[test]
    fn what_is_not_an_expression_is_refused_with_the_place() {
        for (text, says) in [
            ("", "ends"),
            ("MIT OR", "ends"),
            ("MIT Apache-2.0", "'Apache-2.0'"),
            ("(MIT", "')'"),
            ("MIT)", "')'"),
            ("AND MIT", "'AND'"),
            ("see file", "'file'"),
            ("MIT, BSD", "'MIT,'"),
        ] {
            let error = Expression::parse(text).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
        assert!(Expression::parse(&"(".repeat(100_000)).is_err());
    }
}
