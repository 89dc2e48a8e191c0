/*!
A model that can be run.

In: a checkpoint directory or a packed file. Out: embeddings of tokens, layers and the head, read on request.
All shapes are checked when the model is opened, so that a long run does not fail late because of a missing
tensor.
*/

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use physarium_checkpoint::Dtype;
use physarium_kernels::{Compute, Linear};

use crate::error::{Error, Result};
use crate::layers::head::Head;
use crate::layers::layer::Layer;
use crate::open::config::Config;
use crate::open::files::ModelFiles;
use crate::open::notes::Note;
use crate::open::vocabulary::{Checked, Vocabulary};
use crate::open::weights::{Tensor, Weights};

/// Where weights are kept between uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Residency {
    /// On disk: a layer is read each time it is requested.
    Streamed,
    /// In memory, after their first use.
    Resident,
}

/// A model that can be run.
pub struct Decoder {
    config: Config,
    weights: Weights,
    vocabulary: Vocabulary,
    notes: Vec<Note>,
    /// The embedding of a packed model: its digest covers all rows, so it is read as a whole.
    embedding: Mutex<Option<Arc<Linear>>>,
    /// Kept layers by index; empty if layers are streamed.
    kept: Vec<Mutex<Option<Arc<Layer>>>>,
    kept_head: Option<Mutex<Option<Arc<Head>>>>,
}

impl Decoder {
    /// Opens a checkpoint directory or a packed file and checks config, tensors and shapes against each
    /// other.
    ///
    /// # Errors
    /// `Checkpoint` naming file, tensor, expected and found; `Unsupported` for a family, an
    /// activation or a position embedding that this decoder does not support.
    pub fn open(path: &Path, residency: Residency) -> Result<Decoder> {
        let files = ModelFiles::open(path)?;
        let config = Config::read(&files)?;
        let weights = Weights::new(files);
        let mut notes = config.notes.clone();
        let mut checked = Checked::new(&weights);
        let vocabulary = Vocabulary::find(&mut checked, &config, &mut notes)?;
        checked.find(&weights.naming().norm(), &[config.hidden])?;
        for layer in 0..config.layers() {
            Layer::check(&mut checked, &config, layer)?;
        }
        notes.extend(checked.notes());
        let (kept, kept_head) = match residency {
            Residency::Streamed => (Vec::new(), None),
            Residency::Resident => {
                ((0..config.layers()).map(|_| Mutex::new(None)).collect(), Some(Mutex::new(None)))
            }
        };
        let embedding = Mutex::default();
        Ok(Decoder { config, weights, vocabulary, notes, embedding, kept, kept_head })
    }

    /// What the user should know: settings that contradict each other and what was done about it, stored tensors
    /// that the decoder does not have, an adapter that is not applied.
    pub fn notes(&self) -> &[Note] {
        &self.notes
    }

    /// The shape of the model.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The model's files.
    pub fn files(&self) -> &ModelFiles {
        self.weights.files()
    }

    /// The element type of the first map of the first layer, which reports give as the model's.
    ///
    /// # Errors
    /// None after a successful [`Decoder::open`].
    pub fn dtype(&self) -> Result<Dtype> {
        let first = &self.config.stages()[0].maps[0];
        let name = format!("{}.weight", self.weights.naming().of_site(&first.site(0)));
        Ok(self.weights.find(&name, &[first.outputs, first.inputs])?.dtype())
    }

    /// Embeddings `[tokens, hidden]`. From a checkpoint directory, only the rows of the tokens are read; the
    /// embedding of a packed model is kept in memory.
    ///
    /// # Errors
    /// `Token` for an id outside the vocabulary; `Checkpoint` if the file cannot be read.
    pub fn embed(&self, tokens: &[u32]) -> Result<Vec<f32>> {
        let (vocabulary, width) = (self.config.vocabulary, self.config.hidden);
        if let Some(&token) = tokens.iter().find(|token| **token as usize >= vocabulary) {
            return Err(Error::Token { token, vocabulary });
        }
        let mut rows = vec![0.0; tokens.len() * width];
        let to = rows.chunks_exact_mut(width).zip(tokens);
        match self.weights.find(&self.vocabulary.embedding, &[vocabulary, width])? {
            Tensor::Packed { .. } => {
                let embedding = self.embedding()?;
                to.for_each(|(row, &token)| embedding.row(token as usize, row));
            }
            Tensor::Shard(stored) => {
                let source = stored.open()?;
                for (row, &token) in to {
                    stored.read(&source, token as usize * width, width)?.widen(0, row);
                }
            }
        }
        Ok(rows)
    }

    /// The whole embedding `[vocabulary, hidden]`, kept after its first use.
    fn embedding(&self) -> Result<Arc<Linear>> {
        kept(Some(&self.embedding), || self.of_vocabulary(&self.vocabulary.embedding))
    }

    /// The map `[vocabulary, hidden]` with this tensor's weights.
    fn of_vocabulary(&self, tensor: &str) -> Result<Arc<Linear>> {
        let size = [self.config.vocabulary, self.config.hidden];
        Ok(Arc::new(self.weights.matrix(tensor, size)?))
    }

    /// Reads all weights that are kept, on all threads.
    ///
    /// # Errors
    /// As [`Decoder::layer`].
    pub fn load(&self, compute: &Compute) -> Result<()> {
        let failed = Mutex::new(None);
        // The head and the embedding first: they are the largest.
        compute.each(self.kept.len() + 1, |task| {
            let read = match task {
                0 => self.head().map(|_| ()),
                layer => self.layer(layer - 1).map(|_| ()),
            };
            if let Err(e) = read {
                failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(e);
            }
        });
        failed.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
    }

    /// The weights of a layer.
    ///
    /// # Errors
    /// `Checkpoint` if they cannot be read or the file has changed.
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
            let map = match self.files() {
                ModelFiles::Packed(_) if self.vocabulary.is_tied() => self.embedding()?,
                _ => self.of_vocabulary(&self.vocabulary.head)?,
            };
            let norm = self.weights.vector(&self.weights.naming().norm(), self.config.hidden)?;
            Ok(Arc::new(Head { norm, epsilon: self.config.epsilon, map }))
        })
    }
}

/// The value in `slot`. An empty slot is filled by `read`; without a slot, the value is read and not kept.
fn kept<T>(
    slot: Option<&Mutex<Option<Arc<T>>>>,
    read: impl Fn() -> Result<Arc<T>>,
) -> Result<Arc<T>> {
    let Some(slot) = slot else { return read() };
    let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(there) = &*slot {
        return Ok(Arc::clone(there));
    }
    let read = read()?;
    *slot = Some(Arc::clone(&read));
    Ok(read)
}
