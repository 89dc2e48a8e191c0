/*!
The auditor: counts a pruned checkpoint again from its bytes and judges statements about it.

It shares no code with the pruner. Its numbers come from headers and weights. A journal is compared with
them and never trusted; a number that only a journal can give is marked as such in the report.

Data flows from `count/` and `tiles/` (weights, headers and journal to counts) to `report/` (counts to tables);
`notes/` says what is odd, `claims/` judges sentences by a report, and `verify/` compares two directories byte by byte.

* [`audit`] returns an [`Audit`]: elements, target, processed, pruned and untouched weights, per projection
  and per tensor, each share with its denominator, and the identities between these numbers.
* [`Claims`] judges sentences about the model by the numbers of an audit.
* [`verify`] proves that an output is its input with only pruned and, by methods that compensate, updated target weights
  changed.
*/
#![deny(missing_docs)]
#![forbid(unsafe_code)]

mod audit;
mod claims;
mod contradiction;
mod count;
mod error;
mod notes;
mod report;
mod request;
mod step;
mod tiles;
mod verify;

pub use audit::{AuditRequest, Evidence, audit};
pub use claims::claim::{Claim, Claims};
pub use error::{Error, Lacking};
pub use report::audit::{
    Audit, Base, Basis, Changed, Counted, Matrix, Model, OfModel, Outside, Projection, Pruned,
    Skipped, Target, Tensor, TileCoverage, Untouched,
};
pub use report::identity::Identity;
pub use report::inspection::{
    DtypeSum, InspectedTensor, Inspection, Listing, ProjectionSum, ShardSize, inspect,
};
pub use report::judgement::{Judgement, Verdict};
pub use report::provenance::Provenance;
pub use report::render::{markdown, text};
pub use report::share::{Share, grouped};
pub use step::Step;
pub use tiles::{MagnifiedTile, TileMap};
pub use verify::findings::{Finding, Verification};
pub use verify::verify;
