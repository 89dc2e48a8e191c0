//! The verdict on a claim.

use serde::{Deserialize, Serialize};

use super::share::Share;

/// The verdict on a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// True as stated.
    Correct,
    /// The number is true of another denominator than the stated one, or the claim states none.
    Denominator,
    /// The number is true of no denominator.
    Wrong,
    /// There is nothing to count: no verdict.
    #[serde(rename = "cannot be judged")]
    CannotBeJudged,
}

impl Verdict {
    /// Whether the claim is false as stated.
    pub fn is_false(self) -> bool {
        matches!(self, Verdict::Wrong | Verdict::Denominator)
    }

    /// The verdict in words.
    pub fn words(self) -> &'static str {
        match self {
            Verdict::Correct => "correct",
            Verdict::Denominator => "wrong or missing denominator",
            Verdict::Wrong => "wrong",
            Verdict::CannotBeJudged => "cannot be judged",
        }
    }
}

/// A judged claim.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Judgement {
    /// The claim's id.
    pub id: String,
    /// Where the claim is made.
    pub source: String,
    /// The sentence.
    pub sentence: String,
    /// The verdict.
    pub verdict: Verdict,
    /// The claimed number, with its denominator if the claim states one.
    pub claimed: String,
    /// The measured share of the stated denominator, or of target and model if none is stated.
    pub measured: Vec<Share>,
    /// Denominators for which the claimed number is true.
    pub true_of: Vec<String>,
    /// What the sentence should say; absent if it is correct or cannot be judged.
    pub should_say: Option<String>,
    /// Why it cannot be judged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}
