/*!
A walk through a model, stage by stage, that shows activations to a [`Capture`], which may replace weights.

Two residual streams are computed: the dense one with the original weights, and the pruned one with the
weights replaced so far. In: a decoder and windows of tokens. Out: for each layer and each stage in forward
order, the inputs of its maps in both streams ([`Passage`]).
*/

use crate::decoder::Decoder;
use crate::error::Error;
use crate::layers::layer::Layer;
use crate::layers::stages::Stage;
use crate::layers::workspace::Workspace;
use crate::passage::{Layers, Passage, PrunedInputs, Shown};
use crate::streams::StreamPlace;

/// Receives the inputs of linear maps and may replace maps.
pub trait Capture {
    /// The error that stops a walk.
    type Error: From<Error>;

    /// Whether the capture needs the dense stream; if not, it is not computed.
    fn wants_dense(&self) -> bool;

    /// Called before the first stage of a layer.
    ///
    /// # Errors
    /// Any error stops the walk.
    fn begin_layer(&mut self, layer: usize) -> Result<(), Self::Error>;

    /// Called with the inputs of the maps of `stage`, for some windows after the other.
    ///
    /// # Errors
    /// Any error stops the walk.
    fn inputs(&mut self, stage: &Stage, shown: Shown<'_>) -> Result<(), Self::Error>;

    /// Called after the last window of a group ([`window_groups`](crate::window_groups)).
    fn finish_group(&mut self);

    /// Called after the last window of `stage`; may replace its maps.
    ///
    /// # Errors
    /// Any error stops the walk.
    fn finish(&mut self, stage: &mut Stage) -> Result<(), Self::Error>;

    /// Called after the last stage of a layer.
    ///
    /// # Errors
    /// Any error stops the walk.
    fn finish_layer(&mut self, layer: usize) -> Result<(), Self::Error>;
}

/// Windows to run through a model, layer by layer and stage by stage.
pub struct Walk<'a> {
    /// The model.
    pub decoder: &'a Decoder,
    /// The windows of tokens.
    pub windows: &'a [&'a [u32]],
    /// Threads and buffers.
    pub workspace: &'a Workspace<'a>,
    /// Where the residual streams are kept.
    pub streams: StreamPlace<'a>,
    /// What becomes of inputs that are needed twice.
    pub pruned_inputs: PrunedInputs,
    /// As of a [`Passage`].
    pub stream_share: f32,
}

impl Walk<'_> {
    /// Runs the windows through the first `layers` layers of the model.
    ///
    /// Memory holds two layers of weights (in the last stage, one), what `capture` keeps, activations of a batch of
    /// windows, the inputs of `o` or `down` of all windows if they are kept, and the residual streams: those of all
    /// windows, or if they are in a file, those of a batch.
    ///
    /// # Errors
    /// Those of the decoder, of `capture`, and of the file of the streams.
    ///
    /// # Panics
    /// For more layers than the model has.
    pub fn run<C: Capture>(&self, layers: usize, capture: &mut C) -> Result<(), C::Error> {
        let Walk { decoder, windows, workspace, streams, .. } = *self;
        let streams = streams.begin(decoder, windows, capture.wants_dense())?;
        let mut passage =
            Passage::new((windows, workspace), streams, self.pruned_inputs, self.stream_share);
        for index in 0..layers {
            let dense = decoder.layer(index)?;
            dense.prepare(workspace.compute());
            capture.begin_layer(index)?;
            // The capture changes this copy; the dense layer stays as it is. They share the weights that are equal.
            let pruned = Layer::clone(&dense);
            let mut both = Layers { pruned, dense: Some(dense) };
            for at in 0..both.pruned.stages.len() {
                self.stage(&mut both, at, &mut passage, capture)?;
            }
            capture.finish_layer(index)?;
        }
        Ok(())
    }

    /// Shows the stage at `at` of the two layers, and carries the streams past it.
    fn stage<C: Capture>(
        &self,
        layers: &mut Layers,
        at: usize,
        passage: &mut Passage<'_>,
        capture: &mut C,
    ) -> Result<(), C::Error> {
        let mut kept = Vec::new();
        for group in 0..passage.groups() {
            let mut show = |stage: &Stage, shown: Shown<'_>| capture.inputs(stage, shown);
            kept.extend(passage.show(layers, at, group, &mut show)?);
            capture.finish_group();
        }
        if at + 1 == layers.pruned.stages.len() {
            layers.dense = None;
        }
        let stage = &mut layers.pruned.stages[at];
        let kind = stage.kind;
        capture.finish(stage)?;
        if kind.adds_to_stream() {
            passage.advance_pruned(&layers.pruned, kind, kept)?;
        }
        Ok(())
    }
}
