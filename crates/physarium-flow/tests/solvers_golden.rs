//! The activation-aware methods against references in float64 (`reference/solvers_golden.py`).
#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use physarium_flow::activation::{
    ActivationFlow, FlowNetwork, InputRows, Inputs, Keep, Problem, Projection, Target, sparsegpt,
    wanda,
};
use physarium_kernels::{Arithmetic, Compute};
use serde_json::Value;

/// XᵀY ÷ rows, in float64.
fn mean_products(x: &[f64], y: &[f64], cols: usize) -> Vec<f32> {
    let mut sums = vec![0.0; cols * cols];
    for (x, y) in x.chunks_exact(cols).zip(y.chunks_exact(cols)) {
        for (i, x) in x.iter().enumerate() {
            for (j, y) in y.iter().enumerate() {
                sums[i * cols + j] += x * y;
            }
        }
    }
    let rows = (x.len() / cols) as f64;
    sums.iter().map(|sum| (sum / rows) as f32).collect()
}

/// ‖X (Ŵ − W)ᵀ‖² ÷ ‖X Wᵀ‖², row by row of X.
fn output_error(x: &[f64], cols: usize, weights: &[f32], pruned: &[f64]) -> f64 {
    let (mut off, mut all) = (0.0, 0.0);
    for x in x.chunks_exact(cols) {
        for (old, new) in weights.chunks_exact(cols).zip(pruned.chunks_exact(cols)) {
            let before: f64 = x.iter().zip(old).map(|(x, w)| x * f64::from(*w)).sum();
            let after: f64 = x.iter().zip(new).map(|(x, w)| x * w).sum();
            off += (after - before).powi(2);
            all += before.powi(2);
        }
    }
    off / all
}

#[test]
fn each_method_gives_what_its_equations_give_in_float64() {
    let golden: Value = serde_json::from_str(include_str!("golden/solvers.json")).unwrap();
    let numbers = |field: &Value| -> Vec<f64> { serde_json::from_value(field.clone()).unwrap() };
    let narrow = |field: &str| -> Vec<f32> {
        numbers(&golden[field]).iter().map(|value| *value as f32).collect()
    };
    let cols = golden["cols"].as_u64().unwrap() as usize;
    let (x, dense) = (numbers(&golden["x"]), numbers(&golden["dense"]));
    let (weights, costs) = (narrow("weights"), narrow("output_costs"));
    let gram = mean_products(&x, &x, cols);
    let cross = mean_products(&dense, &x, cols);
    let inputs = Inputs { cols, gram: &gram };
    let own = Problem { weights: &weights, inputs };
    // The same rows ten times: more than are computed at once, and the last block is shorter.
    let narrow_x = narrow("x").repeat(10);
    let rows = InputRows { cols, rows: &narrow_x };
    let (target, output_costs) = (Target::CrossGram(&cross), Some(&costs[..]));
    let two_streams = Projection { weights: &weights, target, output_costs };
    let share = |share: f64| Keep::AllBut((share * weights.len() as f64).round() as usize);
    let pattern = Keep::Pattern { keep: 2, group: 4 };
    let levels = ActivationFlow {
        steps: 15,
        coupling: [0.2, 0.8],
        levels: 3,
        exponent: [3.0, 48.0],
        refit_steps: 7,
        target_share: 1.0,
        damping: 0.01,
    };
    // The steps of the flow are less precise in the other arithmetic and may choose another mask at the threshold.
    let compute = Compute::with_arithmetic(1, Arithmetic::F32).unwrap();
    let flow = |parameters, keep| {
        let network = FlowNetwork::new(&compute, gram.clone(), parameters).unwrap();
        network.prune(&compute, &two_streams, keep).unwrap()
    };
    let squares: Vec<f32> = own.inputs.diagonal().collect();
    let results = [
        ("wanda", wanda(&compute, &weights, &squares, share(0.5)).unwrap()),
        ("sparsegpt", sparsegpt(&compute, &own, share(0.5)).unwrap()),
        ("sparsegpt-2:4", sparsegpt(&compute, &own, pattern).unwrap()),
        ("activation-flow", flow(ActivationFlow::default(), share(0.6))),
        ("activation-flow-2:4", flow(ActivationFlow::default(), pattern)),
        ("activation-flow-levels", flow(levels, share(0.6))),
    ];
    for (name, found) in results {
        assert_eq!(found.dead_inputs, 1, "{name}");
        let expected = numbers(&golden["results"][name]);
        assert_eq!(found.weights.len(), expected.len(), "{name}");
        let zeroed: Vec<f64> = expected
            .iter()
            .zip(&weights)
            .map(|(new, old)| if *new == 0.0 { 0.0 } else { f64::from(*old) })
            .collect();
        let errors = own.output_errors(&compute, &found.weights);
        let of_rows = rows.output_errors(&compute, [&weights, &found.weights]);
        for errors in [errors, of_rows] {
            let (after, before) = (errors.after, errors.before_update);
            for (error, weights_after) in [(after, &expected), (before, &zeroed)] {
                let exact = output_error(&x, cols, &weights, weights_after);
                assert!((error - exact).abs() < 0.02 * exact, "{name}: {error}, not {exact}");
            }
        }
        assert_eq!(errors.after == errors.before_update, name == "wanda", "{name}");
        for (at, (found, expected)) in found.weights.iter().zip(&expected).enumerate() {
            assert_eq!(*found == 0.0, *expected == 0.0, "{name}, weight {at}: {found} {expected}");
            let off = (f64::from(*found) - expected).abs();
            // The refit takes few steps: along directions on which the outputs hardly depend, weights are not
            // determined, and other orders of the float32 sums move them by as much (outputs by 1e-3 of the error).
            assert!(
                off < 2e-2 * (1.0 + expected.abs()),
                "{name}, weight {at}: {found}, not {expected}"
            );
        }
    }
}
