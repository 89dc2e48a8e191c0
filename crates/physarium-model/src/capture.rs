/*!
Two streams through a model, past somebody who looks at them and may change the weights.

The dense stream is what the model computes as it is; the pruned stream is what it computes with the
weights as they have become so far. In: a decoder and windows of tokens. Out: for each layer and each
stage in the order of the data, the inputs of its projections in both streams.
*/

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

    /// Whether the dense stream is looked at; where it is not, it is not computed.
    fn wants_dense(&self) -> bool;

    /// The inputs `[tokens, inputs]` of the projections at `place` for one window, in the dense stream
    /// (if it is wanted) and in the pruned one. Everything before `place` is pruned in the second.
    ///
    /// # Errors
    /// Whatever stops the walk.
    fn inputs(
        &mut self,
        place: Place,
        dense: Option<&[f32]>,
        pruned: &[f32],
    ) -> Result<(), Self::Error>;

    /// All windows have been seen at `place`: its projections in `pruned` may be replaced now.
    ///
    /// # Errors
    /// Whatever stops the walk.
    fn finish(&mut self, place: Place, pruned: &mut Layer) -> Result<(), Self::Error>;
}

/// Walks the windows through the model, layer by layer and stage by stage.
///
/// Memory holds the residual streams and the mixes of values of all windows, two layers of weights,
/// and what `capture` keeps; what the pruned stream puts into `o` and `down` is computed twice instead
/// of being kept.
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
    let mut pruned = windows.iter().map(embed).collect::<Result<Vec<_>, Error>>()?;
    let mut dense = capture.wants_dense().then(|| pruned.clone());
    for layer in 0..decoder.config().layers() {
        let whole = decoder.layer(layer)?;
        whole.prepare(run.compute());
        // A layer for the capture to change; it shares nothing that changes.
        let mut changed = Layer::clone(&whole);
        for stages in [[Stage::Qkv, Stage::Output], [Stage::GateUp, Stage::Down]] {
            for stage in stages {
                let place = Place { layer, stage };
                let (mut a, mut b) = (Buffer::default(), Buffer::default());
                for (index, pruned) in pruned.iter().enumerate() {
                    changed.inputs(stage, run, pruned, &mut b);
                    let dense = dense.as_mut().map(|dense| &mut dense[index]);
                    if let Some(dense) = &dense {
                        whole.inputs(stage, run, dense, &mut a);
                    }
                    capture.inputs(place, dense.as_ref().map(|_| &a[..]), &b)?;
                    if let (Some(dense), true) = (dense, stage == stages[1]) {
                        // The dense layer stays as it is: the stream can go on at once.
                        whole.add_outputs(stage, run, &a, dense);
                    }
                }
                capture.finish(place, &mut changed)?;
            }
            add(&changed, stages[1], run, &mut pruned);
        }
    }
    Ok(())
}

/// Adds what comes of `stage` to the residual stream of every window; windows run side by side.
fn add(layer: &Layer, stage: Stage, run: &Run<'_>, streams: &mut [Vec<f32>]) {
    layer.prepare(run.compute());
    run.compute().each_chunk(streams, 1, |_, hidden| {
        let mut x = Buffer::default();
        layer.inputs(stage, run, &hidden[0], &mut x);
        layer.add_outputs(stage, run, &x, &mut hidden[0]);
    });
}
