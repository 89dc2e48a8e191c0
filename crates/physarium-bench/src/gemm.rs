//! Products by the `gemm` crate, a baseline, on a chosen instruction set. (Its own entry chooses by the processor.)

use gemm_common::Parallelism;
use gemm_common::gemm::gemm_basic_generic;
use gemm_common::simd::{MixedSimd, V3, V4};
use gemm_f32::microkernel::{avx512f::f32 as avx512, fma::f32 as avx2};
use physarium_kernels::VectorKind;

/// A matrix in a slice.
#[derive(Clone, Copy)]
pub struct Strided<'a> {
    pub data: &'a [f32],
    /// Distances between two rows and between two columns.
    pub strides: [usize; 2],
}

/// `out = left · right`; `shape`: rows, depth, columns; `out` is row-major.
///
/// # Panics
/// If a slice is shorter than its shape needs, or for instructions other than AVX2 and AVX-512.
pub fn product(
    kind: VectorKind,
    [rows, depth, cols]: [usize; 3],
    [left, right]: [Strided<'_>; 2],
    out: &mut [f32],
) {
    let last = |of: Strided<'_>, rows: usize, cols: usize| {
        (rows - 1) * of.strides[0] + (cols - 1) * of.strides[1]
    };
    assert!(rows > 0 && depth > 0 && cols > 0 && out.len() == rows * cols);
    assert!(last(left, rows, depth) < left.data.len());
    assert!(last(right, depth, cols) < right.data.len());
    // The crate's entry also computes the transposed product for a row-major result.
    macro_rules! run {
        ($simd:ty, $lanes:literal, $kernels:ident) => {{
            const COLS: usize = $kernels::MR_DIV_N * $lanes;
            let simd = <$simd as MixedSimd<f32, f32, f32, f32>>::try_new();
            let simd = simd.expect("the processor has these instructions");
            // SAFETY: the slices hold all elements of the shape, as asserted.
            unsafe {
                gemm_basic_generic::<
                    _,
                    f32,
                    $lanes,
                    COLS,
                    { $kernels::NR },
                    { $kernels::MR_DIV_N },
                    { $kernels::H_M },
                    { $kernels::H_N },
                >(
                    simd,
                    cols,
                    rows,
                    depth,
                    out.as_mut_ptr(),
                    cols as isize,
                    1,
                    false,
                    right.data.as_ptr(),
                    right.strides[0] as isize,
                    right.strides[1] as isize,
                    left.data.as_ptr(),
                    left.strides[0] as isize,
                    left.strides[1] as isize,
                    1.0,
                    1.0,
                    false,
                    false,
                    false,
                    |a, b, c| a * b + c,
                    &$kernels::UKR,
                    &$kernels::H_UKR,
                    false,
                    Parallelism::None,
                );
            }
        }};
    }
    match kind {
        VectorKind::Avx2 => run!(V3, 8, avx2),
        VectorKind::Avx512 => run!(V4, 16, avx512),
        _ => panic!("no baseline on {}", kind.name()),
    }
}
