//! What an evaluation found, with the protocol that makes it a number to compare.

use std::time::Duration;

use physarium_checkpoint::Dtype;
use serde::Serialize;

use super::score::{ScoredWindow, TokenScore};
use super::text::TextUsed;
use crate::peak;
use crate::tokenizer::BosRule;

/// How the numbers came about. Numbers of two evaluations compare where these agree.
#[derive(Debug, Clone, Serialize)]
pub struct Protocol {
    /// The text.
    pub text: TextUsed,
    /// Digest of `tokenizer.json`.
    pub tokenizer_sha256: String,
    /// How the text begins.
    pub bos: BosRule,
    /// Tokens that the model sees at once.
    pub window: usize,
    /// Tokens from one window to the next.
    pub stride: usize,
    /// Tokens of the text that were to be used.
    pub limit: Option<usize>,
    /// What becomes of an incomplete last window.
    pub tail_rule: &'static str,
    /// Tokens that this left out.
    pub tail_tokens: usize,
    /// Which positions are scored.
    pub scored: &'static str,
    /// Element type of the projections.
    pub weights: Dtype,
    /// What is computed with.
    pub arithmetic: &'static str,
    /// What products run on; the order of float32 sums depends on it.
    pub instructions: &'static str,
    /// Threads; no number depends on them.
    pub threads: usize,
    /// Version of physarium.
    pub version: &'static str,
}

/// What an evaluation found.
#[derive(Debug, Clone, Serialize)]
pub struct Evaluation {
    /// `physarium.eval/1`.
    pub schema: &'static str,
    /// exp of the mean NLL.
    pub perplexity: f64,
    /// Mean negative log-likelihood of a scored token, in nats.
    pub mean_nll_nats: f64,
    /// NLL in bits per byte of the text that the scored tokens stand for; comparable across
    /// tokenizers.
    pub bits_per_byte: Option<f64>,
    /// Tokens scored.
    pub tokens_scored: usize,
    /// Windows scored.
    pub windows: usize,
    /// Whether the evaluation was stopped before all windows were scored.
    pub partial: bool,
    /// How the numbers came about.
    pub protocol: Protocol,
    /// The comparison with another model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub against: Option<Against>,
    /// Seconds for everything.
    pub seconds: f64,
    /// Tokens that went through the model, or through both, per second of computing.
    pub tokens_per_second: f64,
    /// Most memory that was resident, where the system tells.
    pub peak_rss_bytes: Option<u64>,
    /// Each scored token.
    #[serde(skip)]
    pub tokens: Vec<TokenScore>,
}

/// The same positions seen by another model.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Against {
    /// Its perplexity.
    pub perplexity: f64,
    /// The model's perplexity ÷ the other's.
    pub ratio: f64,
    /// Standard error of the ratio over windows; none for a single window.
    pub ratio_stderr: Option<f64>,
    /// Mean Kullback–Leibler divergence of the model's distributions from the other's, in nats.
    pub kl_nats: f64,
    /// Share of scored positions at which both put the same token first.
    pub top1_agreement: f64,
}

/// Sums over windows.
#[derive(Default)]
pub(crate) struct Totals {
    windows: Vec<ScoredWindow>,
}

impl Totals {
    pub(crate) fn is_empty(&self) -> bool {
        self.windows.is_empty()
    }

    pub(crate) fn add(&mut self, scored: Vec<ScoredWindow>) {
        self.windows.extend(scored);
    }

    pub(crate) fn finish(
        self,
        protocol: Protocol,
        planned: usize,
        computing: Duration,
        all: Duration,
    ) -> Evaluation {
        let scores = || self.windows.iter().flat_map(|window| &window.scores);
        let count = scores().count();
        let nll: f64 = scores().map(|score| score.nll).sum();
        let bytes: usize = self.windows.iter().map(|window| window.bytes).sum();
        let tokens: usize = self.windows.iter().map(|window| window.tokens).sum();
        let mean = nll / count as f64;
        Evaluation {
            schema: "physarium.eval/1",
            perplexity: mean.exp(),
            mean_nll_nats: mean,
            bits_per_byte: (bytes > 0).then(|| nll / std::f64::consts::LN_2 / bytes as f64),
            tokens_scored: count,
            windows: self.windows.len(),
            partial: self.windows.len() < planned,
            protocol,
            against: against(&self.windows),
            seconds: all.as_secs_f64(),
            tokens_per_second: tokens as f64 / computing.as_secs_f64(),
            peak_rss_bytes: peak::resident_bytes(),
            tokens: scores().copied().collect(),
        }
    }
}

/// The comparison, if the windows hold one.
fn against(windows: &[ScoredWindow]) -> Option<Against> {
    let scores = || windows.iter().flat_map(|window| &window.scores);
    let compared: Vec<_> =
        scores().map(|score| Some((score.nll, score.against?))).collect::<Option<_>>()?;
    let count = compared.len() as f64;
    let other = compared.iter().map(|(_, other)| other.nll).sum::<f64>() / count;
    let own = compared.iter().map(|(nll, _)| nll).sum::<f64>() / count;
    let ratio = (own - other).exp();
    Some(Against {
        perplexity: other.exp(),
        ratio,
        ratio_stderr: stderr_of_mean(windows).map(|stderr| ratio * stderr),
        kl_nats: compared.iter().map(|(_, other)| other.kl).sum::<f64>() / count,
        top1_agreement: compared.iter().filter(|(_, other)| other.agree).count() as f64 / count,
    })
}

/// Standard error over windows of the mean difference of NLL, each window weighing as many tokens as
/// it scores.
fn stderr_of_mean(windows: &[ScoredWindow]) -> Option<f64> {
    let difference = |window: &ScoredWindow| {
        let of = |score: &TokenScore| score.nll - score.against.map_or(f64::NAN, |o| o.nll);
        window.scores.iter().map(of).sum::<f64>()
    };
    let count = windows.len() as f64;
    if windows.len() < 2 {
        return None;
    }
    let scored: usize = windows.iter().map(|window| window.scores.len()).sum();
    let mean = windows.iter().map(difference).sum::<f64>() / scored as f64;
    let squares: f64 = windows
        .iter()
        .map(|window| (difference(window) - mean * window.scores.len() as f64).powi(2))
        .sum();
    Some((squares * count / (count - 1.0)).sqrt() / scored as f64)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]
mod tests {
    use super::super::score::Comparison;
    use super::*;

    #[test]
    fn the_ratio_and_its_error_are_those_of_the_definition() {
        let window = |differences: &[f64]| {
            let scores = differences.iter().map(|d| TokenScore {
                nll: 2.0 + d,
                against: Some(Comparison { nll: 2.0, kl: 0.25, agree: *d < 0.3 }),
                ..TokenScore::default()
            });
            ScoredWindow { scores: scores.collect(), bytes: 9, tokens: 3 }
        };
        let windows = [window(&[0.1, 0.3]), window(&[0.3, 0.3]), window(&[0.2, 0.0])];
        let found = against(&windows).unwrap();
        let means = [0.2, 0.3, 0.1];
        let sd = (means.iter().map(|m: &f64| (m - 0.2).powi(2)).sum::<f64>() / 2.0).sqrt();
        assert!((found.ratio - 0.2f64.exp()).abs() < 1e-12);
        assert!((found.ratio_stderr.unwrap() - 0.2f64.exp() * sd / 3f64.sqrt()).abs() < 1e-12);
        assert!((found.kl_nats - 0.25).abs() < 1e-12);
        assert!((found.top1_agreement - 0.5).abs() < 1e-12);
        assert_eq!(against(&windows[..1]).unwrap().ratio_stderr, None);
    }
}
