//! Tensors of a model by name, read as the maps and vectors of a decoder.

use std::collections::HashMap;

use half::f16;
use physarium_checkpoint::{Dtype, Malformed, Naming, Shard, Source, TensorInfo};
use physarium_kernels::{Dense, Linear, Sparse, Weights as MapWeights, large_zeroed};
use physarium_pack::{Form, Packed, TensorRecord};

use super::config::NormWeights;
use super::files::ModelFiles;
use super::shapes::MapShape;
use crate::error::Result;

/// Bytes of two tensors that are compared at once.
const COMPARED_BYTES: usize = 1 << 20;

/// The tensors of a model by name.
pub(crate) struct Weights {
    files: ModelFiles,
    naming: Naming,
    locations: HashMap<String, Location>,
}

/// The location of a tensor.
enum Location {
    Shard {
        /// Index of the shard in the checkpoint.
        shard: usize,
        /// Index of the tensor in the shard.
        tensor: usize,
    },
    Packed(TensorRecord),
}

impl Weights {
    pub(crate) fn new(files: ModelFiles) -> Weights {
        let mut locations = HashMap::new();
        match &files {
            ModelFiles::Directory(checkpoint) => {
                for (shard, header) in checkpoint.shards().iter().enumerate() {
                    for (tensor, info) in header.tensors.iter().enumerate() {
                        locations.insert(info.name.clone(), Location::Shard { shard, tensor });
                    }
                }
            }
            ModelFiles::Packed(packed) => {
                for tensor in packed.tensors() {
                    locations.insert(tensor.name.clone(), Location::Packed(tensor.clone()));
                }
            }
        }
        let naming = Naming::of(locations.keys().map(String::as_str));
        Weights { files, naming, locations }
    }

    pub(crate) fn files(&self) -> &ModelFiles {
        &self.files
    }

    /// How the model spells the names of its tensors.
    pub(crate) fn naming(&self) -> &Naming {
        &self.naming
    }

    /// Names of all tensors.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.locations.keys().map(String::as_str)
    }

    /// Whether a tensor of this name is stored.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.locations.contains_key(name)
    }

    /// The tensor of this name, after a check of its shape and dtype.
    ///
    /// # Errors
    /// `Malformed` if it is missing, or has another shape or an unsupported dtype.
    pub(crate) fn find(&self, name: &str, shape: &[usize]) -> Result<Tensor<'_>> {
        let tensor = match (self.locations.get(name), &self.files) {
            (Some(Location::Shard { shard, tensor }), ModelFiles::Directory(checkpoint)) => {
                let shard = &checkpoint.shards()[*shard];
                Tensor::Shard(Stored { shard, info: &shard.tensors[*tensor] })
            }
            (Some(Location::Packed(record)), ModelFiles::Packed(packed)) => {
                Tensor::Packed { packed, record }
            }
            _ => {
                let expected = format!("a tensor {shape:?}");
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

    /// The weight of a norm, by which its inputs are multiplied after division by their root mean square.
    pub(crate) fn norm(&self, name: &str, len: usize, stored: NormWeights) -> Result<Vec<f32>> {
        let mut weight = self.vector(name, len)?;
        if stored == NormWeights::LessOne {
            weight.iter_mut().for_each(|weight| *weight += 1.0);
        }
        Ok(weight)
    }

    /// A matrix `[outputs, inputs]` as a map without a bias.
    pub(crate) fn matrix(&self, name: &str, [outputs, inputs]: [usize; 2]) -> Result<Linear> {
        let weights = self.find(name, &[outputs, inputs])?.matrix([outputs, inputs])?;
        Ok(Linear::new(outputs, inputs, weights, None))
    }

    /// The map of a module: `module.weight` and, if it has a bias, `module.bias`.
    pub(crate) fn linear(&self, module: &str, shape: &MapShape) -> Result<Linear> {
        let size @ [outputs, inputs] = [shape.outputs, shape.inputs];
        let weights = self.find(&format!("{module}.weight"), &size)?.matrix(size)?;
        let bias = || self.vector(&format!("{module}.bias"), outputs);
        let bias = shape.bias.then(bias).transpose()?;
        Ok(Linear::new(outputs, inputs, weights, bias))
    }
}

/// A tensor that was found.
pub(crate) enum Tensor<'a> {
    Shard(Stored<'a>),
    Packed { packed: &'a Packed, record: &'a TensorRecord },
}

/// A tensor in a shard; parts of it can be read.
pub(crate) struct Stored<'a> {
    shard: &'a Shard,
    info: &'a TensorInfo,
}

impl Stored<'_> {
    /// Opens its file after a check that it has not changed.
    pub(crate) fn open(&self) -> Result<Source> {
        Ok(self.shard.reopen()?)
    }

    /// Reads `len` elements, the first of which is `begin`.
    pub(crate) fn read(&self, source: &Source, begin: usize, len: usize) -> Result<Dense> {
        let offset = self.info.begin + begin as u64 * (self.info.dtype.bits() / 8);
        elements(self.info.dtype, len, |bytes| Ok(source.read_exact_at(bytes, offset)?))
    }

    /// Reads until the first difference.
    fn has_same_bytes(&self, other: &Stored<'_>) -> Result<bool> {
        let size = self.info.size_bytes();
        if self.info.dtype != other.info.dtype || other.info.size_bytes() != size {
            return Ok(false);
        }
        let (source, others) = (self.open()?, other.open()?);
        let [mut one, mut two] = [(); 2].map(|()| vec![0; COMPARED_BYTES.min(size as usize)]);
        for at in (0..size).step_by(COMPARED_BYTES) {
            let len = COMPARED_BYTES.min((size - at) as usize);
            source.read_exact_at(&mut one[..len], self.info.begin + at)?;
            others.read_exact_at(&mut two[..len], other.info.begin + at)?;
            if one[..len] != two[..len] {
                return Ok(false);
            }
        }
        Ok(true)
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

    /// Whether another tensor of the same shape and model has the same dtype and bytes.
    ///
    /// # Errors
    /// `Checkpoint` if a shard cannot be read.
    pub(crate) fn has_same_bytes(&self, other: &Tensor<'_>) -> Result<bool> {
        match (self, other) {
            (Tensor::Packed { packed, record }, Tensor::Packed { record: other, .. }) => {
                Ok(packed.have_same_bytes(record, other))
            }
            (Tensor::Shard(one), Tensor::Shard(other)) => one.has_same_bytes(other),
            _ => Ok(false),
        }
    }

    fn fault(&self, what: &'static str, expected: String, found: String) -> Malformed {
        let (path, name) = match self {
            Tensor::Shard(stored) => (&*stored.shard.path, &stored.info.name),
            Tensor::Packed { packed, record } => (packed.path(), &record.name),
        };
        Malformed::new(path, what, expected, found).with_tensor(name)
    }

    /// Reads all `len` elements of a tensor that is stored dense.
    pub(crate) fn read(&self, len: usize) -> Result<Dense> {
        match self {
            Tensor::Shard(stored) => stored.read(&stored.open()?, 0, len),
            Tensor::Packed { packed, record } => {
                elements(record.dtype, len, |bytes| Ok(packed.dense(record, bytes)?))
            }
        }
    }

    /// Reads a matrix in its stored form.
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
            let expected = "one value for each 1 in the masks".to_owned();
            self.fault("mask and value counts differ", expected, fault.to_string())
        })?;
        Ok(sparse.into())
    }
}

/// Reads `len` elements of a supported dtype; `read` fills in their bytes.
fn elements(dtype: Dtype, len: usize, read: impl FnOnce(&mut [u8]) -> Result<()>) -> Result<Dense> {
    fn of<T: bytemuck::Pod>(
        len: usize,
        read: impl FnOnce(&mut [u8]) -> Result<()>,
    ) -> Result<Vec<T>> {
        // A sparse matrix pads its values; this reserves the space.
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
