/*!
The recipe: everything besides the input that determines the output's bytes.

It is in the journal's first line and in the manifest. Two runs of one recipe on equal inputs write equal bytes;
thread counts and paths are not part of it.
*/

use serde::{Deserialize, Serialize};

use super::method::{Method, Needs};
use crate::plan::selection::Selection;

/// What determines the output's bytes, besides the input.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// The criterion and the amount.
    pub method: Method,
    /// `--target` globs; empty means the default projections.
    pub target: Vec<String>,
    /// `--skip` globs.
    pub skip: Vec<String>,
    /// How NaN and infinite weights in a target are handled.
    pub non_finite: NonFinite,
}

impl Recipe {
    /// What its method requires, and what it does besides choosing weights.
    pub fn needs(&self) -> Needs {
        self.method.needs()
    }

    /// The recipe's globs.
    pub fn selection(&self) -> Selection {
        Selection { target: self.target.clone(), skip: self.skip.clone() }
    }
}

/// How NaN and infinite weights in a target are handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NonFinite {
    /// Stop the run with an error that names the tensor and the position.
    Refuse,
    /// Keep them unchanged and exclude them from the choice.
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
            method: Method::new(Criterion::Magnitude, amount).expect("compatible"),
            target: vec!["*.q_proj.weight".into()],
            skip: vec![],
            non_finite: NonFinite::Refuse,
        };
        let text = serde_json::to_string(&recipe).expect("serialises");
        assert_eq!(serde_json::from_str::<Recipe>(&text).expect("reads back"), recipe);
    }
}
