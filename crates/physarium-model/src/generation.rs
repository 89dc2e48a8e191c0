//! One token after another: keys and values of what has been seen are kept.

use std::sync::Arc;

use physarium_kernels::{Buffer, Compute};

use crate::decoder::Decoder;
use crate::error::Result;
use crate::head::Head;
use crate::layer::{KeysValues, Layer, Run};

/// A text on its way through a decoder.
pub struct Generation<'a> {
    decoder: &'a Decoder,
    run: Run<'a>,
    layers: Vec<(Arc<Layer>, KeysValues)>,
    head: Arc<Head>,
    positions: usize,
    seen: usize,
    logits: Buffer,
}

impl<'a> Generation<'a> {
    /// For a text of at most `positions` tokens. Reads all weights, and keeps them where the decoder is
    /// [`Resident`](crate::Residency::Resident).
    ///
    /// # Errors
    /// `Checkpoint` when weights cannot be read, or are not as their digests say.
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
            run: Run::new(compute, decoder.config(), positions),
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

    /// Takes the next tokens, which go through the layers together: memory grows with their number. Returns
    /// the logits `[vocabulary]` of what comes after the last of them.
    ///
    /// # Errors
    /// `Token` for an id beyond the vocabulary; `Checkpoint` when embeddings cannot be read.
    ///
    /// # Panics
    /// For no tokens, or more than there are positions.
    pub fn feed(&mut self, tokens: &[u32]) -> Result<&[f32]> {
        assert!(!tokens.is_empty(), "no tokens");
        assert!(self.seen + tokens.len() <= self.positions, "more than {}", self.positions);
        let mut hidden = self.decoder.embed(tokens)?;
        let (run, layers) = (&self.run, &mut self.layers);
        run.compute().within(|| {
            for (layer, past) in layers {
                layer.forward_after(run, past, &mut hidden);
            }
        });
        self.seen += tokens.len();
        let last = &hidden[hidden.len() - self.decoder.config().hidden..];
        let (run, head, logits) = (&self.run, &self.head, &mut self.logits);
        run.compute().within(|| head.logits(run, last, logits));
        Ok(&self.logits)
    }
}
