//! Activation-aware methods: properties for any input, and SparseGPT against its definition in float64.
#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use physarium_flow::activation::{
    ActivationFlow, FlowNetwork, Inputs, Keep, Problem, Projection, Solution, Target, sparsegpt,
    wanda,
};
use physarium_kernels::{Arithmetic, Compute};
use proptest::prelude::*;

/// A projection with the Gram matrix of correlated inputs: a few sources, noise, and some dead inputs.
struct Case {
    rows: usize,
    cols: usize,
    weights: Vec<f32>,
    gram: Vec<f32>,
}

/// Whether some inputs are zero for every token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dead {
    None,
    Some,
}

fn inputs() -> impl Strategy<Value = Dead> {
    prop::sample::select(&[Dead::None, Dead::Some])
}

fn case([rows, cols]: [usize; 2], seed: u64, inputs: Dead) -> Case {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    let weights = (0..rows * cols).map(|_| next()).collect();
    let (tokens, sources) = (4 * cols, cols / 3 + 1);
    let mixing: Vec<f32> = (0..sources * cols).map(|_| next()).collect();
    let mut x = vec![0.0f32; tokens * cols];
    for row in x.chunks_exact_mut(cols) {
        let source: Vec<f32> = (0..sources).map(|_| next()).collect();
        for (i, x) in row.iter_mut().enumerate() {
            let mixed: f32 = (0..sources).map(|s| source[s] * mixing[s * cols + i]).sum();
            *x = if inputs == Dead::Some && i % 7 == 3 { 0.0 } else { mixed + 0.3 * next() };
        }
    }
    let mut gram = vec![0.0; cols * cols];
    for i in 0..cols {
        for j in 0..cols {
            let sum: f64 =
                x.chunks_exact(cols).map(|row| f64::from(row[i]) * f64::from(row[j])).sum();
            gram[i * cols + j] = (sum / tokens as f64) as f32;
        }
    }
    Case { rows, cols, weights, gram }
}

impl Case {
    fn problem(&self) -> Problem<'_> {
        Problem { weights: &self.weights, inputs: Inputs { cols: self.cols, gram: &self.gram } }
    }

    fn projection(&self) -> Projection<'_> {
        Projection { weights: &self.weights, target: Target::Own, output_costs: None }
    }

    /// Prunes a projection of its inputs.
    fn activation_flow(
        &self,
        compute: &Compute,
        projection: &Projection<'_>,
        keep: Keep,
        parameters: ActivationFlow,
    ) -> Solution {
        let network = FlowNetwork::new(compute, self.gram.clone(), parameters).unwrap();
        network.prune(compute, projection, keep).unwrap()
    }

    /// tr((W − Ŵ) G (W − Ŵ)ᵀ).
    fn error(&self, solution: &[f32]) -> f64 {
        let off: Vec<f64> =
            self.weights.iter().zip(solution).map(|(a, b)| f64::from(a - b)).collect();
        off.chunks_exact(self.cols)
            .map(|row| {
                let through = |i: usize| -> f64 {
                    (0..self.cols).map(|j| row[j] * f64::from(self.gram[i * self.cols + j])).sum()
                };
                (0..self.cols).map(|i| row[i] * through(i)).sum::<f64>()
            })
            .sum()
    }

    fn squares(&self) -> Vec<f32> {
        self.problem().inputs.diagonal().collect()
    }

    fn all(&self, compute: &Compute, keep: Keep) -> [Solution; 3] {
        let problem = self.problem();
        let parameters = ActivationFlow::default();
        let flow = self.activation_flow(compute, &self.projection(), keep, parameters);
        let wanda = wanda(compute, &self.weights, &self.squares(), keep).unwrap();
        [wanda, sparsegpt(compute, &problem, keep).unwrap(), flow]
    }
}

fn zeros(weights: &[f32]) -> usize {
    weights.iter().filter(|weight| **weight == 0.0).count()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn the_exact_number_is_pruned_with_any_number_of_threads(
        rows in 1usize..130, cols in 2usize..60, share in 0.0f64..1.0, seed: u64, inputs in inputs(),
    ) {
        let case = case([rows, cols], seed, inputs);
        let wanted = (share * (rows * cols) as f64) as usize;
        let (one, three) = (Compute::new(1).unwrap(), Compute::new(3).unwrap());
        let solutions = case.all(&one, Keep::AllBut(wanted));
        prop_assert_eq!(&solutions, &case.all(&three, Keep::AllBut(wanted)));
        for (name, solution) in ["wanda", "sparsegpt", "flow"].iter().zip(&solutions) {
            prop_assert_eq!(zeros(&solution.weights), wanted, "{}", name);
            prop_assert!(solution.weights.iter().all(|weight| weight.is_finite()), "{}", name);
        }
    }

    #[test]
    fn a_pattern_holds_in_every_group(
        rows in 1usize..40, cols in 2usize..60, seed: u64, keep in 1usize..4,
    ) {
        let case = case([rows, cols], seed, Dead::None);
        let compute = Compute::new(2).unwrap();
        for solution in case.all(&compute, Keep::Pattern { keep, group: 4 }) {
            for group in solution.weights.chunks_exact(cols).flat_map(|row| row.chunks(4)) {
                let kept = group.len() - zeros(group);
                prop_assert_eq!(kept, keep.min(group.len()));
            }
        }
    }
}

#[test]
fn nothing_to_prune_is_the_identity() {
    let case = case([40, 30], 3, Dead::Some);
    let compute = Compute::new(2).unwrap();
    let bits = |weights: &[f32]| weights.iter().map(|w| w.to_bits()).collect::<Vec<_>>();
    let problem = case.problem();
    let flow = case.activation_flow(
        &compute,
        &case.projection(),
        Keep::AllBut(0),
        ActivationFlow::default(),
    );
    assert_eq!(
        bits(&wanda(&compute, &case.weights, &case.squares(), Keep::AllBut(0)).unwrap().weights),
        bits(&case.weights)
    );
    assert_eq!(bits(&flow.weights), bits(&case.weights));
    let sparsegpt = sparsegpt(&compute, &problem, Keep::AllBut(0)).unwrap();
    assert_eq!(bits(&sparsegpt.weights), bits(&case.weights));
}

#[test]
fn methods_that_use_more_statistics_have_smaller_errors() {
    let compute = Compute::new(2).unwrap();
    for seed in 0..5 {
        let case = case([64, 96], seed, Dead::None);
        for keep in [Keep::AllBut(64 * 48), Keep::Pattern { keep: 2, group: 4 }] {
            let [wanda, sparsegpt, flow] =
                case.all(&compute, keep).map(|solution| case.error(&solution.weights));
            assert!(flow < sparsegpt && sparsegpt < wanda, "{wanda} {sparsegpt} {flow}");
        }
    }
}

#[test]
fn more_refit_steps_never_increase_the_error() {
    let compute = Compute::new(2).unwrap();
    for seed in 0..5 {
        let case = case([32, 64], seed, Dead::None);
        let error = |refit_steps| {
            let parameters = ActivationFlow { refit_steps, ..ActivationFlow::default() };
            let keep = Keep::AllBut(32 * 32);
            let found =
                case.activation_flow(&compute, &case.projection(), keep, parameters).weights;
            // The objective of the refit: the error plus the damping.
            let mean = (0..64).map(|i| f64::from(case.gram[i * 65])).sum::<f64>() / 64.0;
            let pairs = case.weights.iter().zip(&found);
            let squares: f64 = pairs.map(|(a, b)| f64::from(a - b).powi(2)).sum();
            case.error(&found) + ActivationFlow::default().damping * mean * squares
        };
        let mut before = error(0);
        for refit in [1, 3, 15] {
            let now = error(refit);
            assert!(now <= before * 1.000_01, "{refit}: {before} {now}");
            before = now;
        }
    }
}

#[test]
fn the_solution_approaches_the_dense_targets() {
    // The inputs of the dense model are twice those of the pruned one: weights twice as large compensate.
    let case = case([16, 24], 9, Dead::None);
    let cross: Vec<f32> = case.gram.iter().map(|sum| 2.0 * sum).collect();
    let projection = Projection { target: Target::CrossGram(&cross), ..case.projection() };
    let compute = Compute::new(1).unwrap();
    let parameters =
        ActivationFlow { refit_steps: 60, target_share: 1.0, ..ActivationFlow::default() };
    let solution = case.activation_flow(&compute, &projection, Keep::AllBut(1), parameters);
    // The damping leaves a small error.
    let doubled: Vec<f32> = case.weights.iter().map(|weight| 2.0 * weight).collect();
    let target = Case { weights: doubled, gram: case.gram.clone(), ..case };
    let nothing = target.error(&vec![0.0; target.weights.len()]);
    let error = target.error(&solution.weights);
    assert!(error < 0.02 * nothing, "{error} of {nothing}");
}

#[test]
fn a_share_of_the_target_is_between_the_own_outputs_and_the_target() {
    let case = case([16, 24], 9, Dead::None);
    let scaled = |factor: f32| -> Vec<f32> { case.gram.iter().map(|sum| factor * sum).collect() };
    let (near, far) = (scaled(2.0), scaled(3.0));
    let compute = Compute::with_arithmetic(1, Arithmetic::F32).unwrap();
    let solve = |target, target_share| {
        let projection = Projection { target, ..case.projection() };
        let parameters = ActivationFlow { target_share, ..ActivationFlow::default() };
        case.activation_flow(&compute, &projection, Keep::AllBut(200), parameters).weights
    };
    assert_eq!(solve(Target::CrossGram(&far), 0.0), solve(Target::Own, 1.0));
    let (all, half) = (solve(Target::CrossGram(&near), 1.0), solve(Target::CrossGram(&far), 0.5));
    for (all, half) in all.iter().zip(&half) {
        assert!((all - half).abs() < 1e-3 * (1.0 + all.abs()), "{half}, not {all}");
    }
}

/// Algorithm 1 of the paper in float64, with Gaussian elimination for the inverse and a Cholesky factor, for
/// a single block of all columns.
fn reference_sparsegpt(case: &Case, zeros: usize) -> Vec<f64> {
    let n = case.cols;
    let mean: f64 = (0..n).map(|i| f64::from(case.gram[i * n + i])).sum::<f64>() / n as f64;
    let mut a: Vec<Vec<f64>> = (0..n)
        .map(|i| {
            let damped =
                |j| f64::from(case.gram[i * n + j]) + if i == j { 0.01 * mean } else { 0.0 };
            (0..2 * n)
                .map(|j| if j < n { damped(j) } else { f64::from(u8::from(j - n == i)) })
                .collect()
        })
        .collect();
    for i in 0..n {
        let pivot = a[i][i];
        a[i].iter_mut().for_each(|x| *x /= pivot);
        let row = a[i].clone();
        for (_, other) in a.iter_mut().enumerate().filter(|(k, _)| *k != i) {
            let factor = other[i];
            other.iter_mut().zip(&row).for_each(|(x, y)| *x -= factor * y);
        }
    }
    // Upper factor: inverse = UᵀU.
    let mut u = vec![vec![0.0; n]; n];
    for i in 0..n {
        for j in i..n {
            let sum: f64 = (0..i).map(|k| u[k][i] * u[k][j]).sum();
            let rest = a[i][n + j] - sum;
            u[i][j] = if i == j { rest.sqrt() } else { rest / u[i][i] };
        }
    }
    let mut weights: Vec<f64> = case.weights.iter().map(|w| f64::from(*w)).collect();
    let mut scores: Vec<(f64, usize)> =
        weights.iter().enumerate().map(|(at, w)| ((w / u[at % n][at % n]).powi(2), at)).collect();
    scores.sort_by(|a, b| a.0.total_cmp(&b.0));
    let dead: Vec<usize> = scores[..zeros].iter().map(|(_, at)| *at).collect();
    for row in 0..case.rows {
        for i in 0..n {
            if dead.contains(&(row * n + i)) {
                let error = weights[row * n + i] / u[i][i];
                for j in i..n {
                    weights[row * n + j] -= error * u[i][j];
                }
                weights[row * n + i] = 0.0;
            }
        }
    }
    weights
}

#[test]
fn sparsegpt_is_algorithm_1_of_the_paper() {
    for seed in 0..4 {
        let case = case([20, 40], seed, Dead::None);
        let compute = Compute::new(2).unwrap();
        let found = sparsegpt(&compute, &case.problem(), Keep::AllBut(400)).unwrap().weights;
        for (at, (found, expected)) in found.iter().zip(reference_sparsegpt(&case, 400)).enumerate()
        {
            assert!((f64::from(*found) - expected).abs() < 2e-3, "{at}: {found} {expected}");
        }
    }
}

#[test]
fn outputs_of_higher_cost_keep_more_weights() {
    let case = case([24, 40], 5, Dead::None);
    let compute = Compute::new(1).unwrap();
    let mut costs = vec![1.0; 24];
    costs[..12].fill(50.0);
    let parameters = ActivationFlow::default();
    let keep = Keep::AllBut(24 * 40 / 2);
    let kept = |projection: &Projection<'_>| {
        let solution = case.activation_flow(&compute, projection, keep, parameters);
        let (first, rest) = solution.weights.split_at(12 * 40);
        [first, rest].map(|half| half.iter().filter(|weight| **weight != 0.0).count())
    };
    let [first, rest] = kept(&Projection { output_costs: Some(&costs), ..case.projection() });
    assert_eq!(first + rest, 24 * 40 / 2);
    assert!(first > 3 * rest, "{first} {rest}");
    // Equal costs are the same as none.
    costs.fill(7.0);
    let equal = Projection { output_costs: Some(&costs), ..case.projection() };
    assert_eq!(kept(&equal), kept(&case.projection()));
}

/// The most weights kept in a group of a row.
fn fullest_group(weights: &[f32], cols: usize, group: usize) -> usize {
    let rows = weights.chunks_exact(cols);
    let kept = |group: &[f32]| group.iter().filter(|weight| **weight != 0.0).count();
    rows.flat_map(|row| row.chunks(group).map(kept)).max().unwrap()
}

#[test]
fn patterns_hold_where_groups_do_not_divide_a_block_of_sparsegpt() {
    let case = case([3, 260], 5, Dead::None);
    let compute = Compute::new(1).unwrap();
    for (keep, group) in [(1, 3), (2, 5), (30, 63)] {
        let solution = sparsegpt(&compute, &case.problem(), Keep::Pattern { keep, group }).unwrap();
        assert_eq!(fullest_group(&solution.weights, 260, group), keep, "{keep}:{group}");
    }
}

#[test]
fn a_pattern_holds_in_a_projection_that_is_smaller_than_a_group() {
    let case = case([1, 3], 2, Dead::None);
    let compute = Compute::new(1).unwrap();
    let flow = |keep| {
        let keep = Keep::Pattern { keep, group: 4 };
        case.activation_flow(&compute, &case.projection(), keep, ActivationFlow::default()).weights
    };
    assert_eq!(zeros(&flow(2)), 1);
    assert_eq!(flow(3), case.weights);
}
