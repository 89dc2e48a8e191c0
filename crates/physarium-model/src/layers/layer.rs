/*!
One layer of a decoder, stage by stage.

A layer adds to the residual stream `hidden` `[tokens, hidden]` twice: attention, then the MLP.
[`Layer::inputs`] computes the inputs of a stage's maps from `hidden`; [`Layer::add_outputs`] adds the outputs
of a stage to `hidden`. [`Layer::forward`] runs the whole layer.
*/

use physarium_checkpoint::{Map, Site};
use physarium_kernels::{Activation, Buffer, Compute, Linear, forward_all, vector};

use super::attention::{Shape, attend};
use super::output_norm::OutputNorm;
use super::stages::Stage;
use super::workspace::{Buffers, Workspace};
use crate::error::Result;
use crate::open::config::Config;
use crate::open::shapes::{MapShape, StageKind};
use crate::open::vocabulary::Checked;
use crate::open::weights::Weights;

/// Rows of activations for each task of an elementwise operation.
pub(crate) const ROWS: usize = 64;

/// Modules of the norms of the residual stream: before attention, before the MLP.
const STREAM_NORMS: [&str; 2] = ["input_layernorm", "post_attention_layernorm"];
/// The same where outputs are normalised too.
const STREAM_NORMS_OF_FOUR: [&str; 2] = ["input_layernorm", "pre_feedforward_layernorm"];
/// Modules of the norms of outputs: after attention, after the MLP.
const OUTPUT_NORMS: [&str; 2] = ["post_attention_layernorm", "post_feedforward_layernorm"];
/// Modules of the norms of queries and keys.
const HEAD_NORMS: [&str; 2] = ["self_attn.q_norm", "self_attn.k_norm"];

/// Keys and values of the tokens that a layer has processed, `[positions, kv_heads · head_dim]` each.
#[derive(Debug, Default)]
pub struct KeysValues {
    keys: Buffer,
    values: Buffer,
}

/// Layout of queries or keys: heads in a row, and the norm of a head if the family has one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Heads<'a> {
    pub(crate) count: usize,
    pub(crate) norm: Option<&'a [f32]>,
}

/// The weights of one layer.
#[derive(Debug, Clone)]
pub struct Layer {
    index: usize,
    pub(crate) shape: Shape,
    pub(crate) epsilon: f32,
    pub(crate) attention_norm: Vec<f32>,
    pub(crate) mlp_norm: Vec<f32>,
    /// Norms of the outputs of o and down.
    output_norms: Option<[OutputNorm; 2]>,
    /// Norms of queries and keys `[head_dim]`.
    qk_norms: Option<[Vec<f32>; 2]>,
    pub(crate) activation: Activation,
    /// In forward order.
    pub(crate) stages: Vec<Stage>,
}

impl Layer {
    pub(crate) fn read(weights: &Weights, config: &Config, index: usize) -> Result<Layer> {
        let norm = |module: &str, len| {
            weights.norm(&norm_name(weights, index, module), len, config.norm_weights)
        };
        let both = |modules: [&str; 2], len| -> Result<[Vec<f32>; 2]> {
            let [one, other] = modules.map(|module| norm(module, len));
            Ok([one?, other?])
        };
        let [attention_norm, mlp_norm] = both(stream_norms(config), config.hidden)?;
        let qk_norms = config.qk_norm.then(|| both(HEAD_NORMS, config.head_dim)).transpose()?;
        let output_norms =
            config.output_norms.then(|| both(OUTPUT_NORMS, config.hidden)).transpose()?;
        let output_norm = |weight| OutputNorm::new(weight, config.epsilon);
        let map = |shape: &MapShape| -> Result<(Site, Linear)> {
            let site = shape.site(index);
            let map = weights.linear(&weights.naming().of_site(&site), shape)?;
            Ok((site, map))
        };
        let mut stages = Vec::new();
        for stage in config.stages() {
            let maps = stage.maps.iter().map(map).collect::<Result<Vec<_>>>()?;
            stages.push(Stage { layer: index, kind: stage.kind, maps });
        }
        Ok(Layer {
            index,
            shape: Shape {
                heads: config.heads,
                kv_heads: config.kv_heads,
                head_dim: config.head_dim,
                window: config.windows[index],
                scale: config.score_scale,
            },
            epsilon: config.epsilon,
            attention_norm,
            mlp_norm,
            output_norms: output_norms.map(|norms| norms.map(output_norm)),
            qk_norms,
            activation: config.activation,
            stages,
        })
    }

    /// Checks from headers alone that all tensors of a layer exist with the right shapes.
    pub(crate) fn check(checked: &mut Checked<'_>, config: &Config, index: usize) -> Result<()> {
        let weights = checked.weights;
        for shape in config.stages().iter().flat_map(|stage| &stage.maps) {
            let module = weights.naming().of_site(&shape.site(index));
            checked.find(&format!("{module}.weight"), &[shape.outputs, shape.inputs])?;
            if shape.bias {
                checked.find(&format!("{module}.bias"), &[shape.outputs])?;
            }
        }
        let mut norm = |module: &str, len| {
            checked.find(&norm_name(weights, index, module), &[len]).map(|_| ())
        };
        stream_norms(config).into_iter().try_for_each(|module| norm(module, config.hidden))?;
        if config.output_norms {
            OUTPUT_NORMS.into_iter().try_for_each(|module| norm(module, config.hidden))?;
        }
        if config.qk_norm {
            HEAD_NORMS.into_iter().try_for_each(|module| norm(module, config.head_dim))?;
        }
        Ok(())
    }

    /// Its stages in forward order.
    pub fn stages(&self) -> &[Stage] {
        &self.stages
    }

    /// The map at `site`, if the layer has one there.
    pub fn at(&self, site: &Site) -> Option<&Linear> {
        self.sites().find(|(other, _)| other == site).map(|(_, map)| map)
    }

    /// Replaces the map at `site`.
    ///
    /// # Panics
    /// As [`Stage::replace`].
    #[track_caller]
    pub fn replace(&mut self, site: &Site, map: Linear) {
        let mut stages = self.stages.iter_mut();
        let stage = stages.find(|stage| stage.maps.iter().any(|(other, _)| other == site));
        stage.unwrap_or_else(|| panic!("no map at {site:?} in this layer")).replace(site, map);
    }

    /// All maps in forward order, each with its site.
    pub(crate) fn sites(&self) -> impl Iterator<Item = &(Site, Linear)> {
        self.stages.iter().flat_map(|stage| &stage.maps)
    }

    /// The site of one of its maps.
    pub(crate) fn site(&self, map: Map) -> Site {
        Site { layer: Some(self.index as u64), map, expert: None }
    }

    /// A map that every layer has.
    pub(crate) fn map(&self, map: Map) -> &Linear {
        let found = self.sites().find(|(site, _)| site.map == map && site.expert.is_none());
        &found.expect("the stages of every config have this map").1
    }

    /// Layout of the queries.
    pub(crate) fn query_heads(&self) -> Heads<'_> {
        Heads { count: self.shape.heads, norm: self.qk_norms.as_ref().map(|[q, _]| &q[..]) }
    }

    /// Layout of the keys.
    pub(crate) fn key_heads(&self) -> Heads<'_> {
        Heads { count: self.shape.kv_heads, norm: self.qk_norms.as_ref().map(|[_, k]| &k[..]) }
    }

    /// Size of the weights of its maps in bytes.
    pub(crate) fn weights_bytes(&self) -> usize {
        self.sites().map(|(_, map)| map.weights_bytes()).sum()
    }

    /// Prepares all maps; to be called before windows run in parallel.
    pub fn prepare(&self, compute: &Compute) {
        self.sites().for_each(|(_, map)| map.prepare(compute));
    }

    /// Adds attention, then the MLP to `hidden` `[tokens, hidden]`, the residual stream of one window.
    pub fn forward(&self, workspace: &Workspace<'_>, hidden: &mut [f32]) {
        self.forward_after(workspace, &mut KeysValues::default(), hidden);
    }

    /// As [`Layer::forward`], for tokens that follow those in `past`. Adds their keys and values to `past`.
    pub fn forward_after(
        &self,
        workspace: &Workspace<'_>,
        past: &mut KeysValues,
        hidden: &mut [f32],
    ) {
        let tokens = hidden.len() / self.hidden();
        let mut x = Buffer::default();
        x.resize(tokens * self.input_width(StageKind::MixedValues));
        self.mixed(workspace, hidden, past, &mut x);
        self.add_outputs(StageKind::MixedValues, workspace, &x, hidden);
        x.resize(tokens * self.input_width(StageKind::Gated));
        self.gated(workspace, hidden, &mut x);
        self.add_outputs(StageKind::Gated, workspace, &x, hidden);
    }

    /// Computes the inputs `x` `[tokens, inputs]` of a stage's maps for one window.
    ///
    /// `hidden` is the residual stream before the layer for [`StageKind::BeforeAttention`] and
    /// [`StageKind::MixedValues`], and the one after attention for [`StageKind::BeforeMlp`] and
    /// [`StageKind::Gated`].
    pub fn inputs(
        &self,
        stage: StageKind,
        workspace: &Workspace<'_>,
        hidden: &[f32],
        x: &mut [f32],
    ) {
        match stage {
            StageKind::BeforeAttention => self.normed(workspace, hidden, &self.attention_norm, x),
            StageKind::MixedValues => self.mixed(workspace, hidden, &mut KeysValues::default(), x),
            StageKind::BeforeMlp => self.normed(workspace, hidden, &self.mlp_norm, x),
            StageKind::Gated => self.gated(workspace, hidden, x),
        }
    }

    /// Applies the map of a stage to `x`, normalises the result if the family does, and adds it to `hidden`.
    ///
    /// # Panics
    /// For a stage that does not add to the residual stream ([`StageKind::adds_to_stream`]).
    pub fn add_outputs(
        &self,
        stage: StageKind,
        workspace: &Workspace<'_>,
        x: &[f32],
        hidden: &mut [f32],
    ) {
        let map = self.map_to_stream(stage);
        workspace.with_buffers(|Buffers { added, .. }| {
            added.resize(hidden.len());
            map.forward(workspace.compute(), x, added);
            let chunk = ROWS * self.hidden();
            workspace.compute().each_chunk(hidden, chunk, |index, hidden| {
                let begin = index * chunk;
                self.add(stage, &added[begin..begin + hidden.len()], hidden);
            });
        });
    }

    /// Adds the outputs of a stage's map to `hidden`, normalised if the family does; both are `[tokens, hidden]`.
    pub(crate) fn add(&self, stage: StageKind, outputs: &[f32], hidden: &mut [f32]) {
        match self.output_norm(stage) {
            None => vector::add(hidden, outputs),
            Some(norm) => norm.add(outputs, hidden),
        }
    }

    /// The norm of a stage's outputs, if the family has one.
    ///
    /// # Panics
    /// For a stage that adds nothing to the residual stream.
    pub(crate) fn output_norm(&self, stage: StageKind) -> Option<&OutputNorm> {
        let [of_attention, of_mlp] = self.output_norms.as_ref()?;
        match stage {
            StageKind::MixedValues => Some(of_attention),
            StageKind::Gated => Some(of_mlp),
            StageKind::BeforeAttention | StageKind::BeforeMlp => {
                panic!("{stage:?} adds nothing to the residual stream")
            }
        }
    }

    /// The map whose outputs a stage adds to the residual stream.
    ///
    /// # Panics
    /// For a stage that adds nothing.
    pub(crate) fn map_to_stream(&self, stage: StageKind) -> &Linear {
        assert!(stage.adds_to_stream(), "{stage:?} adds nothing to the residual stream");
        &self.maps_of(stage)[0].1
    }

    /// Width of the residual stream.
    pub(crate) fn hidden(&self) -> usize {
        self.attention_norm.len()
    }

    /// Number of inputs of a stage's maps.
    pub(crate) fn input_width(&self, stage: StageKind) -> usize {
        self.maps_of(stage)[0].1.inputs()
    }

    fn maps_of(&self, stage: StageKind) -> &[(Site, Linear)] {
        let stage = self.stages.iter().find(|other| other.kind == stage);
        &stage.expect("a layer has stages of all kinds").maps
    }

    fn normed(&self, workspace: &Workspace<'_>, hidden: &[f32], norm: &[f32], x: &mut [f32]) {
        let chunk = ROWS * norm.len();
        workspace.compute().each_chunk(x, chunk, |index, x| {
            let begin = index * chunk;
            vector::rms_norm(&hidden[begin..begin + x.len()], norm, self.epsilon, x);
        });
    }

    fn mixed(
        &self,
        workspace: &Workspace<'_>,
        hidden: &[f32],
        past: &mut KeysValues,
        x: &mut [f32],
    ) {
        let tokens = hidden.len() / self.attention_norm.len();
        let maps = [Map::Q, Map::K, Map::V].map(|map| self.map(map));
        let KeysValues { keys, values } = past;
        let before = keys.len();
        for all in [&mut *keys, &mut *values] {
            all.resize(before + tokens * maps[1].outputs());
        }
        let first = before / maps[1].outputs();
        let compute = workspace.compute();
        workspace.with_buffers(|Buffers { normed, q, .. }| {
            normed.resize(hidden.len());
            self.normed(workspace, hidden, &self.attention_norm, normed);
            q.resize(tokens * maps[0].outputs());
            let (k, v) = (&mut keys[before..], &mut values[before..]);
            forward_all(compute, normed, &mut [(maps[0], q), (maps[1], &mut *k), (maps[2], v)]);
            self.rotate(workspace, first, self.query_heads(), q);
            self.rotate(workspace, first, self.key_heads(), k);
            attend(compute, self.shape, [q, keys, values], x);
        });
    }

    /// Normalises heads if the family does, then rotates them. The first row is at position `first`.
    pub(crate) fn rotate(
        &self,
        workspace: &Workspace<'_>,
        first: usize,
        heads: Heads<'_>,
        x: &mut [f32],
    ) {
        let head_dim = self.shape.head_dim;
        let width = heads.count * head_dim;
        let angles = workspace.angles(self.shape.window);
        workspace.compute().each_chunk(x, ROWS * width, |index, chunk| {
            let mut normed = vec![0.0; head_dim];
            for (row, token) in chunk.chunks_exact_mut(width).enumerate() {
                let (cos, sin) = angles.at(first + index * ROWS + row);
                for head in token.chunks_exact_mut(head_dim) {
                    if let Some(norm) = heads.norm {
                        vector::rms_norm(head, norm, self.epsilon, &mut normed);
                        head.copy_from_slice(&normed);
                    }
                    vector::rotate(head, cos, sin);
                }
            }
        });
    }

    fn gated(&self, workspace: &Workspace<'_>, hidden: &[f32], x: &mut [f32]) {
        let tokens = hidden.len() / self.mlp_norm.len();
        let maps = [Map::Gate, Map::Up].map(|map| self.map(map));
        let compute = workspace.compute();
        workspace.with_buffers(|Buffers { normed, up, .. }| {
            normed.resize(hidden.len());
            self.normed(workspace, hidden, &self.mlp_norm, normed);
            up.resize(tokens * maps[1].outputs());
            forward_all(compute, normed, &mut [(maps[0], &mut *x), (maps[1], &mut *up)]);
            let chunk = ROWS * maps[0].outputs();
            compute.each_chunk(x, chunk, |index, x| {
                let begin = index * chunk;
                self.activation.times(x, &up[begin..begin + x.len()]);
            });
        });
    }
}

/// Modules of the norms before attention and before the MLP.
fn stream_norms(config: &Config) -> [&'static str; 2] {
    if config.output_norms { STREAM_NORMS_OF_FOUR } else { STREAM_NORMS }
}

/// Name of the tensor of a norm.
fn norm_name(weights: &Weights, layer: usize, module: &str) -> String {
    format!("{}.weight", weights.naming().module(layer as u64, module))
}
