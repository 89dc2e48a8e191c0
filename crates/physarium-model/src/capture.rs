/*!
A walk through a model, stage by stage, that shows activations to a [`Capture`], which may replace weights.

Two residual streams are computed: the dense one with the original weights, and the pruned one with the
weights replaced so far. In: a decoder and windows of tokens. Out: for each layer and each stage in forward
order, the inputs of its maps in both streams. The windows of a batch are computed in parallel.
*/

use std::ops::Range;
use std::sync::Arc;

use physarium_kernels::{Buffer, vector};

use crate::batches::{batches, each_window};
use crate::decoder::Decoder;
use crate::error::Error;
use crate::layers::layer::Layer;
use crate::layers::stages::Stage;
use crate::layers::workspace::Workspace;
use crate::open::shapes::StageKind;
use crate::streams::{Stream, StreamPlace};

/// What some windows are at a stage: rows of all their tokens.
#[derive(Debug, Clone, Copy)]
pub struct Shown<'a> {
    /// Number of windows.
    pub windows: usize,
    /// The inputs of the stage's maps in the pruned stream, in which all earlier stages are finished, `[tokens, inputs]`.
    pub pruned: &'a [f32],
    /// The same of the dense model, if the capture needs it.
    pub dense: Option<ShownDense<'a>>,
}

/// What some windows are at a stage of the dense model.
#[derive(Debug, Clone, Copy)]
pub struct ShownDense<'a> {
    /// The inputs of the stage's maps, `[tokens, inputs]`.
    pub inputs: &'a [f32],
    /// What the stage's only map should add to the residual stream besides its bias, `[tokens, outputs]`, at stages that do
    /// so: its outputs, and the part of what the pruned stream lacks that [`Walk::stream_share`] says.
    pub outputs: Option<&'a [f32]>,
}

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

/// What becomes of the inputs of `o` and `down` in the pruned stream, which are needed before and after these maps are
/// replaced. The results are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PrunedInputs {
    /// Those of all windows are kept in memory.
    Kept,
    /// They are computed twice.
    ComputedTwice,
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
    /// The part of the difference between the residual streams that [`ShownDense::outputs`] includes: with 1, they bring the
    /// pruned stream to the dense one.
    pub stream_share: f32,
}

impl Walk<'_> {
    /// Runs the windows through the model.
    ///
    /// Memory holds two layers of weights (in the last stage, one), what `capture` keeps, activations of a batch of
    /// windows, the inputs of `o` or `down` of all windows if they are kept, and the residual streams: those of all
    /// windows, or if they are in a file, those of a batch.
    ///
    /// # Errors
    /// Those of the decoder, of `capture`, and of the file of the streams.
    pub fn run<C: Capture>(&self, capture: &mut C) -> Result<(), C::Error> {
        let Walk { decoder, windows, workspace, streams, .. } = *self;
        let (pruned, dense) = streams.begin(decoder, windows, capture.wants_dense())?;
        let mut both = Both { pruned, dense, batches: batches(windows).collect() };
        for index in 0..decoder.config().layers() {
            let dense = decoder.layer(index)?;
            dense.prepare(workspace.compute());
            capture.begin_layer(index)?;
            // The capture changes this copy; the dense layer stays as it is. They share the weights that are equal.
            let pruned = Layer::clone(&dense);
            let mut layers = Layers { pruned, dense: Some(dense) };
            for at in 0..layers.pruned.stages.len() {
                self.stage(&mut layers, at, &mut both, capture)?;
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
        both: &mut Both,
        capture: &mut C,
    ) -> Result<(), C::Error> {
        let kept = self.show(layers, at, both, capture)?;
        if at + 1 == layers.pruned.stages.len() {
            layers.dense = None;
        }
        let stage = &mut layers.pruned.stages[at];
        let kind = stage.kind;
        capture.finish(stage)?;
        if kind.adds_to_stream() {
            self.advance_pruned(&layers.pruned, kind, both, kept)?;
        }
        Ok(())
    }

    /// Shows a stage, and carries the dense stream past it. Returns what is kept of the inputs, for each batch.
    fn show<C: Capture>(
        &self,
        layers: &Layers,
        at: usize,
        both: &mut Both,
        capture: &mut C,
    ) -> Result<Vec<Buffer>, C::Error> {
        let workspace = self.workspace;
        let stage = &layers.pruned.stages[at];
        let kind = stage.kind;
        let mut kept = Vec::new();
        let (mut x, mut of_dense, mut y) = <(Buffer, Buffer, Buffer)>::default();
        for batch in &both.batches {
            let before = both.pruned.load(batch.clone())?;
            inputs(&layers.pruned, kind, workspace, (before, &mut x));
            let mut dense = None;
            if let (Some(stream), Some(layer)) = (&mut both.dense, &layers.dense) {
                let hidden = stream.load(batch.clone())?;
                inputs(layer, kind, workspace, (hidden, &mut of_dense));
                let mut outputs = None;
                if kind.adds_to_stream() {
                    // The dense layer does not change, so its stream can advance immediately.
                    advance(layer, kind, workspace, (&of_dense, &mut y, hidden));
                    let bias = layer.map_to_stream(kind).bias();
                    aim([hidden, before], self.stream_share, bias, &mut y);
                    outputs = Some(&y[..]);
                    stream.store()?;
                }
                dense = Some(ShownDense { inputs: &of_dense, outputs });
            }
            capture.inputs(stage, Shown { windows: batch.len(), pruned: &x, dense })?;
            if kind.adds_to_stream() && self.pruned_inputs == PrunedInputs::Kept {
                kept.push(std::mem::take(&mut x));
            }
        }
        Ok(kept)
    }

    /// Carries the pruned stream past a stage. `kept`: the inputs of its map for each batch, unless they are computed
    /// again.
    fn advance_pruned(
        &self,
        layer: &Layer,
        kind: StageKind,
        both: &mut Both,
        kept: Vec<Buffer>,
    ) -> Result<(), Error> {
        let workspace = self.workspace;
        layer.prepare(workspace.compute());
        let (mut x, mut y) = <(Buffer, Buffer)>::default();
        let mut kept = kept.into_iter();
        for batch in &both.batches {
            let hidden = both.pruned.load(batch.clone())?;
            match kept.next() {
                Some(kept) => x = kept,
                None => inputs(layer, kind, workspace, (hidden, &mut x)),
            }
            advance(layer, kind, workspace, (&x, &mut y, hidden));
            both.pruned.store()?;
        }
        Ok(())
    }
}

/// A layer of both models.
struct Layers {
    pruned: Layer,
    /// Absent once the dense stream has passed its last stage.
    dense: Option<Arc<Layer>>,
}

/// The two residual streams, and the batches in which they are computed.
struct Both {
    pruned: Stream,
    dense: Option<Stream>,
    batches: Vec<Range<usize>>,
}

/// Computes the inputs `x` `[tokens, inputs]` of a stage's maps for a batch of windows.
fn inputs(
    layer: &Layer,
    kind: StageKind,
    workspace: &Workspace<'_>,
    (hidden, x): (&mut [Vec<f32>], &mut Buffer),
) {
    let widths = [layer.hidden(), layer.input_width(kind)];
    each_window(workspace.compute(), hidden, (x, widths), |hidden, x| {
        layer.inputs(kind, workspace, hidden, x);
    });
}

/// Adds the outputs `y` of the stage's map, whose inputs are `x`, to the stream of a batch of windows.
fn advance(
    layer: &Layer,
    kind: StageKind,
    workspace: &Workspace<'_>,
    (x, y, hidden): (&Buffer, &mut Buffer, &mut [Vec<f32>]),
) {
    let map = layer.map_to_stream(kind);
    y.resize(x.len() / map.inputs() * map.outputs());
    map.forward(workspace.compute(), x, y);
    let widths = [layer.hidden(), layer.hidden()];
    each_window(workspace.compute(), hidden, (y, widths), |hidden, y| vector::add(hidden, y));
}

/// Makes the outputs `y` of the dense model's map, which are part of its stream `after` the stage, those that the pruned
/// map should have, whose stream is `before` the stage.
fn aim([after, before]: [&[Vec<f32>]; 2], stream_share: f32, bias: Option<&[f32]>, y: &mut Buffer) {
    let streams = after.iter().flatten().zip(before.iter().flatten());
    for (y, (after, before)) in y.iter_mut().zip(streams) {
        *y += stream_share * (after - before - *y);
    }
    if let Some(bias) = bias {
        y.chunks_exact_mut(bias.len())
            .for_each(|y| y.iter_mut().zip(bias).for_each(|(y, b)| *y -= b));
    }
}
