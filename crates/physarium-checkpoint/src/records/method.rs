/*!
A pruning method: a criterion by which weights are chosen, and an amount of them.

In: a compatible criterion and amount, or their form in journals, manifests and recipe files (`form.rs`).
Out: a [`Method`], and its [`Needs`], which most of the program uses instead of matching on the method.

A new criterion takes a variant of [`Criterion`], its compatible amounts in [`Method::new`], its needs in
[`Method::needs`], its keys in `form.rs`, and the code that solves.
*/

use std::fmt;

use serde::{Deserialize, Serialize};

use super::amounts::{NmPattern, Price, Sparsity};
use crate::open::digest::Digest;

/// How weights are chosen, and how many.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Method {
    criterion: Criterion,
    amount: Amount,
}

/// The rule by which weights are chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Criterion {
    /// Conductances adapt under a conserved flow in each tile; weights whose tubes lose their flow are pruned.
    MagnitudeFlow {
        /// Side length of a tile, in weights.
        block_size: u64,
        /// Parameters of the dynamics.
        flow: FlowRecipe,
    },
    /// The smallest magnitudes are pruned, ties by position.
    Magnitude,
    /// The smallest |w| ‖x‖ of each row are pruned (Sun et al. 2023).
    Wanda(Calibration),
    /// Weights are pruned column by column; remaining ones are updated to compensate (Frantar and Alistarh 2023).
    SparseGpt(Calibration),
    /// Conductances adapt to the flow that reproduces the dense model's outputs; remaining weights are updated to
    /// compensate.
    ActivationFlow {
        /// The calibration text.
        calibration: Calibration,
        /// Parameters of the dynamics. `None` in records of earlier dynamics, which named none.
        flow: Option<FlowSteps>,
    },
}

/// How many weights are zero in the result.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Amount {
    /// As many as the criterion's dynamics leave without flow; not fixed in advance.
    Emergent,
    /// Exactly this share of each scope.
    Sparsity {
        /// Share of weights that are zero in the result.
        sparsity: Sparsity,
        /// Where the share is exact.
        scope: Scope,
    },
    /// Every weight whose importance is below this threshold.
    Price(Price),
    /// All but N of each M consecutive inputs.
    Pattern(NmPattern),
}

/// Windows of a text, from which activation statistics are computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    /// Digest of the text's file.
    pub text_sha256: Digest,
    /// Number of tokens.
    pub tokens: u64,
    /// Tokens in a window, which is the context of the model.
    pub window: u64,
    /// Random seed of the choice of windows, if the text has more than needed.
    pub seed: u64,
    /// Where the token for the beginning of a text stands. Records of earlier versions, which put it before the text, do not
    /// have it.
    #[serde(default, skip_serializing_if = "BosPlace::is_text")]
    pub bos: BosPlace,
}

/// Where the token for the beginning of a text (BOS) stands, if the tokenizer adds one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BosPlace {
    /// Before the text only.
    #[default]
    Text,
    /// At the beginning of each window, as the first of its tokens.
    EachWindow,
}

/// Where the token stands: `before the text`.
impl fmt::Display for BosPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BosPlace::Text => "before the text",
            BosPlace::EachWindow => "at the beginning of each window",
        })
    }
}

impl BosPlace {
    fn is_text(&self) -> bool {
        *self == BosPlace::Text
    }
}

impl Calibration {
    /// Tokens that are used: those of whole windows.
    pub fn tokens_used(&self) -> u64 {
        self.tokens - self.tokens % self.window.max(1)
    }
}

/// Parameters of the activation flow.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlowSteps {
    /// Number of steps.
    pub steps: u32,
    /// How firmly tubes hold their flow, in the first and in the last steps.
    pub coupling: [f64; 2],
    /// Number of different couplings.
    pub levels: u32,
    /// Exponent of the response, in the first and in the last step.
    pub exponent: [f64; 2],
    /// Steps that refit the remaining weights.
    pub refit_steps: u32,
    /// How far a projection goes from its own outputs to those of the dense model. Records of earlier dynamics, which
    /// went all the way, do not have it.
    #[serde(default = "all_the_way")]
    pub target_share: f64,
    /// How much of what the pruned residual stream lacks is added to the outputs of maps that add to it. Records of
    /// earlier dynamics, which added nothing, do not have it.
    #[serde(default)]
    pub stream_share: f64,
    /// Fraction of the mean power of the inputs that is added to the power of each. Records of earlier dynamics do not
    /// have it.
    #[serde(default = "earlier_damping")]
    pub damping: f64,
}

fn all_the_way() -> f64 {
    1.0
}

fn earlier_damping() -> f64 {
    0.01
}

/// Parameters of the magnitude flow.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct FlowRecipe {
    /// Number of steps.
    pub iterations: u32,
    /// Exponent of the response.
    pub beta: f64,
    /// Mean flow per tube.
    pub inflow: f64,
}

/// The set of weights in which a sparsity is exact, and ties are broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "scope", rename_all = "kebab-case")]
pub enum Scope {
    /// Each tile by itself.
    Tile {
        /// Side length of a tile, in weights.
        block_size: u64,
    },
    /// Each matrix by itself: a projection, or one expert of a stack.
    Tensor,
    /// All targets of the model together.
    Model,
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Amount::Emergent => "an emergent sparsity",
            Amount::Sparsity { scope: Scope::Tile { .. }, .. } => "a sparsity of each tile",
            Amount::Sparsity { scope: Scope::Tensor, .. } => "a sparsity of each tensor",
            Amount::Sparsity { scope: Scope::Model, .. } => "a sparsity of the whole model",
            Amount::Price(_) => "a price",
            Amount::Pattern(_) => "an N:M pattern",
        })
    }
}

/// What a method requires, and what it does besides choosing weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Needs {
    /// The calibration text of an activation-aware method.
    pub calibration: Option<Calibration>,
    /// Whether the model's gradients determine how much is pruned in each place.
    pub gradients: bool,
    /// Whether the activations of the dense model are needed in addition to those of the pruned model.
    pub dense_stream: bool,
    /// Whether products of inputs with each other are needed (a Gram matrix), not only the mean square of each input.
    pub gram: bool,
    /// Whether remaining weights are updated.
    pub refits: bool,
    /// Whether weights are chosen along inputs, which must then be the columns.
    pub along_inputs: bool,
    /// Side length of the tiles that are pruned one by one, for a method that has tiles.
    pub tile_edge: Option<u64>,
}

/// An amount that a criterion does not support.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error("{} does not support {amount}", criterion.name())]
pub struct MethodMismatch {
    /// The criterion.
    pub criterion: Criterion,
    /// The amount.
    pub amount: Amount,
}

impl Criterion {
    /// Its name on the command line and in records.
    pub fn name(&self) -> &'static str {
        match self {
            Criterion::MagnitudeFlow { .. } => "magnitude-flow",
            Criterion::Magnitude => "magnitude",
            Criterion::Wanda(_) => "wanda",
            Criterion::SparseGpt(_) => "sparsegpt",
            Criterion::ActivationFlow { .. } => "activation-flow",
        }
    }

    /// The calibration text of an activation-aware criterion.
    pub fn calibration(&self) -> Option<Calibration> {
        match self {
            Criterion::Wanda(calibration)
            | Criterion::SparseGpt(calibration)
            | Criterion::ActivationFlow { calibration, .. } => Some(*calibration),
            Criterion::MagnitudeFlow { .. } | Criterion::Magnitude => None,
        }
    }
}

impl Method {
    /// Combines a criterion and an amount.
    ///
    /// # Errors
    /// [`MethodMismatch`] if the criterion does not support the amount. The magnitude flow supports only an
    /// emergent amount; magnitudes support a sparsity or a pattern; activation-aware criteria support a sparsity
    /// of each tensor or of the model, a price or a pattern.
    pub fn new(criterion: Criterion, amount: Amount) -> Result<Method, Box<MethodMismatch>> {
        let fits = match (criterion, amount) {
            (Criterion::MagnitudeFlow { .. }, amount) => amount == Amount::Emergent,
            (_, Amount::Emergent) => false,
            (Criterion::Magnitude, amount) => !matches!(amount, Amount::Price(_)),
            (_, Amount::Sparsity { scope, .. }) => !matches!(scope, Scope::Tile { .. }),
            (_, Amount::Price(_) | Amount::Pattern(_)) => true,
        };
        if fits {
            Ok(Method { criterion, amount })
        } else {
            Err(Box::new(MethodMismatch { criterion, amount }))
        }
    }

    /// The rule by which weights are chosen.
    pub fn criterion(&self) -> Criterion {
        self.criterion
    }

    /// How many weights are zero in the result.
    pub fn amount(&self) -> Amount {
        self.amount
    }

    /// What it requires, and what it does besides choosing weights.
    pub fn needs(&self) -> Needs {
        let calibration = self.criterion.calibration();
        let activation_flow = matches!(self.criterion, Criterion::ActivationFlow { .. });
        let over_model = match self.amount {
            Amount::Sparsity { scope, .. } => scope == Scope::Model,
            Amount::Price(_) => true,
            Amount::Emergent | Amount::Pattern(_) => false,
        };
        let pattern = matches!(self.amount, Amount::Pattern(_));
        Needs {
            calibration,
            // A pattern keeps the same number of weights in every row, so that rows need no ranking.
            gradients: calibration.is_some() && (over_model || (activation_flow && !pattern)),
            dense_stream: activation_flow,
            gram: activation_flow || matches!(self.criterion, Criterion::SparseGpt(_)),
            refits: activation_flow || matches!(self.criterion, Criterion::SparseGpt(_)),
            along_inputs: calibration.is_some() || pattern,
            tile_edge: match (self.criterion, self.amount) {
                (Criterion::MagnitudeFlow { block_size, .. }, _)
                | (_, Amount::Sparsity { scope: Scope::Tile { block_size }, .. }) => {
                    Some(block_size)
                }
                _ => None,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALIBRATION: &str = r#""calibration":{"text_sha256":"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","tokens":8,"window":4,"seed":0}"#;

    const FLOW: &str = r#""flow":{"steps":12,"coupling":[0.4,0.5],"levels":2,"exponent":[1.4,32.0],"refit_steps":6,"target_share":0.6,"stream_share":1.0,"damping":0.02}"#;

    #[test]
    fn methods_are_written_as_in_schema_1() {
        let forms = [
            r#"{"name":"magnitude-flow","block_size":256,"iterations":30,"beta":2.0,"inflow":5.16}"#
                .to_owned(),
            r#"{"name":"magnitude","sparsity":0.5,"scope":"tile","block_size":64}"#.to_owned(),
            r#"{"name":"magnitude","sparsity":0.5,"scope":"model"}"#.to_owned(),
            r#"{"name":"magnitude-pattern","pattern":"2:4"}"#.to_owned(),
            format!(r#"{{"name":"wanda","sparsity":0.5,{CALIBRATION}}}"#),
            format!(r#"{{"name":"sparsegpt","model-sparsity":0.5,{CALIBRATION}}}"#),
            format!(r#"{{"name":"activation-flow","price":0.02,{CALIBRATION},{FLOW}}}"#),
            // A record of earlier dynamics.
            format!(r#"{{"name":"activation-flow","pattern":"2:4",{CALIBRATION}}}"#),
        ];
        for form in forms {
            let method: Method = serde_json::from_str(&form).expect(&form);
            assert_eq!(serde_json::to_string(&method).expect("serialises"), form);
        }
    }

    #[test]
    fn a_flow_without_its_later_keys_has_the_values_of_then() {
        let form = |flow: &str| {
            let form = format!(r#"{{"name":"activation-flow","price":0.02,{CALIBRATION},{flow}}}"#);
            let method: Method = serde_json::from_str(&form).expect("a method");
            let Criterion::ActivationFlow { flow: Some(flow), .. } = method.criterion() else {
                panic!("{method:?}");
            };
            [flow.target_share, flow.stream_share, flow.damping]
        };
        let without = |keys: &str| form(&FLOW.replace(keys, ""));
        assert_eq!(form(FLOW), [0.6, 1.0, 0.02]);
        assert_eq!(without(r#","stream_share":1.0,"damping":0.02"#), [0.6, 0.0, 0.01]);
        let all = r#","target_share":0.6,"stream_share":1.0,"damping":0.02"#;
        assert_eq!(without(all), [1.0, 0.0, 0.01]);
    }

    #[test]
    fn an_amount_that_the_criterion_does_not_support_is_refused() {
        let sparsity = Sparsity::try_from(0.5).expect("a share");
        let tile = Scope::Tile { block_size: 8 };
        let calibration: Calibration =
            serde_json::from_str(&CALIBRATION[14..]).expect("a calibration");
        let wanda = Criterion::Wanda(calibration);
        let price = Amount::Price(Price::try_from(1.0).expect("a price"));
        let over = |scope| Amount::Sparsity { sparsity, scope };
        for (criterion, amount, fits) in [
            (Criterion::Magnitude, over(tile), true),
            (Criterion::Magnitude, price, false),
            (Criterion::Magnitude, Amount::Emergent, false),
            (wanda, over(Scope::Model), true),
            (wanda, over(tile), false),
            (wanda, Amount::Emergent, false),
            (wanda, price, true),
        ] {
            assert_eq!(Method::new(criterion, amount).is_ok(), fits, "{criterion:?} {amount:?}");
        }
    }

    #[test]
    fn needs_follow_from_criterion_and_amount() {
        let needs = |form: &str| {
            let form = form.replace('$', CALIBRATION);
            serde_json::from_str::<Method>(&form).expect("a method").needs()
        };
        let flow = needs(r#"{"name":"activation-flow","sparsity":0.5,$}"#);
        assert!(
            flow.gradients && flow.refits && flow.dense_stream && flow.gram && flow.along_inputs
        );
        let pattern = needs(r#"{"name":"activation-flow","pattern":"2:4",$}"#);
        assert!(!pattern.gradients && pattern.refits);
        let wanda = needs(r#"{"name":"wanda","sparsity":0.5,$}"#);
        assert!(!wanda.gradients && !wanda.refits && !wanda.gram && wanda.calibration.is_some());
        assert!(needs(r#"{"name":"wanda","model-sparsity":0.5,$}"#).gradients);
        let tile = needs(r#"{"name":"magnitude","sparsity":0.5,"scope":"tile","block_size":64}"#);
        assert_eq!((tile.tile_edge, tile.along_inputs), (Some(64), false));
    }
}
