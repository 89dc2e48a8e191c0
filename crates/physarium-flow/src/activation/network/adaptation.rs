/*!
How tubes answer to what they are offered: the threshold, and the part of a flow that is carried.

In: offered flows `[rows, cols]`. Out: their threshold τ ([`Threshold`]), and flows divided into what is carried and
what is refused ([`Response`]).
*/

use physarium_kernels::{Operation, dispatch, vector};

use crate::activation::keep::Keep;

/// The flow of conductance 1.
#[derive(Clone, Copy)]
pub(super) enum Threshold {
    /// The same τ for the whole projection.
    One(f32),
    /// A τ for each group of inputs of a row: the geometric mean of the flows on both sides of the line.
    OfGroup { keep: usize, group: usize, cols: usize },
}

impl Threshold {
    /// The threshold of flows `[rows, cols]`.
    pub fn of(flow: &[f32], keep: Keep, cols: usize) -> Threshold {
        match keep {
            Keep::AllBut(zeros) => {
                // The threshold of a sample is close enough here: the final mask has the exact one.
                let stride = (flow.len() / 65_536).max(1);
                let mut sample: Vec<f32> = flow.iter().step_by(stride).map(|y| y.abs()).collect();
                let at = (zeros as f64 / flow.len() as f64 * sample.len() as f64) as usize;
                let at = at.min(sample.len() - 1);
                Threshold::One(*sample.select_nth_unstable_by(at, f32::total_cmp).1)
            }
            Keep::Pattern { keep, group } => Threshold::OfGroup { keep, group, cols },
        }
    }
}

/// The threshold of a group of flows, of which `keep` are kept. `sorted`: memory for as many numbers.
#[inline(always)]
fn threshold_of_group(flow: &[f32], keep: usize, sorted: &mut [f32]) -> f32 {
    let sorted = &mut sorted[..flow.len()];
    sorted.iter_mut().zip(flow).for_each(|(s, y)| *s = y.abs());
    sorted.sort_unstable_by(f32::total_cmp);
    let last_pruned = sorted.len().saturating_sub(keep + 1);
    let first_kept = (last_pruned + 1).min(sorted.len() - 1);
    (sorted[last_pruned] * sorted[first_kept]).sqrt()
}

/// The response of all tubes in one step.
pub(super) struct Response {
    pub threshold: Threshold,
    /// β.
    pub exponent: f32,
    /// ρ.
    pub coupling: f32,
    /// ρ of the step before ÷ ρ.
    pub refused: f32,
}

impl Response {
    /// Divides what tubes are offered: it becomes the flow u that they refuse, and what the pressure step has to solve for
    /// is b + ρ (z − u).
    pub fn split(&self, tubes: Tubes<'_>) {
        dispatch(Split { response: self, tubes });
    }
}

/// Whole rows of tubes, `[rows, cols]` each.
pub(super) struct Tubes<'a> {
    /// What each tube is offered; then what it refuses.
    pub flow: &'a mut [f32],
    /// b.
    pub demand: &'a [f32],
    /// Written: what the pressure step has to solve for.
    pub wanted: &'a mut [f32],
}

/// The operation of [`Response::split`].
struct Split<'a> {
    response: &'a Response,
    tubes: Tubes<'a>,
}

impl Operation for Split<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Split { response, tubes: Tubes { flow, demand, wanted } } = self;
        match response.threshold {
            Threshold::One(threshold) => response.split_by(threshold, flow, demand, wanted),
            Threshold::OfGroup { keep, group, cols } => {
                let mut sorted = vec![0.0; group];
                let rows = flow.chunks_mut(cols).zip(demand.chunks(cols));
                for ((flow, demand), wanted) in rows.zip(wanted.chunks_mut(cols)) {
                    let groups = flow.chunks_mut(group).zip(demand.chunks(group));
                    for ((flow, demand), wanted) in groups.zip(wanted.chunks_mut(group)) {
                        let threshold = threshold_of_group(flow, keep, &mut sorted);
                        response.split_by(threshold, flow, demand, wanted);
                    }
                }
            }
        }
    }
}

impl Response {
    /// As [`Response::split`], with one threshold.
    #[inline(always)]
    fn split_by(&self, threshold: f32, flow: &mut [f32], demand: &[f32], wanted: &mut [f32]) {
        let inverse = 1.0 / threshold.max(f32::MIN_POSITIVE);
        for ((y, b), wanted) in flow.iter_mut().zip(demand).zip(wanted) {
            let relative = (y.abs() * inverse).clamp(f32::MIN_POSITIVE, 1e30);
            let conductance = vector::exp(self.exponent * vector::ln(relative));
            let refused = *y / (1.0 + conductance);
            let carried = *y - refused;
            let refused = refused * self.refused;
            *wanted = self.coupling.mul_add(carried - refused, *b);
            *y = refused;
        }
    }
}
