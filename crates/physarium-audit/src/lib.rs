/*!
The auditor: counts a pruned checkpoint again, from its bytes, and judges what is said about it.

It never sees the pruner. What it knows it has counted (`recount`) or read in the headers;
the journal is a claim like any other, compared and never believed, and where a number can only come
from the journal the report says so.

* [`audit`] makes an [`Audit`]: elements, target, processed, pruned, untouched, per projection and
  per tensor, each share with its denominator, and the identities that tie them together.
* [`Claims`] judges sentences about the model by an audit's numbers.
* [`verify`] proves that an output is its input with only pruned weights changed.
*/
#![deny(missing_docs)]
#![forbid(unsafe_code)]

mod audit;
mod claims;
mod compare;
mod count;
mod error;
mod identity;
mod inspect;
mod journal_checks;
mod recount;
mod render;
mod report;
mod share;
mod verify;
mod verify_shard;

pub use audit::{AuditRequest, Evidence, audit};
pub use claims::{Claim, Claims, Judgement, Verdict};
pub use error::Error;
pub use identity::Identity;
pub use inspect::{
    DtypeSum, InspectedTensor, Inspection, Listing, ProjectionSum, ShardSize, inspect,
};
pub use render::{markdown, text};
pub use report::{
    Audit, Base, Basis, Changed, Counted, Matrix, Model, Projection, Pruned, Skipped, Target,
    Tensor, TileCoverage, Untouched,
};
pub use share::{Share, grouped};
pub use verify::{Finding, Verification, verify};

/// How far an audit or a verification is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// So many bytes will be read.
    Total(u64),
    /// So many more have been read.
    Read(u64),
}
