/*!
The tensors that may have many zeros, read in bands, and what they would take in a packed file.
*/

use physarium_checkpoint::manifest::{self, Manifest};
use physarium_checkpoint::{Checkpoint, Selection, Source, TargetNames, TensorInfo};
use serde::{Deserialize, Serialize};

use crate::Result;
use crate::census::Census;
use crate::mask_layout::{MaskLayout, masks_of};

/// The names of the tensors that may have many zeros.
pub(crate) struct Targets {
    default_projections: TargetNames,
    /// Of the run that wrote the checkpoint.
    of_recipe: Option<TargetNames>,
}

impl Targets {
    /// The default projections, and the targets of the recipe in the checkpoint's manifest. Without a valid manifest
    /// all other tensors are stored dense.
    pub(crate) fn of(checkpoint: &Checkpoint) -> Result<Targets> {
        let manifest = Manifest::read(&checkpoint.dir().join(manifest::FILE_NAME));
        let selection = manifest.ok().map(|manifest| manifest.recipe.selection());
        let of_recipe = selection.map(|selection| TargetNames::new(&selection)).transpose()?;
        Ok(Targets { default_projections: TargetNames::new(&Selection::default())?, of_recipe })
    }

    pub(crate) fn contain(&self, name: &str) -> bool {
        let mut names = std::iter::once(&self.default_projections).chain(&self.of_recipe);
        names.any(|names| names.named(name).is_some())
    }
}

/// Reads a tensor in bands of whole rows.
pub(crate) fn bands(
    source: &Source,
    tensor: &TensorInfo,
    layout: MaskLayout,
    mut visit: impl FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let band = layout.band_rows() * layout.row_bytes();
    let mut buffer = vec![0; band.min(tensor.size_bytes()) as usize];
    let mut at = tensor.begin;
    while at < tensor.end {
        let rows = &mut buffer[..band.min(tensor.end - at) as usize];
        source.read_exact_at(rows, at)?;
        visit(rows)?;
        at += rows.len() as u64;
    }
    Ok(())
}

/// Bytes of the weights of a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WeightBytes {
    /// As they are.
    pub dense: u64,
    /// In a packed file, without its header, other files and padding.
    pub packed: u64,
}

/// What the weights of a checkpoint take as they are, and what they would take in a packed file. `on_bytes` is called with
/// the bytes looked at since the last call; an error that it returns stops the work.
///
/// # Errors
/// `Io`, `InputChanged`, and what `on_bytes` returns.
pub fn weight_bytes(
    checkpoint: &Checkpoint,
    on_bytes: &mut dyn FnMut(u64) -> Result<()>,
) -> Result<WeightBytes> {
    let targets = Targets::of(checkpoint)?;
    let mut bytes = WeightBytes { dense: 0, packed: 0 };
    for shard in checkpoint.shards() {
        let source = shard.reopen()?;
        for tensor in &shard.tensors {
            bytes.dense += tensor.size_bytes();
            let is_target = targets.contain(&tensor.name);
            let layout = is_target.then(|| MaskLayout::of(tensor.dtype, &tensor.shape)).flatten();
            bytes.packed += match layout {
                Some(layout) => {
                    let mut masks = Vec::with_capacity((layout.mask_bytes() / 4) as usize);
                    bands(&source, tensor, layout, |rows| {
                        masks_of(layout, rows, &mut masks);
                        on_bytes(0)
                    })?;
                    Census::new(layout, masks).smallest().0
                }
                None => tensor.size_bytes(),
            };
            on_bytes(tensor.size_bytes())?;
        }
        source.check_unchanged(&shard.identity)?;
    }
    Ok(bytes)
}
