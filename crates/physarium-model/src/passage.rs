/*!
Windows on their way through the stages of a model.

Two residual streams are carried: the dense one with the original weights, and the pruned one with the weights replaced
so far. In: the streams of some windows before a stage. Out: the inputs of the stage's maps in both streams, then the
streams after it. The windows of a batch are computed in parallel.

A [`Walk`](crate::Walk) carries all windows through all layers. A unit of work carries one group of windows past one stage.
*/

use std::ops::Range;
use std::sync::Arc;

use physarium_kernels::Buffer;

use crate::batches::{batches, each_window, window_groups};
use crate::error::Error;
use crate::layers::layer::Layer;
use crate::layers::stages::Stage;
use crate::layers::workspace::Workspace;
use crate::open::shapes::StageKind;
use crate::streams::Stream;

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
    /// What the outputs of the stage's only map should be besides its bias, `[tokens, outputs]`, at stages that add to the
    /// residual stream: those of the dense model, and the part of what the pruned stream lacks that the passage's `stream_share` says.
    pub outputs: Option<&'a [f32]>,
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

/// A layer of both models.
#[derive(Debug)]
pub struct Layers {
    /// With the weights replaced so far.
    pub pruned: Layer,
    /// With the original weights. Absent if the dense stream is not carried, or has passed the layer.
    pub dense: Option<Arc<Layer>>,
}

/// The residual streams of some windows, and the batches in which they are computed.
pub struct Passage<'a> {
    workspace: &'a Workspace<'a>,
    pruned: Stream,
    dense: Option<Stream>,
    /// The batches of each group.
    groups: Vec<Vec<Range<usize>>>,
    pruned_inputs: PrunedInputs,
    stream_share: f32,
}

impl<'a> Passage<'a> {
    /// Windows with their streams before a stage.
    pub(crate) fn new(
        (windows, workspace): (&[&[u32]], &'a Workspace<'a>),
        (pruned, dense): (Stream, Option<Stream>),
        pruned_inputs: PrunedInputs,
        stream_share: f32,
    ) -> Passage<'a> {
        let batches = |group: &Range<usize>| {
            let of_group = batches(&windows[group.clone()]);
            of_group.map(|batch| batch.start + group.start..batch.end + group.start).collect()
        };
        let groups = window_groups(windows).iter().map(batches).collect();
        Passage { workspace, pruned, dense, groups, pruned_inputs, stream_share }
    }

    /// The windows of one group with their streams in memory, `[tokens, hidden]` for each window. `stream_share`: the part of the
    /// difference between the streams that [`ShownDense::outputs`] includes; with 1, they bring the pruned stream to the
    /// dense one.
    pub fn of_group(
        windows: &[&[u32]],
        workspace: &'a Workspace<'a>,
        (pruned, dense): (Vec<Vec<f32>>, Option<Vec<Vec<f32>>>),
        stream_share: f32,
    ) -> Passage<'a> {
        let groups = vec![batches(windows).collect()];
        let (pruned, dense) = (Stream::Memory(pruned), dense.map(Stream::Memory));
        let pruned_inputs = PrunedInputs::ComputedTwice;
        Passage { workspace, pruned, dense, groups, pruned_inputs, stream_share }
    }

    /// The streams in memory, the pruned one first.
    ///
    /// # Panics
    /// If they are in a file.
    pub fn into_streams(self) -> (Vec<Vec<f32>>, Option<Vec<Vec<f32>>>) {
        (self.pruned.into_memory(), self.dense.map(Stream::into_memory))
    }

    /// Number of groups of windows.
    pub(crate) fn groups(&self) -> usize {
        self.groups.len()
    }

    /// Calls `show` with the inputs of the stage at `at`, batch by batch of a group, and carries the dense stream past the
    /// stage. Returns what is kept of the inputs of the pruned stream, for each batch.
    ///
    /// # Errors
    /// Those of `show`, and of the file of the streams.
    pub fn show<E: From<Error>>(
        &mut self,
        layers: &Layers,
        at: usize,
        group: usize,
        show: &mut impl FnMut(&Stage, Shown<'_>) -> Result<(), E>,
    ) -> Result<Vec<Buffer>, E> {
        let workspace = self.workspace;
        let stage = &layers.pruned.stages[at];
        let kind = stage.kind;
        let mut kept = Vec::new();
        let (mut x, mut of_dense, mut y) = <(Buffer, Buffer, Buffer)>::default();
        for batch in &self.groups[group] {
            let before = self.pruned.load(batch.clone())?;
            inputs(&layers.pruned, kind, workspace, (before, &mut x));
            let mut dense = None;
            if let (Some(stream), Some(layer)) = (&mut self.dense, &layers.dense) {
                let hidden = stream.load(batch.clone())?;
                inputs(layer, kind, workspace, (hidden, &mut of_dense));
                let mut outputs = None;
                if kind.adds_to_stream() {
                    // The dense layer does not change, so its stream can advance immediately.
                    advance(layer, kind, workspace, (&of_dense, &mut y, hidden));
                    aim((layer, kind), [hidden, before], self.stream_share, &mut y);
                    outputs = Some(&y[..]);
                    stream.store()?;
                }
                dense = Some(ShownDense { inputs: &of_dense, outputs });
            }
            show(stage, Shown { windows: batch.len(), pruned: &x, dense })?;
            if kind.adds_to_stream() && self.pruned_inputs == PrunedInputs::Kept {
                kept.push(std::mem::take(&mut x));
            }
        }
        Ok(kept)
    }

    /// Carries the pruned stream past a stage. `kept`: the inputs of its map for each batch, or nothing to compute them
    /// again; the results are the same.
    ///
    /// # Errors
    /// Those of the file of the streams.
    pub fn advance_pruned(
        &mut self,
        layer: &Layer,
        kind: StageKind,
        kept: Vec<Buffer>,
    ) -> Result<(), Error> {
        let workspace = self.workspace;
        layer.prepare(workspace.compute());
        let (mut x, mut y) = <(Buffer, Buffer)>::default();
        let mut kept = kept.into_iter();
        for batch in self.groups.iter().flatten() {
            let hidden = self.pruned.load(batch.clone())?;
            match kept.next() {
                Some(kept) => x = kept,
                None => inputs(layer, kind, workspace, (hidden, &mut x)),
            }
            advance(layer, kind, workspace, (&x, &mut y, hidden));
            self.pruned.store()?;
        }
        Ok(())
    }
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
    each_window(workspace.compute(), hidden, (y, widths), |hidden, y| {
        layer.add(kind, y, hidden);
    });
}

/// Makes the outputs `y` of the dense model's map, which are part of its stream `after` the stage, those that the pruned
/// map should have, whose stream is `before` the stage.
fn aim(
    (layer, kind): (&Layer, StageKind),
    [after, before]: [&[Vec<f32>]; 2],
    stream_share: f32,
    y: &mut Buffer,
) {
    let width = layer.hidden();
    let mut rest = &mut y[..];
    for (after, before) in after.iter().zip(before) {
        let (y, others) = rest.split_at_mut(after.len());
        rest = others;
        match layer.output_norm(kind) {
            None => {
                for (y, (after, before)) in y.iter_mut().zip(after.iter().zip(before)) {
                    *y += stream_share * (after - before - *y);
                }
            }
            Some(norm) => {
                let wanted: Vec<f32> =
                    after.iter().zip(before).map(|(after, before)| after - before).collect();
                norm.aim(&wanted, stream_share, y);
            }
        }
        if let Some(bias) = layer.map_to_stream(kind).bias() {
            for y in y.chunks_exact_mut(width) {
                y.iter_mut().zip(bias).for_each(|(y, b)| *y -= b);
            }
        }
    }
}
