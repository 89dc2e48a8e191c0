//! Safe functions are sound for every argument: sizes whose products wrap are refused before memory is read.
#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use physarium_kernels::{
    Arithmetic, Buffer, Compute, Dense, Gram, Left, Linear, Output, Right, Sparse, Symmetric,
    VectorKind, add_cross, forward_all,
};

/// A stride for which the begin of the third row wraps to that of the first.
const WRAPS: usize = 1 << (usize::BITS - 1);

/// The message of the panic of `call`.
fn refusal(call: impl FnOnce() + std::panic::UnwindSafe) -> String {
    let fault = std::panic::catch_unwind(call).expect_err("refused");
    let text = fault.downcast_ref::<String>().cloned();
    text.unwrap_or_else(|| (*fault.downcast_ref::<&str>().unwrap()).to_owned())
}

/// Multiplies `[3, 4, 2]` with these strides: left, right, result.
fn multiply(strides: [usize; 3], transposed: bool) {
    let data = [1.0; 16];
    for kind in VectorKind::available() {
        let compute = Compute::with_arithmetic(1, Arithmetic::F32).unwrap().with_vectors(kind);
        let mut out = [0.0; 16];
        let right = match transposed {
            true => Right::Transposed { data: &data, stride: strides[1] },
            false => Right::AsIs { data: &data, stride: strides[1] },
        };
        let left = Left { data: &data, stride: strides[0] };
        compute.multiply([3, 4, 2], left, right, Output { data: &mut out, stride: strides[2] });
    }
}

#[test]
fn strides_that_wrap_are_refused() {
    multiply([4, 2, 2], false);
    multiply([4, 4, 2], true);
    for stride in [WRAPS, usize::MAX, usize::MAX / 2 + 2, 7, 3, 0] {
        assert_eq!(refusal(|| multiply([stride, 2, 2], false)), "left factor too short");
    }
    for stride in [WRAPS, usize::MAX, usize::MAX / 2 + 2, 8, 1, 0] {
        assert_eq!(refusal(|| multiply([4, 2, stride], false)), "result too short");
    }
    for stride in [WRAPS, usize::MAX, usize::MAX / 3 + 1, 6, 1] {
        assert_eq!(refusal(|| multiply([4, stride, 2], false)), "right factor too short");
    }
    for stride in [WRAPS + 13, usize::MAX, 13, 3] {
        assert_eq!(refusal(|| multiply([4, stride, 2], true)), "right factor too short");
    }
}

#[test]
fn shapes_that_wrap_are_refused() {
    let edge = 1usize << (usize::BITS / 2);
    let none = || Dense::F32(Vec::new());
    assert!(refusal(|| drop(Linear::new(WRAPS, 2, none(), None))).contains("weights of a map"));
    assert!(refusal(|| drop(Linear::new(edge, edge, none(), None))).contains("weights of a map"));
    let empty = || Sparse::new([usize::MAX, 0], Vec::new(), none());
    assert_eq!(refusal(|| drop(empty())), "rows without inputs");
    assert!(Sparse::new([WRAPS, 64], Vec::new(), none()).is_err());
    for arithmetic in Arithmetic::ALL.into_iter().filter(|a| a.check().is_ok()) {
        let compute = || Compute::with_arithmetic(1, arithmetic).unwrap();
        let gram = refusal(|| drop(Gram::new(edge)));
        assert_eq!(gram, "a matrix that memory can hold");
        let matrix = refusal(|| drop(Symmetric::new(&compute(), Vec::new(), edge)));
        assert!(matrix.contains("a square matrix"), "{matrix}");
        let cross = refusal(|| add_cross(&compute(), [&[1.0; 6], &[1.0; 4]], 2, &mut [0.0; 4]));
        assert_eq!(cross, "a result of [3, 2]");
        let cross = refusal(|| add_cross(&compute(), [&[1.0; 6], &[1.0; 5]], 2, &mut [0.0; 6]));
        assert_eq!(cross, "whole rows");
    }
}

#[test]
fn rows_that_do_not_match_are_refused() {
    for rows in [1, 2] {
        let run = |x: usize, y: usize| {
            let map = Linear::new(3, 4, Dense::F32(vec![1.0; 12]), None);
            let compute = Compute::new(1).unwrap();
            forward_all(&compute, &vec![1.0; x], &mut [(&map, &mut vec![0.0; y][..])]);
        };
        run(4 * rows, 3 * rows);
        assert!(refusal(|| run(4 * rows, 3 * rows - 1)).contains("result of"));
        assert!(refusal(|| run(4 * rows + 1, 3 * rows)).contains("whole rows"));
    }
}

#[test]
fn nothing_is_done_to_no_elements() {
    for arithmetic in Arithmetic::ALL.into_iter().filter(|a| a.check().is_ok()) {
        let compute = Compute::with_arithmetic(2, arithmetic).unwrap();
        compute.each_chunk(&mut [0u8; 0], 0, |_, _| panic!("no element, no run"));
        let message = refusal(|| {
            Compute::new(1).unwrap().each_chunk(&mut [0u8; 3], 0, |_, _| ());
        });
        assert_eq!(message, "runs of no elements");
        add_cross(&compute, [&[], &[]], 0, &mut []);
        add_cross(&compute, [&[], &[1.0; 4]], 2, &mut []);
        let mut gram = Gram::new(5);
        gram.add(&compute, &[]);
        assert_eq!(gram.finish(&compute, 1.0), [0.0; 25]);
        let mut none = Gram::new(0);
        none.add(&compute, &[]);
        assert!(none.finish(&compute, 1.0).is_empty());
    }
    let mut buffer = Buffer::default();
    assert!(buffer.is_empty());
    buffer.resize(17);
    assert_eq!(buffer[16], 0.0);
}
