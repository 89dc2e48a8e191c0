//! Memory with the alignment and the page size that kernels are fastest on.

mod buffer;
mod pages;
mod release;

pub use buffer::Buffer;
pub use pages::large_zeroed;
pub use release::release_memory;
