//! From solved float32 weights to those of the dtype that the target is stored in.

use half::f16;
use physarium_flow::FloatFormat;
use physarium_flow::activation::rounded;
use physarium_model::Dense;

/// Rounds solved weights to the dtype of those before, see [`rounded`].
///
/// # Errors
/// What was found, if the dtype cannot hold some of them.
pub(super) fn narrow(solved: &[f32], before: &Dense) -> std::result::Result<Dense, String> {
    let mut lost = 0u64;
    let mut round = |format: FloatFormat, before: u32, solved: &f32| {
        let bits = rounded(format, before, *solved);
        lost += u64::from(!format.is_finite(bits));
        bits
    };
    let (weights, dtype) = match before {
        Dense::Bf16(before) => {
            let pairs = solved.iter().zip(before);
            let bits = pairs.map(|(w, b)| round(FloatFormat::Bf16, (*b).into(), w) as u16);
            (Dense::Bf16(bits.collect()), "BF16")
        }
        Dense::F16(before) => {
            let pairs = solved.iter().zip(before);
            let bits = pairs.map(|(w, b)| round(FloatFormat::F16, b.to_bits().into(), w) as u16);
            (Dense::F16(bits.map(f16::from_bits).collect()), "F16")
        }
        Dense::F32(before) => {
            let pairs = solved.iter().zip(before);
            let bits = pairs.map(|(w, b)| round(FloatFormat::F32, b.to_bits(), w));
            (Dense::F32(bits.map(f32::from_bits).collect()), "F32")
        }
    };
    if lost == 0 { Ok(weights) } else { Err(out_of_range(solved, lost, dtype)) }
}

/// What to say of `lost` solved weights that a dtype cannot hold.
fn out_of_range(solved: &[f32], lost: u64, dtype: &str) -> String {
    let finite = solved.iter().filter(|weight| weight.is_finite());
    let largest = finite.fold(0.0f32, |largest, weight| largest.max(weight.abs()));
    let other = match dtype {
        "F16" => {
            "convert the model to BF16, or use a method that updates no weights, such as wanda"
        }
        _ => "use a method that updates no weights, such as wanda",
    };
    format!(
        "expected updated weights within the range of {dtype}, found {lost} of {} beyond it (the largest finite \
         one is {largest:e}); {other}",
        solved.len()
    )
}
