/*!
A walk through a model, stage by stage, that shows activations to a [`Capture`], which may replace weights.

Two residual streams are computed: the dense one with the original weights, and the pruned one with the
weights replaced so far. In: a decoder and windows of tokens. Out: for each layer and each stage in forward
order, the inputs of its maps in both streams.
*/

use physarium_kernels::Buffer;

use crate::decoder::Decoder;
use crate::error::Error;
use crate::layers::layer::{Layer, add_to_stream};
use crate::layers::stages::Stage;
use crate::layers::workspace::Workspace;
use crate::open::shapes::StageKind;
use crate::streams::{Stream, StreamPlace};

/// What a window is at a stage of the dense model.
#[derive(Debug, Clone, Copy)]
pub struct DenseWindow<'a> {
    /// The inputs of the stage's maps, `[tokens, inputs]`.
    pub inputs: &'a [f32],
    /// The outputs of the stage's only map, `[tokens, outputs]`, where the walk computes them: at stages that add to the
    /// residual stream, unless the map has a bias.
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

    /// Called for each window with the inputs `[tokens, inputs]` of the maps of `stage`: in the dense stream
    /// (if it is needed), and in the pruned one, in which all earlier stages are finished.
    ///
    /// # Errors
    /// Any error stops the walk.
    fn inputs(
        &mut self,
        stage: &Stage,
        dense: Option<DenseWindow<'_>>,
        pruned: &[f32],
    ) -> Result<(), Self::Error>;

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
}

impl Walk<'_> {
    /// Runs the windows through the model.
    ///
    /// Memory holds two layers of weights, what `capture` keeps, and the residual streams: those of all windows, or
    /// if they are in a file, two of one window and one for each thread. In the pruned stream, the inputs of `o` and
    /// `down` are computed twice instead of being kept.
    ///
    /// # Errors
    /// Those of the decoder, of `capture`, and of the file of the streams.
    pub fn run<C: Capture>(&self, capture: &mut C) -> Result<(), C::Error> {
        let Walk { decoder, windows, workspace, streams } = *self;
        let (mut pruned, mut dense) = streams.begin(decoder, windows, capture.wants_dense())?;
        for index in 0..decoder.config().layers() {
            let whole = decoder.layer(index)?;
            whole.prepare(workspace.compute());
            capture.begin_layer(index)?;
            // The capture changes this copy; the dense layer stays as it is.
            let mut changed = Layer::clone(&whole);
            for at in 0..changed.stages.len() {
                let kind = changed.stages[at].kind;
                let (mut a, mut b, mut y) = <(Buffer, Buffer, Buffer)>::default();
                for window in 0..windows.len() {
                    changed.inputs(kind, workspace, pruned.load(window)?, &mut b);
                    let Some(dense) = &mut dense else {
                        capture.inputs(&changed.stages[at], None, &b)?;
                        continue;
                    };
                    let hidden = dense.load(window)?;
                    whole.inputs(kind, workspace, hidden, &mut a);
                    let mut window = DenseWindow { inputs: &a, outputs: None };
                    if kind.adds_to_stream() {
                        let map = whole.map_to_stream(kind);
                        y.resize(hidden.len());
                        map.forward(workspace.compute(), &a, &mut y);
                        window.outputs = (!map.has_bias()).then_some(&y);
                        // The dense layer does not change, so its stream can advance immediately.
                        add_to_stream(workspace, &y, hidden);
                        dense.store()?;
                    }
                    capture.inputs(&changed.stages[at], Some(window), &b)?;
                }
                capture.finish(&mut changed.stages[at])?;
                if kind.adds_to_stream() {
                    add(&changed, kind, workspace, &mut pruned)?;
                }
            }
            capture.finish_layer(index)?;
        }
        Ok(())
    }
}

/// Adds the outputs of a stage to the residual stream of every window, in parallel over windows.
fn add(
    layer: &Layer,
    stage: StageKind,
    workspace: &Workspace<'_>,
    stream: &mut Stream,
) -> Result<(), Error> {
    layer.prepare(workspace.compute());
    stream.change_each(workspace.compute(), |hidden| {
        let mut x = Buffer::default();
        layer.inputs(stage, workspace, hidden, &mut x);
        layer.add_outputs(stage, workspace, &x, hidden);
    })
}
