//! Tensors of a model by name, as the maps and vectors of a decoder.

use std::collections::HashMap;

use half::f16;
use physarium_checkpoint::{Dtype, Malformed, Shard, Source, TensorInfo};
use physarium_kernels::{Dense, Linear, Sparse, Weights as MapWeights, large_zeroed};
use physarium_pack::{Form, Packed, TensorRecord};

use crate::error::Result;
use crate::files::ModelFiles;

/// The tensors of a model by name.
pub(crate) struct Weights {
    files: ModelFiles,
    places: HashMap<String, Place>,
}

/// Where a tensor is.
enum Place {
    /// Shard, and place in it.
    Shard(usize, usize),
    Packed(TensorRecord),
}

impl Weights {
    pub(crate) fn new(files: ModelFiles) -> Weights {
        let mut places = HashMap::new();
        match &files {
            ModelFiles::Directory(checkpoint) => {
                for (at, shard) in checkpoint.shards().iter().enumerate() {
                    for (index, tensor) in shard.tensors.iter().enumerate() {
                        places.insert(tensor.name.clone(), Place::Shard(at, index));
                    }
                }
            }
            ModelFiles::Packed(packed) => {
                for tensor in packed.tensors() {
                    places.insert(tensor.name.clone(), Place::Packed(tensor.clone()));
                }
            }
        }
        Weights { files, places }
    }

    pub(crate) fn files(&self) -> &ModelFiles {
        &self.files
    }

    /// The tensor's place, with its shape and dtype proven.
    ///
    /// # Errors
    /// `Malformed` when it is not there, of another shape, or no dtype that is computed with.
    pub(crate) fn find(&self, name: &str, shape: &[usize]) -> Result<Tensor<'_>> {
        let tensor = match (self.places.get(name), &self.files) {
            (Some(Place::Shard(shard, index)), ModelFiles::Directory(checkpoint)) => {
                let shard = &checkpoint.shards()[*shard];
                Tensor::Shard(Stored { shard, info: &shard.tensors[*index] })
            }
            (Some(Place::Packed(record)), ModelFiles::Packed(packed)) => {
                Tensor::Packed { packed, record }
            }
            _ => {
                let expected = format!("{} {shape:?}", "a tensor");
                let fault =
                    Malformed::new(self.files.path(), "tensor is missing", expected, "none");
                return Err(fault.with_tensor(name).into());
            }
        };
        if !tensor.shape().iter().copied().eq(shape.iter().map(|size| *size as u64)) {
            let expected = format!("{shape:?} by config.json");
            let found = format!("{:?}", tensor.shape());
            return Err(tensor.fault("shape", expected, found).into());
        }
        if !matches!(tensor.dtype(), Dtype::BF16 | Dtype::F16 | Dtype::F32) {
            let found = tensor.dtype().name().to_owned();
            return Err(tensor.fault("dtype", "BF16, F16 or F32".to_owned(), found).into());
        }
        Ok(tensor)
    }

    /// A vector as float32.
    pub(crate) fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>> {
        let mut vector = vec![0.0; len];
        self.find(name, &[len])?.read(len)?.widen(0, &mut vector);
        Ok(vector)
    }

    /// A map `name.weight` with, where it has one, `name.bias`.
    pub(crate) fn linear(
        &self,
        name: &str,
        [outputs, inputs]: [usize; 2],
        bias: bool,
    ) -> Result<Linear> {
        let weights = self.find(&format!("{name}.weight"), &[outputs, inputs])?;
        let weights = weights.matrix([outputs, inputs])?;
        let bias = bias.then(|| self.vector(&format!("{name}.bias"), outputs)).transpose()?;
        Ok(Linear::new(outputs, inputs, weights, bias))
    }
}

/// A tensor that was found.
pub(crate) enum Tensor<'a> {
    Shard(Stored<'a>),
    Packed { packed: &'a Packed, record: &'a TensorRecord },
}

/// A tensor as it is in a shard, of which parts can be read.
pub(crate) struct Stored<'a> {
    shard: &'a Shard,
    info: &'a TensorInfo,
}

impl Stored<'_> {
    /// Opens its file, proven unchanged.
    pub(crate) fn open(&self) -> Result<Source> {
        Ok(self.shard.reopen()?)
    }

    /// Reads `len` elements from `begin` on.
    pub(crate) fn read(&self, source: &Source, begin: usize, len: usize) -> Result<Dense> {
        let offset = self.info.begin + begin as u64 * (self.info.dtype.bits() / 8);
        elements(self.info.dtype, len, |bytes| Ok(source.read_exact_at(bytes, offset)?))
    }
}

impl Tensor<'_> {
    /// Its element type.
    pub(crate) fn dtype(&self) -> Dtype {
        match self {
            Tensor::Shard(stored) => stored.info.dtype,
            Tensor::Packed { record, .. } => record.dtype,
        }
    }

    fn shape(&self) -> &[u64] {
        match self {
            Tensor::Shard(stored) => &stored.info.shape,
            Tensor::Packed { record, .. } => &record.shape,
        }
    }

    fn fault(&self, what: &'static str, expected: String, found: String) -> Malformed {
        let (path, name) = match self {
            Tensor::Shard(stored) => (&*stored.shard.path, &stored.info.name),
            Tensor::Packed { packed, record } => (packed.path(), &record.name),
        };
        Malformed::new(path, what, expected, found).with_tensor(name)
    }

    /// Reads all `len` elements of a tensor that is stored as it is.
    pub(crate) fn read(&self, len: usize) -> Result<Dense> {
        match self {
            Tensor::Shard(stored) => stored.read(&stored.open()?, 0, len),
            Tensor::Packed { packed, record } => {
                elements(record.dtype, len, |bytes| Ok(packed.dense(record, bytes)?))
            }
        }
    }

    /// Reads a matrix, in the form that it is stored in.
    fn matrix(&self, [outputs, inputs]: [usize; 2]) -> Result<MapWeights> {
        let (packed, record) = match self {
            Tensor::Packed { packed, record } if record.form != Form::Dense => (packed, record),
            _ => return Ok(self.read(outputs * inputs)?.into()),
        };
        let count = packed.value_count(record).unwrap_or(0) as usize;
        let values = elements(self.dtype(), count, |bytes| Ok(packed.values(record, bytes)?))?;
        let mut masks = large_zeroed(packed.mask_words(record).unwrap_or(0) as usize);
        packed.masks(record, &mut masks)?;
        let sparse = Sparse::new([outputs, inputs], masks, values).map_err(|fault| {
            self.fault("masks and values", "that fit each other".to_owned(), fault.to_string())
        })?;
        Ok(sparse.into())
    }
}

/// `len` elements of a dtype that is computed with, from what `read` fills in.
fn elements(dtype: Dtype, len: usize, read: impl FnOnce(&mut [u8]) -> Result<()>) -> Result<Dense> {
    fn of<T: bytemuck::Pod>(
        len: usize,
        read: impl FnOnce(&mut [u8]) -> Result<()>,
    ) -> Result<Vec<T>> {
        // Room for what a sparse matrix puts behind its values.
        let mut elements = large_zeroed(len + Sparse::SPARE);
        elements.truncate(len);
        read(bytemuck::cast_slice_mut(&mut elements))?;
        Ok(elements)
    }
    Ok(match dtype {
        Dtype::BF16 => Dense::Bf16(of::<u16>(len, read)?),
        Dtype::F16 => Dense::F16(of::<f16>(len, read)?),
        _ => Dense::F32(of::<f32>(len, read)?),
    })
}
