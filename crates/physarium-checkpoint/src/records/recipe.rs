/*!
The recipe: everything about a run that decides the output's bytes, and nothing else.

It stands in the journal's first line and in the manifest. Two runs with equal recipes on equal
input give equal bytes; thread counts and paths are not in it.
*/

use serde::{Deserialize, Serialize};

use super::method::{Method, Needs};
use crate::plan::selection::Selection;

/// How weights are chosen, and which.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// How weights are chosen.
    pub method: Method,
    /// `--target` globs; empty means the default projections.
    pub target: Vec<String>,
    /// `--skip` globs.
    pub skip: Vec<String>,
    /// What NaN and infinite weights in a target do.
    pub non_finite: NonFinite,
}

impl Recipe {
    /// What its method needs and does beside choosing weights.
    pub fn needs(&self) -> Needs {
        self.method.needs()
    }

    /// The recipe's globs.
    pub fn selection(&self) -> Selection {
        Selection { target: self.target.clone(), skip: self.skip.clone() }
    }
}

/// What NaN and infinite weights in a target do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NonFinite {
    /// Stop the run, naming the tensor and the position.
    Refuse,
    /// Keep them as they are; they take no part in the choice.
    Keep,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::method::{Amount, Criterion, Scope};

    #[test]
    fn a_recipe_reads_back_what_it_writes() {
        let sparsity = "0.5".parse().expect("valid");
        let amount = Amount::Sparsity { sparsity, scope: Scope::Tile { block_size: 256 } };
        let recipe = Recipe {
            method: Method::new(Criterion::Magnitude, amount).expect("they go together"),
            target: vec!["*.q_proj.weight".into()],
            skip: vec![],
            non_finite: NonFinite::Refuse,
        };
        let text = serde_json::to_string(&recipe).expect("serialises");
        assert_eq!(serde_json::from_str::<Recipe>(&text).expect("reads back"), recipe);
    }
}
