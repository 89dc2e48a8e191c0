/*!
The slime mould: conductances of the tubes of one tile under a conserved flow.

Each weight is a tube between the same two points; its food is its magnitude f. From D = 1 on,

```text
Qᵢ = I₀ · N · Dᵢ fᵢ / Σⱼ Dⱼ fⱼ
Dᵢ ← Qᵢ^β / (1 + Qᵢ^β)
```

where N is the number of finite weights of the tile (those that are zero too: they carry nothing,
their share goes to the others) and I₀ the mean flow per tube. The response is the saturating one of
Tero, Kobayashi, Nakagaki 2007 ("A mathematical model for adaptive transport network in path
finding by true slime mold", J. Theor. Biol. 244), with their rate and decay at one step per
iteration (dt = 1), which makes the new D the response itself. A tube is dead when its D is below
10⁻³ of the largest.

Equal magnitudes have equal fates, so one tube per *distinct* magnitude is followed, with its count.
The sum runs over the distinct magnitudes in ascending order, one after the other, in float64:
the result is the same on every machine and for every number of threads. Magnitudes are first divided
by a power of two so that the largest is in [1, 2); scaling a tile by a power of two therefore
changes nothing, to the last bit.
*/

use crate::census::Magnitudes;
use crate::cut::Cut;
use crate::format::FloatFormat;

/// A tube is dead below this share of the largest conductance (the project's choice).
const DEAD: f64 = 1e-3;

/// Parameters of the dynamics.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FlowParams {
    iterations: u32,
    beta: f64,
    inflow: f64,
}

impl FlowParams {
    /// Steps of the dynamics unless the user says otherwise.
    pub const DEFAULT_ITERATIONS: u32 = 30;
    /// Exponent of the response unless the user says otherwise.
    pub const DEFAULT_BETA: f64 = 2.0;
    /// Mean flow per tube unless the user says otherwise: chosen so that a 256 x 256 tile of
    /// Gaussian weights loses 2/9 of them (`default_inflow_takes_two_ninths_of_a_gaussian`).
    pub const DEFAULT_INFLOW: f64 = 5.16;

    /// Checks the parameters.
    ///
    /// # Errors
    /// A sentence, when `iterations` is 0 or over 10,000, `beta` is not in (1, 16] (up to 1 no
    /// tube ever dies), or `inflow` is not in [0.001, 1,000,000].
    pub fn new(iterations: u32, beta: f64, inflow: f64) -> Result<Self, String> {
        if !(1..=10_000).contains(&iterations) {
            return Err(format!("iterations must be between 1 and 10,000, found {iterations}"));
        }
        if !(beta > 1.0 && beta <= 16.0) {
            return Err(format!("beta must be above 1 and at most 16, found {beta}"));
        }
        if !(1e-3..=1e6).contains(&inflow) {
            return Err(format!("inflow must be between 0.001 and 1,000,000, found {inflow}"));
        }
        Ok(FlowParams { iterations, beta, inflow })
    }
}

/// Solves tiles one after the other, in memory that is allocated once.
#[derive(Debug, Default)]
pub struct Conductance {
    /// Food of each distinct magnitude, ascending; the largest is in [1, 2).
    food: Vec<f64>,
    /// Food times count.
    weight: Vec<f64>,
    /// D.
    conductance: Vec<f64>,
}

impl Conductance {
    /// Lets the tubes of a tile adapt and returns which magnitudes die.
    pub fn cut(
        &mut self,
        tile: &Magnitudes,
        magnitude: impl Fn(u32) -> f64,
        params: FlowParams,
    ) -> Cut {
        let Some(&largest) = tile.keys.last() else { return Cut::NOTHING };
        let scale = power_of_two_below(magnitude(largest)).recip();
        self.food.clear();
        self.food.extend(tile.keys.iter().map(|&key| magnitude(key) * scale));
        self.weight.clear();
        self.weight.extend(self.food.iter().zip(&tile.counts).map(|(f, &n)| f * f64::from(n)));
        self.conductance.clear();
        self.conductance.resize(self.food.len(), 1.0);
        self.adapt(params, params.inflow * tile.finite() as f64);
        let threshold = DEAD * self.conductance[self.conductance.len() - 1];
        let dead = self.conductance.partition_point(|&d| d < threshold);
        Cut { below: tile.keys[dead], ties_end: 0 }
    }

    /// Scratch that one solver needs at most, in bytes, for a tile of `elements`.
    pub fn scratch_bytes(format: FloatFormat, elements: u64) -> u64 {
        3 * size_of::<f64>() as u64 * format.distinct_at_most(elements)
    }

    /// Runs the dynamics; `total` is the conserved flow I₀ · N.
    fn adapt(&mut self, params: FlowParams, total: f64) {
        // Tubes whose conductance is exactly zero stay so and add nothing: they are a prefix,
        // since a smaller magnitude never conducts better.
        let mut closed = 0;
        let mut sum = self.weight.iter().fold(0.0, |sum, weight| sum + weight);
        for _ in 0..params.iterations {
            let scale = total / sum;
            let food = &self.food[closed..];
            let weight = &self.weight[closed..];
            let conductance = &mut self.conductance[closed..];
            sum = if params.beta == 2.0 {
                step(conductance, food, weight, |d, f| {
                    let flux = d * f * scale;
                    let response = flux * flux;
                    response / (1.0 + response)
                })
            } else {
                step(conductance, food, weight, |d, f| {
                    // Over the largest float the response is one, not infinity over infinity.
                    let response = (d * f * scale).powf(params.beta).min(f64::MAX);
                    response / (1.0 + response)
                })
            };
            closed += conductance.iter().take_while(|d| **d == 0.0).count();
        }
    }
}

/// One step for all tubes; returns the next Σ D f, added up in ascending order.
///
/// Blocks of eight: the responses of a block are independent and vectorise, the additions are one
/// chain whose latency they fill.
#[inline(always)]
fn step(
    conductance: &mut [f64],
    food: &[f64],
    weight: &[f64],
    respond: impl Fn(f64, f64) -> f64,
) -> f64 {
    const BLOCK: usize = 8;
    assert!(conductance.len() == food.len() && food.len() == weight.len());
    let mut sum = 0.0;
    let (d_blocks, d_rest) = conductance.as_chunks_mut::<BLOCK>();
    let (f_blocks, f_rest) = food.as_chunks::<BLOCK>();
    let (w_blocks, w_rest) = weight.as_chunks::<BLOCK>();
    for ((d, f), w) in d_blocks.iter_mut().zip(f_blocks).zip(w_blocks) {
        let mut term = [0.0; BLOCK];
        for i in 0..BLOCK {
            d[i] = respond(d[i], f[i]);
            term[i] = d[i] * w[i];
        }
        for term in term {
            sum += term;
        }
    }
    for ((d, f), w) in d_rest.iter_mut().zip(f_rest).zip(w_rest) {
        *d = respond(*d, *f);
        sum += *d * w;
    }
    sum
}

/// The largest power of two that is at most `x`, for positive normal `x`.
fn power_of_two_below(x: f64) -> f64 {
    assert!(x.is_normal() && x > 0.0, "magnitude {x}");
    f64::from_bits(x.to_bits() & 0x7ff0_0000_0000_0000)
}
