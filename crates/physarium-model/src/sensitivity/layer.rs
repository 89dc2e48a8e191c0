//! The backward pass of a layer: from the gradient of the residual stream after it to that before it.

use std::borrow::Cow;
use std::collections::BTreeMap;

use physarium_checkpoint::{Map, Site};
use physarium_kernels::vector::{self, Gradients};
use physarium_kernels::{Buffer, Linear, forward_all};

use super::attention;
use super::sums::{Rows, Sums};
use crate::layers::layer::{Heads, Layer, ROWS};
use crate::layers::workspace::Workspace;
use crate::open::shapes::StageKind;

/// A layer prepared for the backward pass.
pub(super) struct Backward<'a> {
    layer: &'a Layer,
    workspace: &'a Workspace<'a>,
    /// The layer's maps, transposed.
    transposed: BTreeMap<Site, Linear>,
}

/// A norm of the residual stream, with its input.
struct NormOf<'a> {
    norm: &'a [f32],
    /// `[tokens, hidden]`.
    hidden: &'a [f32],
}

impl<'a> Backward<'a> {
    pub(super) fn new(layer: &'a Layer, workspace: &'a Workspace<'a>) -> Backward<'a> {
        let transposed = layer.sites().map(|(site, map)| (site.clone(), map.transposed()));
        Backward { layer, workspace, transposed: transposed.collect() }
    }

    /// Replaces the gradient of the residual stream after the layer by that before it, for one window.
    ///
    /// `hidden` is the stream before the layer; both are `[tokens, hidden]`. Adds the squares of the maps' inputs
    /// and of the gradients at their outputs to `sums`.
    pub(super) fn pass(&self, hidden: &[f32], gradient: &mut [f32], sums: &mut Sums) {
        let mut middle = hidden.to_vec();
        let tokens = hidden.len() / self.layer.hidden();
        let mut mixed = Buffer::default();
        mixed.resize(tokens * self.layer.input_width(StageKind::MixedValues));
        self.layer.inputs(StageKind::MixedValues, self.workspace, hidden, &mut mixed);
        self.layer.add_outputs(StageKind::MixedValues, self.workspace, &mixed, &mut middle);
        self.mlp(&middle, gradient, sums);
        self.attention(hidden, &mixed, gradient, sums);
    }

    /// Adds the gradient through the MLP to `gradient`.
    fn mlp(&self, hidden: &[f32], gradient: &mut [f32], sums: &mut Sums) {
        let (layer, compute) = (self.layer, self.workspace.compute());
        let mut normed = Buffer::default();
        normed.resize(hidden.len());
        layer.inputs(StageKind::BeforeMlp, self.workspace, hidden, &mut normed);
        let [gate, up] = [Map::Gate, Map::Up].map(|map| layer.map(map));
        let tokens = hidden.len() / layer.mlp_norm.len();
        let mut gates = vec![0.0; tokens * gate.outputs()];
        let mut ups = gates.clone();
        forward_all(compute, &normed, &mut [(gate, &mut gates), (up, &mut ups)]);
        let mut gated = gates.clone();
        layer.activation.times(&mut gated, &ups);
        let of_down = self.of_outputs(StageKind::Gated, &gated, gradient);
        sums.add(layer.site(Map::Down), Rows { tokens, inputs: &gated, gradients: &of_down });
        // The gradient of the gated values overwrites them.
        self.transposed(Map::Down).forward(compute, &of_down, &mut gated);
        layer.activation.times_gradient(&mut gates, &mut ups, &gated);
        let of_outputs = [(Map::Gate, &gates[..]), (Map::Up, &ups[..])];
        for (map, gradients) in &of_outputs {
            sums.add(layer.site(map.clone()), Rows { tokens, inputs: &normed, gradients });
        }
        self.add_through_norm(NormOf { norm: &layer.mlp_norm, hidden }, &of_outputs, gradient);
    }

    /// Adds the gradient through attention to `gradient`.
    fn attention(&self, hidden: &[f32], mixed: &[f32], gradient: &mut [f32], sums: &mut Sums) {
        let (layer, workspace, compute) = (self.layer, self.workspace, self.workspace.compute());
        let tokens = hidden.len() / layer.attention_norm.len();
        let of_o = self.of_outputs(StageKind::MixedValues, mixed, gradient);
        sums.add(layer.site(Map::O), Rows { tokens, inputs: mixed, gradients: &of_o });
        let mut of_mixed = vec![0.0; mixed.len()];
        self.transposed(Map::O).forward(compute, &of_o, &mut of_mixed);
        let mut normed = Buffer::default();
        normed.resize(hidden.len());
        layer.inputs(StageKind::BeforeAttention, workspace, hidden, &mut normed);
        let maps = [Map::Q, Map::K, Map::V].map(|map| layer.map(map));
        let [mut q, mut k, mut v] = maps.map(|map| vec![0.0; tokens * map.outputs()]);
        forward_all(
            compute,
            &normed,
            &mut [(maps[0], &mut q), (maps[1], &mut k), (maps[2], &mut v)],
        );
        let before_rotation = [q.clone(), k.clone()];
        layer.rotate(workspace, 0, layer.query_heads(), &mut q);
        layer.rotate(workspace, 0, layer.key_heads(), &mut k);
        let (mut dq, mut dk, mut dv) = (vec![0.0; q.len()], vec![0.0; k.len()], vec![0.0; v.len()]);
        let into = [&mut dq[..], &mut dk[..], &mut dv[..]];
        let forward = attention::Forward { shape: layer.shape, q: &q, k: &k, v: &v };
        forward.gradients(compute, &of_mixed, into);
        self.rotate_back(layer.query_heads(), &before_rotation[0], &mut dq);
        self.rotate_back(layer.key_heads(), &before_rotation[1], &mut dk);
        let of_outputs = [(Map::Q, &dq[..]), (Map::K, &dk), (Map::V, &dv)];
        for (map, gradients) in &of_outputs {
            sums.add(layer.site(map.clone()), Rows { tokens, inputs: &normed, gradients });
        }
        let norm = NormOf { norm: &layer.attention_norm, hidden };
        self.add_through_norm(norm, &of_outputs, gradient);
    }

    /// The gradient of the outputs of a stage's map, whose inputs are `x`, from that of the residual stream.
    fn of_outputs<'b>(&self, stage: StageKind, x: &[f32], gradient: &'b [f32]) -> Cow<'b, [f32]> {
        let layer = self.layer;
        let Some(norm) = layer.output_norm(stage) else { return Cow::Borrowed(gradient) };
        let mut outputs = vec![0.0; gradient.len()];
        layer.map_to_stream(stage).forward(self.workspace.compute(), x, &mut outputs);
        Cow::Owned(norm.gradient(&outputs, gradient))
    }

    /// Replaces gradients of rotated (and normalised) heads by those of the map's outputs `x`.
    fn rotate_back(&self, heads: Heads<'_>, x: &[f32], gradient: &mut [f32]) {
        let head_dim = self.layer.shape.head_dim;
        let width = heads.count * head_dim;
        let angles = self.workspace.angles(self.layer.shape.window);
        self.workspace.compute().each_chunk(gradient, ROWS * width, |index, chunk| {
            let mut through = vec![0.0; head_dim];
            for (row, token) in chunk.chunks_exact_mut(width).enumerate() {
                let position = index * ROWS + row;
                let (cos, sin) = angles.at(position);
                let back: Vec<f32> = sin.iter().map(|sin| -sin).collect();
                for (head, gradient) in token.chunks_exact_mut(head_dim).enumerate() {
                    vector::rotate(gradient, cos, &back);
                    if let Some(norm) = heads.norm {
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

    /// Adds the gradient through maps and the norm before them to `gradient`; `of_outputs` are the gradients of
    /// the maps' outputs.
    fn add_through_norm(
        &self,
        before: NormOf<'_>,
        of_outputs: &[(Map, &[f32])],
        gradient: &mut [f32],
    ) {
        let NormOf { norm, hidden } = before;
        let mut of_normed = vec![0.0; hidden.len()];
        let mut through = vec![0.0; hidden.len()];
        for (map, of_output) in of_outputs {
            let transposed = self.transposed(map.clone());
            transposed.forward(self.workspace.compute(), of_output, &mut through);
            vector::add(&mut of_normed, &through);
        }
        let gradients = Gradients { outputs: &of_normed, inputs: &mut through };
        vector::rms_norm_gradient(hidden, norm, self.layer.epsilon, gradients);
        vector::add(gradient, &through);
    }

    fn transposed(&self, map: Map) -> &Linear {
        &self.transposed[&self.layer.site(map)]
    }
}
