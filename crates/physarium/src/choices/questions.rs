/*!
Multiple-choice items as tokens, and as windows that are scored.

In: items and a model's tokenizer. Out: for each choice a window of the tokens of its context and its own, of which only
its own are scored. Tokens are made as lm-evaluation-harness makes them: the context and a choice as one text with a space
between them, and what follows as many tokens as the context has by itself, without the blanks at its end, is the choice.
*/

use std::iter;

use physarium_checkpoint::Malformed;

use super::items::{Item, Items};
use crate::error::{Error, Result};
use crate::eval::{BATCH_TOKENS, Batch, Window, together};
use crate::tokenizer::{BosRule, ModelTokenizer};

/// What is between a context and a choice.
pub(super) const DELIMITER: &str = " ";

/// An item as tokens.
#[derive(Debug, PartialEq)]
pub(super) struct Question {
    /// Its line in the file, from 1.
    pub(super) line: usize,
    /// Index of the right choice.
    pub(super) answer: usize,
    /// The last tokens of the context, as many as may be used; at least one.
    context: Vec<u32>,
    /// Whether the context is cut for at least one choice.
    pub(super) cut: bool,
    pub(super) choices: Vec<Continuation>,
}

/// A choice as tokens.
#[derive(Debug, PartialEq)]
pub(super) struct Continuation {
    ids: Vec<u32>,
    /// Tokens of the context that are used.
    context: usize,
    /// Characters of the choice: Unicode scalar values.
    pub(super) characters: usize,
}

/// All items of a file.
#[derive(Debug)]
pub(super) struct Questions {
    pub(super) all: Vec<Question>,
    /// Whether a context begins with a special token.
    pub(super) bos: BosRule,
    /// The token that stands for an empty context, if there is one.
    pub(super) empty_context: Option<String>,
}

impl Questions {
    /// The items of a file, by a tokenizer, for a model that supports `positions` positions.
    ///
    /// # Errors
    /// `Checkpoint` if the tokenizer fails on an item, which the message names, if a choice has no tokens or more than the
    /// model supports, and if nothing can stand for an empty context.
    pub(super) fn of(
        items: &Items,
        tokenizer: &ModelTokenizer,
        positions: usize,
    ) -> Result<Questions> {
        let (bos, first) = tokenizer.bos()?;
        let all = Vec::with_capacity(items.items.len());
        let mut questions = Questions { all, bos, empty_context: None };
        for item in &items.items {
            questions.add(item, &Making { items, tokenizer, first, positions })?;
        }
        Ok(questions)
    }

    fn add(&mut self, item: &Item, making: &Making<'_>) -> Result<()> {
        let context = item.context.trim_end_matches(is_blank);
        let whole =
            item.choices.iter().map(|choice| format!("{}{DELIMITER}{choice}", item.context));
        let texts = iter::once(context.to_owned()).chain(whole).collect();
        let what = format!("line {} of the choices", item.line);
        let mut ids = making.tokenizer.ids_of_each(texts, &what)?.into_iter();
        let context_ids = ids.next().unwrap_or_default();
        let begin = context_ids.len();
        let written = self.bos.token.as_ref().is_some_and(|token| context.starts_with(&token[..]));
        let first = making.first.filter(|_| !written);
        let mut used: Vec<u32> = first.into_iter().chain(context_ids).collect();
        if used.is_empty() {
            let (token, id) = making.prefix(item)?;
            used.push(id);
            self.empty_context = Some(token);
        }
        let mut choices = Vec::with_capacity(item.choices.len());
        for (index, (text, whole)) in item.choices.iter().zip(ids).enumerate() {
            let own = whole.get(begin..).filter(|own| (1..=making.positions).contains(&own.len()));
            let Some(own) = own else {
                return Err(making.fault(item, index, whole.len().saturating_sub(begin)));
            };
            // The last token is predicted and not read.
            let context = used.len().min(making.positions - own.len() + 1);
            let characters = text.chars().count();
            choices.push(Continuation { ids: own.to_vec(), context, characters });
        }
        let cut = choices.iter().any(|choice| choice.context < used.len());
        let most = choices.iter().map(|choice| choice.context).max().unwrap_or(0);
        let context = used.split_off(used.len() - most);
        self.all.push(Question { line: item.line, answer: item.answer, context, cut, choices });
        Ok(())
    }

    /// Each choice of each item.
    fn sequences(&self) -> impl Iterator<Item = (&Question, &Continuation)> {
        self.all.iter().flat_map(|question| {
            question.choices.iter().map(move |continuation| (question, continuation))
        })
    }

    /// Tokens of each window that is scored.
    pub(super) fn lengths(&self) -> impl Iterator<Item = usize> {
        self.sequences().map(|(_, continuation)| continuation.window_tokens())
    }

    /// Windows that are scored together: one for each choice of each item, in this order.
    pub(super) fn batches(&self) -> impl Iterator<Item = Batch<'static>> {
        let mut sequences = self.sequences();
        together(self.lengths(), BATCH_TOKENS).into_iter().map(move |range| {
            let (mut windows, mut ids) = (Vec::new(), Vec::new());
            for (question, continuation) in sequences.by_ref().take(range.len()) {
                let begin = ids.len();
                ids.extend(&question.context[question.context.len() - continuation.context..]);
                let scored = ids.len()..ids.len() + continuation.ids.len();
                ids.extend(&continuation.ids);
                let tokens = begin..begin + continuation.window_tokens();
                windows.push(Window { tokens, scored });
            }
            Batch { windows: windows.into(), ids: ids.into() }
        })
    }
}

impl Continuation {
    /// Tokens of the window: those of the context and its own, but for the last.
    pub(super) fn window_tokens(&self) -> usize {
        self.context + self.ids.len() - 1
    }
}

/// What tokens are made with.
struct Making<'a> {
    items: &'a Items,
    tokenizer: &'a ModelTokenizer,
    /// The special token that a context begins with.
    first: Option<u32>,
    positions: usize,
}

impl Making<'_> {
    /// The token that stands for an empty context.
    fn prefix(&self, item: &Item) -> Result<(String, u32)> {
        let config = &self.tokenizer.config;
        let of = |role| Some((config.token(role)?.to_owned(), self.tokenizer.special(role)?));
        ["bos_token", "eos_token"].into_iter().find_map(of).ok_or_else(|| {
            let expected = "a context: the tokenizer has no bos_token and no eos_token instead";
            let found = format!("line {}: none", item.line);
            Malformed::new(&self.items.path, "empty context", expected, found).into()
        })
    }

    /// The error for a choice with so many tokens.
    fn fault(&self, item: &Item, choice: usize, tokens: usize) -> Error {
        let expected = match tokens {
            0 => "tokens beside those of the context".to_owned(),
            _ => format!("at most {}, the positions of the model", self.positions),
        };
        let found = format!("line {}: {tokens} in choice {choice}", item.line);
        Malformed::new(&self.items.path, "tokens of a choice", expected, found).into()
    }
}

/// Whether Python's `str.rstrip` removes a character.
fn is_blank(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}
