//! What an audit counts from: the plan, the recounted weights, the journal.

use std::collections::HashMap;

use physarium_checkpoint::TargetPlan;
use physarium_checkpoint::journal::{Journal, Processed, TensorRecord};

use super::compare::Tally;
use super::pairs::Pair;
use super::recount::Found;
use crate::report::audit::Base;

/// The journal that counts are compared with.
pub(crate) enum JournalClaim {
    /// There is no journal.
    Absent,
    /// There is one, but it cannot be used for this reason.
    Unusable(String),
    /// A journal whose counts can be summed.
    Usable(Box<Journal>),
}

impl JournalClaim {
    /// The journal, if it can be used.
    pub fn usable(&self) -> Option<&Journal> {
        match self {
            JournalClaim::Usable(journal) => Some(journal),
            JournalClaim::Absent | JournalClaim::Unusable(_) => None,
        }
    }
}

/// What an audit counts from.
pub(crate) struct Sources<'a> {
    pub plan: &'a TargetPlan,
    /// The tensors of the plan, in its order.
    pub pairs: &'a [Pair<'a>],
    /// Counts of each pair; `None` if no weights were read.
    pub found: Option<Vec<Found>>,
    /// Edge of the tiles whose zeros were counted.
    pub edge: u64,
    pub journal: &'a JournalClaim,
    /// The journal's records by name.
    pub records: HashMap<&'a str, &'a TensorRecord>,
    pub base: Base,
}

impl<'a> Sources<'a> {
    /// The journal's record of a target that it says was processed.
    pub fn processed(&self, name: &str) -> Option<&'a Processed> {
        self.records.get(name).and_then(|record| record.processed())
    }

    /// Zeros of a tensor or a matrix of `pair`: as counted, or else as stated by the journal.
    pub fn zeros(&self, pair: &Pair<'_>, counted: Option<Tally>, stated: Option<Stated>) -> Zeros {
        let zero = match (counted, stated) {
            (Some(counted), _) => counted.zeros,
            (None, Some(stated)) => stated.pruned + stated.already_zero,
            (None, None) => 0,
        };
        match self.base {
            Base::Original => {
                let compared = counted.filter(|_| pair.mismatch.is_none());
                Zeros {
                    zero,
                    pruned: compared.map(|counted| counted.pruned),
                    already_zero: compared.map(|counted| counted.zeros_before - counted.revived),
                    revived: compared.map(|counted| counted.revived),
                }
            }
            // A journal may state more zeros than there are.
            Base::Journal => {
                let already_zero = stated.map(|stated| stated.already_zero);
                let pruned = already_zero.map(|already| zero.saturating_sub(already));
                Zeros { zero, pruned, already_zero, revived: None }
            }
            Base::None => Zeros { zero, pruned: None, already_zero: None, revived: None },
        }
    }
}

/// What a journal states about a tensor or a matrix.
#[derive(Clone, Copy)]
pub(crate) struct Stated {
    pub pruned: u64,
    pub already_zero: u64,
}

/// Zeros of a tensor or a matrix; `None` is unknown.
pub(crate) struct Zeros {
    pub zero: u64,
    /// Weights zeroed by pruning.
    pub pruned: Option<u64>,
    /// Weights that were zero before and still are.
    pub already_zero: Option<u64>,
    /// Weights that were zero before and are not.
    pub revived: Option<u64>,
}
