//! Token-by-token decoding: keys and values of earlier tokens are kept.

use std::sync::Arc;

use physarium_kernels::{Buffer, Compute};

use crate::decoder::Decoder;
use crate::error::Result;
use crate::head::Head;
use crate::layer::{KeysValues, Layer};
use crate::workspace::Workspace;

/// A text that is decoded token by token.
pub struct Generation<'a> {
    decoder: &'a Decoder,
    workspace: Workspace<'a>,
    layers: Vec<(Arc<Layer>, KeysValues)>,
    head: Arc<Head>,
    positions: usize,
    seen: usize,
    logits: Buffer,
}

impl<'a> Generation<'a> {
    /// For a text of at most `positions` tokens. Reads all weights, and keeps them where the decoder is
    /// [`Resident`](crate::decoder::Residency::Resident).
    ///
    /// # Errors
    /// `Checkpoint` when weights cannot be read, or differ from their digests.
    pub fn new(
        compute: &'a Compute,
        decoder: &'a Decoder,
        positions: usize,
    ) -> Result<Generation<'a>> {
        decoder.load(compute)?;
        let layer = |index| Ok((decoder.layer(index)?, KeysValues::default()));
        let layers = (0..decoder.config().layers()).map(layer).collect::<Result<Vec<_>>>()?;
        Ok(Generation {
            decoder,
            workspace: Workspace::new(compute, decoder.config(), positions),
            layers,
            head: decoder.head()?,
            positions,
            seen: 0,
            logits: Buffer::default(),
        })
    }

    /// Tokens seen so far.
    pub fn seen(&self) -> usize {
        self.seen
    }

    /// Bytes of weights that a token reads.
    pub fn weights_bytes(&self) -> usize {
        let layers = self.layers.iter().map(|(layer, _)| layer.weights_bytes());
        layers.sum::<usize>() + self.head.map.weights_bytes()
    }

    /// Takes the next tokens, which pass the layers together: memory grows with their number. Returns the
    /// logits `[vocabulary]` for the token after the last of them.
    ///
    /// # Errors
    /// `Token` for an id beyond the vocabulary; `Checkpoint` when embeddings cannot be read.
    ///
    /// # Panics
    /// For no tokens, or for more than there are positions.
    pub fn feed(&mut self, tokens: &[u32]) -> Result<&[f32]> {
        assert!(!tokens.is_empty(), "no tokens");
        assert!(self.seen + tokens.len() <= self.positions, "more than {}", self.positions);
        let mut hidden = self.decoder.embed(tokens)?;
        let (workspace, layers) = (&self.workspace, &mut self.layers);
        workspace.compute().within(|| {
            for (layer, past) in layers {
                layer.forward_after(workspace, past, &mut hidden);
            }
        });
        self.seen += tokens.len();
        let last = &hidden[hidden.len() - self.decoder.config().hidden..];
        let (head, logits) = (&self.head, &mut self.logits);
        workspace.compute().within(|| head.logits(workspace, last, logits));
        Ok(&self.logits)
    }
}
