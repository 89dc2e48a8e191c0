/*!
Two streams through a model, shown stage by stage to a [`Capture`], which may change the weights.

The dense stream is what the model computes as it is; the pruned stream is what it computes with the weights
replaced so far. In: a decoder and windows of tokens. Out: for each layer and each stage in the order of the
data, the inputs of its maps in both streams.
*/

use physarium_kernels::Buffer;

use crate::decoder::Decoder;
use crate::error::Error;
use crate::layer::Layer;
use crate::stages::{Stage, StageKind};
use crate::workspace::Workspace;

/// Looks at the inputs of linear maps, and replaces maps.
pub trait Capture {
    /// What stops the walk, beside the decoder.
    type Error: From<Error>;

    /// Whether the dense stream is looked at; where it is not, it is not computed.
    fn wants_dense(&self) -> bool;

    /// A layer begins.
    ///
    /// # Errors
    /// Whatever stops the walk.
    fn begin_layer(&mut self, layer: usize) -> Result<(), Self::Error>;

    /// The inputs `[tokens, inputs]` of the maps of `stage` for one window, in the dense stream (if it is
    /// wanted) and in the pruned one. Everything before `stage` is pruned in the second.
    ///
    /// # Errors
    /// Whatever stops the walk.
    fn inputs(
        &mut self,
        stage: &Stage,
        dense: Option<&[f32]>,
        pruned: &[f32],
    ) -> Result<(), Self::Error>;

    /// All windows have passed `stage`: its maps may be replaced now.
    ///
    /// # Errors
    /// Whatever stops the walk.
    fn finish(&mut self, stage: &mut Stage) -> Result<(), Self::Error>;

    /// All stages of a layer are finished.
    ///
    /// # Errors
    /// Whatever stops the walk.
    fn finish_layer(&mut self, layer: usize) -> Result<(), Self::Error>;
}

/// Walks the windows through the model, layer by layer and stage by stage.
///
/// Memory holds the residual streams of all windows, two layers of weights, and what `capture` keeps. What
/// the pruned stream puts into `o` and `down` is computed twice instead of being kept.
///
/// # Errors
/// Those of the decoder and of `capture`.
pub fn walk<C: Capture>(
    decoder: &Decoder,
    windows: &[&[u32]],
    workspace: &Workspace<'_>,
    capture: &mut C,
) -> Result<(), C::Error> {
    let embed = |window: &&[u32]| decoder.embed(window);
    let mut pruned = windows.iter().map(embed).collect::<Result<Vec<_>, Error>>()?;
    let mut dense = capture.wants_dense().then(|| pruned.clone());
    for index in 0..decoder.config().layers() {
        let whole = decoder.layer(index)?;
        whole.prepare(workspace.compute());
        capture.begin_layer(index)?;
        // A layer for the capture to change; it shares nothing that changes.
        let mut changed = Layer::clone(&whole);
        for at in 0..changed.stages.len() {
            let kind = changed.stages[at].kind;
            let (mut a, mut b) = (Buffer::default(), Buffer::default());
            for (window, pruned) in pruned.iter().enumerate() {
                changed.inputs(kind, workspace, pruned, &mut b);
                let dense = dense.as_mut().map(|dense| &mut dense[window]);
                if let Some(dense) = &dense {
                    whole.inputs(kind, workspace, dense, &mut a);
                }
                capture.inputs(&changed.stages[at], dense.as_ref().map(|_| &a[..]), &b)?;
                if let (Some(dense), true) = (dense, kind.adds_to_stream()) {
                    // The dense layer does not change: its stream can advance at once.
                    whole.add_outputs(kind, workspace, &a, dense);
                }
            }
            capture.finish(&mut changed.stages[at])?;
            if kind.adds_to_stream() {
                add(&changed, kind, workspace, &mut pruned);
            }
        }
        capture.finish_layer(index)?;
    }
    Ok(())
}

/// Adds the outputs of a stage to the residual stream of every window; windows run side by side.
fn add(layer: &Layer, stage: StageKind, workspace: &Workspace<'_>, streams: &mut [Vec<f32>]) {
    layer.prepare(workspace.compute());
    workspace.compute().each_chunk(streams, 1, |_, hidden| {
        let mut x = Buffer::default();
        layer.inputs(stage, workspace, &hidden[0], &mut x);
        layer.add_outputs(stage, workspace, &x, &mut hidden[0]);
    });
}
