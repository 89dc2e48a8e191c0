/*!
The slime mould: conductances of the tubes of one tile under a conserved flow.

In: the distinct magnitudes of a tile with their counts. Out: a [`Cut`].

Each weight is a tube between the same two points; its food is its magnitude f. Beginning with D = 1,

```text
Qᵢ = I₀ · N · Dᵢ fᵢ / Σⱼ Dⱼ fⱼ
Dᵢ ← Qᵢ^β / (1 + Qᵢ^β)
```

where N is the number of finite weights of the tile (including zeros, which carry no flow: their
share goes to the others) and I₀ the mean flow per tube. The response is the saturating one of
Tero, Kobayashi, Nakagaki 2007 ("A mathematical model for adaptive transport network in path
finding by true slime mold", J. Theor. Biol. 244), with their rate and decay at one step per
iteration (dt = 1), so the new D is the response itself. A tube is dead when its D is below 10⁻³ of
the largest.

Weights of equal magnitude have the same D, so the code follows one tube per *distinct* magnitude,
with its count. The sum runs over the distinct magnitudes in ascending order, in float64, and the power is that of
the `libm` crate, not of the platform (whose last bit depends on the processor: glibc has one with fused multiply-adds
and one without), so the result does not depend on the machine or the number of threads. Magnitudes are first divided by a power
of two so that the largest is in [1, 2); therefore scaling a tile by a power of two changes no bit
of the result.
*/

use physarium_kernels::dispatch;

use crate::census::Magnitudes;
use crate::cut::Cut;
use crate::format::FloatFormat;

/// A tube is dead if its conductance is below this fraction of the largest. Chosen by this project.
const DEAD: f64 = 1e-3;

/// Parameters of the dynamics.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FlowParams {
    iterations: u32,
    beta: f64,
    inflow: f64,
}

impl FlowParams {
    /// Default number of steps of the dynamics.
    pub const DEFAULT_ITERATIONS: u32 = 30;
    /// Default exponent of the response.
    pub const DEFAULT_BETA: f64 = 2.0;
    /// Default mean flow per tube: chosen so that 2/9 of a 256 x 256 tile of Gaussian weights are
    /// pruned (test `default_inflow_prunes_two_ninths_of_a_gaussian`).
    pub const DEFAULT_INFLOW: f64 = 5.16;

    /// Checks the parameters.
    ///
    /// # Errors
    /// A message that names the parameter and its range, if `iterations` is 0 or over 10,000, `beta`
    /// is not in (1, 16] (at 1 and below no tube ever dies), or `inflow` is not in [0.001, 1,000,000].
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

/// Solves one tile after another; memory is allocated once and reused.
#[derive(Debug, Default)]
pub struct Conductance {
    tubes: [Tubes; Conductance::LANES],
}

impl Conductance {
    /// Number of tiles to solve together for best speed. The sum of one tile is a chain of dependent
    /// additions; two interleaved chains hide their latency.
    pub const LANES: usize = 2;

    /// Lets the tubes of up to [`LANES`](Self::LANES) tiles adapt, each tile independently, and returns
    /// the cut of each.
    pub fn cuts<const L: usize>(
        &mut self,
        tiles: [&Magnitudes; L],
        format: FloatFormat,
        params: FlowParams,
    ) -> [Cut; L] {
        const { assert!(L >= 1 && L <= Self::LANES) };
        let lanes = self.tubes.first_chunk_mut::<L>().expect("as many tubes as lanes");
        for (tubes, tile) in lanes.iter_mut().zip(tiles) {
            tubes.fill(tile, format);
        }
        let total = tiles.map(|tile| params.inflow * tile.finite() as f64);
        dispatch(Adaptation { lanes, total, params });
        std::array::from_fn(|lane| match lanes[lane].dead_count() {
            Some(dead) => Cut { below: tiles[lane].keys[dead], ties_end: 0 },
            None => Cut::NOTHING,
        })
    }

    /// Upper bound of the scratch memory of one solver, in bytes, for tiles of `elements`.
    pub fn scratch_bytes(format: FloatFormat, elements: u64) -> u64 {
        let numbers = 3 * Self::LANES as u64 * format.distinct_at_most(elements);
        numbers * size_of::<f64>() as u64
    }
}

/// The tubes of one tile, one for each distinct magnitude, ascending.
#[derive(Debug, Default)]
struct Tubes {
    /// Food; the largest is in [1, 2).
    food: Vec<f64>,
    /// Food times count.
    weight: Vec<f64>,
    /// D.
    conductance: Vec<f64>,
    /// Number of leading tubes with D = 0. They stay at zero and add nothing to the sum; a smaller
    /// magnitude never has a larger D.
    closed: usize,
}

impl Tubes {
    fn fill(&mut self, tile: &Magnitudes, format: FloatFormat) {
        let magnitude = |key: &u32| format.magnitude(*key);
        let scale = tile.keys.last().map_or(1.0, |key| power_of_two_below(magnitude(key)).recip());
        self.food.clear();
        self.food.extend(tile.keys.iter().map(|key| magnitude(key) * scale));
        self.weight.clear();
        self.weight.extend(self.food.iter().zip(&tile.counts).map(|(f, &n)| f * f64::from(n)));
        self.conductance.clear();
        self.conductance.resize(self.food.len(), 1.0);
        self.closed = 0;
    }

    /// Number of dead tubes, which are the leading ones. `None` if there are no tubes.
    fn dead_count(&self) -> Option<usize> {
        let threshold = DEAD * self.conductance.last()?;
        Some(self.conductance.partition_point(|&d| d < threshold))
    }

    /// The tubes that are not closed.
    fn open(&mut self) -> OpenTubes<'_> {
        OpenTubes {
            food: &self.food[self.closed..],
            weight: &self.weight[self.closed..],
            conductance: &mut self.conductance[self.closed..],
        }
    }
}

/// Tubes that still conduct; the three slices have the same length.
struct OpenTubes<'a> {
    food: &'a [f64],
    weight: &'a [f64],
    conductance: &'a mut [f64],
}

/// The dynamics of `L` tiles, interleaved. Compiled for the widest vectors of the machine it runs
/// on; the operations and their order are the same on all machines.
struct Adaptation<'a, const L: usize> {
    lanes: &'a mut [Tubes; L],
    /// The conserved flow I₀ · N of each tile.
    total: [f64; L],
    params: FlowParams,
}

impl<const L: usize> pulp::NullaryFnOnce for Adaptation<'_, L> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Adaptation { lanes, total, params } = self;
        let mut sum: [f64; L] =
            std::array::from_fn(|l| lanes[l].weight.iter().fold(0.0, |sum, w| sum + w));
        for _ in 0..params.iterations {
            let scale: [f64; L] = std::array::from_fn(|l| total[l] / sum[l]);
            let open = lanes.each_mut().map(Tubes::open);
            sum = if params.beta == 2.0 {
                step(open, scale, |flux| flux * flux)
            } else {
                // Beyond the largest float the response is 1, not ∞ / ∞.
                step(open, scale, |flux| libm::pow(flux, params.beta).min(f64::MAX))
            };
            for tubes in lanes.iter_mut() {
                let open = &tubes.conductance[tubes.closed..];
                tubes.closed += open.iter().take_while(|d| **d == 0.0).count();
            }
        }
    }
}

/// Number of tubes whose responses are computed together; they do not depend on each other.
const BLOCK: usize = 8;

/// One step of all tubes; returns the next Σ D f of each tile, summed in ascending order.
#[inline(always)]
#[allow(clippy::needless_range_loop, reason = "`i` indexes all lanes, `lane` several arrays")]
fn step<const L: usize>(
    mut open: [OpenTubes<'_>; L],
    scale: [f64; L],
    power: impl Fn(f64) -> f64 + Copy,
) -> [f64; L] {
    let mut sum = [0.0; L];
    let blocks = open.iter().map(|tubes| tubes.food.len() / BLOCK).min().unwrap_or(0);
    for block in 0..blocks {
        let mut terms = [[0.0; BLOCK]; L];
        for lane in 0..L {
            terms[lane] = respond_block(&mut open[lane], block * BLOCK, scale[lane], power);
        }
        for i in 0..BLOCK {
            for lane in 0..L {
                sum[lane] += terms[lane][i];
            }
        }
    }
    // The blocks that one tile has and the other has not, then the rest below a block.
    for lane in 0..L {
        let tubes = &mut open[lane];
        let mut at = blocks * BLOCK;
        while at + BLOCK <= tubes.food.len() {
            for term in respond_block(tubes, at, scale[lane], power) {
                sum[lane] += term;
            }
            at += BLOCK;
        }
        for i in at..tubes.food.len() {
            let next = respond(tubes.conductance[i], tubes.food[i], scale[lane], power);
            tubes.conductance[i] = next;
            sum[lane] += next * tubes.weight[i];
        }
    }
    sum
}

/// The new D of one tube.
#[inline(always)]
fn respond(conductance: f64, food: f64, scale: f64, power: impl Fn(f64) -> f64) -> f64 {
    let response = power(conductance * food * scale);
    response / (1.0 + response)
}

/// Updates D of a block of tubes; returns their terms of Σ D f.
#[inline(always)]
fn respond_block(
    tubes: &mut OpenTubes<'_>,
    at: usize,
    scale: f64,
    power: impl Fn(f64) -> f64 + Copy,
) -> [f64; BLOCK] {
    let conductance: &mut [f64; BLOCK] =
        (&mut tubes.conductance[at..at + BLOCK]).try_into().expect("a block");
    let food: &[f64; BLOCK] = tubes.food[at..at + BLOCK].try_into().expect("a block");
    let weight: &[f64; BLOCK] = tubes.weight[at..at + BLOCK].try_into().expect("a block");
    let next: [f64; BLOCK] =
        std::array::from_fn(|i| respond(conductance[i], food[i], scale, power));
    *conductance = next;
    std::array::from_fn(|i| next[i] * weight[i])
}

/// The largest power of two that is at most `x`; `x` is positive and normal.
fn power_of_two_below(x: f64) -> f64 {
    assert!(x.is_normal() && x > 0.0, "magnitude {x}");
    f64::from_bits(x.to_bits() & 0x7ff0_0000_0000_0000)
}
