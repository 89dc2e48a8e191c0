/*!
One layer of a decoder, stage by stage.

A layer adds twice to the residual stream `hidden` `[tokens, hidden]`: attention, then the MLP.
[`Layer::inputs`] computes what goes into the projections of a [`Stage`] from `hidden` as it stands;
[`Layer::add_outputs`] adds what comes out of the last one. [`Layer::forward`] is all of it.
*/

use std::sync::{Mutex, PoisonError};

use physarium_kernels::{Buffer, Compute, Linear, forward_all, vector};

use crate::attention::{Shape, attend};
use crate::config::Config;
use crate::error::Result;
use crate::rope::Angles;
use crate::weights::Weights;

/// Rows of activations that a task works on, element by element.
pub(crate) const ROWS: usize = 64;

/// A linear map of a layer that pruning may target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "the names are the checkpoints' own")]
pub enum Projection {
    Q,
    K,
    V,
    O,
    Gate,
    Up,
    Down,
}

impl Projection {
    /// In the order of the data.
    pub const ALL: [Projection; 7] = [
        Projection::Q,
        Projection::K,
        Projection::V,
        Projection::O,
        Projection::Gate,
        Projection::Up,
        Projection::Down,
    ];

    /// Name of its module in a layer.
    pub fn module(self) -> &'static str {
        match self {
            Projection::Q => "self_attn.q_proj",
            Projection::K => "self_attn.k_proj",
            Projection::V => "self_attn.v_proj",
            Projection::O => "self_attn.o_proj",
            Projection::Gate => "mlp.gate_proj",
            Projection::Up => "mlp.up_proj",
            Projection::Down => "mlp.down_proj",
        }
    }

    /// Its shape: outputs, inputs.
    pub fn shape(self, config: &Config) -> [usize; 2] {
        match self {
            Projection::Q => [config.attention_width(), config.hidden],
            Projection::K | Projection::V => [config.kv_width(), config.hidden],
            Projection::O => [config.hidden, config.attention_width()],
            Projection::Gate | Projection::Up => [config.intermediate, config.hidden],
            Projection::Down => [config.hidden, config.intermediate],
        }
    }

    /// Whether it has a bias.
    fn bias(self, config: &Config) -> bool {
        match self {
            Projection::Q | Projection::K | Projection::V => config.biases.qkv,
            Projection::O => config.biases.output,
            Projection::Gate | Projection::Up | Projection::Down => config.biases.mlp,
        }
    }
}

/// Projections that see the same inputs, in the order of the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// q, k and v, which see the normed residual stream.
    Qkv,
    /// o, which sees the mix of values.
    Output,
    /// gate and up, which see the normed residual stream with attention added.
    GateUp,
    /// down, which sees silu(gate) · up.
    Down,
}

impl Stage {
    /// In the order of the data.
    pub const ALL: [Stage; 4] = [Stage::Qkv, Stage::Output, Stage::GateUp, Stage::Down];

    /// Its projections.
    pub fn projections(self) -> &'static [Projection] {
        match self {
            Stage::Qkv => &[Projection::Q, Projection::K, Projection::V],
            Stage::Output => &[Projection::O],
            Stage::GateUp => &[Projection::Gate, Projection::Up],
            Stage::Down => &[Projection::Down],
        }
    }

    /// Features that its projections see.
    pub fn inputs(self, config: &Config) -> usize {
        self.projections()[0].shape(config)[1]
    }
}

/// What running a layer takes beside its weights. Windows may run at the same time.
#[derive(Debug)]
pub struct Run<'a> {
    compute: &'a Compute,
    pub(crate) angles: Angles,
    /// Kept from one call to the next: fresh memory costs as much as a product.
    buffers: Mutex<Vec<Buffers>>,
}

/// Activations on the way through a layer.
#[derive(Debug, Default)]
struct Buffers {
    normed: Buffer,
    q: Buffer,
    up: Buffer,
    added: Buffer,
}

impl<'a> Run<'a> {
    /// For windows of at most `positions` tokens of a model.
    pub fn new(compute: &'a Compute, config: &Config, positions: usize) -> Run<'a> {
        let angles = Angles::new(&config.rope, positions);
        Run { compute, angles, buffers: Mutex::default() }
    }

    /// What computes.
    pub fn compute(&self) -> &'a Compute {
        self.compute
    }

    /// Lends buffers to `work`, whatever is in them.
    fn with_buffers(&self, work: impl FnOnce(&mut Buffers)) {
        let kept = || self.buffers.lock().unwrap_or_else(PoisonError::into_inner);
        let mut buffers = kept().pop().unwrap_or_default();
        work(&mut buffers);
        kept().push(buffers);
    }
}

/// Keys and values of the tokens that a layer has seen, `[positions, kv_heads · head_dim]` each.
#[derive(Debug, Default)]
pub struct KeysValues {
    keys: Buffer,
    values: Buffer,
}

/// The weights of one layer.
#[derive(Debug, Clone)]
pub struct Layer {
    pub(crate) shape: Shape,
    pub(crate) epsilon: f32,
    pub(crate) attention_norm: Vec<f32>,
    pub(crate) mlp_norm: Vec<f32>,
    /// Norms of queries and keys `[head_dim]`.
    pub(crate) qk_norms: Option<[Vec<f32>; 2]>,
    /// In the order of [`Projection::ALL`].
    maps: [Linear; 7],
}

impl Layer {
    pub(crate) fn read(weights: &Weights, config: &Config, index: usize) -> Result<Layer> {
        let name = |module: &str| format!("model.layers.{index}.{module}");
        let norm = |module: &str, len| weights.vector(&name(&format!("{module}.weight")), len);
        let map =
            |p: Projection| weights.linear(&name(p.module()), p.shape(config), p.bias(config));
        let [q, k, v, o, gate, up, down] = Projection::ALL;
        let qk_norms = if config.qk_norm {
            let read = |module| norm(module, config.head_dim);
            Some([read("self_attn.q_norm")?, read("self_attn.k_norm")?])
        } else {
            None
        };
        Ok(Layer {
            shape: Shape {
                heads: config.heads,
                kv_heads: config.kv_heads,
                head_dim: config.head_dim,
                window: config.windows[index],
            },
            epsilon: config.epsilon,
            attention_norm: norm("input_layernorm", config.hidden)?,
            mlp_norm: norm("post_attention_layernorm", config.hidden)?,
            qk_norms,
            maps: [map(q)?, map(k)?, map(v)?, map(o)?, map(gate)?, map(up)?, map(down)?],
        })
    }

    /// Proves that all tensors of a layer are there in the right shapes, from headers alone.
    pub(crate) fn check(weights: &Weights, config: &Config, index: usize) -> Result<()> {
        let name = |module: &str| format!("model.layers.{index}.{module}");
        for projection in Projection::ALL {
            let module = name(projection.module());
            weights.find(&format!("{module}.weight"), &projection.shape(config))?;
            if projection.bias(config) {
                weights.find(&format!("{module}.bias"), &projection.shape(config)[..1])?;
            }
        }
        for module in ["input_layernorm", "post_attention_layernorm"] {
            weights.find(&name(&format!("{module}.weight")), &[config.hidden])?;
        }
        if config.qk_norm {
            for module in ["self_attn.q_norm", "self_attn.k_norm"] {
                weights.find(&name(&format!("{module}.weight")), &[config.head_dim])?;
            }
        }
        Ok(())
    }

    /// A projection.
    pub fn map(&self, projection: Projection) -> &Linear {
        &self.maps[projection as usize]
    }

    /// Bytes that the weights of its maps take.
    pub(crate) fn weights_bytes(&self) -> usize {
        self.maps.iter().map(Linear::weights_bytes).sum()
    }

    /// Puts another map in a projection's place.
    ///
    /// # Panics
    /// If its shape is another.
    pub fn replace(&mut self, projection: Projection, map: Linear) {
        let old = &mut self.maps[projection as usize];
        assert_eq!([old.outputs(), old.inputs()], [map.outputs(), map.inputs()]);
        *old = map;
    }

    /// Prepares all maps, for callers that run windows side by side.
    pub fn prepare(&self, compute: &Compute) {
        self.maps.iter().for_each(|map| map.prepare(compute));
    }

    /// Adds attention and MLP to `hidden` `[tokens, hidden]`, the states of one window.
    pub fn forward(&self, run: &Run<'_>, hidden: &mut [f32]) {
        let mut x = Buffer::default();
        for stage in [Stage::Output, Stage::Down] {
            self.inputs(stage, run, hidden, &mut x);
            self.add_outputs(stage, run, &x, hidden);
        }
    }

    /// As [`Layer::forward`], for tokens that come after those in `past`, which they then belong to.
    pub fn forward_after(&self, run: &Run<'_>, past: &mut KeysValues, hidden: &mut [f32]) {
        let mut x = Buffer::default();
        self.mixed(run, hidden, past, &mut x);
        self.add_outputs(Stage::Output, run, &x, hidden);
        self.gated(run, hidden, &mut x);
        self.add_outputs(Stage::Down, run, &x, hidden);
    }

    /// Computes what goes into the projections of `stage`, `[tokens, inputs]`, for one window.
    ///
    /// `hidden` is the residual stream before the layer for [`Stage::Qkv`] and [`Stage::Output`],
    /// and with attention added for [`Stage::GateUp`] and [`Stage::Down`].
    pub fn inputs(&self, stage: Stage, run: &Run<'_>, hidden: &[f32], x: &mut Buffer) {
        match stage {
            Stage::Qkv => self.normed(run, hidden, &self.attention_norm, x),
            Stage::Output => self.mixed(run, hidden, &mut KeysValues::default(), x),
            Stage::GateUp => self.normed(run, hidden, &self.mlp_norm, x),
            Stage::Down => self.gated(run, hidden, x),
        }
    }

    /// Adds what the last projection of `stage` makes of `x` to `hidden`.
    ///
    /// # Panics
    /// For a stage whose outputs go elsewhere: [`Stage::Qkv`] and [`Stage::GateUp`].
    pub fn add_outputs(&self, stage: Stage, run: &Run<'_>, x: &[f32], hidden: &mut [f32]) {
        let map = match stage {
            Stage::Output => self.map(Projection::O),
            Stage::Down => self.map(Projection::Down),
            Stage::Qkv | Stage::GateUp => panic!("{stage:?} adds nothing to the residual stream"),
        };
        /// Elements that a task adds.
        const ADDED: usize = 1 << 16;
        run.with_buffers(|Buffers { added, .. }| {
            added.resize(hidden.len());
            map.forward(run.compute, x, added);
            run.compute.each_chunk(hidden, ADDED, |index, hidden| {
                let begin = index * ADDED;
                vector::add(hidden, &added[begin..begin + hidden.len()]);
            });
        });
    }

    fn normed(&self, run: &Run<'_>, hidden: &[f32], norm: &[f32], x: &mut Buffer) {
        x.resize(hidden.len());
        let chunk = ROWS * norm.len();
        run.compute.each_chunk(x, chunk, |index, x| {
            let begin = index * chunk;
            vector::rms_norm(&hidden[begin..begin + x.len()], norm, self.epsilon, x);
        });
    }

    fn mixed(&self, run: &Run<'_>, hidden: &[f32], past: &mut KeysValues, x: &mut Buffer) {
        let tokens = hidden.len() / self.attention_norm.len();
        let maps = [Projection::Q, Projection::K, Projection::V].map(|p| self.map(p));
        let KeysValues { keys, values } = past;
        let before = keys.len();
        for all in [&mut *keys, &mut *values] {
            all.resize(before + tokens * maps[1].outputs());
        }
        let first = before / maps[1].outputs();
        run.with_buffers(|Buffers { normed, q, .. }| {
            self.normed(run, hidden, &self.attention_norm, normed);
            q.resize(tokens * maps[0].outputs());
            let (k, v) = (&mut keys[before..], &mut values[before..]);
            forward_all(run.compute, normed, &mut [(maps[0], q), (maps[1], &mut *k), (maps[2], v)]);
            let norms = self.qk_norms.as_ref();
            self.turn(run, first, q, self.shape.heads, norms.map(|norms| &norms[0]));
            self.turn(run, first, k, self.shape.kv_heads, norms.map(|norms| &norms[1]));
            x.resize(q.len());
            attend(run.compute, self.shape, [q, keys, values], x);
        });
    }

    /// Norms heads where the family does, then turns them by their positions from `first` on.
    pub(crate) fn turn(
        &self,
        run: &Run<'_>,
        first: usize,
        x: &mut [f32],
        heads: usize,
        norm: Option<&Vec<f32>>,
    ) {
        let head_dim = self.shape.head_dim;
        run.compute.each_chunk(x, ROWS * heads * head_dim, |index, chunk| {
            let mut normed = vec![0.0; head_dim];
            for (row, token) in chunk.chunks_exact_mut(heads * head_dim).enumerate() {
                let (cos, sin) = run.angles.at(first + index * ROWS + row);
                for head in token.chunks_exact_mut(head_dim) {
                    if let Some(norm) = norm {
                        vector::rms_norm(head, norm, self.epsilon, &mut normed);
                        head.copy_from_slice(&normed);
                    }
                    vector::rotate(head, cos, sin);
                }
            }
        });
    }

    fn gated(&self, run: &Run<'_>, hidden: &[f32], x: &mut Buffer) {
        let tokens = hidden.len() / self.mlp_norm.len();
        let maps = [Projection::Gate, Projection::Up].map(|p| self.map(p));
        x.resize(tokens * maps[0].outputs());
        run.with_buffers(|Buffers { normed, up, .. }| {
            self.normed(run, hidden, &self.mlp_norm, normed);
            up.resize(tokens * maps[1].outputs());
            forward_all(run.compute, normed, &mut [(maps[0], &mut *x), (maps[1], &mut *up)]);
            let chunk = ROWS * maps[0].outputs();
            run.compute.each_chunk(x, chunk, |index, x| {
                let begin = index * chunk;
                vector::silu_times(x, &up[begin..begin + x.len()]);
            });
        });
    }
}
