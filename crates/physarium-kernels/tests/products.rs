//! Products against float64, in the arithmetic of this machine and in float32.
#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

mod pseudorandom;

use half::{bf16, f16};
use physarium_kernels::{Arithmetic, Compute, Dense, Left, Linear, Output, Right, forward_all};
use proptest::prelude::*;

/// Pseudorandom numbers in -1 ..= 1 that use all 24 bits.
fn numbers(seed: u64, len: usize) -> Vec<f32> {
    pseudorandom::pairs(seed).map(|(number, _)| number).take(len).collect()
}

/// The values in each dtype, with what they are after rounding to it.
fn kinds(values: &[f32]) -> Vec<(Dense, Vec<f32>)> {
    let bf: Vec<bf16> = values.iter().map(|v| bf16::from_f32(*v)).collect();
    let half: Vec<f16> = values.iter().map(|v| f16::from_f32(*v)).collect();
    vec![
        (
            Dense::Bf16(bf.iter().map(|v| v.to_bits()).collect()),
            bf.iter().map(|v| v.to_f32()).collect(),
        ),
        (Dense::F16(half.clone()), half.iter().map(|v| v.to_f32()).collect()),
        (Dense::F32(values.to_vec()), values.to_vec()),
    ]
}

/// A map whose results are checked in float64.
struct Reference<'a> {
    /// `[outputs, inputs]`.
    weights: &'a [f32],
    /// `[outputs]`.
    bias: &'a [f32],
    inputs: usize,
}

/// Panics if `y` differs from x Wᵀ + b by more than activations of 16 bits and float32 sums allow.
fn check(Reference { weights, bias, inputs }: Reference<'_>, x: &[f32], y: &[f32]) {
    let outputs = weights.len() / inputs;
    assert_eq!(y.len(), x.len() / inputs * outputs);
    for row in 0..x.len() / inputs {
        for output in 0..outputs {
            let (mut expected, mut size) = (f64::from(bias[output]), 1e-30);
            for k in 0..inputs {
                let term = f64::from(x[row * inputs + k]) * f64::from(weights[output * inputs + k]);
                expected += term;
                size += term.abs();
            }
            let found = f64::from(y[row * outputs + output]);
            let bound = size * (8e-6 + 1.2e-7 * (inputs as f64).sqrt()) + 1e-6 * expected.abs();
            let off = (found - expected).abs();
            assert!(off <= bound, "[{row}, {output}]: {found}, not {expected}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn every_dtype_in_every_arithmetic_is_float32(
        rows in 1usize..70, inputs in 1usize..90, outputs in 1usize..110, seed: u64,
    ) {
        let x = numbers(seed, rows * inputs);
        let bias = numbers(seed ^ 1, outputs);
        for (weights, values) in kinds(&numbers(seed ^ 2, outputs * inputs)) {
            let map = Linear::new(outputs, inputs, weights, Some(bias.clone()));
            for compute in [Compute::new(2).unwrap(), Compute::with_arithmetic(2, Arithmetic::F32).unwrap()] {
                let mut y = vec![f32::NAN; rows * outputs];
                map.forward(&compute, &x, &mut y);
                check(Reference { weights: &values, bias: &bias, inputs }, &x, &y);
            }
        }
    }
}

#[test]
fn large_products_are_correct_and_the_same_for_any_number_of_threads() {
    let (rows, inputs, outputs) = (1100, 2100, 300);
    let x = numbers(1, rows * inputs);
    let (weights, values) = kinds(&numbers(2, outputs * inputs)).swap_remove(0);
    let map = Linear::new(outputs, inputs, weights, None);
    let run = |compute: &Compute| {
        let mut y = vec![f32::NAN; rows * outputs];
        map.forward(compute, &x, &mut y);
        y
    };
    let one = run(&Compute::new(1).unwrap());
    assert!(one == run(&Compute::new(3).unwrap()));
    let portable = run(&Compute::with_arithmetic(1, Arithmetic::F32).unwrap());
    assert!(portable == run(&Compute::with_arithmetic(3, Arithmetic::F32).unwrap()));
    let bias = vec![0.0; outputs];
    for row in [0, 17, 1023, 1024, 1099] {
        for y in [&one, &portable] {
            let (x, y) = (&x[row * inputs..][..inputs], &y[row * outputs..][..outputs]);
            check(Reference { weights: &values, bias: &bias, inputs }, x, y);
        }
    }
}

#[test]
fn maps_applied_together_give_the_results_of_each() {
    let compute = Compute::new(2).unwrap();
    let x = numbers(5, 40 * 64);
    let map = |seed, outputs: usize, kind: usize| {
        let weights = kinds(&numbers(seed, outputs * 64)).swap_remove(kind).0;
        Linear::new(outputs, 64, weights, None)
    };
    for kind in 0..3 {
        let maps = [map(6, 64, kind), map(7, 32, kind), map(8, 30, 0)];
        let mut alone: Vec<Vec<f32>> = maps.iter().map(|m| vec![0.0; 40 * m.outputs()]).collect();
        let mut together = alone.clone();
        for (map, y) in maps.iter().zip(&mut alone) {
            map.forward(&compute, &x, y);
        }
        let mut calls: Vec<_> =
            maps.iter().zip(&mut together).map(|(map, y)| (map, &mut y[..])).collect();
        forward_all(&compute, &x, &mut calls);
        assert_eq!(alone, together);
    }
}

#[test]
fn strided_products_do_not_change_elements_between_rows() {
    let compute = Compute::new(1).unwrap();
    let (left, right) = (numbers(1, 5 * 9), numbers(2, 7 * 9));
    let mut out = vec![8.0; 5 * 10];
    let transposed = Right::Transposed { data: &right, stride: 9 };
    compute.multiply(
        [5, 9, 7],
        Left { data: &left, stride: 9 },
        transposed,
        Output { data: &mut out, stride: 10 },
    );
    let columns: Vec<f32> = (0..9 * 7).map(|i| right[i % 7 * 9 + i / 7]).collect();
    let mut again = vec![8.0; 5 * 10];
    let as_is = Right::AsIs { data: &columns, stride: 7 };
    compute.multiply(
        [5, 9, 7],
        Left { data: &left, stride: 9 },
        as_is,
        Output { data: &mut again, stride: 10 },
    );
    for (row, (out, again)) in out.chunks(10).zip(again.chunks(10)).enumerate() {
        assert_eq!((&out[7..], &again[7..]), (&[8.0; 3][..], &[8.0; 3][..]));
        let reference = || Reference { weights: &right, bias: &[0.0; 7], inputs: 9 };
        check(reference(), &left[row * 9..][..9], &out[..7]);
        check(reference(), &left[row * 9..][..9], &again[..7]);
    }
}

/// Where coarse products are faster, an activation has 8 bits: that is the product of rounded activations. Elsewhere they
/// are the products of float32.
#[test]
fn coarse_products_with_weights_are_those_of_rounded_activations() {
    let (rows, inputs, outputs) = (37, 75, 70);
    let x = numbers(3, rows * inputs);
    let weights = numbers(4, outputs * inputs);
    let weights = weights.iter().map(|weight| half::bf16::from_f32(*weight).to_bits()).collect();
    let map = Linear::new(outputs, inputs, Dense::Bf16(weights), None);
    // Sums of `bf16` have an order of their own (`coarse_bits.rs`).
    for arithmetic in [Arithmetic::F32, Arithmetic::Bf16x2] {
        let Ok(compute) = Compute::with_arithmetic(2, arithmetic) else { continue };
        let forward = |compute: &Compute, x: &[f32]| {
            let mut y = vec![f32::NAN; rows * outputs];
            map.forward(compute, x, &mut y);
            y
        };
        let seen = match arithmetic {
            Arithmetic::F32 | Arithmetic::Bf16 => x.clone(),
            Arithmetic::Bf16x2 => x.iter().map(|x| half::bf16::from_f32(*x).to_f32()).collect(),
        };
        assert!(forward(&compute.coarse(), &x) == forward(&compute, &seen), "{arithmetic}");
    }
}

#[test]
fn coarse_products_of_activations_have_16_bits() {
    let compute = Compute::new(1).unwrap().coarse();
    for [rows, depth, cols] in [[1, 1, 1], [5, 9, 7], [128, 64, 320], [33, 31, 65], [40, 257, 24]] {
        // Rows are further apart than they are long, and what is between them is no part of the product.
        let (stride, between) = (depth + 3, f32::NAN);
        let with_gaps = |values: &[f32], len: usize, stride: usize| -> Vec<f32> {
            let row = |row: &[f32]| [row, &vec![between; stride - len]].concat();
            values.chunks(len).flat_map(row).collect()
        };
        let (left, right) = (numbers(5, rows * depth), numbers(6, cols * depth));
        let columns: Vec<f32> =
            (0..depth * cols).map(|i| right[i % cols * depth + i / cols]).collect();
        let strided = with_gaps(&left, depth, stride);
        let (transposed, as_is) =
            (with_gaps(&right, depth, stride), with_gaps(&columns, cols, cols + 2));
        let rights = [
            Right::Transposed { data: &transposed, stride },
            Right::AsIs { data: &as_is, stride: cols + 2 },
        ];
        for right_factor in rights {
            let mut out = vec![8.0; rows * (cols + 1)];
            compute.multiply(
                [rows, depth, cols],
                Left { data: &strided, stride },
                right_factor,
                Output { data: &mut out, stride: cols + 1 },
            );
            for (row, out) in out.chunks(cols + 1).enumerate() {
                assert_eq!(out[cols], 8.0);
                for (col, found) in out[..cols].iter().enumerate() {
                    let terms = left[row * depth..][..depth].iter().zip(&right[col * depth..]);
                    let terms: Vec<f64> =
                        terms.map(|(a, b)| f64::from(*a) * f64::from(*b)).collect();
                    let size: f64 = terms.iter().map(|term| term.abs()).sum();
                    let error = (f64::from(*found) - terms.iter().sum::<f64>()).abs();
                    assert!(error <= 1.6e-5 * size, "{rows} {depth} {cols}: {error} of {size}");
                }
            }
        }
    }
}
