//! How many weights are pruned: shares, thresholds and patterns. A value of these types is always valid.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The share of weights that are zero, in [0, 1].
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Sparsity(f64);

impl Sparsity {
    /// How many of `n` weights are zero: `sparsity · n`, rounded to the nearest integer.
    pub fn count(self, n: u64) -> u64 {
        ((self.0 * n as f64).round() as u64).min(n)
    }
}

impl TryFrom<f64> for Sparsity {
    type Error = String;
    fn try_from(share: f64) -> Result<Self, String> {
        match share {
            0.0..=1.0 => Ok(Sparsity(share)),
            1.0..=100.0 => Err(format!(
                "sparsity must be between 0 and 1, found {share}; for {share} % write {}",
                share / 100.0
            )),
            _ => Err(format!("sparsity must be between 0 and 1, found {share}")),
        }
    }
}

impl From<Sparsity> for f64 {
    fn from(sparsity: Sparsity) -> f64 {
        sparsity.0
    }
}

impl FromStr for Sparsity {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let share: f64 =
            text.parse().map_err(|_| format!("not a number between 0 and 1: {text:?}"))?;
        Sparsity::try_from(share)
    }
}

/// Importance threshold: the estimated loss from removing a weight alone, as a multiple of the mean over all
/// targets; above 0. Weights below it are pruned.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Price(f64);

impl TryFrom<f64> for Price {
    type Error = String;
    fn try_from(price: f64) -> Result<Self, String> {
        if price > 0.0 && price.is_finite() {
            Ok(Price(price))
        } else {
            Err(format!("price must be above 0 and finite, found {price}"))
        }
    }
}

impl From<Price> for f64 {
    fn from(price: Price) -> f64 {
        price.0
    }
}

impl FromStr for Price {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let price: f64 = text.parse().map_err(|_| format!("not a number above 0: {text:?}"))?;
        Price::try_from(price)
    }
}

/// N kept of each M consecutive inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NmPattern {
    keep: usize,
    group: usize,
}

impl NmPattern {
    /// Largest size of a group.
    const MAX_GROUP: usize = 64;

    /// Weights kept in each group (N).
    pub fn keep(self) -> usize {
        self.keep
    }

    /// Consecutive inputs in a group (M).
    pub fn group(self) -> usize {
        self.group
    }
}

impl fmt::Display for NmPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.keep, self.group)
    }
}

impl FromStr for NmPattern {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("expected N:M with 0 < N < M <= {}, found {text:?}", Self::MAX_GROUP);
        let (keep, group) = text.split_once(':').ok_or_else(bad)?;
        let (keep, group) = (keep.parse().map_err(|_| bad())?, group.parse().map_err(|_| bad())?);
        let ok = 0 < keep && keep < group && group <= Self::MAX_GROUP;
        if ok { Ok(NmPattern { keep, group }) } else { Err(bad()) }
    }
}

impl TryFrom<String> for NmPattern {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<NmPattern> for String {
    fn from(pattern: NmPattern) -> String {
        pattern.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sparsity_counts_are_rounded_to_the_nearest() {
        let count = |share: &str, n| share.parse::<Sparsity>().expect("valid").count(n);
        assert_eq!(count("0.29", 100), 29);
        assert_eq!(count("0", 7), 0);
        assert_eq!(count("1", 7), 7);
        assert_eq!(count("0.5", 3), 2);
        let fifty = "50".parse::<Sparsity>().expect_err("a percentage");
        assert!(fifty.ends_with("for 50 % write 0.5"), "{fifty}");
        assert!("1.01".parse::<Sparsity>().is_err());
        assert!("NaN".parse::<Sparsity>().is_err());
        assert!("-0.1".parse::<Sparsity>().is_err());
    }

    #[test]
    fn prices_are_above_zero_and_finite() {
        assert_eq!("0.02".parse::<Price>().map(f64::from), Ok(0.02));
        for bad in ["0", "-1", "inf", "NaN", "x"] {
            assert!(bad.parse::<Price>().is_err(), "{bad}");
        }
    }

    #[test]
    fn patterns_say_how_many_are_kept() {
        let pattern: NmPattern = "2:4".parse().expect("valid");
        assert_eq!((pattern.keep(), pattern.group()), (2, 4));
        assert_eq!(pattern.to_string(), "2:4");
        for bad in ["4:4", "0:4", "2", "2:", "a:b", "5:4", "2:100", "-1:4"] {
            assert!(bad.parse::<NmPattern>().is_err(), "{bad}");
        }
    }
}
