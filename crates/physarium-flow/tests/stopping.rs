//! A solver ends soon after it is asked to stop, and says so; without that it computes the same.
#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use physarium_flow::activation::{
    ActivationFlow, FlowNetwork, Inputs, Keep, Problem, Projection, Solution, Target, Unsolved,
    sparsegpt, wanda,
};
use physarium_kernels::Compute;

/// More inputs than two panels of the factor have, so that the last is a part of one.
const COLS: usize = 600;
const ROWS: usize = 200;

/// Weights `[ROWS, COLS]`, and a positive definite Gram matrix `[COLS, COLS]`.
fn case() -> (Vec<f32>, Vec<f32>) {
    let number = |i: usize| ((i * 7919 + 13) % 1009) as f32 / 1009.0 - 0.5;
    let weights = (0..ROWS * COLS).map(number).collect();
    let gram = |at: usize| match (at / COLS, at % COLS) {
        (i, j) if i == j => 2.0 + number(i),
        (i, j) => 0.9f32.powi(i.abs_diff(j) as i32) * 0.5,
    };
    (weights, (0..COLS * COLS).map(gram).collect())
}

type Solver = fn(&Compute, &Problem<'_>) -> Result<Solution, Unsolved>;

const SOLVERS: [(&str, Solver); 4] = [
    ("wanda", |compute, problem| {
        let squares: Vec<f32> = problem.inputs.diagonal().collect();
        wanda(compute, problem.weights, &squares, Keep::AllBut(ROWS * COLS / 2))
    }),
    ("sparsegpt", |compute, problem| sparsegpt(compute, problem, Keep::AllBut(ROWS * COLS / 2))),
    ("sparsegpt 2:4", |compute, problem| {
        sparsegpt(compute, problem, Keep::Pattern { keep: 2, group: 4 })
    }),
    ("activation-flow", |compute, problem| {
        let flow = ActivationFlow { steps: 4, refit_steps: 2, ..ActivationFlow::default() };
        let network = FlowNetwork::new(compute, problem.inputs.gram.to_vec(), flow)?;
        let (weights, target) = (problem.weights, Target::Own);
        let projection = Projection { weights, target, output_costs: None };
        network.prune(compute, &projection, Keep::AllBut(ROWS * COLS / 2))
    }),
];

#[test]
fn a_solver_asks_in_every_block_and_ends_once_it_is_told_to_stop() {
    let (weights, gram) = case();
    let inputs = Inputs { cols: COLS, gram: &gram };
    let problem = Problem { weights: &weights, inputs };
    for (name, solve) in SOLVERS {
        let whole = solve(&Compute::new(2).unwrap(), &problem).unwrap();
        // How often a whole run asks, and that being asked changes nothing.
        let asked = Arc::new(AtomicUsize::new(0));
        let run = |stop_after: usize| {
            asked.store(0, Ordering::Relaxed);
            let counter = Arc::clone(&asked);
            let stop = move || counter.fetch_add(1, Ordering::Relaxed) >= stop_after;
            solve(&Compute::new(2).unwrap().stopping_when(stop), &problem)
        };
        assert!(run(usize::MAX) == Ok(whole), "{name}");
        let all = asked.load(Ordering::Relaxed);
        // Blocks of 32 rows, and for the others also panels, blocks of columns, and steps.
        let least = if name == "wanda" { ROWS / 32 } else { 40 };
        assert!(all > least, "{name} asks {all} times only");
        let stops = [0, 1, 2, all / 5, all / 3, all / 2, all - 2, all - 1];
        for stop_after in stops {
            let ended = run(stop_after);
            assert!(ended == Err(Unsolved::Stopped), "{name} after {stop_after} of {all}");
        }
    }
}

/// The number of threads changes nothing: panels of the factor are tasks of their own.
#[test]
fn threads_change_nothing() {
    let (weights, gram) = case();
    let inputs = Inputs { cols: COLS, gram: &gram };
    let problem = Problem { weights: &weights, inputs };
    for (name, solve) in SOLVERS {
        let [one, three] = [1, 3].map(|threads| solve(&Compute::new(threads).unwrap(), &problem));
        assert!(one == three, "{name}");
    }
}
