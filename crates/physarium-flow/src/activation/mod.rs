/*!
Activation-aware pruning: statistics of a projection's inputs represent the calibration text.

In: float32 weights `[rows, cols]` and the Gram matrix `[cols, cols]` of the inputs that the pruned projection
will see ([`Problem`]), for Wanda only its diagonal; for the activation flow also what its outputs should be and a
cost for each of them ([`Projection`]). Out: weights with the requested zeros ([`Solution`]).

* [`wanda`] prunes by |w| ‖x‖ and changes no other weight (Sun et al. 2023, arXiv 2306.11695).
* [`sparsegpt`] prunes column by column and updates the remaining weights to compensate (Frantar and
  Alistarh 2023, arXiv 2301.00774).
* [`FlowNetwork::prune`] lets the conductances of tubes adapt to the flow that reproduces the dense outputs
  (after Tero et al. 2007), and updates the remaining weights to compensate.

All of them end with [`Unsolved::Stopped`] soon after their [`Compute`](physarium_kernels::Compute) is asked to stop.

[`rounded`] is the way from a solution's float32 weights to the bits of their own format.
*/

mod keep;
mod network;
mod order;
mod problem;
mod rounding;
mod sparsegpt;
mod wanda;

pub use keep::Keep;
pub use network::FlowNetwork;
pub use network::parameters::ActivationFlow;
pub use network::projection::{Projection, Target};
pub use problem::{InputRows, Inputs, OutputErrors, Problem, Solution, Unsolved};
pub use rounding::rounded;
pub use sparsegpt::sparsegpt;
pub use wanda::wanda;
