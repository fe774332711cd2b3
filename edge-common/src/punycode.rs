//! The ASCII form of a label in another script: `xn--` and Punycode (RFC 3492).
//!
//! Only servers inside may have such names, and only this direction is needed: DNS and certificates carry the ASCII
//! form, so everything behind the configuration compares that.
#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

/// The label as it stands in DNS (RFC 5890 §2.3.2.1), letters in lower case; `None` when it is too long for DNS.
#[must_use]
pub fn to_ascii(label: &str) -> Option<String> {
    let lower = label.to_lowercase();
    if lower.is_ascii() {
        return Some(lower);
    }
    // The ASCII form is never shorter, and the work below grows with the square of the length.
    if lower.chars().count() > LABEL_LEN_MAX {
        return None;
    }
    let encoded = format!("{PREFIX}{}", encode(&lower)?);
    (encoded.len() <= LABEL_LEN_MAX).then_some(encoded)
}

/// RFC 3492 §6.3, with its names.
fn encode(label: &str) -> Option<String> {
    let code_points: Vec<u32> = label.chars().map(u32::from).collect();
    let mut output: String = label.chars().filter(char::is_ascii).collect();
    let basic = u32::try_from(output.len()).ok()?;
    if basic > 0 {
        output.push('-');
    }
    let (mut n, mut delta, mut bias) = (INITIAL_N, 0_u32, INITIAL_BIAS);
    let mut handled = basic;
    while (handled as usize) < code_points.len() {
        let next = code_points
            .iter()
            .copied()
            .filter(|point| *point >= n)
            .min()?;
        delta = delta.checked_add((next - n).checked_mul(handled + 1)?)?;
        n = next;
        for &point in &code_points {
            if point < n {
                delta = delta.checked_add(1)?;
            }
            if point == n {
                write_number(delta, bias, &mut output);
                bias = adapt(delta, handled + 1, handled == basic);
                delta = 0;
                handled += 1;
            }
        }
        (delta, n) = (delta.checked_add(1)?, n + 1);
    }
    Some(output)
}

/// A number in digits whose weights follow from `bias` (RFC 3492 §3.3).
fn write_number(number: u32, bias: u32, output: &mut String) {
    let mut rest = number;
    let mut k = BASE;
    loop {
        let threshold = k.saturating_sub(bias).clamp(T_MIN, T_MAX);
        if rest < threshold {
            break;
        }
        output.push(digit(threshold + (rest - threshold) % (BASE - threshold)));
        rest = (rest - threshold) / (BASE - threshold);
        k += BASE;
    }
    output.push(digit(rest));
}

/// RFC 3492 §6.1.
const fn adapt(delta: u32, points: u32, first: bool) -> u32 {
    let mut delta = if first { delta / DAMP } else { delta / 2 };
    delta += delta / points;
    let mut k = 0;
    while delta > ((BASE - T_MIN) * T_MAX) / 2 {
        delta /= BASE - T_MIN;
        k += BASE;
    }
    k + (BASE - T_MIN + 1) * delta / (delta + SKEW)
}

/// `a` to `z`, then `0` to `9`.
fn digit(value: u32) -> char {
    char::from_digit((value + 10) % BASE, BASE).expect("below the base")
}

/// RFC 5890 §2.3.2.1.
const PREFIX: &str = "xn--";
/// RFC 1035 §2.3.4.
const LABEL_LEN_MAX: usize = 63;
/// RFC 3492 §5.
const BASE: u32 = 36;
const T_MIN: u32 = 1;
const T_MAX: u32 = 26;
const SKEW: u32 = 38;
const DAMP: u32 = 700;
const INITIAL_BIAS: u32 = 72;
const INITIAL_N: u32 = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_labels() {
        for (label, ascii) in [
            ("Edge1", "edge1"),
            ("b\u{fc}cher", "xn--bcher-kva"),
            ("M\u{dc}NCHEN", "xn--mnchen-3ya"),
            ("\u{2603}", "xn--n3h"),
            ("\u{6d4b}\u{8bd5}", "xn--0zwm56d"),
            (
                "\u{438}\u{441}\u{43f}\u{44b}\u{442}\u{430}\u{43d}\u{438}\u{435}",
                "xn--80akhbyknj4f",
            ),
            // RFC 3492 §7.1 (B).
            (
                "\u{4ed6}\u{4eec}\u{4e3a}\u{4ec0}\u{4e48}\u{4e0d}\u{8bf4}\u{4e2d}\u{6587}",
                "xn--ihqwcrb4cv8a8dqg056pqjye",
            ),
        ] {
            assert_eq!(to_ascii(label).as_deref(), Some(ascii), "{label}");
        }
    }

    #[test]
    fn what_does_not_fit_a_label_has_no_form() {
        assert_eq!(to_ascii(&"\u{fc}".repeat(64)), None);
        assert_eq!(to_ascii(&format!("{}\u{fc}", "a".repeat(60))), None);
        assert!(to_ascii(&"\u{fc}".repeat(40)).is_some());
    }

    proptest::proptest! {
        #[test]
        fn any_label_becomes_ascii_or_nothing(label in "\\PC{0,70}") {
            if let Some(ascii) = to_ascii(&label) {
                proptest::prop_assert!(ascii.is_ascii());
                proptest::prop_assert_eq!(to_ascii(&ascii), Some(ascii.to_lowercase()));
            }
        }
    }
}
