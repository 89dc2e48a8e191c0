/*!
Windows of a calibration text, for activation-aware methods.

In: a text and a checkpoint's tokenizer. Out: windows of tokens, the same for the same recipe. Where the
text has more windows than are asked for, a seeded draw takes some of them, in the order of the text.
*/

use std::path::Path;

use physarium_checkpoint::{Calibration, Malformed};
use physarium_model::{Config, ModelFiles};

use crate::error::{Error, Result};
use crate::eval::{Text, Tokens};
use crate::random::SplitMix;

/// Window in tokens unless the user says otherwise or the model supports less.
const DEFAULT_WINDOW: u64 = 2048;

/// The default window for the checkpoint in `model`: 2048, or its maximum.
///
/// # Errors
/// What is wrong with its `config.json`.
pub fn default_window(model: &Path) -> Result<u64> {
    let most = Config::read(&ModelFiles::open(model)?)?.max_positions;
    Ok(most.map_or(DEFAULT_WINDOW, |most| DEFAULT_WINDOW.min(most as u64)))
}

/// A text to calibrate on.
#[derive(Debug)]
pub struct CalibrationText {
    text: Text,
    origin: Origin,
}

/// Where a calibration text comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    Bundled,
    File,
}

impl CalibrationText {
    /// The bundled text: short English stories by the project's own grammar (`demo/recipe`), under the project's
    /// licence. Enough to try things; text typical of the model's use gives better results.
    pub fn bundled() -> CalibrationText {
        const STORIES: &str = include_str!("../../../demo/calibration.txt");
        let text = Text::of(STORIES.to_owned(), "the bundled calibration text");
        CalibrationText { text, origin: Origin::Bundled }
    }

    /// Whether it is the bundled text.
    pub fn is_bundled(&self) -> bool {
        self.origin == Origin::Bundled
    }

    /// Tokens in whole windows that the text has for the checkpoint in `model`.
    ///
    /// # Errors
    /// What is wrong with the tokenizer.
    pub fn available(&self, model: &Path, window: u64) -> Result<u64> {
        let tokens = Tokens::of(&ModelFiles::open(model)?, &self.text, None)?.ids.len() as u64;
        Ok(tokens / window * window)
    }

    /// Reads plain text, or JSON Lines where a field is named or the name ends in `.jsonl`.
    ///
    /// # Errors
    /// As for a text to evaluate on.
    pub fn read(path: &Path, field: Option<&str>) -> Result<CalibrationText> {
        Ok(CalibrationText { text: Text::read(path, field)?, origin: Origin::File })
    }

    /// What a recipe says of it.
    pub fn calibration(&self, tokens: u64, window: u64, seed: u64) -> Calibration {
        Calibration { text_sha256: self.text.digest(), tokens, window, seed }
    }

    /// The windows that a recipe asks for, as tokens of `model`.
    ///
    /// # Errors
    /// `Malformed` when the text has too few tokens or is not the recipe's; `Usage` when the recipe asks
    /// for less than a window.
    pub(crate) fn windows(
        &self,
        model: &ModelFiles,
        wanted: &Calibration,
    ) -> Result<Vec<Vec<u32>>> {
        if self.text.digest() != wanted.text_sha256 {
            let (expected, found) = (wanted.text_sha256, self.text.digest());
            let fault = Malformed::new(
                self.text.path(),
                "is not the text this recipe used",
                format!("SHA-256 {expected}, as the recipe says"),
                found.to_string(),
            );
            return Err(fault.into());
        }
        let (window, count) = (wanted.window as usize, (wanted.tokens / wanted.window) as usize);
        if window < 2 || count == 0 {
            let (tokens, window) = (wanted.tokens, wanted.window);
            let what =
                format!("{tokens} calibration tokens: expected at least a window of {window}");
            return Err(Error::Usage(what));
        }
        let tokens = Tokens::of(model, &self.text, None)?;
        let windows: Vec<&[u32]> = tokens.ids.chunks_exact(window).collect();
        if windows.len() < count {
            let expected = format!("{count} windows of {window} tokens");
            let found = format!("{} ({} tokens)", windows.len(), tokens.ids.len());
            let hint = "a smaller --calibration-tokens or --window, or a longer text";
            return Err(Malformed::new(
                self.text.path(),
                "calibration text too short",
                expected,
                found,
            )
            .with_hint(hint)
            .into());
        }
        let chosen = draw(windows.len(), count, wanted.seed);
        Ok(chosen.into_iter().map(|index| windows[index].to_vec()).collect())
    }
}

/// `count` of `0..all`, ascending, each set as likely as any other.
fn draw(all: usize, count: usize, seed: u64) -> Vec<usize> {
    let mut random = SplitMix::new(seed);
    let mut indices: Vec<usize> = (0..all).collect();
    for at in 0..count {
        let other = at + ((u128::from(random.next()) * (all - at) as u128) >> 64) as usize;
        indices.swap(at, other);
    }
    indices.truncate(count);
    indices.sort_unstable();
    indices
}

#[cfg(test)]
mod tests {
    use super::draw;

    #[test]
    fn a_draw_is_its_seeds_and_takes_all_where_all_are_wanted() {
        assert_eq!(draw(9, 9, 5), (0..9).collect::<Vec<_>>());
        let some = draw(100, 10, 1);
        assert!(some.is_sorted() && some.len() == 10 && some[9] < 100);
        assert_eq!(some, draw(100, 10, 1));
        assert_ne!(some, draw(100, 10, 2));
    }
}
