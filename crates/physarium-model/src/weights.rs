//! Tensors of a checkpoint by name, as the maps and vectors of a decoder.

use std::collections::HashMap;

use half::f16;
use physarium_checkpoint::{Checkpoint, Dtype, Malformed, Source, TensorInfo};
use physarium_kernels::{Dense, Linear};

use crate::error::Result;

/// The tensors of a checkpoint by name.
pub(crate) struct Weights {
    checkpoint: Checkpoint,
    /// Shard and place in it.
    places: HashMap<String, (usize, usize)>,
}

impl Weights {
    pub(crate) fn new(checkpoint: Checkpoint) -> Weights {
        let mut places = HashMap::new();
        for (at, shard) in checkpoint.shards().iter().enumerate() {
            for (index, tensor) in shard.tensors.iter().enumerate() {
                places.insert(tensor.name.clone(), (at, index));
            }
        }
        Weights { checkpoint, places }
    }

    pub(crate) fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// The tensor's place, with its shape and dtype proven.
    ///
    /// # Errors
    /// `Malformed` when it is not there, of another shape, or no dtype that is computed with.
    pub(crate) fn find(&self, name: &str, shape: &[usize]) -> Result<Tensor<'_>> {
        let Some(&(shard, index)) = self.places.get(name) else {
            let expected = format!("{} {shape:?}", "a tensor");
            let fault =
                Malformed::new(self.checkpoint.dir(), "tensor is missing", expected, "none");
            return Err(fault.with_tensor(name).into());
        };
        let shard = &self.checkpoint.shards()[shard];
        let info = &shard.tensors[index];
        let fault = |what, expected: String, found: String| {
            Malformed::new(&shard.path, what, expected, found).with_tensor(name)
        };
        if !info.shape.iter().copied().eq(shape.iter().map(|size| *size as u64)) {
            let expected = format!("{shape:?} by config.json");
            return Err(fault("shape", expected, format!("{:?}", info.shape)).into());
        }
        if !matches!(info.dtype, Dtype::BF16 | Dtype::F16 | Dtype::F32) {
            let found = info.dtype.name().to_owned();
            return Err(fault("dtype", "BF16, F16 or F32".to_owned(), found).into());
        }
        Ok(Tensor { shard, info })
    }

    /// A vector as float32.
    pub(crate) fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>> {
        let mut vector = vec![0.0; len];
        self.find(name, &[len])?.read(0, len)?.widen(0, &mut vector);
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
        let weights = weights.read(0, outputs * inputs)?;
        let bias = bias.then(|| self.vector(&format!("{name}.bias"), outputs)).transpose()?;
        Ok(Linear::new(outputs, inputs, weights, bias))
    }
}

/// A tensor's place in its shard.
pub(crate) struct Tensor<'a> {
    shard: &'a physarium_checkpoint::Shard,
    info: &'a TensorInfo,
}

impl Tensor<'_> {
    /// Its element type.
    pub(crate) fn dtype(&self) -> Dtype {
        self.info.dtype
    }

    /// Reads `len` elements from `begin` on.
    pub(crate) fn read(&self, begin: usize, len: usize) -> Result<Dense> {
        self.read_from(&self.shard.reopen()?, begin, len)
    }

    /// The same from a file that is open already.
    pub(crate) fn read_from(&self, source: &Source, begin: usize, len: usize) -> Result<Dense> {
        Ok(match self.info.dtype {
            Dtype::BF16 => Dense::Bf16(self.elements::<u16>(source, begin, len)?),
            Dtype::F16 => Dense::F16(self.elements::<f16>(source, begin, len)?),
            _ => Dense::F32(self.elements::<f32>(source, begin, len)?),
        })
    }

    fn elements<T: bytemuck::Pod>(
        &self,
        source: &Source,
        begin: usize,
        len: usize,
    ) -> Result<Vec<T>> {
        let mut elements = vec![T::zeroed(); len];
        let offset = self.info.begin + (begin * size_of::<T>()) as u64;
        source.read_exact_at(bytemuck::cast_slice_mut(&mut elements), offset)?;
        Ok(elements)
    }

    /// Opens the shard's file, proven unchanged.
    pub(crate) fn open(&self) -> Result<Source> {
        Ok(self.shard.reopen()?)
    }
}
