/*!
Rotary position embedding (Su et al. 2021, arXiv 2104.09864) and its published scalings.

In: the fields of a config. Out: [`Rope`], the angle per position by which each pair of a head's features
rotates, and [`Angles`], the cosines and sines of these angles at a range of positions.
*/

use std::f64::consts::TAU;

use super::fields::Fields;
use super::notes::Note;
use super::rope_fields::{Dialect, FULL, SLIDING, ThetaField};
use crate::error::Result;

/// Rotary position embedding of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct Rope {
    /// Radians per position for each pair `[head_dim / 2]`.
    frequencies: Vec<f32>,
    /// Factor of all cosines and sines (YaRN's attention factor).
    factor: f32,
}

/// A rotary embedding as a config describes it.
#[derive(Debug, PartialEq)]
pub(crate) struct RopeRead {
    pub(crate) rope: Rope,
    /// Positions that a scaling extends the model to, where `max_position_embeddings` may state those before.
    pub(crate) extended_positions: Option<usize>,
}

impl RopeRead {
    /// Reads `rope_parameters` (5.x), `rope_theta` with `rope_scaling` (4.x), or both.
    pub(crate) fn of(fields: &Fields, head_dim: usize, notes: &mut Vec<Note>) -> Result<RopeRead> {
        let dialects = Dialect::all(fields)?;
        let (used, others) = dialects.split_first().expect("at least one");
        let read = RopeRead::of_dialect(head_dim, used)?;
        for other in others {
            used.refuse_other_theta(other)?;
            if !RopeRead::of_dialect(head_dim, other).is_ok_and(|other| other == read) {
                notes.push(Note::TwoRopes);
            }
        }
        if used.has_two_thetas()? {
            notes.push(Note::TwoThetas { field: used.theta.name, object: used.name });
        }
        Ok(read)
    }

    /// Reads the two embeddings of a family whose layers with a sliding window have one of their own (Gemma 3): that of
    /// layers that attend to all positions first.
    pub(crate) fn by_layer_type(
        fields: &Fields,
        head_dim: usize,
        notes: &mut Vec<Note>,
    ) -> Result<[Rope; 2]> {
        const THETAS: [ThetaField; 2] = [
            ThetaField { name: "rope_theta", unless_stated: 1e6 },
            ThetaField { name: "rope_local_base_freq", unless_stated: 1e4 },
        ];
        let mut read = |layer_type, theta| -> Result<Rope> {
            let dialect = Dialect::of_layers(fields, layer_type, theta)?;
            if dialect.has_two_thetas()? {
                notes.push(Note::TwoThetas { field: theta.name, object: dialect.name });
            }
            Ok(RopeRead::of_dialect(head_dim, &dialect)?.rope)
        };
        Ok([read(FULL, THETAS[0])?, read(SLIDING, THETAS[1])?])
    }

    fn of_dialect(head_dim: usize, dialect: &Dialect<'_>) -> Result<RopeRead> {
        let base = Base { theta: dialect.theta()?, pairs: head_dim / 2 };
        let scaling = &dialect.object;
        let rope = match dialect.kind()? {
            "default" => base.plain(1.0),
            "linear" => base.plain(scaling.required_number("factor")?),
            "llama3" => base.llama3(scaling, dialect.required_original_positions()?)?,
            "yarn" => base.yarn(scaling, dialect.required_original_positions()?)?,
            other => {
                let supported = "default, linear, llama3, yarn";
                return Err(scaling.unsupported("rope_type", other, supported));
            }
        };
        // Users are told to add these two to a config and to leave its maximum as it is.
        let extended_positions = match dialect.kind()? {
            "linear" | "yarn" => {
                let factor = scaling.required_number("factor")?;
                dialect.original_positions()?.map(|original| (factor * original) as usize)
            }
            _ => None,
        };
        Ok(RopeRead { rope, extended_positions })
    }
}

/// The embedding without scaling.
struct Base {
    theta: f64,
    pairs: usize,
}

impl Base {
    /// Pair i rotates by theta^(-i / pairs) radians per position.
    fn frequency(&self, pair: usize) -> f64 {
        libm::pow(self.theta, -(pair as f64) / self.pairs as f64)
    }

    fn rope(&self, factor: f64, frequency: impl Fn(usize, f64) -> f64) -> Rope {
        let frequencies =
            (0..self.pairs).map(|pair| frequency(pair, self.frequency(pair)) as f32).collect();
        Rope { frequencies, factor: factor as f32 }
    }

    /// Position interpolation: Chen et al. 2023, arXiv 2306.15595.
    fn plain(&self, factor: f64) -> Rope {
        self.rope(1.0, |_, frequency| frequency / factor)
    }

    /// Llama 3.1 (arXiv 2407.21783): low frequencies are scaled, high ones are not; between them is a ramp.
    fn llama3(&self, scaling: &Fields, positions: f64) -> Result<Rope> {
        let factor = scaling.required_number("factor")?;
        let low = scaling.required_number("low_freq_factor")?;
        let high = scaling.required_number("high_freq_factor")?;
        Ok(self.rope(1.0, |_, frequency| {
            let turns = positions * frequency / TAU;
            if turns > high {
                frequency
            } else if turns < low {
                frequency / factor
            } else {
                let kept = (turns - low) / (high - low);
                (1.0 - kept) * frequency / factor + kept * frequency
            }
        }))
    }

    /// YaRN: Peng et al. 2023, arXiv 2309.00071.
    fn yarn(&self, scaling: &Fields, positions: f64) -> Result<Rope> {
        let factor = scaling.required_number("factor")?;
        let fast = scaling.number("beta_fast")?.unwrap_or(32.0);
        let slow = scaling.number("beta_slow")?.unwrap_or(1.0);
        let whole = scaling.flag("truncate")?.unwrap_or(true);
        let magnitude = |weight: f64| {
            if factor <= 1.0 { 1.0 } else { 0.1 * weight * libm::log(factor) + 1.0 }
        };
        let stated = scaling.number("attention_factor")?;
        let attention = match (stated, scaling.number("mscale")?, scaling.number("mscale_all_dim")?)
        {
            (Some(stated), _, _) => stated,
            (None, Some(one), Some(all)) => magnitude(one) / magnitude(all),
            _ => magnitude(1.0),
        };
        // Index of the pair that completes `turns` rotations within the original positions.
        let pair_of = |turns: f64| {
            self.pairs as f64 * libm::log(positions / (turns * TAU)) / libm::log(self.theta)
        };
        let (mut first, mut last) = (pair_of(fast), pair_of(slow));
        if whole {
            (first, last) = (first.floor(), last.ceil());
        }
        first = first.max(0.0);
        last = last.min((2 * self.pairs - 1) as f64);
        if first == last {
            last += 0.001;
        }
        Ok(self.rope(attention, |pair, frequency| {
            let stretched = ((pair as f64 - first) / (last - first)).clamp(0.0, 1.0);
            frequency / factor * stretched + frequency * (1.0 - stretched)
        }))
    }
}

/// Cosines and sines of the positions from 0 on.
#[derive(Debug, Clone)]
pub struct Angles {
    pairs: usize,
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl Angles {
    /// Computes cosines and sines of `positions` positions.
    pub fn new(rope: &Rope, positions: usize) -> Angles {
        let pairs = rope.frequencies.len();
        let mut angles = Angles { pairs, cos: Vec::new(), sin: Vec::new() };
        angles.extend(rope, positions);
        angles
    }

    /// Computes those that are not there yet, of the same embedding.
    pub(crate) fn extend(&mut self, rope: &Rope, positions: usize) {
        for position in self.cos.len() / self.pairs..positions {
            for frequency in &rope.frequencies {
                // In float32, as in training. Not the platform's functions: they differ in the last bit.
                let (sin, cos) = libm::sincosf(position as f32 * frequency);
                self.cos.push(cos * rope.factor);
                self.sin.push(sin * rope.factor);
            }
        }
    }

    /// Cosines and sines at a position, one for each pair.
    ///
    /// # Panics
    /// If the position is not among those of [`Angles::new`].
    pub fn at(&self, position: usize) -> (&[f32], &[f32]) {
        let here = position * self.pairs..(position + 1) * self.pairs;
        (&self.cos[here.clone()], &self.sin[here])
    }
}
