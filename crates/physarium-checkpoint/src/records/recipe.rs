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
#[serde(try_from = "RecipeKeys")]
pub struct Recipe {
    /// The criterion and the amount.
    pub method: Method,
    /// `--target` globs; empty means the default projections.
    pub target: Vec<String>,
    /// `--skip` globs.
    pub skip: Vec<String>,
    /// How NaN and infinite weights in a target are handled.
    pub non_finite: NonFinite,
    /// The arithmetic of an activation-aware method. `None` for other methods, and in records of earlier versions, which
    /// do not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arithmetic: Option<Arithmetic>,
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

/// The keys of a recipe in a record or a recipe file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RecipeKeys {
    method: Method,
    target: Vec<String>,
    skip: Vec<String>,
    non_finite: NonFinite,
    arithmetic: Option<Arithmetic>,
}

impl TryFrom<RecipeKeys> for Recipe {
    type Error = String;

    fn try_from(keys: RecipeKeys) -> Result<Recipe, String> {
        let RecipeKeys { method, target, skip, non_finite, arithmetic } = keys;
        let (name, uses_activations) =
            (method.criterion().name(), method.needs().calibration.is_some());
        if !uses_activations && arithmetic.is_some() {
            return Err(format!("key \"arithmetic\": not a key of method {name}"));
        }
        if uses_activations && non_finite == NonFinite::Keep {
            return Err(format!(
                "key \"non_finite\": expected \"refuse\" with method {name}, found \"keep\""
            ));
        }
        Ok(Recipe { method, target, skip, non_finite, arithmetic })
    }
}

/// The arithmetic of products of activations. Results of one arithmetic have the same bytes on every machine that has
/// it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Arithmetic {
    /// Float32, which every machine has.
    F32,
    /// Float32, but a calibration rounds activations to BF16, on AVX-512 BF16.
    Bf16,
    /// Activations as sums of two BF16 numbers, on Intel AMX.
    Bf16x2,
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
    use crate::records::from_json;
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
            arithmetic: None,
        };
        let text = serde_json::to_string(&recipe).expect("serialises");
        assert_eq!(serde_json::from_str::<Recipe>(&text).expect("reads back"), recipe);
    }

    const FLOW: &str =
        r#"{"name":"magnitude-flow","block_size":256,"iterations":30,"beta":2.0,"inflow":5.16}"#;
    const TENSOR: &str = r#"{"name":"magnitude","sparsity":0.5,"scope":"tensor"}"#;
    const WANDA: &str = r#"{"name":"wanda","sparsity":0.5,"calibration":{"text_sha256":"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","tokens":8,"window":4,"seed":0}}"#;

    const STEPS: &str = r#"{"name":"activation-flow","price":0.02,"calibration":{"text_sha256":"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","tokens":8,"window":4,"seed":0},"flow":{"steps":12,"coupling":[0.4,0.5],"levels":2,"exponent":[1.4,32.0],"refit_steps":6,"target_share":0.6,"stream_share":1.0,"damping":0.02}}"#;

    fn read(method: &str, rest: &str) -> Result<Recipe, String> {
        from_json(format!(r#"{{"method":{method},{rest}}}"#).as_bytes())
    }

    #[test]
    fn unknown_conflicting_and_out_of_range_keys_are_refused_by_name() {
        let rest = r#""target":[],"skip":[],"non_finite":"refuse""#;
        for (method, old, new, needles) in [
            (FLOW, "}", r#","sparsity":0.5}"#, &["method", "\"sparsity\"", "magnitude-flow"][..]),
            (FLOW, "}", r#","betta":2.0}"#, &["method.betta", "unknown field", "expected"]),
            (FLOW, ":256", ":0", &["\"block_size\"", "1 or more, found 0"]),
            (FLOW, ":256", ":-1", &["method.block_size", "-1", "expected u64"]),
            (FLOW, ":30", ":0", &["\"iterations\"", "found 0"]),
            (FLOW, ":2.0", ":1.0", &["\"beta\"", "above 1, found 1"]),
            (FLOW, ":2.0", ":\"2\"", &["method.beta", "expected f64"]),
            (FLOW, ":2.0", ":null", &["method.beta", "null"]),
            (FLOW, ":5.16", ":-5.16", &["\"inflow\"", "above 0, found -5.16"]),
            (FLOW, r#","beta":2.0"#, "", &["\"beta\"", "found none"]),
            (FLOW, "magnitude-flow", "magnitudeflow", &["method.name", "magnitudeflow"]),
            (TENSOR, ":0.5", ":1.5", &["method.sparsity", "between 0 and 1, found 1.5"]),
            (TENSOR, ":0.5", ":-0.5", &["method.sparsity", "found -0.5"]),
            (TENSOR, "}", r#","sparsity":0.6}"#, &["duplicate field `sparsity`"]),
            (
                TENSOR,
                "}",
                r#","pattern":"2:4"}"#,
                &["\"pattern\"", "not a key of method magnitude"],
            ),
            (TENSOR, "}", r#","block_size":8}"#, &["\"block_size\"", "without scope tile"]),
            (TENSOR, "tensor", "tile", &["\"block_size\"", "found none"]),
            (TENSOR, r#""tensor""#, r#""tile","block_size":0"#, &["\"block_size\"", "found 0"]),
            (TENSOR, r#","scope":"tensor""#, "", &["\"scope\"", "found none"]),
            (WANDA, r#","calib"#, r#","pattern":"2:4","calib"#, &["one amount", "\"pattern\""]),
            (WANDA, r#""sparsity":0.5,"#, "", &["\"sparsity\"", "found none"]),
            (WANDA, ":4", ":1", &["calibration.window", "found 1"]),
            (WANDA, ":8", ":3", &["calibration.tokens", "found 3"]),
            (WANDA, ":8", ":8,\"stride\":2", &["method.calibration.stride", "unknown field"]),
            (WANDA, "}}", r#"},"flow":{}}"#, &["missing field `steps`"]),
            (STEPS, "activation-flow", "wanda", &["\"flow\"", "not a key of method wanda"]),
            (STEPS, ":12", ":1", &["\"flow.steps\"", "2 to 10000, found 1"]),
            (STEPS, ":2,", ":13,", &["\"flow.levels\"", "found 13"]),
            (STEPS, "0.5]", "0.0]", &["\"flow.coupling\"", "found 0"]),
            (STEPS, "32.0", "1e9", &["\"flow.exponent\"", "found 1000000000"]),
            (
                STEPS,
                "\"target_share\":0.6",
                "\"target_share\":1.5",
                &["\"flow.target_share\"", "found 1.5"],
            ),
            (
                STEPS,
                "\"stream_share\":1",
                "\"stream_share\":2",
                &["\"flow.stream_share\"", "found 2"],
            ),
            (STEPS, ":0.02}", ":0.0}", &["\"flow.damping\"", "found 0"]),
            (STEPS, ":6,", ":10001,", &["\"flow.refit_steps\"", "found 10001"]),
            (STEPS, ":0.02}", ":0.02,\"betta\":1}", &["betta", "unknown field"]),
            (WANDA, "}}", r#"},"scope":"model"}"#, &["\"scope\"", "not a key of method wanda"]),
        ] {
            assert!(read(method, rest).is_ok(), "{method}");
            let text = method.replacen(old, new, 1);
            assert_ne!(text, method, "{old}");
            let why = read(&text, rest).expect_err(&text);
            for needle in needles {
                assert!(why.contains(needle), "{text}: no {needle} in {why}");
            }
        }
    }

    #[test]
    fn keys_beside_the_method_are_checked_too() {
        for (rest, needle) in [
            (r#""target":[],"skip":[],"non_finite":"keep""#, "\"non_finite\": expected \"refuse\""),
            (r#""target":[],"skip":[],"non_finite":"refuse","seed":1"#, "unknown field `seed`"),
            (r#""target":[],"skip":3,"non_finite":"refuse""#, "skip"),
            (r#""target":[],"non_finite":"refuse""#, "missing field `skip`"),
            (
                r#""target":[],"skip":[],"non_finite":"refuse","arithmetic":"f16""#,
                "expected one of `f32`, `bf16`, `bf16x2`",
            ),
        ] {
            let why = read(WANDA, rest).expect_err(rest);
            assert!(why.contains(needle), "{rest}: no {needle} in {why}");
        }
    }

    #[test]
    fn the_arithmetic_is_recorded_for_activation_aware_methods_only() {
        let rest = r#""target":[],"skip":[],"non_finite":"refuse""#;
        for (name, arithmetic) in
            [("f32", Arithmetic::F32), ("bf16", Arithmetic::Bf16), ("bf16x2", Arithmetic::Bf16x2)]
        {
            let rest = format!(r#"{rest},"arithmetic":"{name}""#);
            let recipe = read(WANDA, &rest).expect("a recipe");
            assert_eq!(recipe.arithmetic, Some(arithmetic));
            let text = serde_json::to_string(&recipe).expect("serialises");
            assert_eq!(text, format!(r#"{{"method":{WANDA},{rest}}}"#));
            let why = read(TENSOR, &rest).expect_err("refused");
            assert!(why.contains("\"arithmetic\": not a key of method magnitude"), "{why}");
        }
        // A record of an earlier version.
        assert_eq!(read(WANDA, rest).expect("a recipe").arithmetic, None);
    }
}
