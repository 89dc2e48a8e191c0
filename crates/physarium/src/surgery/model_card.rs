//! The model card of an output: a file of its own and, if the user wants it, the output's README.md.

use std::path::Path;

use physarium_checkpoint::journal::Totals;
use physarium_checkpoint::readme::{self, Readme};
use physarium_checkpoint::{
    Checkpoint, Disposition, ModelSource, Recipe, Sidecar, Source, Staging, config_json, manifest,
};

use crate::card::{Card, FrontMatter};
use crate::error::{Error, Result};
use crate::records::{OtherFiles, Records, TOOL};

/// Where the model card of an output is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CardPlace {
    /// In a file of its own, beside the input's README.md.
    #[default]
    Beside,
    /// Also at the head of README.md, in place of the metadata there.
    InReadme,
}

/// What the card of an output is made of, beside its records.
pub(super) struct ModelCard<'a> {
    pub place: CardPlace,
    pub checkpoint: &'a Checkpoint,
    pub sidecars: &'a [Sidecar],
    pub recipe: &'a Recipe,
    pub source: Option<&'a ModelSource>,
    /// Metadata of the input's README.
    pub base: &'a FrontMatter,
}

impl ModelCard<'_> {
    /// Whether a file of the input is not copied, because the card is written there.
    pub fn rewrites(&self, path: &Path) -> bool {
        self.place == CardPlace::InReadme && path == Path::new(readme::FILE_NAME)
    }

    /// Fails if the card cannot be written where it should be.
    pub fn check(&self) -> Result<()> {
        if self.place == CardPlace::Beside {
            return Ok(());
        }
        let name = Path::new(readme::FILE_NAME);
        if self.sidecars.iter().any(|file| file.path != name && file.path.starts_with(name)) {
            let what = "the input's README.md is a directory, expected a file for the model card";
            return Err(Error::Usage(what.to_owned()));
        }
        self.input_readme().map(drop)
    }

    /// The README that goes with the weights; empty without one.
    fn input_readme(&self) -> Result<Vec<u8>> {
        match find(self.checkpoint, self.sidecars)? {
            Some(source) => Ok(source.read_all(readme::MAX_BYTES)?),
            None => Ok(Vec::new()),
        }
    }

    /// Writes the card, and the README with it, and adds both to `other_files`.
    pub fn write(
        &self,
        staging: &Staging,
        records: &Records,
        other_files: &mut OtherFiles,
    ) -> Result<()> {
        let card = Card {
            config: &config_json(self.checkpoint.dir()),
            tool: TOOL,
            recipe: self.recipe,
            totals: Totals::of(&records.tensors),
            shards: &records.shards,
            tensors: &records.tensors,
            source: self.source.and_then(ModelSource::hub),
            base: self.base,
        };
        let card = card.text();
        other_files.files.push(staging.write_file(manifest::CARD_NAME, card.as_bytes())?);
        if self.place == CardPlace::InReadme {
            let text = Readme::of(&self.input_readme()?).with_card(card.as_bytes());
            other_files.files.push(staging.write_file(readme::FILE_NAME, &text)?);
            other_files.rewritten.push(readme::FILE_NAME.to_owned());
        }
        Ok(())
    }
}

/// The metadata of the model's own README.
pub(super) fn front_matter(checkpoint: &Checkpoint, sidecars: &[Sidecar]) -> Result<FrontMatter> {
    let Some(source) = find(checkpoint, sidecars)? else { return Ok(FrontMatter::default()) };
    if source.len() > readme::MAX_BYTES {
        let why = format!("README.md has over {} bytes", readme::MAX_BYTES);
        return Ok(FrontMatter::unread(&why));
    }
    let bytes = source.read_all(readme::MAX_BYTES)?;
    Ok(Readme::of(&bytes).front_matter.map(FrontMatter::read).unwrap_or_default())
}

/// The README among the files that go with the weights.
fn find(checkpoint: &Checkpoint, sidecars: &[Sidecar]) -> Result<Option<Source>> {
    let is_readme = |file: &&Sidecar| {
        file.path == Path::new(readme::FILE_NAME) && file.disposition == Disposition::Copy
    };
    let found = sidecars.iter().find(is_readme);
    Ok(found.map(|file| Source::open(&checkpoint.dir().join(&file.path))).transpose()?)
}
