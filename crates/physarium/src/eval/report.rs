//! The result of an evaluation, with the protocol that it depends on.

use std::borrow::Cow;
use std::time::Duration;

use physarium_checkpoint::Dtype;
use serde::{Deserialize, Deserializer, Serialize};

use super::score::{ScoredWindow, TokenComparison, TokenScore};
use super::text::TextUsed;
use crate::peak::peak_resident_bytes;
use crate::tokenizer::BosRule;

/// Everything that the numbers depend on. Two evaluations are comparable if their protocols agree, except in
/// `threads`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Protocol {
    /// The text.
    pub text: TextUsed,
    /// Digest of `tokenizer.json`.
    pub tokenizer_sha256: String,
    /// Whether the text begins with a special token, or each window does.
    pub bos: BosRule,
    /// Tokens of a window, the context of the model.
    pub window: usize,
    /// Tokens from the beginning of one window to that of the next.
    pub stride: usize,
    /// Tokens requested from the beginning of the text; `None` for all.
    pub limit: Option<usize>,
    /// What is done with an incomplete last window.
    pub tail_rule: Cow<'static, str>,
    /// Tokens that this drops.
    pub tail_tokens: usize,
    /// Which positions are scored.
    pub scored: Cow<'static, str>,
    /// Element type of the projections.
    pub weights: Dtype,
    /// Precision of matrix products.
    pub arithmetic: Cow<'static, str>,
    /// Instruction set of matrix products.
    pub instructions: Cow<'static, str>,
    /// Threads that computed; no number depends on them.
    pub threads: usize,
    /// Version of physarium.
    pub version: Cow<'static, str>,
}

impl Protocol {
    /// The protocol without what no number depends on: threads and instruction set.
    pub(crate) fn deciding(&self) -> Protocol {
        Protocol { threads: 0, instructions: "".into(), ..self.clone() }
    }
}

/// The result of an evaluation.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Evaluation {
    /// `physarium.eval/1`.
    pub schema: Cow<'static, str>,
    /// exp of `mean_nll_nats`.
    #[serde(deserialize_with = "number")]
    pub perplexity: f64,
    /// Mean negative log-likelihood of a scored token, in nats.
    #[serde(deserialize_with = "number")]
    pub mean_nll_nats: f64,
    /// Negative log-likelihood in bits per byte of the text of the scored tokens; comparable across tokenizers.
    pub bits_per_byte: Option<f64>,
    /// Tokens scored.
    pub tokens_scored: usize,
    /// Windows scored.
    pub windows: usize,
    /// Whether the evaluation was cancelled before all windows were scored.
    pub partial: bool,
    /// Everything that the numbers depend on.
    pub protocol: Protocol,
    /// The comparison with another model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub against: Option<Against>,
    /// What the user should know about the model, and of the other model what differs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Seconds of the whole evaluation.
    pub seconds: f64,
    /// Tokens that passed through the model, or through both, per second of computing.
    pub tokens_per_second: f64,
    /// Peak resident memory of the process, if the system reports it.
    pub peak_rss_bytes: Option<u64>,
    /// The score of each scored token, in the order of the text.
    #[serde(skip)]
    pub tokens: Vec<TokenScore>,
}

/// A number, for which NaN is written as null.
fn number<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or(f64::NAN))
}

/// The comparison with another model at the same positions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Against {
    /// The other model's perplexity.
    #[serde(deserialize_with = "number")]
    pub perplexity: f64,
    /// The model's perplexity ÷ the other model's.
    #[serde(deserialize_with = "number")]
    pub ratio: f64,
    /// Standard error of the ratio over windows; `None` for a single window.
    pub ratio_stderr: Option<f64>,
    /// Mean Kullback–Leibler divergence of the model's distributions from the other model's, in nats.
    #[serde(deserialize_with = "number")]
    pub kl_nats: f64,
    /// Its standard error over windows; `None` for a single window and in records of earlier versions.
    #[serde(default)]
    pub kl_stderr: Option<f64>,
    /// Share of scored positions at which both models predict the same token.
    pub top1_agreement: f64,
    /// Its standard error over windows; `None` for a single window and in records of earlier versions.
    #[serde(default)]
    pub top1_stderr: Option<f64>,
}

/// The scores of windows.
pub(crate) struct Scored {
    pub(crate) windows: Vec<ScoredWindow>,
    /// Bytes of the text of the scored tokens.
    pub(crate) bytes: usize,
    /// Number of windows of the text.
    pub(crate) planned: usize,
    /// Time that computing the scores took.
    pub(crate) computing: Duration,
    /// What the user should know about the models.
    pub(crate) notes: Vec<String>,
}

impl Scored {
    /// The result, after `all` time.
    pub(crate) fn evaluation(self, protocol: Protocol, all: Duration) -> Evaluation {
        let scores = || self.windows.iter().flat_map(|window| &window.scores);
        let count = scores().count();
        let nll: f64 = scores().map(|score| score.nll).sum();
        let tokens: usize = self.windows.iter().map(|window| window.tokens).sum();
        let mean = nll / count as f64;
        Evaluation {
            schema: "physarium.eval/1".into(),
            perplexity: libm::exp(mean),
            mean_nll_nats: mean,
            bits_per_byte: (self.bytes > 0)
                .then(|| nll / std::f64::consts::LN_2 / self.bytes as f64),
            tokens_scored: count,
            windows: self.windows.len(),
            partial: self.windows.len() < self.planned,
            protocol,
            against: against(&self.windows),
            notes: self.notes,
            seconds: all.as_secs_f64(),
            tokens_per_second: tokens as f64 / self.computing.as_secs_f64(),
            peak_rss_bytes: peak_resident_bytes(),
            tokens: scores().copied().collect(),
        }
    }
}

/// The comparison, if all windows hold one.
fn against(windows: &[ScoredWindow]) -> Option<Against> {
    let scores = || windows.iter().flat_map(|window| &window.scores);
    let compared: Vec<_> =
        scores().map(|score| Some((score.nll, score.against?))).collect::<Option<_>>()?;
    let count = compared.len() as f64;
    let other = compared.iter().map(|(_, other)| other.nll).sum::<f64>() / count;
    let own = compared.iter().map(|(nll, _)| nll).sum::<f64>() / count;
    let ratio = libm::exp(own - other);
    let stderr = |value: fn(f64, &TokenComparison) -> f64| stderr_of_mean(windows, value);
    Some(Against {
        perplexity: libm::exp(other),
        ratio,
        ratio_stderr: stderr(|nll, other| nll - other.nll).map(|stderr| ratio * stderr),
        kl_nats: compared.iter().map(|(_, other)| other.kl).sum::<f64>() / count,
        kl_stderr: stderr(|_, other| other.kl),
        top1_agreement: compared.iter().filter(|(_, other)| other.agree).count() as f64 / count,
        top1_stderr: stderr(|_, other| f64::from(u8::from(other.agree))),
    })
}

/// Standard error over windows of the mean of a value of each compared token, which gets its negative log-likelihood. The
/// weight of a window is the number of tokens that it scores.
fn stderr_of_mean(
    windows: &[ScoredWindow],
    value: impl Fn(f64, &TokenComparison) -> f64,
) -> Option<f64> {
    let sum = |window: &ScoredWindow| {
        let of = |score: &TokenScore| {
            score.against.as_ref().map_or(f64::NAN, |against| value(score.nll, against))
        };
        window.scores.iter().map(of).sum::<f64>()
    };
    let count = windows.len() as f64;
    if windows.len() < 2 {
        return None;
    }
    let scored: usize = windows.iter().map(|window| window.scores.len()).sum();
    let mean = windows.iter().map(sum).sum::<f64>() / scored as f64;
    let squares: f64 = windows
        .iter()
        .map(|window| (sum(window) - mean * window.scores.len() as f64).powi(2))
        .sum();
    Some((squares * count / (count - 1.0)).sqrt() / scored as f64)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]
mod tests {
    use super::*;

    #[test]
    fn the_ratio_and_its_error_are_those_of_the_definition() {
        let window = |differences: &[f64]| {
            let scores = differences.iter().map(|d| TokenScore {
                nll: 2.0 + d,
                against: Some(TokenComparison { nll: 2.0, kl: 0.25, agree: *d < 0.3 }),
                ..TokenScore::default()
            });
            ScoredWindow { scores: scores.collect(), tokens: 3 }
        };
        let windows = [window(&[0.1, 0.3]), window(&[0.3, 0.3]), window(&[0.2, 0.0])];
        let found = against(&windows).unwrap();
        let means = [0.2, 0.3, 0.1];
        let sd = (means.iter().map(|m: &f64| (m - 0.2).powi(2)).sum::<f64>() / 2.0).sqrt();
        assert!((found.ratio - 0.2f64.exp()).abs() < 1e-12);
        assert!((found.ratio_stderr.unwrap() - 0.2f64.exp() * sd / 3f64.sqrt()).abs() < 1e-12);
        assert!((found.kl_nats - 0.25).abs() < 1e-12);
        assert!((found.top1_agreement - 0.5).abs() < 1e-12);
        assert!(found.kl_stderr.unwrap().abs() < 1e-12);
        // Agreement is 1/2, 0 and 1 in the three windows.
        assert!((found.top1_stderr.unwrap() - 0.5 / 3f64.sqrt()).abs() < 1e-12);
        let single = against(&windows[..1]).unwrap();
        assert_eq!([single.ratio_stderr, single.kl_stderr, single.top1_stderr], [None; 3]);
    }
}
