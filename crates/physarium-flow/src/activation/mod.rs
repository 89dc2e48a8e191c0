/*!
Pruning by what passes through a projection: a Gram matrix of its inputs stands for the calibration text.

In: weights `[rows, cols]` in float32, the Gram matrix `[cols, cols]` of the inputs that the projection
will see, and what the dense model makes of its own inputs ([`Problem`]). Out: weights with the zeros that
were asked for ([`Solution`]).

* [`wanda`] zeroes by |w| ‖x‖ and changes nothing else (Sun et al. 2023, arXiv 2306.11695).
* [`sparsegpt`] goes column by column and lets the rest make up for it (Frantar and Alistarh 2023,
  arXiv 2301.00774).
* [`activation_flow`] lets the conductances of tubes adapt to the flow that reproduces the dense outputs
  (after Straszak and Vishnoi 2016, arXiv 1601.02712).
*/

mod flow;
mod keep;
mod problem;
mod sparsegpt;

pub use flow::{ActivationFlow, activation_flow};
pub use keep::Keep;
pub use problem::{Problem, Solution, wanda};
pub use sparsegpt::sparsegpt;
