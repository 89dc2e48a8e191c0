/*!
The stages of a layer: lists of linear maps that have the same inputs, without weights.

In: a [`Config`]. Out: each stage with the shape of each of its maps ([`Config::stages`]). Reading, checking,
capturing and differentiating a layer all follow this list.

A family with other biases, norms or windows is a row of the table in `config`. A stage whose inputs are
computed in another way needs one more [`StageKind`], with an arm in each `match` on kinds and a step in the
forward and the backward pass. Fused tensors (`qkv_proj`) are not supported: they would have to be split into
their maps by rows.
*/

use physarium_checkpoint::{Map, Site};

use super::config::Config;

/// What the inputs of a stage are computed from, in forward order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StageKind {
    /// The residual stream before the layer, normalised.
    BeforeAttention,
    /// The outputs of attention: weighted sums of values.
    MixedValues,
    /// The residual stream after attention, normalised.
    BeforeMlp,
    /// activation(gate) · up.
    Gated,
}

impl StageKind {
    /// Whether the outputs of its map are added to the residual stream.
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
    /// Which map it is.
    pub map: Map,
    /// Output features.
    pub outputs: usize,
    /// Input features.
    pub inputs: usize,
    /// Whether it has a bias.
    pub bias: bool,
}

impl MapShape {
    /// Its site in a layer.
    pub fn site(&self, layer: usize) -> Site {
        Site { layer: Some(layer as u64), map: self.map.clone(), expert: None }
    }
}

/// A stage of a layer, without weights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StageShape {
    /// What its inputs are computed from.
    pub kind: StageKind,
    /// Its maps in forward order; at least one. All have the same inputs.
    pub maps: Vec<MapShape>,
}

impl StageShape {
    /// Input features of its maps.
    pub fn inputs(&self) -> usize {
        self.maps[0].inputs
    }

    /// Weights of its maps.
    pub fn weights(&self) -> usize {
        self.maps.iter().map(|map| map.outputs * map.inputs).sum()
    }
}

impl Config {
    /// Weights of the linear maps of a layer.
    pub fn layer_weights(&self) -> usize {
        self.stages().iter().map(StageShape::weights).sum()
    }

    /// The stages of each layer in forward order.
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
