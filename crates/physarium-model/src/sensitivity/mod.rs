/*!
How much a model's predictions depend on the outputs of its linear maps.

In: a decoder and windows of tokens. Out: for each map the mean square of its inputs and of the loss's gradient
at its outputs ([`Sensitivity`]). With labels sampled from the model's own predictions, the latter is the
diagonal F of the Fisher information (Amari 1998; Martens 2014, arXiv 1412.1193): to second order, an error e of
an output costs F e² / 2 nats of KL divergence from the unpruned model.

A forward pass keeps the residual stream before each layer; then a backward pass goes through the layers.
*/

mod attention;
mod layer;
pub(crate) mod loss;
pub(crate) mod sums;

use std::collections::BTreeMap;
use std::ops::Range;

use physarium_checkpoint::Site;

use crate::batches::batches;
use crate::decoder::Decoder;
use crate::error::Error;
use crate::layers::layer::Layer;
use crate::layers::workspace::Workspace;
use crate::streams::StreamPlace;
use layer::Backward;
use loss::{Labelled, last_gradients};
use sums::{Sensitivity, Sums};

/// A pass forward and back through a model, that measures the sensitivity of all its maps.
pub struct GradientPass<'a> {
    /// The model.
    pub decoder: &'a Decoder,
    /// Windows and labels.
    pub text: Labelled<'a>,
    /// Threads and buffers.
    pub workspace: &'a Workspace<'a>,
    /// Where the residual streams before each layer are kept.
    pub streams: StreamPlace<'a>,
}

impl GradientPass<'_> {
    /// Measures the sensitivity of all maps of all layers.
    ///
    /// Memory holds the residual streams of all windows before one layer, or before all layers unless they are in a
    /// file; two copies of a layer, and one of the head. `step` is called with a number of windows that are done at a layer:
    /// 2 · layers · windows together, forward and backward.
    ///
    /// # Errors
    /// Those of the decoder, of the file of the streams, and of `step`.
    ///
    /// # Panics
    /// If there are no windows, or one is empty.
    pub fn run<E: From<Error>>(
        &self,
        mut step: impl FnMut(usize) -> Result<(), E>,
    ) -> Result<BTreeMap<Site, Sensitivity>, E> {
        let GradientPass { decoder, text, workspace, streams: place } = *self;
        let layers = decoder.config().layers();
        let tokens: usize = text.windows.iter().map(|window| window.len()).sum();
        let mut streams = decoder.embedding()?.of_each(text.windows)?;
        let batches: Vec<Range<usize>> = batches(text.windows).collect();
        let compute = workspace.compute();
        let mut before = place.stack(layers, &streams)?;
        for index in 0..layers {
            let layer = decoder.layer(index)?;
            layer.prepare(compute);
            before.push(&streams)?;
            for batch in &batches {
                compute.each_chunk(&mut streams[batch.clone()], 1, |_, hidden| {
                    layer.forward(workspace, &mut hidden[0]);
                });
                step(batch.len())?;
            }
        }
        let mut gradients = streams;
        last_gradients(&*decoder.head()?, workspace, text, &mut gradients);
        let mut all = BTreeMap::new();
        for index in (0..layers).rev() {
            let layer: &Layer = &*decoder.layer(index)?;
            let backward = Backward::new(layer, workspace);
            let mut sums = Sums::default();
            let mut before = before.pop();
            for batch in &batches {
                let hidden = before.load(batch.clone())?.iter();
                let windows = hidden.zip(&mut gradients[batch.clone()]);
                let mut windows: Vec<_> =
                    windows.map(|(hidden, gradient)| (hidden, gradient, Sums::default())).collect();
                compute.each_chunk(&mut windows, 1, |_, window| {
                    let (hidden, gradient, sums) = &mut window[0];
                    backward.pass(hidden, gradient, sums);
                });
                windows.into_iter().for_each(|(_, _, of_window)| sums.add_all(of_window));
                step(batch.len())?;
            }
            all.extend(sums.means(tokens));
        }
        Ok(all)
    }
}
