//! The result of multiple-choice items: which choice each model takes, and how often that is the right one.

use std::borrow::Cow;

use physarium_audit::Share;
use physarium_checkpoint::Dtype;
use serde::{Deserialize, Serialize};

use super::questions::Question;
use crate::eval::ScoredWindow;
use crate::tokenizer::BosRule;

/// Everything that the numbers depend on. Two results are comparable if their protocols agree, except in `threads`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ChoicesProtocol {
    /// File name of the items.
    pub file: String,
    /// SHA-256 of the file.
    pub sha256: String,
    /// Items of the file.
    pub items: usize,
    /// Digest of `tokenizer.json`.
    pub tokenizer_sha256: String,
    /// Whether a context begins with a special token.
    pub bos: BosRule,
    /// The token that stands for an empty context; `None` if every item has a context or begins with the token of `bos`.
    pub empty_context: Option<String>,
    /// Text between a context and a choice.
    pub delimiter: Cow<'static, str>,
    /// Positions that the model supports: a longer context is cut at its beginning. `None` if there is no limit.
    pub positions: Option<usize>,
    /// What the log-likelihood of a choice is divided by for the normalised accuracy.
    pub normalised_by: Cow<'static, str>,
    /// Element type of the projections.
    pub weights: Dtype,
    /// Precision of matrix products.
    pub arithmetic: Cow<'static, str>,
    /// Instruction set of matrix products, which the order of float32 sums depends on.
    pub instructions: Cow<'static, str>,
    /// Threads that computed; no number depends on them.
    pub threads: usize,
    /// Version of physarium.
    pub version: Cow<'static, str>,
}

/// The result of multiple-choice items.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ChoicesResult {
    /// `physarium.choices/1`.
    pub schema: Cow<'static, str>,
    /// Items of which the choice with the highest log-likelihood is the right one.
    pub accuracy: Accuracy,
    /// Items of which the choice with the highest log-likelihood per character is the right one.
    pub accuracy_normalised: Accuracy,
    /// Items that were scored.
    pub items: usize,
    /// Items whose context was cut at its beginning, as the model does not support as many positions.
    pub cut_contexts: usize,
    /// Whether the evaluation was cancelled before all items were scored.
    pub partial: bool,
    /// Everything that the numbers depend on.
    pub protocol: ChoicesProtocol,
    /// The comparison with another model on the same items.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub against: Option<ChoicesAgainst>,
    /// What the user should know about the model, and of the other model what differs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Seconds of reading and scoring the items.
    pub seconds: f64,
    /// Tokens that passed through the model, or through both, per second of computing.
    pub tokens_per_second: f64,
    /// Peak resident memory of the process, if the system reports it.
    pub peak_rss_bytes: Option<u64>,
    /// The score of each item that was scored, in the order of the file.
    #[serde(skip)]
    pub scores: Vec<ItemScore>,
}

/// How many items are right.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Accuracy {
    /// The right ones, as a share of the items that were scored.
    #[serde(flatten)]
    pub right: Share,
    /// Standard error of the share over items; `None` for a single item.
    pub stderr: Option<f64>,
}

/// The other model on the same items.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChoicesAgainst {
    /// By the highest log-likelihood.
    pub accuracy: ComparedAccuracy,
    /// By the highest log-likelihood per character.
    pub accuracy_normalised: ComparedAccuracy,
}

/// The other model's accuracy, and the differences between the two models item by item.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ComparedAccuracy {
    /// The other model's.
    #[serde(flatten)]
    pub accuracy: Accuracy,
    /// Items of which the models take different choices.
    pub changed: usize,
    /// Items that only the model has right.
    pub gained: usize,
    /// Items that only the other model has right.
    pub lost: usize,
    /// The model's share of right items less the other model's.
    pub difference: f64,
    /// Standard error of the difference over items; `None` for a single item.
    pub difference_stderr: Option<f64>,
}

/// The score of an item.
#[derive(Debug, Clone, PartialEq)]
pub struct ItemScore {
    /// Its line in the file, from 1.
    pub line: usize,
    /// Index of the right choice.
    pub answer: usize,
    /// Characters of each choice: Unicode scalar values.
    pub characters: Vec<usize>,
    /// What the model takes.
    pub taken: Taken,
    /// What the other model takes.
    pub against: Option<Taken>,
}

/// The choices that a model takes for an item.
#[derive(Debug, Clone, PartialEq)]
pub struct Taken {
    /// The log-likelihood of each choice after the context, in nats.
    pub log_likelihoods: Vec<f64>,
    /// Index of the choice with the highest one; of equal ones the first.
    pub choice: usize,
    /// Index of the choice with the highest one per character; of equal ones the first.
    pub choice_normalised: usize,
}

/// The log-likelihood of a choice by a model and by the other one, in nats.
#[derive(Debug, Clone, Copy)]
pub(super) struct LogLikelihood {
    pub(super) own: f64,
    pub(super) other: Option<f64>,
}

impl LogLikelihood {
    /// That of the scored tokens of a window.
    pub(super) fn of(window: &ScoredWindow) -> LogLikelihood {
        let own = -window.scores.iter().map(|score| score.nll).sum::<f64>();
        let other: Option<f64> =
            window.scores.iter().map(|score| score.against.map(|against| against.nll)).sum();
        LogLikelihood { own, other: other.map(|nll| -nll) }
    }
}

impl ItemScore {
    /// The score of an item from those of its choices.
    pub(super) fn new(question: &Question, choices: &[LogLikelihood]) -> ItemScore {
        let characters: Vec<usize> = question.choices.iter().map(|c| c.characters).collect();
        let own = choices.iter().map(|choice| choice.own).collect();
        let other: Option<Vec<f64>> = choices.iter().map(|choice| choice.other).collect();
        ItemScore {
            line: question.line,
            answer: question.answer,
            taken: Taken::of(own, &characters),
            against: other.map(|other| Taken::of(other, &characters)),
            characters,
        }
    }
}

impl Taken {
    fn of(log_likelihoods: Vec<f64>, characters: &[usize]) -> Taken {
        let normalised = log_likelihoods.iter().zip(characters).map(|(l, n)| l / *n as f64);
        let choice_normalised = highest(normalised);
        let choice = highest(log_likelihoods.iter().copied());
        Taken { log_likelihoods, choice, choice_normalised }
    }
}

/// Index of the highest value; of equal ones the first.
fn highest(values: impl Iterator<Item = f64>) -> usize {
    let mut best = (0, f64::NEG_INFINITY);
    for (index, value) in values.enumerate() {
        if value > best.1 {
            best = (index, value);
        }
    }
    best.0
}

/// Which of its two choices a model takes for an item.
type By = fn(&Taken) -> usize;
const BY_SUM: By = |taken| taken.choice;
const BY_CHARACTER: By = |taken| taken.choice_normalised;

/// The accuracy and the normalised accuracy of a model.
pub(super) fn accuracies(scores: &[ItemScore]) -> [Accuracy; 2] {
    [BY_SUM, BY_CHARACTER].map(|by| {
        let right = scores.iter().filter(|score| by(&score.taken) == score.answer).count();
        Accuracy::new(right, scores.len())
    })
}

/// The comparison with the other model, if there is one.
pub(super) fn against(scores: &[ItemScore]) -> Option<ChoicesAgainst> {
    Some(ChoicesAgainst {
        accuracy: ComparedAccuracy::of(scores, BY_SUM)?,
        accuracy_normalised: ComparedAccuracy::of(scores, BY_CHARACTER)?,
    })
}

impl Accuracy {
    fn new(right: usize, items: usize) -> Accuracy {
        let right = Share::new(right as u64, items as u64, "items");
        let stderr = right.share.and_then(|share| stderr_of_mean(share, share, items));
        Accuracy { right, stderr }
    }
}

impl ComparedAccuracy {
    fn of(scores: &[ItemScore], by: By) -> Option<ComparedAccuracy> {
        let (mut right, mut changed, mut gained, mut lost) = (0, 0, 0, 0);
        for score in scores {
            let (own, other) = (by(&score.taken), by(score.against.as_ref()?));
            right += usize::from(other == score.answer);
            changed += usize::from(own != other);
            gained += usize::from(own != other && own == score.answer);
            lost += usize::from(own != other && other == score.answer);
        }
        let count = scores.len() as f64;
        let difference = (gained as f64 - lost as f64) / count;
        let squares = (gained + lost) as f64 / count;
        Some(ComparedAccuracy {
            accuracy: Accuracy::new(right, scores.len()),
            changed,
            gained,
            lost,
            difference,
            difference_stderr: stderr_of_mean(difference, squares, scores.len()),
        })
    }
}

/// Standard error of a mean over items, from the mean and the mean square; `None` for less than two items.
fn stderr_of_mean(mean: f64, mean_square: f64, items: usize) -> Option<f64> {
    (items > 1).then(|| ((mean_square - mean * mean).max(0.0) / (items as f64 - 1.0)).sqrt())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]
mod tests {
    use super::*;

    fn score(own: [f64; 3], other: [f64; 3]) -> ItemScore {
        let characters = vec![1, 4, 2];
        ItemScore {
            line: 1,
            answer: 1,
            taken: Taken::of(own.to_vec(), &characters),
            against: Some(Taken::of(other.to_vec(), &characters)),
            characters,
        }
    }

    #[test]
    fn accuracies_and_their_errors_are_those_of_the_definition() {
        // By the sum: 0, 1, 1, 0. Per character: 1, 1, 1, 0.
        let scores = [
            score([-2.0, -3.0, -4.0], [-3.0, -2.0, -9.0]),
            score([-9.0, -8.0, -9.0], [-9.0, -8.0, -9.0]),
            score([-9.0, -3.0, -3.0], [-1.0, -4.0, -3.0]),
            score([-1.0, -9.0, -3.0], [-5.0, -40.0, -3.0]),
        ];
        let [sum, normalised] = accuracies(&scores);
        assert_eq!((sum.right.part, sum.right.whole, sum.right.share), (2, 4, Some(0.5)));
        // The sample's standard deviation of 0, 1, 1, 0 over the root of 4.
        assert!((sum.stderr.unwrap() - (1.0f64 / 3.0).sqrt() / 2.0).abs() < 1e-15);
        assert_eq!(normalised.right.part, 3);
        let found = against(&scores).unwrap();
        // The other model by the sum: 1, 1, 0, 2.
        assert_eq!(found.accuracy.accuracy.right.part, 2);
        let ComparedAccuracy { changed, gained, lost, .. } = found.accuracy;
        assert_eq!((changed, gained, lost), (3, 1, 1));
        assert_eq!(found.accuracy.difference, 0.0);
        // The sample's standard deviation of −1, 0, 1, 0 over the root of 4.
        let stderr = found.accuracy.difference_stderr.unwrap();
        assert!((stderr - (2.0f64 / 3.0).sqrt() / 2.0).abs() < 1e-15);
        assert_eq!(accuracies(&scores[..1])[0].stderr, None);
    }

    #[test]
    fn of_equal_choices_the_first_is_taken() {
        let taken = Taken::of(vec![-2.0, -1.0, -1.0], &[2, 1, 1]);
        assert_eq!((taken.choice, taken.choice_normalised), (1, 0));
        assert_eq!(Taken::of(vec![f64::NEG_INFINITY; 2], &[1, 1]).choice, 0);
    }
}
