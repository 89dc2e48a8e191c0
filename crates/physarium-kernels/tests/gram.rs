//! Sums over tokens and products with symmetric matrices against float64, in each arithmetic
//! of this machine.
#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

mod pseudorandom;

use physarium_kernels::{Arithmetic, Compute, Gram, Precision, Symmetric, add_cross};

/// Pseudorandom numbers in -1 ..= 1; every ninth feature is a hundred times as large.
fn activations(seed: u64, tokens: usize, width: usize) -> Vec<f32> {
    let numbers = pseudorandom::pairs(seed).take(tokens * width).enumerate();
    numbers
        .map(|(i, (number, _))| if i % width % 9 == 4 { 100.0 * number } else { number })
        .collect()
}

/// aᵀb in float64, with Σ |a| |b|.
fn exact(a: &[f32], b: &[f32], width: usize) -> Vec<(f64, f64)> {
    let mut sums = vec![(0.0, 1e-30); width * width];
    for (a, b) in a.chunks_exact(width).zip(b.chunks_exact(width)) {
        for (a, sums) in a.iter().zip(sums.chunks_exact_mut(width)) {
            for (b, (sum, size)) in b.iter().zip(sums) {
                let product = f64::from(*a) * f64::from(*b);
                *sum += product;
                *size += product.abs();
            }
        }
    }
    sums
}

/// The largest error in units of Σ |a| |b|.
fn worst(found: &[f32], exact: &[(f64, f64)]) -> f64 {
    let error = |(found, (sum, size)): (&f32, &(f64, f64))| (f64::from(*found) - sum).abs() / size;
    found.iter().zip(exact).map(error).fold(0.0, f64::max)
}

/// In each arithmetic of this machine, with one and with two threads.
fn computes() -> Vec<Compute> {
    let compute = |arithmetic, threads| Compute::with_arithmetic(threads, arithmetic).ok();
    Arithmetic::ALL.iter().flat_map(|a| [2, 1].into_iter().filter_map(|t| compute(*a, t))).collect()
}

/// What the sums of an arithmetic see of activations.
fn seen(compute: &Compute, activations: &[f32]) -> Vec<f32> {
    let seen = |value: &f32| match compute.arithmetic() {
        Arithmetic::F32 => *value,
        Arithmetic::Bf16 | Arithmetic::Bf16x2 => half::bf16::from_f32(*value).to_f32(),
    };
    activations.iter().map(seen).collect()
}

#[test]
fn gram_matrices_are_those_of_float64() {
    // No shape is a multiple of a tile; tokens are added in windows.
    for (tokens, width, window) in [(700, 250, 300), (33, 7, 33), (5000, 40, 2500)] {
        let (a, b) = (activations(1, tokens, width), activations(2, tokens, width));
        let mut found: Vec<(Arithmetic, [Vec<f32>; 2])> = Vec::new();
        for compute in computes() {
            let (seen, other) = (seen(&compute, &a), seen(&compute, &b));
            let (own, cross) = (exact(&seen, &seen, width), exact(&seen, &other, width));
            let mut gram = Gram::new(width);
            let mut sums = vec![0.0; width * width];
            for (a, b) in a.chunks(window * width).zip(b.chunks(window * width)) {
                gram.add(&compute, a);
                add_cross(&compute, [a, b], a.len() / width, &mut sums);
            }
            let gram = gram.finish(&compute, 1.0);
            assert!(worst(&gram, &own) < 2e-6, "{compute:?} {}", worst(&gram, &own));
            assert!(worst(&sums, &cross) < 2e-6, "{compute:?} {}", worst(&sums, &cross));
            for i in 0..width {
                for j in 0..i {
                    assert_eq!(gram[i * width + j].to_bits(), gram[j * width + i].to_bits());
                }
            }
            found.push((compute.arithmetic(), [gram, sums]));
        }
        for [(arithmetic, two), (_, one)] in found.as_chunks().0 {
            assert_eq!(two, one, "{arithmetic}: the number of threads changes the sums");
        }
    }
}

#[test]
fn products_with_a_symmetric_matrix_are_those_of_float64() {
    let (rows, width) = (70, 100);
    let a = activations(3, 300, width);
    let gram: Vec<f32> = exact(&a, &a, width).iter().map(|(sum, _)| *sum as f32).collect();
    let x = activations(4, rows, width);
    // By rows of the matrix, which is its own transpose.
    let mut expected = Vec::new();
    for x in x.chunks_exact(width) {
        for column in gram.chunks_exact(width) {
            let terms = x.iter().zip(column).map(|(x, g)| f64::from(*x) * f64::from(*g));
            expected.push(
                terms.fold((0.0, 1e-30), |(sum, size), term| (sum + term, size + term.abs())),
            );
        }
    }
    for compute in computes() {
        let matrix = Symmetric::new(&compute, gram.clone(), width);
        let mut out = vec![f32::NAN; x.len()];
        // 2⁻¹⁷ or 2⁻⁸ for each of two factors.
        for (precision, bound) in [(Precision::Full, 1.6e-5), (Precision::Coarse, 7.9e-3)] {
            matrix.multiply(&compute, &x, precision, &mut out);
            assert!(worst(&out, &expected) < bound, "{compute:?} {}", worst(&out, &expected));
        }
    }
}

#[test]
fn a_quadratic_form_is_that_of_float64_and_the_same_for_any_number_of_threads() {
    for (rows, width) in [(0, 5), (1, 1), (3, 128), (270, 300)] {
        let a = activations(5, 2 * width, width);
        let gram: Vec<f32> = exact(&a, &a, width).iter().map(|(sum, _)| *sum as f32).collect();
        let x = activations(6, rows, width);
        let terms = x.chunks_exact(width).flat_map(|x| {
            let columns = x.iter().zip(gram.chunks_exact(width));
            columns.map(|(x_i, column)| {
                let sum = x.iter().zip(column).map(|(x, g)| f64::from(*x) * f64::from(*g));
                f64::from(*x_i) * sum.sum::<f64>()
            })
        });
        let (sum, size) = terms.fold((0.0, 1e-30), |(s, a), x: f64| (s + x, a + x.abs()));
        for compute in computes() {
            let matrix = Symmetric::new(&compute, gram.clone(), width);
            for (precision, bound) in [(Precision::Full, 1.6e-5), (Precision::Coarse, 7.9e-3)] {
                let form = matrix.quadratic_form(&compute, &x, precision);
                assert!((form - sum).abs() < bound * size, "{rows} {width} {form} {sum}");
            }
        }
        let form = |threads| {
            let compute = Compute::with_arithmetic(threads, Arithmetic::F32).unwrap();
            let matrix = Symmetric::new(&compute, gram.clone(), width);
            matrix.quadratic_form(&compute, &x, Precision::Full).to_bits()
        };
        assert_eq!(form(1), form(3));
    }
}
