//! Dead inputs, zeros that are there before and weights that vanish in an update change no number of zeros.
#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use physarium_flow::activation::{
    ActivationFlow, FlowNetwork, Inputs, Keep, Problem, Projection, Solution, Target, sparsegpt,
    wanda,
};
use physarium_kernels::Compute;

const METHODS: [&str; 3] = ["wanda", "sparsegpt", "activation-flow"];
/// More than two blocks of SparseGPT.
const COLS: usize = 300;
const ROWS: usize = 20;

/// Numbers in -1..1.
fn numbers(count: usize, mut state: u64) -> Vec<f32> {
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..count).map(next).collect()
}

/// The Gram matrix of inputs with a common source, of which some are zero for every token.
fn gram(is_dead: impl Fn(usize) -> bool) -> Vec<f32> {
    let tokens = 2 * COLS;
    let (source, mut x) = (numbers(tokens, 5), numbers(tokens * COLS, 7));
    for (row, source) in x.chunks_exact_mut(COLS).zip(&source) {
        for (i, x) in row.iter_mut().enumerate() {
            *x = if is_dead(i) { 0.0 } else { *x + source };
        }
    }
    let mut gram = vec![0.0; COLS * COLS];
    for row in x.chunks_exact(COLS) {
        for (i, sums) in gram.chunks_exact_mut(COLS).enumerate() {
            sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += row[i] * x / tokens as f32);
        }
    }
    gram
}

fn solve(method: &str, weights: &[f32], gram: &[f32], keep: Keep) -> Solution {
    let problem = Problem { weights, inputs: Inputs { cols: COLS, gram } };
    let compute = Compute::new(2).unwrap();
    match method {
        "wanda" => of_wanda(&compute, &problem, keep),
        "sparsegpt" => sparsegpt(&compute, &problem, keep).unwrap(),
        _ => activation_flow(&compute, &problem, keep),
    }
}

fn of_wanda(compute: &Compute, problem: &Problem<'_>, keep: Keep) -> Solution {
    let squares: Vec<f32> = problem.inputs.diagonal().collect();
    wanda(compute, problem.weights, &squares, keep).unwrap()
}

fn activation_flow(compute: &Compute, problem: &Problem<'_>, keep: Keep) -> Solution {
    let gram = problem.inputs.gram.to_vec();
    let network = FlowNetwork::new(compute, gram, ActivationFlow::default()).unwrap();
    let projection =
        Projection { weights: problem.weights, target: Target::Own, output_costs: None };
    network.prune(compute, &projection, keep).unwrap()
}

fn zeros(weights: &[f32]) -> usize {
    weights.iter().filter(|weight| **weight == 0.0).count()
}

/// 40 % of the inputs: all in the first block of SparseGPT, or spread.
const DEAD: [fn(usize) -> bool; 2] = [|i| i < 120, |i| i % 5 < 2];

#[test]
fn dead_inputs_are_counted_in_the_share() {
    let weights = numbers(ROWS * COLS, 3);
    for is_dead in DEAD {
        let gram = gram(is_dead);
        for method in METHODS {
            for percent in [0, 1, 10, 39, 40, 41, 50, 90, 100] {
                let wanted = ROWS * COLS * percent / 100;
                let found = solve(method, &weights, &gram, Keep::AllBut(wanted));
                assert_eq!(zeros(&found.weights), wanted, "{method}, {percent} %");
                assert_eq!(found.dead_inputs, 120, "{method}");
                let pairs = || weights.iter().zip(&found.weights).enumerate();
                let mut dead = pairs().filter(|(at, _)| is_dead(at % COLS));
                assert!(
                    dead.all(|(_, (before, after))| *after == 0.0 || after == before),
                    "{method}, {percent} %: a weight of a dead input is pruned or kept as it was"
                );
                let mut alive = pairs().filter(|(at, _)| !is_dead(at % COLS));
                let is_whole = alive.all(|(_, (_, after))| *after != 0.0);
                assert_eq!(is_whole, percent <= 40, "{method}, {percent} %: dead inputs first");
            }
        }
    }
}

#[test]
fn of_dead_inputs_the_smallest_weights_are_pruned() {
    let weights = numbers(ROWS * COLS, 3);
    let gram = gram(DEAD[1]);
    for method in METHODS {
        let found = solve(method, &weights, &gram, Keep::AllBut(ROWS * COLS / 10)).weights;
        // Wanda compares within rows, the others within the projection.
        let part = if method == "wanda" { COLS } else { ROWS * COLS };
        for (before, after) in weights.chunks(part).zip(found.chunks(part)) {
            let dead = before.iter().zip(after).enumerate().filter(|(at, _)| DEAD[1](at % COLS));
            let (mut pruned, mut kept) = (0.0f32, 1.0f32);
            for (_, (before, after)) in dead {
                let end = if *after == 0.0 { &mut pruned } else { &mut kept };
                *end = if *after == 0.0 { end.max(before.abs()) } else { end.min(before.abs()) };
            }
            assert!(pruned < kept, "{method}: {pruned} {kept}");
        }
    }
}

#[test]
fn a_pattern_holds_with_dead_inputs_and_prunes_them_first() {
    let weights = numbers(ROWS * COLS, 3);
    let gram = gram(DEAD[1]);
    for method in METHODS {
        for keep in [1, 2, 3] {
            let found = solve(method, &weights, &gram, Keep::Pattern { keep, group: 4 }).weights;
            for (at, group) in found.chunks(4).enumerate() {
                assert_eq!(zeros(group), 4 - keep, "{method}, {keep}:4");
                let dead = (0..4).filter(|i| DEAD[1]((4 * at + i) % COLS));
                let left = dead.clone().filter(|i| group[*i] != 0.0).count();
                assert_eq!(left, dead.count().saturating_sub(4 - keep), "{method}, {keep}:4");
            }
        }
    }
}

#[test]
fn groups_that_have_the_zeros_of_a_pattern_keep_them() {
    let (gram, mut weights) = (gram(|_| false), numbers(ROWS * COLS, 11));
    // One of four is left in the first 37 of 75 groups of a row.
    let is_sparse = |at: usize| at % COLS < 37 * 4;
    for (at, weight) in weights.iter_mut().enumerate() {
        if is_sparse(at) && at % 4 != 0 {
            *weight = 0.0;
        }
    }
    for method in METHODS {
        let solution = solve(method, &weights, &gram, Keep::Pattern { keep: 2, group: 4 });
        assert_eq!(zeros(&solution.weights), ROWS * (37 * 3 + 38 * 2), "{method}");
        for (at, (now, before)) in solution.weights.iter().zip(&weights).enumerate() {
            assert!(!is_sparse(at) || (*now == 0.0) == (*before == 0.0), "{method} {at}");
        }
    }
}

#[test]
fn rows_that_are_sparse_before_leave_fewer_zeros_to_the_others() {
    let gram = gram(|_| false);
    for method in METHODS {
        // Four rows of zeros, one that is half zero with both signs.
        let mut weights = numbers(ROWS * COLS, 3);
        weights[..4 * COLS].fill(0.0);
        weights[4 * COLS..][..COLS / 2].fill(-0.0);
        let before = zeros(&weights);
        for percent in [0, 10, 20, 22, 23, 30, 50, 90] {
            let wanted = ROWS * COLS * percent / 100;
            let found = solve(method, &weights, &gram, Keep::AllBut(wanted)).weights;
            assert_eq!(zeros(&found), wanted.max(before), "{method}, {percent} %");
            let mut first = found[..4 * COLS].iter();
            assert!(first.all(|weight| *weight == 0.0), "{method}: a zero row stays zero");
            if method == "wanda" || wanted <= before {
                let zeros = weights.iter().zip(&found).filter(|(before, _)| **before == 0.0);
                assert_eq!(zeros.filter(|(_, after)| **after != 0.0).count(), 0, "{method}");
            }
        }
    }
}

#[test]
fn an_update_that_leaves_nothing_of_a_weight_makes_no_zero() {
    // The second input is the first: when its weight is pruned, the first one's takes its value, which cancels its
    // own. The damping is below the precision of float32.
    let compute = Compute::new(1).unwrap();
    let (weights, gram) = ([1.0, -1.0, 3.0, 2.0], [1.0, 0.0, 0.0, 1.0]);
    let problem = Problem { weights: &weights, inputs: Inputs { cols: 2, gram: &gram } };
    let tiny = Problem { weights: &[1e-38, f32::from_bits(1), 1e-38, 1e-38], ..problem };
    for (problem, wanted) in [(problem, 1), (tiny, 1), (tiny, 2), (tiny, 3)] {
        for solution in [
            of_wanda(&compute, &problem, Keep::AllBut(wanted)),
            sparsegpt(&compute, &problem, Keep::AllBut(wanted)).unwrap(),
            activation_flow(&compute, &problem, Keep::AllBut(wanted)),
        ] {
            assert_eq!(zeros(&solution.weights), wanted, "{:?}", solution.weights);
        }
    }
}
