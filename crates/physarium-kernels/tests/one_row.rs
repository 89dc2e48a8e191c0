//! Products of one row: all vector instructions give the same bits, dense and sparse, and they are correct.
#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use half::{bf16, f16};
use physarium_kernels::{
    Arithmetic, Compute, Dense, Linear, Sparse, SparseFault, VectorKind, forward_all,
};
use proptest::prelude::*;

/// A matrix that contains zeros of both signs.
#[derive(Debug, Clone)]
struct Matrix {
    size: [usize; 2],
    values: Vec<f32>,
    x: Vec<f32>,
    bias: Vec<f32>,
}

fn matrix() -> impl Strategy<Value = Matrix> {
    let size = (1usize..40, 1usize..200, 0.0..1.0f64);
    size.prop_flat_map(|(outputs, inputs, zero)| {
        let value = prop_oneof![
            (zero * 100.0) as u32 + 1 => Just(0.0f32),
            1 => Just(-0.0f32),
            (100.0 - zero * 100.0) as u32 + 1 => -2.0f32..2.0,
        ];
        (
            prop::collection::vec(value, outputs * inputs),
            prop::collection::vec(-3.0f32..3.0, inputs),
            prop::collection::vec(-1.0f32..1.0, outputs),
        )
            .prop_map(move |(values, x, bias)| Matrix {
                size: [outputs, inputs],
                values,
                x,
                bias,
            })
    })
}

/// The matrix in each element type.
fn dtypes(values: &[f32]) -> [Dense; 3] {
    [
        Dense::Bf16(values.iter().map(|v| bf16::from_f32(*v).to_bits()).collect()),
        Dense::F16(values.iter().map(|v| f16::from_f32(*v)).collect()),
        Dense::F32(values.to_vec()),
    ]
}

/// The sparse matrix of all weights whose bits are nonzero.
fn sparse([outputs, inputs]: [usize; 2], dense: &Dense) -> Sparse {
    let words = Sparse::words(inputs);
    let mut masks = vec![0u32; outputs * words];
    let mut mark = |bits: &dyn Fn(usize) -> bool| {
        for index in 0..outputs * inputs {
            if bits(index) {
                masks[index / inputs * words + index % inputs / 32] |= 1 << (index % inputs % 32);
            }
        }
    };
    let values = match dense {
        Dense::Bf16(all) => {
            mark(&|index| all[index] != 0);
            Dense::Bf16(all.iter().copied().filter(|v| *v != 0).collect())
        }
        Dense::F16(all) => {
            mark(&|index| all[index].to_bits() != 0);
            Dense::F16(all.iter().copied().filter(|v| v.to_bits() != 0).collect())
        }
        Dense::F32(all) => {
            mark(&|index| all[index].to_bits() != 0);
            Dense::F32(all.iter().copied().filter(|v| v.to_bits() != 0).collect())
        }
    };
    Sparse::new([outputs, inputs], masks, values).unwrap()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

#[test]
fn a_row_of_weights_may_be_longer_than_a_task() {
    let inputs = (1 << 18) / 4 + 1;
    let map = Linear::new(3, inputs, Dense::F32(vec![0.5; 3 * inputs]), None);
    let mut y = [f32::NAN; 3];
    map.forward(&Compute::new(2).unwrap(), &vec![2.0; inputs], &mut y);
    assert_eq!(y, [inputs as f32; 3]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn all_kinds_give_the_same_correct_bits(matrix in matrix()) {
        let Matrix { size: [outputs, inputs], values, x, bias } = matrix;
        for dense in dtypes(&values) {
            let mut wide = vec![0.0; values.len()];
            dense.widen(0, &mut wide);
            let sparse = sparse([outputs, inputs], &dense);
            prop_assert_eq!(&sparse.to_dense(), &dense);
            let maps = [
                Linear::new(outputs, inputs, dense, Some(bias.clone())),
                Linear::new(outputs, inputs, sparse, Some(bias.clone())),
            ];
            let mut first: Option<Vec<u32>> = None;
            for kind in VectorKind::available() {
                let compute = Compute::with_arithmetic(2, Arithmetic::F32).unwrap().with_vectors(kind);
                for map in &maps {
                    let mut y = vec![f32::NAN; outputs];
                    map.forward(&compute, &x, &mut y);
                    let first = first.get_or_insert_with(|| bits(&y));
                    prop_assert_eq!(&*first, &bits(&y), "{}", kind.name());
                    for (row, y) in y.iter().enumerate() {
                        let terms = (0..inputs)
                            .map(|i| f64::from(wide[row * inputs + i]) * f64::from(x[i]));
                        let expected = f64::from(bias[row]) + terms.clone().sum::<f64>();
                        let size = 1.0 + terms.map(f64::abs).sum::<f64>();
                        prop_assert!((f64::from(*y) - expected).abs() <= 1e-6 * size);
                    }
                }
            }
        }
    }

    #[test]
    fn sparse_maps_of_many_rows_equal_dense_ones(matrix in matrix(), rows in 2usize..40) {
        let Matrix { size: [outputs, inputs], values, x, bias } = matrix;
        let x: Vec<f32> = (0..rows).flat_map(|row| x.iter().map(move |x| x + row as f32)).collect();
        for dense in dtypes(&values) {
            let sparse = sparse([outputs, inputs], &dense);
            let maps = [
                Linear::new(outputs, inputs, dense, Some(bias.clone())),
                Linear::new(outputs, inputs, sparse, Some(bias.clone())),
            ];
            let computes = [
                Compute::new(2).unwrap(),
                Compute::new(1).unwrap().sparing_memory(),
            ];
            let mut first: Option<Vec<u32>> = None;
            for (compute, map) in computes.iter().flat_map(|c| maps.iter().map(move |map| (c, map))) {
                let mut y = vec![f32::NAN; rows * outputs];
                map.forward(compute, &x, &mut y);
                prop_assert_eq!(first.get_or_insert_with(|| bits(&y)), &bits(&y));
            }
            let portable = VectorKind::available().into_iter().map(|kind| {
                let compute = Compute::with_arithmetic(1, Arithmetic::F32).unwrap().with_vectors(kind);
                maps.each_ref().map(|map| {
                    let mut y = vec![f32::NAN; rows * outputs];
                    map.forward(&compute, &x, &mut y);
                    bits(&y)
                })
            });
            let portable: Vec<Vec<u32>> = portable.flatten().collect();
            prop_assert!(portable.iter().all(|y| *y == portable[0]));
        }
    }
}

/// Large maps are widened a part of the inputs at a time; the parts are no other sums.
#[test]
fn weights_widened_in_parts_give_the_bits_of_float32_weights() {
    let (size @ [outputs, inputs], rows) = ([2300, 1100], 3);
    // Exact in every dtype; a third is zero.
    let number = |index: usize| ((index * 7919) % 129) as f32 / 64.0 - 1.0;
    let weight = |index: usize| if index.is_multiple_of(3) { 0.0 } else { number(index) };
    let values: Vec<f32> = (0..outputs * inputs).map(weight).collect();
    let x: Vec<f32> = (0..rows * inputs).map(|index| number(index) / 3.0).collect();
    for kind in VectorKind::available() {
        let compute = Compute::with_arithmetic(2, Arithmetic::F32).unwrap().with_vectors(kind);
        let run = |map: Linear| {
            let mut y = vec![f32::NAN; rows * outputs];
            map.forward(&compute, &x, &mut y);
            bits(&y)
        };
        let [bf16, f16, f32] = dtypes(&values);
        let of = |dense: &Dense| run(Linear::new(outputs, inputs, dense.clone(), None));
        let expected = of(&f32);
        for dense in [bf16, f16, f32] {
            assert!(of(&dense) == expected, "{}", kind.name());
            let sparse = Linear::new(outputs, inputs, sparse(size, &dense), None);
            assert!(run(sparse) == expected, "{}, sparse", kind.name());
        }
    }
}

/// The number of threads decides how tasks are divided, but not how sums are.
#[test]
fn the_number_of_threads_changes_nothing() {
    let [outputs, inputs] = [1000, 300];
    let number = |index: usize| ((index * 7919) % 1009) as f32 / 500.0 - 1.0;
    let values: Vec<f32> = (0..outputs * inputs).map(number).collect();
    let x: Vec<f32> = (0..inputs).map(number).collect();
    let run = |threads| {
        let compute = Compute::new(threads).unwrap();
        let maps = dtypes(&values).map(|dense| Linear::new(outputs, inputs, dense, None));
        let mut results: Vec<Vec<f32>> = vec![vec![0.0; outputs]; 3];
        let mut pairs: Vec<_> =
            maps.iter().zip(&mut results).map(|(map, y)| (map, y.as_mut_slice())).collect();
        forward_all(&compute, &x, &mut pairs);
        results.iter().map(|y| bits(y)).collect::<Vec<_>>()
    };
    assert_eq!(run(1), run(2));
    assert_eq!(run(1), run(5));
}

#[test]
fn masks_and_values_that_do_not_match_are_rejected() {
    let values = |count: usize| Dense::Bf16(vec![0x3f80; count]);
    let new = |masks: &[u32], count| Sparse::new([2, 33], masks.to_vec(), values(count));
    assert!(new(&[3, 1, 0, 0], 3).is_ok());
    let masks = SparseFault::Masks { expected: 4, found: 3 };
    assert_eq!(new(&[3, 1, 0], 3).unwrap_err(), masks);
    assert_eq!(new(&[3, 1, 0, 2], 4).unwrap_err(), SparseFault::BeyondRow { row: 1 });
    let many = SparseFault::Values { expected: 3, found: 4 };
    assert_eq!(new(&[3, 1, 0, 0], 4).unwrap_err(), many);
    let few = SparseFault::Values { expected: 3, found: 2 };
    assert_eq!(new(&[3, 1, 0, 0], 2).unwrap_err(), few);
}
