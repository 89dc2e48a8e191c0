/*!
Multiple-choice items: how often a model takes the right choice.

In: a model and a file of items ([`ChoicesRequest`]). Out: a [`ChoicesResult`]. The items ([`items`]) become tokens and
windows ([`questions`]), the evaluator of texts scores the windows, and the sums for each choice become accuracies
([`report`]).
*/

mod items;
mod questions;
mod report;

use std::path::Path;
use std::time::{Duration, Instant};

use physarium_checkpoint::{Arithmetic, Malformed};
use physarium_model::{Compute, Decoder, ModelFiles, Residency};

use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::eval::{Scorer, file_name, in_words, notes};
use crate::peak::peak_resident_bytes;
use crate::progress::{Event, Progress};
use crate::recipe::arithmetic::evaluating;
use crate::tokenizer::{self, ModelTokenizer};

use items::Items;
use questions::{DELIMITER, Questions};
use report::LogLikelihood;
pub use report::{
    Accuracy, ChoicesAgainst, ChoicesProtocol, ChoicesResult, ComparedAccuracy, ItemScore, Taken,
};

/// What to evaluate on multiple-choice items, and how.
#[derive(Debug, Clone, Copy)]
pub struct ChoicesRequest<'a> {
    /// The checkpoint directory, or a packed file.
    pub model: &'a Path,
    /// Another model to compare with, usually the dense one.
    pub against: Option<&'a Path>,
    /// File of items: JSON Lines, each with `context`, `choices` and `answer`.
    pub file: &'a Path,
    /// Threads to compute on.
    pub threads: usize,
    /// Arithmetic of the products. Default: the fastest one of the machine.
    pub arithmetic: Option<Arithmetic>,
}

/// Multiple-choice items that were read and checked, and the models that they are for.
pub struct Choices {
    decoder: Decoder,
    other: Option<Decoder>,
    /// Name and SHA-256 of the file of items.
    file: [String; 2],
    tokenizer_sha256: String,
    questions: Questions,
    positions: Option<usize>,
    threads: usize,
    arithmetic: Option<Arithmetic>,
    /// Time that reading took.
    reading: Duration,
}

impl Choices {
    /// Opens the models and reads the items. Nothing is computed.
    ///
    /// # Errors
    /// `Checkpoint` and `Model` for faults in files, with the line of an item; `Checkpoint` if the tokenizer of the other
    /// model gives other tokens.
    pub fn read(request: &ChoicesRequest<'_>, progress: &mut dyn Progress) -> Result<Choices> {
        let began = Instant::now();
        let decoder = Decoder::open(request.model, Residency::Streamed)?;
        let other =
            request.against.map(|dir| Decoder::open(dir, Residency::Streamed)).transpose()?;
        let limits = [Some(&decoder), other.as_ref()].into_iter().flatten();
        let positions = limits.filter_map(|decoder| decoder.config().max_positions).min();
        let items = Items::read(request.file)?;
        progress.event(Event::Step("tokenizing"));
        let tokenizer = ModelTokenizer::read(decoder.files())?;
        let most = positions.unwrap_or(usize::MAX);
        let questions = Questions::of(&items, &tokenizer, most)?;
        if let Some(other) = &other {
            let both = [decoder.files(), other.files()];
            refuse_other_tokenizer(both, &items, &questions, most)?;
        }
        Ok(Choices {
            tokenizer_sha256: tokenizer.sha256.to_string(),
            decoder,
            other,
            file: [file_name(&items.path), items.digest.to_string()],
            questions,
            positions,
            threads: request.threads,
            arithmetic: request.arithmetic,
            reading: began.elapsed(),
        })
    }

    /// Scores the items.
    ///
    /// If `cancel` is raised, it returns what it has after the current batch of windows, marked as partial.
    ///
    /// # Errors
    /// `Model` for weights that cannot be read; `Usage` for models whose vocabularies differ in size; `NonFiniteLogits`
    /// for a model that computes NaN; `Stopped` if `cancel` is raised before the first item is done.
    pub fn score(self, cancel: &Cancel, progress: &mut dyn Progress) -> Result<ChoicesResult> {
        let began = Instant::now();
        let compute = evaluating(self.threads, self.arithmetic)?.stopping_when(cancel.asked());
        let longest = self.questions.lengths().max().unwrap_or(1);
        let mut scorer = Scorer::new(&compute, &self.decoder, self.other.as_ref(), longest)?;
        let tokens = self.questions.lengths().map(|tokens| tokens as u64).sum();
        progress.event(Event::TokensStarted { task: "choices", tokens });
        let batches = self.questions.batches();
        let computing = Instant::now();
        let result = |window| LogLikelihood::of(&window);
        let choices = scorer.score(batches, result, cancel, progress)?;
        let computing = computing.elapsed();
        progress.event(Event::Finished);
        let scores = self.item_scores(&choices)?;
        let tokens: usize = self.questions.lengths().take(choices.len()).sum();
        let [accuracy, accuracy_normalised] = report::accuracies(&scores);
        Ok(ChoicesResult {
            schema: "physarium.choices/1".into(),
            accuracy,
            accuracy_normalised,
            items: scores.len(),
            cut_contexts: self.questions.all[..scores.len()].iter().filter(|item| item.cut).count(),
            partial: scores.len() < self.questions.all.len(),
            protocol: self.protocol(&compute)?,
            against: report::against(&scores),
            notes: notes(&self.decoder, self.other.as_ref()),
            seconds: (self.reading + began.elapsed()).as_secs_f64(),
            tokens_per_second: tokens as f64 / computing.as_secs_f64(),
            peak_rss_bytes: peak_resident_bytes(),
            scores,
        })
    }

    /// The scores of the items whose choices are all scored.
    fn item_scores(&self, choices: &[LogLikelihood]) -> Result<Vec<ItemScore>> {
        let mut rest = choices;
        let mut scores = Vec::new();
        for question in &self.questions.all {
            let Some((own, after)) = rest.split_at_checked(question.choices.len()) else { break };
            for (choice, continuation) in own.iter().zip(&question.choices) {
                let tokens = continuation.window_tokens();
                let other = self.other.as_ref().zip(choice.other);
                let mut both = other.into_iter().chain([(&self.decoder, choice.own)]);
                if let Some((decoder, _)) = both.find(|(_, value)| value.is_nan()) {
                    let model = decoder.files().path().to_owned();
                    let line = Some(question.line);
                    return Err(Error::NonFiniteLogits { model, tokens, line });
                }
            }
            scores.push(ItemScore::new(question, own));
            rest = after;
        }
        if scores.is_empty() { Err(Error::Stopped) } else { Ok(scores) }
    }

    fn protocol(&self, compute: &Compute) -> Result<ChoicesProtocol> {
        let [file, sha256] = self.file.clone();
        Ok(ChoicesProtocol {
            file,
            sha256,
            items: self.questions.all.len(),
            tokenizer_sha256: self.tokenizer_sha256.clone(),
            bos: self.questions.bos.clone(),
            empty_context: self.questions.empty_context.clone(),
            delimiter: DELIMITER.into(),
            positions: self.positions,
            normalised_by: "characters of the choice".into(),
            weights: self.decoder.dtype()?,
            arithmetic: in_words(compute.arithmetic()).into(),
            instructions: compute.instructions().into(),
            threads: compute.threads(),
            version: env!("CARGO_PKG_VERSION").into(),
        })
    }
}

/// Fails if the tokenizer of the other model gives other tokens for the items. A model without a tokenizer passes; only
/// the size of its vocabulary is compared.
fn refuse_other_tokenizer(
    [own, other]: [&ModelFiles; 2],
    items: &Items,
    questions: &Questions,
    positions: usize,
) -> Result<()> {
    let digests = tokenizer::digests(other)?;
    if digests.is_none() || digests == tokenizer::digests(own)? {
        return Ok(());
    }
    let found = Questions::of(items, &ModelTokenizer::read(other)?, positions)?;
    if found.all == questions.all {
        return Ok(());
    }
    let what = "the two models use different tokenizers";
    let path = other.path_of(tokenizer::FILE_NAME);
    Err(Malformed::new(&path, what, "the same tokens for these items", "others").into())
}
