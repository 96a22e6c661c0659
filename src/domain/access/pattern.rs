//! Patterns for names of tasks.

use std::{fmt, sync::Arc};

/// A pattern that the whole name of a task must match: `*` stands for any characters, also none,
/// `?` for any one, everything else for itself.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct NamePattern(Arc<str>);

impl NamePattern {
    /// Accepts 1 to 255 bytes without control characters.
    pub fn parse(text: &str) -> Option<Self> {
        let fits = (1..=255).contains(&text.len());
        (fits && !text.contains(char::is_control)).then(|| Self(Arc::from(text)))
    }

    /// The pattern as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the pattern stands for this name. Takes at most as many steps as the product of the
    /// two lengths.
    pub fn matches(&self, name: &str) -> bool {
        let (mut pattern, mut rest) = (self.0.chars(), name.chars());
        // What follows the last star, and what of the name is left if the star takes one character
        // more.
        let mut retry = None;
        loop {
            let at_rest = rest.clone();
            match (pattern.next(), rest.next()) {
                (None, None) => return true,
                (Some('*'), _) => {
                    rest = at_rest;
                    retry = Some((pattern.clone(), rest.clone()));
                }
                (Some(wanted), Some(found)) if wanted == '?' || wanted == found => {}
                _ => {
                    let Some((after_star, left)) = &mut retry else {
                        return false;
                    };
                    if left.next().is_none() {
                        return false;
                    }
                    pattern = after_star.clone();
                    rest = left.clone();
                }
            }
        }
    }
}

impl fmt::Debug for NamePattern {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:?}", &*self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::NamePattern;

    fn matches(pattern: &str, name: &str) -> bool {
        NamePattern::parse(pattern).unwrap().matches(name)
    }

    /// The definition, as short as it can be said and as slow as it likes.
    fn defined(pattern: &[char], name: &[char]) -> bool {
        match (pattern.split_first(), name.split_first()) {
            (None, None) => true,
            (Some(('*', rest)), Some((_, left))) => defined(rest, name) || defined(pattern, left),
            (Some(('*', rest)), None) => defined(rest, name),
            (Some(('?', rest)), Some((_, left))) => defined(rest, left),
            (Some((wanted, rest)), Some((found, left))) if wanted == found => defined(rest, left),
            _ => false,
        }
    }

    #[test]
    fn the_whole_name_must_match() {
        for (pattern, name, expected) in [
            ("logs", "logs", true),
            ("logs", "logs-2", false),
            ("logs", "Logs", false),
            ("logs-*", "logs-", true),
            ("logs-*", "logs-2026", true),
            ("logs-*", "old-logs-2026", false),
            ("*", "", true),
            ("?", "", false),
            ("?", "ü", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("*.bak", "x.bak.bak", true),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn a_pattern_full_of_stars_ends_soon_on_a_name_that_does_not_match() {
        let slow = "*a".repeat(100) + "b";
        assert!(!matches(&slow, &"a".repeat(255)));
    }

    proptest! {
        #[test]
        fn matching_is_what_its_definition_says(pattern in "[ab*?]{1,8}", name in "[ab]{0,8}") {
            let (p, n): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
            prop_assert_eq!(matches(&pattern, &name), defined(&p, &n));
        }
    }

    #[test]
    fn a_pattern_is_bounded_and_has_no_control_characters() {
        assert!(NamePattern::parse("").is_none());
        assert!(NamePattern::parse(&"x".repeat(256)).is_none());
        assert!(NamePattern::parse("a\nb").is_none());
        assert!(NamePattern::parse("Ümlaut ?*").is_some());
    }
}
