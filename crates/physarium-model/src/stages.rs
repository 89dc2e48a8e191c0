/*!
The stages of a layer: lists of linear maps that see the same inputs.

In: a [`Config`]. Out: each stage with the shape of each of its maps ([`Config::stages`]), which is all that
reading, checking, capturing and differentiating a layer know of its maps; and [`Stage`], the same with
weights.

A family with other biases, norms or windows is a row of the table in `config`. A stage whose inputs are made in
another way is one more [`StageKind`], with an arm in each `match` on kinds and a step in the forward and the
backward pass. A fused tensor (`qkv_proj`) is not read: it would have to be split into its maps by rows.
*/

use physarium_checkpoint::{Map, Site};
use physarium_kernels::Linear;

use crate::config::Config;

/// What the inputs of a stage are made from. In the order of the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StageKind {
    /// From the residual stream before the layer, normed.
    BeforeAttention,
    /// From the values that attention mixes.
    MixedValues,
    /// From the residual stream with attention added, normed.
    BeforeMlp,
    /// From silu(gate) · up.
    Gated,
}

impl StageKind {
    /// Whether what its map puts out is added to the residual stream.
    pub fn adds_to_stream(self) -> bool {
        match self {
            StageKind::BeforeAttention | StageKind::BeforeMlp => false,
            StageKind::MixedValues | StageKind::Gated => true,
        }
    }
}

/// A linear map of a layer, without weights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MapShape {
    /// Which it is.
    pub map: Map,
    /// Features that come out.
    pub outputs: usize,
    /// Features that go in.
    pub inputs: usize,
    /// Whether it has a bias.
    pub bias: bool,
}

impl MapShape {
    /// Its place in a layer.
    pub fn site(&self, layer: usize) -> Site {
        Site { layer: Some(layer as u64), map: self.map.clone(), expert: None }
    }
}

/// A stage of a layer, without weights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StageShape {
    /// What its inputs are made from.
    pub kind: StageKind,
    /// Its maps in the order of the data; at least one. All have the same number of inputs.
    pub maps: Vec<MapShape>,
}

impl StageShape {
    /// Features that its maps see.
    pub fn inputs(&self) -> usize {
        self.maps[0].inputs
    }
}

impl Config {
    /// The stages of each layer, in the order of the data.
    pub fn stages(&self) -> Vec<StageShape> {
        let (hidden, mixed, gated) = (self.hidden, self.attention_width(), self.intermediate);
        let stage = |kind, inputs, bias, outputs: &[(Map, usize)]| StageShape {
            kind,
            maps: outputs
                .iter()
                .map(|(map, outputs)| MapShape {
                    map: map.clone(),
                    outputs: *outputs,
                    inputs,
                    bias,
                })
                .collect(),
        };
        let qkv = [(Map::Q, mixed), (Map::K, self.kv_width()), (Map::V, self.kv_width())];
        let gate_up = [(Map::Gate, gated), (Map::Up, gated)];
        let biases = self.biases;
        vec![
            stage(StageKind::BeforeAttention, hidden, biases.qkv, &qkv),
            stage(StageKind::MixedValues, mixed, biases.output, &[(Map::O, hidden)]),
            stage(StageKind::BeforeMlp, hidden, biases.mlp, &gate_up),
            stage(StageKind::Gated, gated, biases.mlp, &[(Map::Down, hidden)]),
        ]
    }
}

/// A stage of one layer.
#[derive(Debug, Clone)]
pub struct Stage {
    pub(crate) layer: usize,
    pub(crate) kind: StageKind,
    /// In the order of the data.
    pub(crate) maps: Vec<(Site, Linear)>,
}

impl Stage {
    /// The layer that it belongs to, from zero on.
    pub fn layer(&self) -> usize {
        self.layer
    }

    /// What its inputs are made from.
    pub fn kind(&self) -> StageKind {
        self.kind
    }

    /// Its maps in the order of the data, each with its place in the decoder.
    pub fn maps(&self) -> &[(Site, Linear)] {
        &self.maps
    }

    /// Puts another map in the place of the one at `site`.
    ///
    /// # Panics
    /// If the stage has no map there, or the shape is another.
    #[track_caller]
    pub fn replace(&mut self, site: &Site, map: Linear) {
        let old = self.maps.iter_mut().find(|(other, _)| other == site);
        let (_, old) = old.unwrap_or_else(|| panic!("no map at {site:?} in this stage"));
        assert_eq!([old.outputs(), old.inputs()], [map.outputs(), map.inputs()]);
        *old = map;
    }
}
