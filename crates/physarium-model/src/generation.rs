//! Token-by-token decoding with cached keys and values.

use std::sync::Arc;

use physarium_kernels::{Buffer, Compute};

use crate::decoder::Decoder;
use crate::error::Result;
use crate::layers::head::Head;
use crate::layers::layer::{KeysValues, Layer};
use crate::layers::workspace::Workspace;

/// Token-by-token decoding of one text.
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
    /// Prepares for a text of at most `positions` tokens; memory grows with the tokens fed. Reads all weights; the
    /// decoder keeps them if it is [`Resident`](crate::decoder::Residency::Resident).
    ///
    /// # Errors
    /// `Checkpoint` if weights cannot be read or differ from their digests.
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
            workspace: Workspace::new(compute, decoder.config(), 0),
            layers,
            head: decoder.head()?,
            positions,
            seen: 0,
            logits: Buffer::default(),
        })
    }

    /// Number of tokens processed so far.
    pub fn seen(&self) -> usize {
        self.seen
    }

    /// Size in bytes of the weights that each token reads.
    pub fn weights_bytes(&self) -> usize {
        let layers = self.layers.iter().map(|(layer, _)| layer.weights_bytes());
        layers.sum::<usize>() + self.head.map.weights_bytes()
    }

    /// Processes the next tokens together; memory grows with their number. Returns the logits `[vocabulary]` of
    /// the token that follows them.
    ///
    /// # Errors
    /// `Token` for an id outside the vocabulary; `Checkpoint` if embeddings cannot be read.
    ///
    /// # Panics
    /// If there are no tokens, or more than the remaining positions.
    pub fn feed(&mut self, tokens: &[u32]) -> Result<&[f32]> {
        assert!(!tokens.is_empty(), "no tokens");
        assert!(
            self.seen + tokens.len() <= self.positions,
            "more than {} positions",
            self.positions
        );
        let mut hidden = self.decoder.embedding()?.of(tokens)?;
        self.workspace.extend(self.decoder.config(), self.seen + tokens.len());
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
