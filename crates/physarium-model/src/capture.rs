/*!
Two streams through a model, past somebody who looks at them and may change the weights.

The dense stream is what the model computes as it is; the pruned stream is what it computes with the
weights as they have become so far. In: a decoder and windows of tokens. Out: for each layer and each
stage in the order of the data, the inputs of its projections in both streams.
*/

use std::sync::Arc;

use physarium_kernels::Buffer;

use crate::decoder::Decoder;
use crate::error::Error;
use crate::layer::{Layer, Run, Stage};

/// A stage of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The layer, from nought on.
    pub layer: usize,
    /// The stage.
    pub stage: Stage,
}

/// Looks at the inputs of projections.
pub trait Capture {
    /// What stops the walk, beside the decoder.
    type Error: From<Error>;

    /// The inputs `[tokens, inputs]` of the projections at `place` for one window, in both streams.
    /// Everything before `place` is pruned in the second.
    ///
    /// # Errors
    /// Whatever stops the walk.
    fn inputs(&mut self, place: Place, dense: &[f32], pruned: &[f32]) -> Result<(), Self::Error>;

    /// All windows have been seen at `place`: its projections in `pruned` may be replaced now.
    ///
    /// # Errors
    /// Whatever stops the walk.
    fn finish(&mut self, place: Place, pruned: &mut Layer) -> Result<(), Self::Error>;
}

/// Walks the windows through the model, layer by layer and stage by stage.
///
/// Memory holds the residual streams and the mixes of values of all windows, two layers of weights,
/// and what `capture` keeps; the inputs of `down` are computed twice instead of being kept.
///
/// # Errors
/// Those of the decoder and of `capture`.
pub fn walk<C: Capture>(
    decoder: &Decoder,
    windows: &[&[u32]],
    run: &Run<'_>,
    capture: &mut C,
) -> Result<(), C::Error> {
    let embed = |window: &&[u32]| decoder.embed(window);
    let mut dense = windows.iter().map(embed).collect::<Result<Vec<_>, Error>>()?;
    let mut pruned = dense.clone();
    for layer in 0..decoder.config().layers() {
        let whole = decoder.layer(layer)?;
        // A layer of its own, for the capture to change.
        let mut changed = match Arc::try_unwrap(decoder.layer(layer)?) {
            Ok(own) => own,
            Err(shared) => Layer::clone(&shared),
        };
        for stages in [[Stage::Qkv, Stage::Output], [Stage::GateUp, Stage::Down]] {
            for stage in stages {
                let place = Place { layer, stage };
                let (mut a, mut b) = (Buffer::default(), Buffer::default());
                for (dense, pruned) in dense.iter().zip(&pruned) {
                    whole.inputs(stage, run, dense, &mut a);
                    changed.inputs(stage, run, pruned, &mut b);
                    capture.inputs(place, &a, &b)?;
                }
                capture.finish(place, &mut changed)?;
            }
            let (last, mut x) = (stages[1], Buffer::default());
            for (stream, weights) in [(&mut dense, &*whole), (&mut pruned, &changed)] {
                for hidden in stream.iter_mut() {
                    weights.inputs(last, run, hidden, &mut x);
                    weights.add_outputs(last, run, &x, hidden);
                }
            }
        }
    }
    Ok(())
}
