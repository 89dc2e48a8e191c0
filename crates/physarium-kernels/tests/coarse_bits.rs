//! Coarse products in `bf16` have one definition, which is written out here: the sums of AVX-512 BF16.
#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

mod pseudorandom;

use half::bf16;
use physarium_kernels::{Arithmetic, Compute, Dense, Gram, Linear, add_cross};

/// Terms of a sum that are one chain.
const RUN: usize = 256;

/// With one and with three threads; nothing, if this processor does not have the instructions.
fn computes() -> Vec<Compute> {
    let compute = |threads| Compute::with_arithmetic(threads, Arithmetic::Bf16).ok();
    [1, 3].into_iter().filter_map(compute).collect()
}

/// Pseudorandom numbers of both signs; some are zero, and some so small that their products are no normal numbers.
fn numbers(seed: u64, len: usize) -> Vec<f32> {
    let numbers = pseudorandom::pairs(seed).map(|(number, state)| match state % 19 {
        0 => 0.0,
        1 => number * 1e-39,
        2 => number * 1e-21,
        _ => number,
    });
    numbers.take(len).collect()
}

/// A number as an instruction reads and writes it: what is not normal is zero.
fn normal(number: f32) -> f32 {
    if number.is_subnormal() { 0.0f32.copysign(number) } else { number }
}

/// The sum as it is defined, added to `from` if there is one.
fn defined(terms: impl Iterator<Item = (f32, f32)>, from: Option<f32>) -> f32 {
    let round = |value: f32| normal(bf16::from_f32(value).to_f32());
    let mut terms: Vec<_> = terms.map(|(a, b)| (round(a), round(b))).collect();
    if terms.len() % 2 == 1 {
        terms.push((0.0, 0.0));
    }
    let add = |sum: f32, (a, b): (f32, f32)| normal(a.mul_add(b, sum));
    let chain = |run: &[(f32, f32)]| {
        run.chunks(2).fold(0.0f32, |sum, pair| add(add(sum, pair[1]), pair[0]))
    };
    let mut sums = terms.chunks(RUN).map(chain);
    let first = match from {
        Some(from) => from,
        None => sums.next().unwrap(),
    };
    sums.fold(first, |result, sum| result + sum)
}

/// Panics unless these are the same numbers; zeros of both signs are the same.
fn check(found: &[f32], expected: impl Fn(usize, usize) -> f32, cols: usize, what: &str) {
    for (row, found) in found.chunks(cols).enumerate() {
        for (col, found) in found.iter().enumerate() {
            let expected = expected(row, col);
            assert!(*found == expected, "{what}: [{row}, {col}] is {found:e}, not {expected:e}");
        }
    }
}

#[test]
fn products_with_weights_are_as_defined() {
    for [rows, inputs, outputs] in [[2, 1, 1], [37, 75, 70], [270, 300, 33], [5, 1100, 40]] {
        let x = numbers(1, rows * inputs);
        let weights = numbers(2, outputs * inputs);
        let bits = weights.iter().map(|weight| bf16::from_f32(*weight).to_bits()).collect();
        let map = Linear::new(outputs, inputs, Dense::Bf16(bits), None);
        let expected = |row: usize, output: usize| {
            let x = x[row * inputs..][..inputs].iter().copied();
            defined(x.zip(weights[output * inputs..][..inputs].iter().copied()), None)
        };
        for compute in computes() {
            let mut y = vec![f32::NAN; rows * outputs];
            map.forward(&compute.coarse(), &x, &mut y);
            check(&y, expected, outputs, &format!("{compute:?}, {inputs} inputs"));
            // In full precision they are those of float32.
            let float32 = Compute::with_arithmetic(1, Arithmetic::F32).unwrap();
            let mut same = y.clone();
            map.forward(&compute, &x, &mut y);
            map.forward(&float32, &x, &mut same);
            assert!(y.iter().zip(&same).all(|(y, same)| y.to_bits() == same.to_bits()));
        }
    }
}

#[test]
fn sums_over_tokens_are_as_defined() {
    for [tokens, width] in [[1, 3], [33, 50], [600, 35]] {
        let (a, b) = (numbers(3, tokens * width), numbers(4, tokens * width));
        let sum = |a: &[f32], b: &[f32], row: usize, col: usize| {
            let of = |x: &[f32], feature| -> Vec<f32> {
                x.chunks(width).map(|token| token[feature]).collect()
            };
            // Twice: the second time the sums are added to.
            let terms = || of(a, row).into_iter().zip(of(b, col));
            defined(terms(), Some(defined(terms(), Some(0.0))))
        };
        for compute in computes() {
            let mut gram = Gram::new(width);
            let mut cross = vec![0.0; width * width];
            for _ in 0..2 {
                gram.add(&compute, &a);
                add_cross(&compute, [&a, &b], tokens, &mut cross);
            }
            let gram = gram.finish(&compute, 1.0);
            let what = format!("{compute:?}, {tokens} tokens");
            check(&gram, |row, col| sum(&a, &a, row.min(col), row.max(col)), width, &what);
            check(&cross, |row, col| sum(&a, &b, row, col), width, &what);
        }
    }
}
