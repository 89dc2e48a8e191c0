//! The rows of a model's embedding, for as long as windows are embedded.

use std::path::Path;
use std::sync::Arc;

use physarium_checkpoint::Source;
use physarium_kernels::{Linear, vector};

use crate::error::{Error, Result};
use crate::open::weights::Stored;

/// The embedding `[vocabulary, hidden]` of an open model.
pub struct Embedding<'a> {
    pub(crate) model: &'a Path,
    pub(crate) vocabulary: usize,
    pub(crate) hidden: usize,
    /// Factor of all rows.
    pub(crate) scale: f32,
    pub(crate) rows: Rows<'a>,
}

/// Where rows come from.
pub(crate) enum Rows<'a> {
    /// A shard on this machine: only the rows of the tokens are read.
    InShard(Stored<'a>, Source),
    /// Memory. A packed tensor is read as a whole, because its digest covers all rows; a tensor in a store, because one request for
    /// each row takes longer.
    Whole(Arc<Linear>),
}

impl Embedding<'_> {
    /// Embeddings `[tokens, hidden]` of each window.
    ///
    /// # Errors
    /// As [`Embedding::of`].
    pub fn of_each(&self, windows: &[&[u32]]) -> Result<Vec<Vec<f32>>> {
        windows.iter().map(|window| self.of(window)).collect()
    }

    /// Embeddings `[tokens, hidden]`.
    ///
    /// # Errors
    /// `Token` for an id outside the vocabulary; `Checkpoint` if the file cannot be read.
    pub fn of(&self, tokens: &[u32]) -> Result<Vec<f32>> {
        refuse_unknown(tokens, self.vocabulary, self.model)?;
        let width = self.hidden;
        let mut rows = vec![0.0; tokens.len() * width];
        for (row, &token) in rows.chunks_exact_mut(width).zip(tokens) {
            match &self.rows {
                Rows::Whole(embedding) => embedding.row(token as usize, row),
                Rows::InShard(stored, source) => {
                    stored.read(source, token as usize * width, width)?.widen(0, row);
                }
            }
        }
        if self.scale != 1.0 {
            vector::scale(&mut rows, self.scale);
        }
        Ok(rows)
    }
}

/// Fails for a token outside the vocabulary.
///
/// # Errors
/// `Token`.
pub(crate) fn refuse_unknown(tokens: &[u32], vocabulary: usize, model: &Path) -> Result<()> {
    match tokens.iter().find(|token| **token as usize >= vocabulary) {
        Some(&token) => Err(Error::Token { model: model.to_owned(), token, vocabulary }),
        None => Ok(()),
    }
}
