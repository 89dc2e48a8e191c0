//! The weights of a map, in the form and the dtype that they are stored in.

mod dense;
mod sparse;
mod stored;

pub use dense::Dense;
pub use sparse::{Sparse, SparseFault};
pub use stored::Weights;
