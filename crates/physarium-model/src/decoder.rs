/*!
A checkpoint that can be run.

In: a directory. Out: embeddings of tokens, layers and the head, read when they are asked for. All
shapes are checked when it is opened, so that nothing fails after an hour for a missing tensor.
*/

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use physarium_checkpoint::{Checkpoint, Dtype};

use crate::config::Config;
use crate::error::{Error, Result};
use crate::head::Head;
use crate::layer::Layer;
use crate::weights::Weights;

const EMBEDDING: &str = "model.embed_tokens.weight";
const NORM: &str = "model.norm.weight";
const HEAD: &str = "lm_head";

/// Where weights are between two uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Residency {
    /// On disk: a layer is read each time that it is asked for.
    Streamed,
    /// In memory, from their first use on.
    Resident,
}

/// A checkpoint that can be run.
pub struct Decoder {
    config: Config,
    weights: Weights,
    /// Kept layers, in their order; empty when streamed.
    kept: Vec<Mutex<Option<Arc<Layer>>>>,
    kept_head: Option<Mutex<Option<Arc<Head>>>>,
}

impl Decoder {
    /// Opens a checkpoint directory and checks config, tensors and shapes against each other.
    ///
    /// # Errors
    /// `Checkpoint` naming file, tensor, expected and found; `Unsupported` for a family, an
    /// activation or a position embedding that this decoder does not have.
    pub fn open(dir: &Path, residency: Residency) -> Result<Decoder> {
        let weights = Weights::new(Checkpoint::open(dir)?);
        let config = Config::read(dir)?;
        weights.find(EMBEDDING, &[config.vocabulary, config.hidden])?;
        weights.find(NORM, &[config.hidden])?;
        if !config.tied {
            weights.find(&format!("{HEAD}.weight"), &[config.vocabulary, config.hidden])?;
        }
        for layer in 0..config.layers() {
            Layer::check(&weights, &config, layer)?;
        }
        let (kept, kept_head) = match residency {
            Residency::Streamed => (Vec::new(), None),
            Residency::Resident => {
                ((0..config.layers()).map(|_| Mutex::new(None)).collect(), Some(Mutex::new(None)))
            }
        };
        Ok(Decoder { config, weights, kept, kept_head })
    }

    /// Its shape.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The checkpoint.
    pub fn checkpoint(&self) -> &Checkpoint {
        self.weights.checkpoint()
    }

    /// The element type of the first projection, which stands for all in reports.
    ///
    /// # Errors
    /// None after a successful [`Decoder::open`].
    pub fn dtype(&self) -> Result<Dtype> {
        let shape = crate::Projection::Q.shape(&self.config);
        Ok(self.weights.find("model.layers.0.self_attn.q_proj.weight", &shape)?.dtype())
    }

    /// Embeddings `[tokens, hidden]`, one row read for each token.
    ///
    /// # Errors
    /// `Token` for an id beyond the vocabulary; `Checkpoint` when the file cannot be read.
    pub fn embed(&self, tokens: &[u32]) -> Result<Vec<f32>> {
        let (vocabulary, width) = (self.config.vocabulary, self.config.hidden);
        let tensor = self.weights.find(EMBEDDING, &[vocabulary, width])?;
        let source = tensor.open()?;
        let mut rows = vec![0.0; tokens.len() * width];
        for (row, &token) in rows.chunks_exact_mut(width).zip(tokens) {
            if token as usize >= vocabulary {
                return Err(Error::Token { token, vocabulary });
            }
            tensor.read_from(&source, token as usize * width, width)?.widen(0, row);
        }
        Ok(rows)
    }

    /// The weights of a layer.
    ///
    /// # Errors
    /// `Checkpoint` when they cannot be read or the file has changed.
    pub fn layer(&self, index: usize) -> Result<Arc<Layer>> {
        let read = || Ok(Arc::new(Layer::read(&self.weights, &self.config, index)?));
        kept(self.kept.get(index), read)
    }

    /// The final norm and the map to the vocabulary.
    ///
    /// # Errors
    /// As [`Decoder::layer`].
    pub fn head(&self) -> Result<Arc<Head>> {
        kept(self.kept_head.as_ref(), || {
            let config = &self.config;
            let module = if config.tied { EMBEDDING.trim_end_matches(".weight") } else { HEAD };
            Ok(Arc::new(Head {
                norm: self.weights.vector(NORM, config.hidden)?,
                epsilon: config.epsilon,
                map: self.weights.linear(module, [config.vocabulary, config.hidden], false)?,
            }))
        })
    }
}

/// What is kept in `slot`, or what `read` gives, kept where there is a slot.
fn kept<T>(
    slot: Option<&Mutex<Option<Arc<T>>>>,
    read: impl Fn() -> Result<Arc<T>>,
) -> Result<Arc<T>> {
    let Some(slot) = slot else { return read() };
    let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(there) = &*slot {
        return Ok(Arc::clone(there));
    }
    let fresh = read()?;
    *slot = Some(Arc::clone(&fresh));
    Ok(fresh)
}
