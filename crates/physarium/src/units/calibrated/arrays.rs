//! Files of float32 arrays that units hand on, in the safetensors format.

use std::io;
use std::path::Path;

use physarium_checkpoint::{Error as CheckpointError, Shard, Source};
use safetensors::tensor::TensorView;

use crate::error::Result;

/// An array with its name and shape.
pub(super) struct Array<'a> {
    pub name: String,
    pub shape: Vec<usize>,
    pub values: &'a [f32],
}

/// Writes arrays to a new file; the caller makes it durable.
///
/// # Errors
/// `Checkpoint` if it cannot be written.
pub(super) fn write(path: &Path, arrays: &[Array<'_>]) -> Result<()> {
    let failed =
        |e: safetensors::SafeTensorError| CheckpointError::io(path, "write", io::Error::other(e));
    let mut views = Vec::with_capacity(arrays.len());
    for Array { name, shape, values } in arrays {
        let bytes = bytemuck::cast_slice(values);
        let view = TensorView::new(safetensors::Dtype::F32, shape.clone(), bytes);
        views.push((name.as_str(), view.map_err(failed)?));
    }
    Ok(safetensors::serialize_to_file(views, None, path).map_err(failed)?)
}

/// Arrays of a file.
pub(super) struct Arrays {
    shard: Shard,
    file: Source,
}

impl Arrays {
    /// Opens a file whose bytes are proven.
    ///
    /// # Errors
    /// `Checkpoint` for a file that is not in the format.
    pub fn open(file: Source) -> Result<Arrays> {
        Ok(Arrays { shard: Shard::open(file.path())?, file })
    }

    /// The shape and the values of an array; `None` if there is none of this name.
    ///
    /// # Errors
    /// `Checkpoint` if it cannot be read.
    pub fn get(&self, name: &str) -> Result<Option<(Vec<usize>, Vec<f32>)>> {
        let Some(info) = self.shard.tensors.iter().find(|info| info.name == name) else {
            return Ok(None);
        };
        let mut values = vec![0.0; info.elements as usize];
        self.file.read_exact_at(bytemuck::cast_slice_mut(&mut values), info.begin)?;
        Ok(Some((info.shape.iter().map(|size| *size as usize).collect(), values)))
    }

    /// The error that the file has not what a unit of its kind writes.
    pub fn unexpected(&self, expected: &str) -> crate::error::Error {
        CheckpointError::Record {
            path: self.file.path().to_owned(),
            what: "arrays of a unit of work".to_owned(),
            expected: expected.to_owned(),
            found: format!("{} others", self.shard.tensors.len()),
        }
        .into()
    }
}
