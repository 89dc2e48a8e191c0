/*!
The recipe: everything about a run that decides the output's bytes, and nothing else.

It stands in the journal's first line and in the manifest. Two runs with equal recipes on equal
input give equal bytes; thread counts and paths are not in it.
*/

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::plan::Selection;

/// How weights are chosen, and which.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// How weights are chosen.
    pub method: Method,
    /// `--target` globs; empty means the default projections.
    pub target: Vec<String>,
    /// `--skip` globs.
    pub skip: Vec<String>,
    /// What NaN and infinite weights in a target do.
    pub non_finite: NonFinite,
}

impl Recipe {
    /// What the method sees and is asked for, if it sees activations.
    pub fn calibrated(&self) -> Option<&Calibrated> {
        match &self.method {
            Method::Wanda(calibrated)
            | Method::SparseGpt(calibrated)
            | Method::ActivationFlow(calibrated) => Some(calibrated),
            Method::MagnitudeFlow { .. } | Method::Exact { .. } | Method::Pattern { .. } => None,
        }
    }

    /// Whether weights that survive may change.
    pub fn refits(&self) -> bool {
        matches!(self.method, Method::SparseGpt(_) | Method::ActivationFlow(_))
    }

    /// The recipe's globs.
    pub fn selection(&self) -> Selection {
        Selection { target: self.target.clone(), skip: self.skip.clone() }
    }

    /// Edge of the tiles that are decided one by one; `None` when the method knows no tiles.
    pub fn tile_edge(&self) -> Option<u64> {
        match self.method {
            Method::MagnitudeFlow { block_size, .. }
            | Method::Exact { scope: Scope::Tile { block_size }, .. } => Some(block_size),
            Method::Exact { scope: Scope::Tensor | Scope::Model, .. }
            | Method::Pattern { .. }
            | Method::Wanda(_)
            | Method::SparseGpt(_)
            | Method::ActivationFlow(_) => None,
        }
    }
}

/// How weights are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "kebab-case")]
pub enum Method {
    /// Conductances adapt under a conserved flow in each tile; what dies is pruned. The sparsity
    /// emerges.
    MagnitudeFlow {
        /// Edge of a tile, in weights.
        block_size: u64,
        /// The dynamics.
        #[serde(flatten)]
        flow: FlowRecipe,
    },
    /// Exactly this share of each scope: the smallest magnitudes, ties by position.
    #[serde(rename = "magnitude")]
    Exact {
        /// Share that is zero afterwards.
        sparsity: Sparsity,
        /// Over what the share is taken.
        #[serde(flatten)]
        scope: Scope,
    },
    /// N kept of each M consecutive inputs: the largest magnitudes.
    #[serde(rename = "magnitude-pattern")]
    Pattern {
        /// N and M.
        pattern: NmPattern,
    },
    /// The smallest |w| ‖x‖ of each row (Sun et al. 2023).
    Wanda(Calibrated),
    /// Column by column, the rest makes up for it (Frantar and Alistarh 2023).
    #[serde(rename = "sparsegpt")]
    SparseGpt(Calibrated),
    /// Conductances adapt to the flow that reproduces the dense model's outputs.
    ActivationFlow(Calibrated),
}

/// What a method that sees activations is asked for, and what it sees.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Calibrated {
    /// How many weights are zero afterwards.
    #[serde(flatten)]
    pub amount: Amount,
    /// The text that statistics come from.
    pub calibration: Calibration,
}

/// How many weights are zero afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Amount {
    /// This share of each tensor.
    Sparsity(Sparsity),
    /// This share of all targets together, most where the model's predictions feel it least.
    ModelSparsity(Sparsity),
    /// Every weight whose removal is felt less than this many times the mean, over all targets.
    Price(Price),
    /// All but N of each M consecutive inputs.
    Pattern(NmPattern),
}

/// Windows of a text that statistics come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Calibration {
    /// Digest of the text's file.
    pub text_sha256: Digest,
    /// Tokens that are used.
    pub tokens: u64,
    /// Tokens that the model sees at once.
    pub window: u64,
    /// What chooses windows where the text has more than are used.
    pub seed: u64,
}

/// Parameters of the magnitude flow.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct FlowRecipe {
    /// Steps of the dynamics.
    pub iterations: u32,
    /// Exponent of the response.
    pub beta: f64,
    /// Mean flow per tube.
    pub inflow: f64,
}

/// Over what an exact sparsity is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "scope", rename_all = "kebab-case")]
pub enum Scope {
    /// Each tile by itself.
    Tile {
        /// Edge of a tile, in weights.
        block_size: u64,
    },
    /// Each tensor by itself.
    Tensor,
    /// All targets of the model together.
    Model,
}

/// What NaN and infinite weights in a target do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NonFinite {
    /// Stop the run, naming the tensor and the position.
    Refuse,
    /// Keep them as they are; they take no part in the choice.
    Keep,
}

/// A share of weights that are zero, in [0, 1].
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Sparsity(f64);

impl Sparsity {
    /// Of `n` weights, how many are zero: `sparsity * n`, rounded to the nearest integer.
    pub fn count(self, n: u64) -> u64 {
        ((self.0 * n as f64).round() as u64).min(n)
    }
}

impl TryFrom<f64> for Sparsity {
    type Error = String;
    fn try_from(share: f64) -> Result<Self, String> {
        if (0.0..=1.0).contains(&share) {
            Ok(Sparsity(share))
        } else {
            Err(format!("sparsity must be between 0 and 1, found {share}"))
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

/// What a weight must be worth to stay, as a multiple of the mean worth of a target's weight; above 0.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Price(f64);

impl TryFrom<f64> for Price {
    type Error = String;
    fn try_from(price: f64) -> Result<Self, String> {
        if price > 0.0 && price.is_finite() {
            Ok(Price(price))
        } else {
            Err(format!("price must be above 0, found {price}"))
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
    /// Largest group.
    const MAX_GROUP: usize = 64;

    /// Weights kept of each group.
    pub fn keep(self) -> usize {
        self.keep
    }

    /// Consecutive inputs in a group.
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
    fn sparsity_counts_to_the_nearest() {
        let count = |share: &str, n| share.parse::<Sparsity>().expect("valid").count(n);
        assert_eq!(count("0.29", 100), 29);
        assert_eq!(count("0", 7), 0);
        assert_eq!(count("1", 7), 7);
        assert_eq!(count("0.5", 3), 2);
        assert!("1.01".parse::<Sparsity>().is_err());
        assert!("NaN".parse::<Sparsity>().is_err());
        assert!("-0.1".parse::<Sparsity>().is_err());
    }

    #[test]
    fn patterns_name_what_is_kept() {
        let pattern: NmPattern = "2:4".parse().expect("valid");
        assert_eq!((pattern.keep(), pattern.group()), (2, 4));
        for bad in ["4:4", "0:4", "2", "2:", "a:b", "5:4", "2:100", "-1:4"] {
            assert!(bad.parse::<NmPattern>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_recipe_reads_back_what_it_writes() {
        let recipe = Recipe {
            method: Method::Exact {
                sparsity: "0.5".parse().expect("valid"),
                scope: Scope::Tile { block_size: 256 },
            },
            target: vec!["*.q_proj.weight".into()],
            skip: vec![],
            non_finite: NonFinite::Refuse,
        };
        let text = serde_json::to_string(&recipe).expect("serialises");
        assert_eq!(serde_json::from_str::<Recipe>(&text).expect("reads back"), recipe);
    }
}
