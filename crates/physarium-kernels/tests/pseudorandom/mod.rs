//! Pseudorandom numbers of the tests (xorshift; Marsaglia 2003).

/// Numbers in -1 ..= 1 that use all 24 bits, each with the state that it is of, from which a test can draw more.
pub fn pairs(seed: u64) -> impl Iterator<Item = (f32, u64)> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        ((state >> 40) as f32 / (1u64 << 23) as f32 - 1.0, state)
    })
}
