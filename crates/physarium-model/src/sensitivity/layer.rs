//! Gradients of a layer, from those of the residual stream after it to those of the stream before.

use physarium_kernels::vector::{self, Gradients};
use physarium_kernels::{Buffer, Linear, forward_all};

use super::Sums;
use super::attention;
use crate::layer::{Layer, Projection, ROWS, Run, Stage};

/// A layer with what gradients go through.
pub(super) struct Backward<'a> {
    layer: &'a Layer,
    /// Transposed, in the order of [`Projection::ALL`].
    maps: [Linear; 7],
}

impl<'a> Backward<'a> {
    pub(super) fn new(layer: &'a Layer) -> Backward<'a> {
        Backward { layer, maps: Projection::ALL.map(|p| layer.map(p).transposed()) }
    }

    /// Turns the gradient of the residual stream after the layer into that before it, for one window.
    ///
    /// `hidden`: the stream before the layer, `[tokens, hidden]`, as `gradient`. What projections see
    /// and what is felt of their outputs is added to `sums`.
    pub(super) fn pass(
        &self,
        run: &Run<'_>,
        hidden: &[f32],
        gradient: &mut [f32],
        sums: &mut [Sums; 7],
    ) {
        let mut middle = hidden.to_vec();
        let mut mixed = Buffer::default();
        self.layer.inputs(Stage::Output, run, hidden, &mut mixed);
        self.layer.add_outputs(Stage::Output, run, &mixed, &mut middle);
        self.mlp(run, &middle, gradient, sums);
        self.attention(run, hidden, &mixed, gradient, sums);
    }

    /// Adds to `gradient` what comes through the MLP.
    fn mlp(&self, run: &Run<'_>, hidden: &[f32], gradient: &mut [f32], sums: &mut [Sums; 7]) {
        let (layer, compute) = (self.layer, run.compute());
        let mut normed = Buffer::default();
        layer.inputs(Stage::GateUp, run, hidden, &mut normed);
        let (gate, up) = (layer.map(Projection::Gate), layer.map(Projection::Up));
        let tokens = hidden.len() / layer.mlp_norm.len();
        let mut gates = vec![0.0; tokens * gate.outputs()];
        let mut ups = gates.clone();
        forward_all(compute, &normed, &mut [(gate, &mut gates), (up, &mut ups)]);
        let mut gated = gates.clone();
        vector::silu_times(&mut gated, &ups);
        sums[Projection::Down as usize].add(&gated, gradient, tokens);
        // What was gated gives way to its gradient.
        self.map(Projection::Down).forward(compute, gradient, &mut gated);
        vector::silu_times_gradient(&mut gates, &mut ups, &gated);
        sums[Projection::Gate as usize].add(&normed, &gates, tokens);
        sums[Projection::Up as usize].add(&normed, &ups, tokens);
        let through = [(Projection::Gate, &gates[..]), (Projection::Up, &ups[..])];
        self.add_through_norm(run, hidden, &layer.mlp_norm, &through, gradient);
    }

    /// Adds to `gradient` what comes through attention.
    fn attention(
        &self,
        run: &Run<'_>,
        hidden: &[f32],
        mixed: &[f32],
        gradient: &mut [f32],
        sums: &mut [Sums; 7],
    ) {
        let (layer, compute) = (self.layer, run.compute());
        let tokens = hidden.len() / layer.attention_norm.len();
        sums[Projection::O as usize].add(mixed, gradient, tokens);
        let mut of_mixed = vec![0.0; mixed.len()];
        self.map(Projection::O).forward(compute, gradient, &mut of_mixed);
        let mut normed = Buffer::default();
        layer.inputs(Stage::Qkv, run, hidden, &mut normed);
        let projections = [Projection::Q, Projection::K, Projection::V];
        let [mut q, mut k, mut v] = projections.map(|p| vec![0.0; tokens * layer.map(p).outputs()]);
        let maps = projections.map(|p| layer.map(p));
        forward_all(
            compute,
            &normed,
            &mut [(maps[0], &mut q), (maps[1], &mut k), (maps[2], &mut v)],
        );
        let raw = [q.clone(), k.clone()];
        let norms = layer.qk_norms.as_ref();
        layer.turn(run, 0, &mut q, layer.shape.heads, norms.map(|norms| &norms[0]));
        layer.turn(run, 0, &mut k, layer.shape.kv_heads, norms.map(|norms| &norms[1]));
        let (mut dq, mut dk, mut dv) = (vec![0.0; q.len()], vec![0.0; k.len()], vec![0.0; v.len()]);
        let into = [&mut dq[..], &mut dk[..], &mut dv[..]];
        attention::gradients(compute, layer.shape, [&q, &k, &v], &of_mixed, into);
        self.turn_back(run, &raw[0], layer.shape.heads, norms.map(|norms| &norms[0]), &mut dq);
        self.turn_back(run, &raw[1], layer.shape.kv_heads, norms.map(|norms| &norms[1]), &mut dk);
        let gradients = [(Projection::Q, &dq[..]), (Projection::K, &dk), (Projection::V, &dv)];
        for (projection, felt) in gradients {
            sums[projection as usize].add(&normed, felt, tokens);
        }
        self.add_through_norm(run, hidden, &layer.attention_norm, &gradients, gradient);
    }

    /// Gradients of turned (and normed) heads become those of what projections gave: `x`, in rows of
    /// `heads` heads.
    fn turn_back(
        &self,
        run: &Run<'_>,
        x: &[f32],
        heads: usize,
        norm: Option<&Vec<f32>>,
        gradient: &mut [f32],
    ) {
        let head_dim = self.layer.shape.head_dim;
        let width = heads * head_dim;
        run.compute().each_chunk(gradient, ROWS * width, |index, chunk| {
            let mut through = vec![0.0; head_dim];
            for (row, token) in chunk.chunks_exact_mut(width).enumerate() {
                let position = index * ROWS + row;
                let (cos, sin) = run.angles.at(position);
                let back: Vec<f32> = sin.iter().map(|sin| -sin).collect();
                for (head, gradient) in token.chunks_exact_mut(head_dim).enumerate() {
                    vector::rotate(gradient, cos, &back);
                    if let Some(norm) = norm {
                        let x = &x[position * width + head * head_dim..][..head_dim];
                        let epsilon = self.layer.epsilon;
                        let gradients = Gradients { outputs: gradient, inputs: &mut through };
                        vector::rms_norm_gradient(x, norm, epsilon, gradients);
                        gradient.copy_from_slice(&through);
                    }
                }
            }
        });
    }

    /// Adds to `gradient` what comes through projections and the norm before them; `of_outputs` are the
    /// gradients of the projections' outputs.
    fn add_through_norm(
        &self,
        run: &Run<'_>,
        hidden: &[f32],
        norm: &[f32],
        of_outputs: &[(Projection, &[f32])],
        gradient: &mut [f32],
    ) {
        let mut of_normed = vec![0.0; hidden.len()];
        let mut through = vec![0.0; hidden.len()];
        for (projection, of_output) in of_outputs {
            self.map(*projection).forward(run.compute(), of_output, &mut through);
            vector::add(&mut of_normed, &through);
        }
        let gradients = Gradients { outputs: &of_normed, inputs: &mut through };
        vector::rms_norm_gradient(hidden, norm, self.layer.epsilon, gradients);
        vector::add(gradient, &through);
    }

    fn map(&self, projection: Projection) -> &Linear {
        &self.maps[projection as usize]
    }
}
