//! Float32 products have one definition: every instruction set and every number of threads gives its bits.
#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

mod pseudorandom;

use half::{bf16, f16};
use physarium_kernels::{
    Arithmetic, Compute, Dense, Gram, Left, Linear, Output, Precision, Right, Sparse, Symmetric,
    VectorKind, Weights, add_cross, inverse_factor, invert,
};
use proptest::prelude::*;

/// Terms of a sum that are one chain: the definition in `src/blocked/mod.rs`.
const DEPTH: usize = 256;

/// Pseudorandom numbers in -1 ..= 1 that use all 24 bits; some are tiny, zero or negative zero.
fn numbers(seed: u64, len: usize) -> Vec<f32> {
    let numbers = pseudorandom::pairs(seed).map(|(number, state)| match state % 23 {
        0 => 0.0,
        1 => -0.0,
        2 => number * 1e-40,
        3 => number * 1e-25,
        _ => number,
    });
    numbers.take(len).collect()
}

/// Computes in float32 on every instruction set of this processor, with one and with several threads.
fn computes() -> Vec<Compute> {
    let compute = |kind, threads| {
        Compute::with_arithmetic(threads, Arithmetic::F32).unwrap().with_vectors(kind)
    };
    VectorKind::available().into_iter().flat_map(|k| [1, 3].map(|t| compute(k, t))).collect()
}

/// The sum as it is defined, added to `from` if there is one.
fn defined(terms: impl Iterator<Item = (f32, f32)>, from: Option<f32>) -> f32 {
    let terms: Vec<(f32, f32)> = terms.collect();
    let chain = |run: &[(f32, f32)]| run.iter().fold(0.0f32, |sum, (a, b)| a.mul_add(*b, sum));
    let sums = terms.chunks(DEPTH).map(chain);
    match from {
        Some(from) => sums.fold(from, |result, sum| result + sum),
        None => sums.reduce(|result, sum| result + sum).unwrap_or(0.0),
    }
}

/// Panics unless all instruction sets and numbers of threads give these bits.
fn check(expected: &[f32], what: &str, mut run: impl FnMut(&Compute) -> Vec<f32>) {
    for compute in computes() {
        let found = run(&compute);
        assert_eq!(found.len(), expected.len());
        let wrong = found.iter().zip(expected).position(|(a, b)| a.to_bits() != b.to_bits());
        if let Some(at) = wrong {
            panic!("{what}, {compute:?}: [{at}] is {}, not {}", found[at], expected[at]);
        }
    }
}

/// `[rows, depth, cols]` with gaps of `gaps` elements between the rows of each operand.
fn strided([rows, depth, cols]: [usize; 3], gaps: usize, seed: u64) {
    let (left_stride, out_stride) = (depth + gaps, cols + 2 * gaps);
    let left = numbers(seed, rows * left_stride);
    for transposed in [false, true] {
        let [count, width] = if transposed { [cols, depth] } else { [depth, cols] };
        let stride = width + gaps;
        let right = numbers(seed ^ 5, count * stride);
        let mut expected = vec![7.0; rows * out_stride];
        for (row, expected) in expected.chunks_exact_mut(out_stride.max(1)).enumerate() {
            for (col, expected) in expected[..cols].iter_mut().enumerate() {
                let right = |k| right[if transposed { col * stride + k } else { k * stride + col }];
                let terms = (0..depth).map(|k| (left[row * left_stride + k], right(k)));
                *expected = defined(terms, None);
            }
        }
        check(&expected, &format!("{rows} x {depth} x {cols}, {transposed}"), |compute| {
            let mut out = vec![7.0; rows * out_stride];
            let data = &right[..];
            let right = match transposed {
                true => Right::Transposed { data, stride },
                false => Right::AsIs { data, stride },
            };
            let left = Left { data: &left, stride: left_stride };
            let result = Output { data: &mut out, stride: out_stride };
            compute.multiply([rows, depth, cols], left, right, result);
            out
        });
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn strided_products_are_as_defined(
        rows in 0usize..40, depth in 0usize..600, cols in 0usize..120, gaps in 0usize..3, seed: u64,
    ) {
        strided([rows, depth, cols], gaps, seed);
    }

    #[test]
    fn maps_of_many_rows_are_as_defined(
        rows in 2usize..30, inputs in 1usize..600, outputs in 1usize..90, seed: u64,
    ) {
        let (x, bias) = (numbers(seed, rows * inputs), numbers(seed ^ 1, outputs));
        let values = numbers(seed ^ 2, outputs * inputs);
        let kinds = [
            Dense::Bf16(values.iter().map(|v| bf16::from_f32(*v).to_bits()).collect()),
            Dense::F16(values.iter().map(|v| f16::from_f32(*v)).collect()),
            Dense::F32(values),
        ];
        for weights in kinds {
            let mut wide = vec![0.0; outputs * inputs];
            weights.widen(0, &mut wide);
            let map = Linear::new(outputs, inputs, weights, Some(bias.clone()));
            let expected: Vec<f32> = (0..rows * outputs).map(|at| {
                let (x, w) = (&x[at / outputs * inputs..], &wide[at % outputs * inputs..]);
                let terms = x[..inputs].iter().copied().zip(w.iter().copied());
                defined(terms, None) + bias[at % outputs]
            }).collect();
            check(&expected, "map", |compute| {
                let mut y = vec![f32::NAN; rows * outputs];
                map.forward(compute, &x, &mut y);
                y
            });
        }
    }
}

#[test]
fn products_larger_than_a_packed_part_are_as_defined() {
    strided([193, 513, 770], 1, 11);
    strided([1, 1025, 97], 0, 12);
    strided([385, 3, 1], 2, 13);
    strided([3, 700, 200], 1, 14);
}

#[test]
fn empty_products_change_nothing_but_what_they_replace() {
    for shape in [[0, 5, 4], [3, 5, 0], [3, 0, 4], [0, 0, 0]] {
        strided(shape, 1, 3);
    }
}

#[test]
fn sums_over_tokens_are_as_defined() {
    // More features than one task's rows, more tokens than one chain, two windows of different lengths.
    let (width, windows) = (210, [300, 41]);
    let all = windows.map(|tokens| {
        (numbers(tokens as u64, tokens * width), numbers(tokens as u64 + 1, tokens * width))
    });
    let sum = |left: fn(&Window) -> &[f32], i: usize, j: usize| {
        all.iter().fold(0.0, |from, window| {
            let column = |x: &[f32], at| x.iter().skip(at).step_by(width).copied().collect();
            let (a, b): (Vec<f32>, Vec<f32>) = (column(left(window), i), column(&window.1, j));
            defined(a.into_iter().zip(b), Some(from))
        })
    };
    let square = |of: &dyn Fn(usize, usize) -> f32| -> Vec<f32> {
        (0..width * width).map(|at| of(at / width, at % width)).collect()
    };
    let own = square(&|i, j| sum(|window| &window.1, i.min(j), i.max(j)) * 0.25);
    check(&own, "Gram", |compute| {
        let mut gram = Gram::new(width);
        all.iter().for_each(|(_, x)| gram.add(compute, x));
        gram.finish(compute, 0.25)
    });
    let cross = square(&|i, j| sum(|window| &window.0, i, j));
    check(&cross, "cross", |compute| {
        let mut out = vec![0.0; width * width];
        for ((a, b), tokens) in all.iter().zip(windows) {
            add_cross(compute, [a, b], tokens, &mut out);
        }
        out
    });
    // Fewer features of one kind: the first columns of the other result's rows.
    check(&cross[..30 * width], "narrow cross", |compute| {
        let mut out = vec![0.0; 30 * width];
        for ((a, b), tokens) in all.iter().zip(windows) {
            let narrow: Vec<f32> =
                a.chunks_exact(width).flat_map(|row| &row[..30]).copied().collect();
            add_cross(compute, [&narrow, b], tokens, &mut out);
        }
        out
    });
}

#[test]
fn products_with_a_symmetric_matrix_are_as_defined() {
    let (rows, width) = (40, 290);
    let x = numbers(3, rows * width);
    let half = numbers(4, width * width);
    let elements: Vec<f32> = (0..width * width)
        .map(|at| half[(at / width).min(at % width) * width + (at / width).max(at % width)])
        .collect();
    let expected: Vec<f32> = (0..rows * width)
        .map(|at| {
            let (x, g) = (&x[at / width * width..], &elements[at % width * width..]);
            defined(x[..width].iter().copied().zip(g[..width].iter().copied()), None)
        })
        .collect();
    for precision in [Precision::Full, Precision::Coarse] {
        check(&expected, "symmetric", |compute| {
            let mut out = vec![f32::NAN; rows * width];
            Symmetric::new(compute, elements.clone(), width)
                .multiply(compute, &x, precision, &mut out);
            out
        });
    }
    let forms = computes().into_iter().map(|compute| {
        let matrix = Symmetric::new(&compute, elements.clone(), width);
        matrix.quadratic_form(&compute, &x, Precision::Full).to_bits()
    });
    let forms: std::collections::BTreeSet<u64> = forms.collect();
    assert_eq!(forms.len(), 1, "quadratic forms");
}

/// `count` numbers, of which `zeros` of ten are zero, of either sign.
fn with_zeros(seed: u64, count: usize, zeros: usize) -> Vec<f32> {
    let choices = numbers(seed ^ 77, count);
    let numbers = numbers(seed, count).into_iter().zip(choices);
    numbers.map(|(x, y)| if (y.abs() * 1e4) as usize % 10 < zeros { 0.0 * x } else { x }).collect()
}

#[test]
fn maps_with_many_zeros_are_as_defined() {
    // One row is not enough to leave zeros out, nor are few zeros; rows, inputs and outputs beyond whole panels, parts and runs.
    for ([rows, inputs, outputs], zeros) in [
        ([256, 1, 1], 5),
        ([257, 300, 37], 5),
        ([515, 513, 131], 7),
        ([300, 64, 290], 9),
        ([260, 290, 8], 10),
        ([255, 40, 9], 7),
        ([260, 40, 9], 2),
    ] {
        let x = numbers(1, rows * inputs);
        let wide: Vec<f32> = with_zeros(2, outputs * inputs, zeros)
            .iter()
            .map(|weight| bf16::from_f32(*weight).to_f32())
            .collect();
        let bias = numbers(3, outputs);
        let expected: Vec<f32> = (0..rows * outputs)
            .map(|at| {
                let (x, w) = (&x[at / outputs * inputs..], &wide[at % outputs * inputs..]);
                let terms = x[..inputs].iter().copied().zip(w.iter().copied());
                defined(terms, None) + bias[at % outputs]
            })
            .collect();
        let words = Sparse::words(inputs);
        let (mut masks, mut values) = (vec![0u32; outputs * words], Vec::new());
        for (at, weight) in wide.iter().enumerate().filter(|(_, weight)| **weight != 0.0) {
            masks[at / inputs * words + at % inputs / 32] |= 1 << (at % inputs % 32);
            values.push(*weight);
        }
        let bits = |values: &[f32]| values.iter().map(|v| bf16::from_f32(*v).to_bits()).collect();
        let halves = || wide.iter().map(|v| f16::from_f32(*v)).collect();
        let sparse = Sparse::new([outputs, inputs], masks, Dense::Bf16(bits(&values)));
        let kinds: [Weights; 3] = [
            Dense::Bf16(bits(&wide)).into(),
            Dense::F32(wide.clone()).into(),
            sparse.unwrap().into(),
        ];
        for weights in kinds {
            let map = Linear::new(outputs, inputs, weights, Some(bias.clone()));
            check(&expected, &format!("{rows} x {inputs} x {outputs}"), |compute| {
                let mut y = vec![f32::NAN; rows * outputs];
                map.forward(compute, &x, &mut y);
                y
            });
        }
        // Exact only where half precision holds the weights; else it is another map, which has to be the same everywhere.
        let map = Linear::new(outputs, inputs, Dense::F16(halves()), None);
        let mut first = None;
        for compute in computes() {
            let mut y = vec![f32::NAN; rows * outputs];
            map.forward(&compute, &x, &mut y);
            let bits: Vec<u32> = y.iter().map(|y| y.to_bits()).collect();
            assert!(*first.get_or_insert_with(|| bits.clone()) == bits, "{compute:?}");
        }
    }
}

#[test]
fn sparse_rows_times_a_symmetric_matrix_are_as_defined() {
    for ([rows, width], zeros) in [([200, 290], 5), ([3, 1100], 9), ([193, 256], 10)] {
        let x = with_zeros(3, rows * width, zeros);
        let half = numbers(4, width * width);
        let element = |i: usize, j: usize| half[i.min(j) * width + i.max(j)];
        let elements: Vec<f32> =
            (0..width * width).map(|at| element(at / width, at % width)).collect();
        let expected: Vec<f32> = (0..rows * width)
            .map(|at| {
                let (x, g) = (&x[at / width * width..], &elements[at % width * width..]);
                defined(x[..width].iter().copied().zip(g[..width].iter().copied()), None)
            })
            .collect();
        check(&expected, "symmetric", |compute| {
            let mut out = vec![f32::NAN; rows * width];
            let matrix = Symmetric::new(compute, elements.clone(), width);
            matrix.multiply(compute, &x, Precision::Full, &mut out);
            out
        });
    }
}

/// Two streams of activations of one window, `[tokens, width]` each.
type Window = (Vec<f32>, Vec<f32>);

/// A positive definite matrix.
fn definite(width: usize) -> Vec<f64> {
    let x = numbers(8, (width + 5) * width);
    let mut matrix = vec![0.0; width * width];
    for row in x.chunks_exact(width) {
        for (a, to) in row.iter().zip(matrix.chunks_exact_mut(width)) {
            row.iter().zip(to).for_each(|(b, to)| *to += f64::from(*a) * f64::from(*b));
        }
    }
    (0..width).for_each(|i| matrix[i * width + i] += 0.1);
    matrix
}

#[test]
fn the_inverse_factor_is_the_same_everywhere_and_correct() {
    for width in [1, 7, 128, 300] {
        let matrix = definite(width);
        let mut first: Option<Vec<u32>> = None;
        for compute in computes() {
            let factor = inverse_factor(&compute, matrix.clone(), width).unwrap();
            let bits: Vec<u32> = factor.iter().map(|value| value.to_bits()).collect();
            assert_eq!(*first.get_or_insert_with(|| bits.clone()), bits, "{width}: {compute:?}");
            // With A = L Lᵀ and U = L⁻ᵀ: Uᵀ A U = I.
            let at = |i: usize, j: usize| f64::from(factor[i * width + j]);
            let column = |j: usize| (0..=j).map(|i| at(i, j)).collect::<Vec<f64>>();
            for j in [0, width / 2, width - 1] {
                let u = column(j);
                let row = |i: usize| -> f64 {
                    matrix[i * width..].iter().zip(&u).map(|(a, u)| a * u).sum()
                };
                let product: Vec<f64> = (0..width).map(row).collect();
                for k in [0, width / 3, width - 1] {
                    let found: f64 = column(k).iter().zip(&product).map(|(u, p)| u * p).sum();
                    let expected = f64::from(u8::from(k == j));
                    assert!((found - expected).abs() < 1e-5, "{width}: [{k}, {j}] {found}");
                }
            }
            assert!((0..width).all(|i| factor[i * width..][..i].iter().all(|value| *value == 0.0)));
        }
    }
}

#[test]
fn the_inverse_is_the_same_everywhere_and_correct() {
    for width in [1, 7, 256, 300] {
        let matrix = definite(width);
        let mut first: Option<Vec<u32>> = None;
        for compute in computes() {
            let mut inverse: Vec<f32> = matrix.iter().map(|value| *value as f32).collect();
            invert(&compute, &mut inverse, width).unwrap();
            let bits: Vec<u32> = inverse.iter().map(|value| value.to_bits()).collect();
            assert_eq!(*first.get_or_insert_with(|| bits.clone()), bits, "{width}: {compute:?}");
            for i in 0..width {
                for j in [0, width / 2, width - 1] {
                    let at = |row: usize, col: usize| f64::from(inverse[row * width + col]);
                    assert_eq!(at(i, j).to_bits(), at(j, i).to_bits());
                    let found: f64 = (0..width).map(|k| matrix[i * width + k] * at(k, j)).sum();
                    let expected = f64::from(u8::from(i == j));
                    assert!((found - expected).abs() < 2e-3, "{width}: [{i}, {j}] {found}");
                }
            }
        }
    }
}

#[test]
fn the_inverse_with_16_bits_of_the_products_is_close_and_the_same_for_any_number_of_threads() {
    if Arithmetic::of_machine() != Arithmetic::Bf16x2 {
        return;
    }
    let compute = |threads| {
        Compute::with_arithmetic(threads, Arithmetic::Bf16x2).expect("this processor has AMX")
    };
    for width in [1, 31, 256, 300, 700] {
        let matrix: Vec<f32> = definite(width).iter().map(|value| *value as f32).collect();
        let [one, three] = [1, 3].map(|threads| {
            let mut inverse = matrix.clone();
            invert(&compute(threads), &mut inverse, width).unwrap();
            inverse
        });
        assert_eq!(one, three, "{width}");
        let mut exact = matrix;
        let float32 = Compute::with_arithmetic(1, Arithmetic::F32).unwrap();
        invert(&float32, &mut exact, width).unwrap();
        let squares = |values: &mut dyn Iterator<Item = f32>| -> f64 {
            values.map(|value| f64::from(value).powi(2)).sum()
        };
        let off = squares(&mut one.iter().zip(&exact).map(|(found, exact)| found - exact));
        let off = (off / squares(&mut exact.iter().copied())).sqrt();
        // These matrices have no damping to speak of; those of the activation flow have 1e-5.
        assert!(off < 1e-3, "{width}: {off}");
    }
}

#[test]
fn a_matrix_that_is_not_definite_has_no_inverse_and_no_factor() {
    let compute = Compute::new(1).unwrap();
    for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        for at in [0, 150, 199] {
            let mut matrix = definite(200);
            matrix[at * 200 + at] = bad;
            let mut narrow: Vec<f32> = matrix.iter().map(|value| *value as f32).collect();
            assert_eq!(invert(&compute, &mut narrow, 200), None, "{bad} at {at}");
            assert_eq!(inverse_factor(&compute, matrix, 200), None, "{bad} at {at}");
        }
    }
    assert_eq!(inverse_factor(&compute, vec![], 0), Some(vec![]));
}
