//! What a register tile is made of: vectors of numbers, on some instruction set.

/// Float32 or float64.
pub(crate) trait Number:
    Copy
    + Default
    + std::ops::Add<Output = Self>
    + std::ops::Sub<Output = Self>
    + bytemuck::Pod
    + Send
    + Sync
{
    /// a · b + sum, rounded once.
    fn fused(self, b: Self, sum: Self) -> Self;
}

impl Number for f32 {
    #[inline(always)]
    fn fused(self, b: f32, sum: f32) -> f32 {
        self.mul_add(b, sum)
    }
}

impl Number for f64 {
    #[inline(always)]
    fn fused(self, b: f64, sum: f64) -> f64 {
        self.mul_add(b, sum)
    }
}

/// A vector of numbers.
///
/// # Safety
/// The type consists of [`Vector::LANES`] numbers, one after the other. Every function needs the instructions that the
/// type stands for, and [`Vector::LANES`] elements at each pointer; `transpose` needs four rows of four, `stride` and
/// `to_stride` apart.
pub(crate) unsafe trait Vector: Copy {
    type Number: Number;
    const LANES: usize;

    unsafe fn zero() -> Self;
    unsafe fn splat(number: Self::Number) -> Self;
    unsafe fn load(from: *const Self::Number) -> Self;
    unsafe fn store(self, to: *mut Self::Number);
    /// a · b + self, rounded once per lane.
    unsafe fn fused(self, a: Self, b: Self) -> Self;
    unsafe fn add(self, other: Self) -> Self;
    unsafe fn sub(self, other: Self) -> Self;

    /// Transposes a square of four: `to[i][j] = from[j][i]`.
    #[inline(always)]
    unsafe fn transpose(
        from: *const Self::Number,
        stride: usize,
        to: *mut Self::Number,
        to_stride: usize,
    ) {
        for i in 0..4 {
            for j in 0..4 {
                // SAFETY: guaranteed by the caller.
                unsafe { *to.add(i * to_stride + j) = *from.add(j * stride + i) };
            }
        }
    }
}
