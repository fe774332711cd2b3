//! Which known word was meant by a mistyped one.

/// The word of `known` that is fewest edits away from `typed`, when that is near enough to be a slip.
pub(super) fn nearest<'k>(
    typed: &str,
    known: impl IntoIterator<Item = &'k str>,
) -> Option<&'k str> {
    // Measuring costs the product of the lengths, and no known word is that long.
    if typed.len() > TYPED_LEN_MAX {
        return None;
    }
    let slips_max = (typed.chars().count() / 3).max(1);
    known
        .into_iter()
        .map(|word| (distance(typed, word), word))
        .filter(|(slips, _)| *slips <= slips_max)
        .min()
        .map(|(_, word)| word)
}

/// Insertions, removals, replacements and swaps of neighbours that lead from one word to the other.
fn distance(from: &str, to: &str) -> usize {
    let (from, to): (Vec<char>, Vec<char>) = (from.chars().collect(), to.chars().collect());
    let mut rows: [Vec<usize>; 3] = [Vec::new(), Vec::new(), (0..=to.len()).collect()];
    for i in 1..=from.len() {
        rows.rotate_left(1);
        let mut row = vec![i];
        for j in 1..=to.len() {
            let (last, before) = (&rows[1], &rows[0]);
            let same = usize::from(from[i - 1] != to[j - 1]);
            let mut least = (last[j] + 1).min(row[j - 1] + 1).min(last[j - 1] + same);
            if i > 1 && j > 1 && from[i - 1] == to[j - 2] && from[i - 2] == to[j - 1] {
                least = least.min(before[j - 2] + 1);
            }
            row.push(least);
        }
        rows[2] = row;
    }
    rows[2][to.len()]
}

const TYPED_LEN_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_are_counted() {
        for (from, to, edits) in [
            ("", "", 0),
            ("", "abc", 3),
            ("abc", "", 3),
            ("client_prot", "client_port", 1),
            ("fqnd", "fqdn", 1),
            ("kitten", "sitting", 3),
        ] {
            assert_eq!(distance(from, to), edits, "{from} {to}");
            assert_eq!(distance(to, from), edits, "{to} {from}");
        }
    }

    #[test]
    fn a_slip_finds_its_word_and_nonsense_finds_none() {
        let known = ["client_port", "federation_port", "internal_port", "fqdn"];
        assert_eq!(nearest("client_prot", known), Some("client_port"));
        assert_eq!(nearest("fqn", known), Some("fqdn"));
        assert_eq!(nearest("password", known), None);
        assert_eq!(nearest(&"x".repeat(100_000), known), None);
    }
}
