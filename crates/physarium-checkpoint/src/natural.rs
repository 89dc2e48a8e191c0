//! The natural order of names: numbers in them count as numbers, so that layer 2 comes before layer 10.

use std::cmp::Ordering;

/// Items in the natural order of their names.
pub fn sorted_naturally<T>(items: impl Iterator<Item = T>, name: impl Fn(&T) -> &str) -> Vec<T> {
    let mut items: Vec<T> = items.collect();
    items.sort_by(|a, b| compare(name(a), name(b)));
    items
}

/// Compares two names; two different names are never equal.
fn compare(a: &str, b: &str) -> Ordering {
    let (mut rest_a, mut rest_b) = (a.as_bytes(), b.as_bytes());
    while let (Some(&byte_a), Some(&byte_b)) = (rest_a.first(), rest_b.first()) {
        if byte_a.is_ascii_digit() && byte_b.is_ascii_digit() {
            let (number_a, number_b);
            (number_a, rest_a) = split_number(rest_a);
            (number_b, rest_b) = split_number(rest_b);
            // Without leading zeros, the longer of two numbers is the larger.
            let by_length = number_a.len().cmp(&number_b.len());
            match by_length.then_with(|| number_a.cmp(number_b)) {
                Ordering::Equal => continue,
                other => return other,
            }
        }
        if byte_a != byte_b {
            return byte_a.cmp(&byte_b);
        }
        (rest_a, rest_b) = (&rest_a[1..], &rest_b[1..]);
    }
    rest_a.len().cmp(&rest_b.len()).then_with(|| a.cmp(b))
}

/// The digits at the beginning without leading zeros, and the rest.
fn split_number(text: &[u8]) -> (&[u8], &[u8]) {
    let end = text.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    let zeros = digits.iter().take_while(|digit| **digit == b'0').count();
    (&digits[zeros..], rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_names_count_as_numbers() {
        let names = ["l.10.q", "l.2.q", "l.1.q", "l.q", "l.02.q", "l.0.q", "l.1.k", "l", "m.0", ""];
        let expected =
            ["", "l", "l.0.q", "l.1.k", "l.1.q", "l.02.q", "l.2.q", "l.10.q", "l.q", "m.0"];
        assert_eq!(sorted_naturally(names.into_iter(), |name| name), expected);
        let long = ["9".repeat(40), "1".repeat(41), "0".repeat(50)];
        let order = sorted_naturally(long.iter(), |name| name);
        assert_eq!(order, [&long[2], &long[0], &long[1]]);
    }
}
