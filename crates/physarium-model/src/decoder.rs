/*!
A model that can be run.

In: a checkpoint directory or a packed file. Out: the embedding, layers and the head, read on request.
All shapes are checked when the model is opened, so that a long run does not fail late because of a missing
tensor.
*/

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use physarium_checkpoint::{Dtype, Source};
use physarium_kernels::{Compute, Linear};

use crate::embedding::{Embedding, Rows, refuse_unknown};
use crate::error::Result;
use crate::layers::head::Head;
use crate::layers::layer::Layer;
use crate::open::config::Config;
use crate::open::files::ModelFiles;
use crate::open::notes::Note;
use crate::open::vocabulary::{Checked, Vocabulary};
use crate::open::weights::{Stored, Tensor, Weights};

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
    /// The embedding, where it is read as a whole and kept.
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

    /// The embedding. From a checkpoint directory, only the rows of tokens will be read; that of a packed model, or of one in a store, is
    /// in memory while the result lives, and is kept if weights are [`Resident`](Residency::Resident) or packed.
    ///
    /// # Errors
    /// `Checkpoint` if the file cannot be read.
    pub fn embedding(&self) -> Result<Embedding<'_>> {
        let (vocabulary, hidden) = (self.config.vocabulary, self.config.hidden);
        let rows = match self.local_embedding()? {
            Some((stored, source)) => Rows::InShard(stored, source),
            None => Rows::Whole(self.whole_embedding()?),
        };
        let scale = self.config.embedding_scale;
        Ok(Embedding { model: self.files().path(), vocabulary, hidden, scale, rows })
    }

    /// Fails for a token outside the vocabulary.
    ///
    /// # Errors
    /// `Token`.
    pub fn refuse_unknown(&self, tokens: &[u32]) -> Result<()> {
        refuse_unknown(tokens, self.config.vocabulary, self.files().path())
    }

    /// The embedding's place in a shard on this machine; `None` if it is in a packed file or in a store.
    fn local_embedding(&self) -> Result<Option<(Stored<'_>, Source)>> {
        let size = [self.config.vocabulary, self.config.hidden];
        let Tensor::Shard(stored) = self.weights.find(&self.vocabulary.embedding, &size)? else {
            return Ok(None);
        };
        let source = stored.open()?;
        Ok((!source.is_in_store()).then_some((stored, source)))
    }

    /// The whole embedding `[vocabulary, hidden]`.
    fn whole_embedding(&self) -> Result<Arc<Linear>> {
        let is_packed = matches!(self.files(), ModelFiles::Packed(_));
        let slot = (is_packed || self.kept_head.is_some()).then_some(&self.embedding);
        kept(slot, || self.of_vocabulary(&self.vocabulary.embedding))
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
            let map = match self.vocabulary.is_tied() && self.local_embedding()?.is_none() {
                true => self.whole_embedding()?,
                false => self.of_vocabulary(&self.vocabulary.head)?,
            };
            let Config { hidden, norm_weights, .. } = self.config;
            let norm = self.weights.norm(&self.weights.naming().norm(), hidden, norm_weights)?;
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
