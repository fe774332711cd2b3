//! Patterns of what the edge sends: `*` stands for anything, `{name}` as well, and keeps it.
#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

use std::collections::BTreeMap;

/// What was kept so far.
pub(super) type Kept = BTreeMap<String, String>;

/// Puts what was kept into a text that is sent; what is in braces and not known stays.
pub(super) fn fill(text: &str, kept: &Kept) -> String {
    let mut filled = text.to_owned();
    for (name, value) in kept {
        filled = filled.replace(&format!("{{{name}}}"), value);
    }
    filled
}

/// Whether `text` is what `pattern` says; what its names stand for is kept then. A name that is known already has to
/// stand for the same.
pub(super) fn matches(pattern: &str, text: &str, kept: &mut Kept) -> bool {
    let mut found = kept.clone();
    let matched = walk(&fill(pattern, kept), text, &mut found);
    if matched {
        *kept = found;
    }
    matched
}

fn walk(pattern: &str, text: &str, found: &mut Kept) -> bool {
    let Some(at) = pattern.find(['*', '{']) else {
        return pattern == text;
    };
    let Some(rest) = text.strip_prefix(&pattern[..at]) else {
        return false;
    };
    let (name, after) = match pattern[at..].strip_prefix('{') {
        None => (None, &pattern[at + 1..]),
        Some(named) => match named.split_once('}') {
            Some((name, after)) => (Some(name), after),
            None => return pattern == text,
        },
    };
    // The shortest that lets the rest match.
    let ends = (0..=rest.len()).filter(|&end| rest.is_char_boundary(end));
    for end in ends {
        let mut attempt = found.clone();
        if let Some(name) = name {
            attempt.insert(name.to_owned(), rest[..end].to_owned());
        }
        if walk(after, &rest[end..], &mut attempt) {
            *found = attempt;
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_keeps_what_it_names_and_holds_it_to_that() {
        let mut kept = Kept::new();
        assert!(matches("<sip:{flow}@a;*>", "<sip:xyz@a;lr>", &mut kept));
        assert_eq!(kept["flow"], "xyz");
        assert!(!matches("<sip:{flow}@a>", "<sip:other@a>", &mut kept));
        assert!(matches("* {rest}", "a b c", &mut kept));
        assert_eq!(kept["rest"], "b c");
        assert_eq!(
            fill("Route: <sip:{flow}@{else}>", &kept),
            "Route: <sip:xyz@{else}>"
        );
        assert!(!matches("abc", "abcd", &mut kept) && !matches("abcd", "abc", &mut kept));
    }
}
