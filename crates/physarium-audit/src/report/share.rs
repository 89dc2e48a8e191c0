//! A share: a part of a named whole. A percentage is never printed without its denominator.

use serde::{Deserialize, Serialize};

/// `part` of `whole`, with the name of the whole.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Share {
    /// The counted part.
    pub part: u64,
    /// The denominator.
    pub whole: u64,
    /// What the denominator counts: `target`, `model`, `original` (all of the original), or a projection's name.
    pub of: String,
    /// `part / whole`; `None` if the whole is 0.
    pub share: Option<f64>,
}

impl Share {
    /// The share of `part` in `whole`.
    pub fn new(part: u64, whole: u64, of: impl Into<String>) -> Share {
        let share = (whole != 0).then(|| part as f64 / whole as f64);
        Share { part, whole, of: of.into(), share }
    }

    /// `22.22 % of target`, rounded half up from the exact quotient; `none of target (0 of 0)` if the target is
    /// empty.
    pub fn sentence(&self) -> String {
        match self.whole {
            0 => format!("none of {} ({} of 0)", self.of, grouped(self.part)),
            _ => format!("{} of {}", self.percent(), self.of),
        }
    }

    /// `22.22 %`, for a place that names the denominator.
    pub(crate) fn percent(&self) -> String {
        self.with_decimals(2)
    }

    /// [`Share::percent`] with this number of decimals.
    pub(crate) fn with_decimals(&self, decimals: u32) -> String {
        match self.whole {
            0 => format!("none ({} of 0)", grouped(self.part)),
            _ => format!("{} %", percent(self.part, self.whole, decimals)),
        }
    }
}

/// `part / whole` in percent with `decimals` decimals, rounded half up in exact arithmetic.
///
/// # Panics
/// If `whole` is 0.
#[track_caller]
pub(crate) fn percent(part: u64, whole: u64, decimals: u32) -> String {
    assert_ne!(whole, 0, "there is no share of nothing");
    let scale = 10u128.pow(decimals);
    let (part, whole) = (u128::from(part), u128::from(whole));
    let units = (200 * scale * part + whole) / (2 * whole);
    let (integer, fraction) = (units / scale, units % scale);
    match decimals {
        0 => integer.to_string(),
        d => format!("{integer}.{fraction:0width$}", width = d as usize),
    }
}

/// Whether `part / whole` in percent rounds to `units / 10^decimals`. A quotient exactly halfway between
/// two values rounds to both.
pub(crate) fn rounds_to(part: u64, whole: u64, units: u128, decimals: u32) -> bool {
    if whole == 0 {
        return false;
    }
    let exact = 200 * 10u128.pow(decimals) * u128::from(part);
    let claimed = 2 * units * u128::from(whole);
    exact.abs_diff(claimed) <= u128::from(whole)
}

/// A count as reports print it: digits in groups of three.
pub fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_are_rounded_from_the_exact_quotient() {
        assert_eq!(percent(1_450_103_613, 6_525_288_448, 2), "22.22");
        assert_eq!(percent(1_450_103_613, 7_615_616_512, 2), "19.04");
        assert_eq!(percent(1, 8, 1), "12.5");
        assert_eq!(percent(1, 8, 0), "13");
        assert_eq!(percent(5, 5, 0), "100");
    }

    #[test]
    fn there_is_no_share_of_nothing() {
        let none = Share::new(0, 0, "target");
        assert_eq!(none.sentence(), "none of target (0 of 0)");
        assert_eq!((none.percent().as_str(), none.share), ("none (0 of 0)", None));
        assert_eq!(serde_json::to_value(&none).expect("a share")["share"], serde_json::Value::Null);
        assert_eq!(Share::new(0, 5, "target").sentence(), "0.00 % of target");
    }

    #[test]
    fn a_claim_is_true_when_the_share_rounds_to_it() {
        assert!(rounds_to(1_450_103_613, 6_525_288_448, 2222, 2));
        assert!(!rounds_to(1_450_103_613, 6_525_288_448, 2223, 2));
        assert!(rounds_to(1, 8, 13, 0) && rounds_to(1, 8, 12, 0));
        assert!(!rounds_to(1, 0, 0, 0));
    }

    #[test]
    fn digits_are_grouped_by_three() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(7_615_616_512), "7,615,616,512");
    }
}
