//! A README.md that `prune --card` has rewritten, as the manifest says: the card, then the text of the input's.

use std::path::Path;

use physarium_checkpoint::readme::{self, Readme};
use physarium_checkpoint::{Checkpoint, Source, manifest, printable};

use super::findings::Verification;
use super::own::open_output;

/// Largest card that is read, in bytes; it has a line for each projection and each shard.
const MAX_CARD_BYTES: u64 = 64 << 20;

/// The files of an output that its manifest lists as rewritten.
pub(super) struct Rewritten<'a> {
    /// The input.
    pub checkpoint: &'a Checkpoint,
    pub out: &'a Path,
    pub paths: &'a [String],
}

impl Rewritten<'_> {
    /// Whether a file of the output is not a copy. Only README.md can be one.
    pub fn has(&self, path: &str) -> bool {
        path == readme::FILE_NAME && self.paths.iter().any(|other| other == path)
    }

    /// Verifies the files. `is_copied` is whether the input's README goes with every output.
    pub fn verify(&self, is_copied: bool, result: &mut Verification) {
        for path in self.paths.iter().filter(|path| *path != readme::FILE_NAME) {
            let what = format!("rewritten: expected README.md only, found {}", printable(path));
            result.report(manifest::FILE_NAME, None, what);
        }
        if !self.has(readme::FILE_NAME) {
            return;
        }
        result.rewritten.push(readme::FILE_NAME.to_owned());
        let Some(there) = self.read(readme::FILE_NAME, result) else { return };
        let Some(card) = self.read(manifest::CARD_NAME, result) else { return };
        let input = Source::open(&self.checkpoint.dir().join(readme::FILE_NAME));
        let input = input.and_then(|source| source.read_all(readme::MAX_BYTES)).ok();
        let with_text = input.as_deref().map(|input| Readme::of(input).with_card(&card));
        // The text of a README beyond a link is there only with --follow-links.
        let is_card = !is_copied && there == card;
        if with_text.as_deref() != Some(&there[..]) && !is_card {
            let what = "is neither the input's, nor the card and the text of the input's";
            result.report(readme::FILE_NAME, None, what);
        }
    }

    /// The bytes of a file of the output; a missing one is a finding elsewhere.
    fn read(&self, name: &str, result: &mut Verification) -> Option<Vec<u8>> {
        let source = open_output(self.out, name, result)?;
        match source.read_all(MAX_CARD_BYTES) {
            Ok(bytes) => Some(bytes),
            Err(e) => {
                result.report(name, None, format!("cannot be read: {e}"));
                None
            }
        }
    }
}
