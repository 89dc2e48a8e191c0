//! Options of a recipe: every method with every amount, and every option that has no effect.
#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::path::{Path, PathBuf};

use physarium::checkpoint::{Arithmetic, Criterion, Method, NonFinite, Recipe};
use physarium::{
    Allocation, CalibrationOptions, CalibrationText, Case, Effort, Error, MethodName, NoEffect,
    Options, RecipeError, RecipeOption, RecipeOptions, ScopeName, Surgery, method_in_words,
};

use MethodName::{ActivationFlow, Magnitude, MagnitudeFlow, SparseGpt, Wanda};

const METHODS: [MethodName; 5] = [MagnitudeFlow, Magnitude, Wanda, SparseGpt, ActivationFlow];

/// What sets how much is pruned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Given {
    Nothing,
    Sparsity,
    Pattern,
    Price,
}

const AMOUNTS: [Given; 4] = [Given::Nothing, Given::Sparsity, Given::Pattern, Given::Price];

fn demo() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../demo")
}

fn text() -> CalibrationText {
    CalibrationText::read(&demo().join("calibration.txt"), None).unwrap()
}

fn options(method: MethodName, given: Given) -> RecipeOptions {
    let mut options = RecipeOptions { method, ..RecipeOptions::default() };
    match given {
        Given::Nothing => {}
        Given::Sparsity => options.sparsity = "0.5".parse().ok(),
        Given::Pattern => options.pattern = "2:4".parse().ok(),
        Given::Price => options.price = "0.1".parse().ok(),
    }
    options
}

fn recipe(options: &RecipeOptions, text: &CalibrationText) -> Result<Recipe, RecipeError> {
    match options.recipe(&demo().join("model"), Some(text)) {
        Ok(recipe) => Ok(recipe),
        Err(Error::Recipe(e)) => Err(e),
        Err(e) => panic!("{e}"),
    }
}

/// Whether the method can be used with an amount that is set like this.
fn is_valid(method: MethodName, given: Given) -> bool {
    match given {
        Given::Nothing => matches!(method, MagnitudeFlow | ActivationFlow),
        Given::Sparsity | Given::Pattern => true,
        Given::Price => method.is_activation_aware(),
    }
}

/// Options whose effect the test below knows by itself, without the table of the library.
const FLOW: &[RecipeOption] = &[RecipeOption::Iterations, RecipeOption::Beta, RecipeOption::Inflow];
/// The same for a calibrated run.
const CALIBRATION: &[RecipeOption] = &[
    RecipeOption::CalibrationTokens,
    RecipeOption::Window,
    RecipeOption::Seed,
    RecipeOption::Arithmetic,
];
/// Options that have no effect with some method. Those that set the amount exclude each other instead.
const OTHERS: &[RecipeOption] = &[
    RecipeOption::Allocation,
    RecipeOption::Effort,
    RecipeOption::Scope,
    RecipeOption::BlockSize,
    RecipeOption::AllowNonfinite,
];

/// The options of [`FLOW`], [`CALIBRATION`] and [`OTHERS`] that have no effect.
fn without_effect(method: MethodName, given: Given) -> Vec<RecipeOption> {
    use RecipeOption::{Allocation, AllowNonfinite, BlockSize, Scope};
    let (others, groups): (&[RecipeOption], &[&[RecipeOption]]) = match (method, given) {
        (MagnitudeFlow, Given::Nothing) => (&[Allocation, Scope], &[CALIBRATION]),
        (MagnitudeFlow, Given::Sparsity) => (&[Allocation], &[FLOW, CALIBRATION]),
        (Magnitude, Given::Sparsity) => (&[Allocation, BlockSize], &[FLOW, CALIBRATION]),
        (MagnitudeFlow | Magnitude, _) => (&[Allocation, Scope, BlockSize], &[FLOW, CALIBRATION]),
        (_, Given::Sparsity) => (&[Scope, BlockSize, AllowNonfinite], &[FLOW]),
        (_, _) => (&[Allocation, Scope, BlockSize, AllowNonfinite], &[FLOW]),
    };
    let effort = (method != ActivationFlow).then_some(&RecipeOption::Effort);
    others.iter().chain(effort).chain(groups.iter().copied().flatten()).copied().collect()
}

#[test]
fn no_option_is_missing_here() {
    use RecipeOption::{Calibration, Method, Pattern, Price, Sparsity};
    for option in RecipeOption::ALL {
        let elsewhere = [Method, Calibration, Sparsity, Pattern, Price].contains(&option);
        let here = [FLOW, CALIBRATION, OTHERS].concat().contains(&option);
        assert!(elsewhere != here, "{}", option.name());
    }
}

#[test]
fn the_table_says_what_the_recipe_does() {
    let amount = |given| match given {
        Given::Nothing => None,
        Given::Sparsity => Some(RecipeOption::Sparsity),
        Given::Pattern => Some(RecipeOption::Pattern),
        Given::Price => Some(RecipeOption::Price),
    };
    for method in METHODS {
        for given in AMOUNTS.into_iter().filter(|given| is_valid(method, *given)) {
            let case = Case::new(method, amount(given));
            for option in [FLOW, CALIBRATION, OTHERS].concat() {
                let refused = without_effect(method, given).contains(&option);
                assert_eq!(case.effect_of(option).is_err(), refused, "{case:?} {option:?}");
            }
            let text = case.effect_of(RecipeOption::Calibration);
            assert_eq!(text.is_ok(), method.is_activation_aware());
        }
    }
}

/// Gives an option another value than its default.
fn set(options: &mut RecipeOptions, option: RecipeOption) {
    match option {
        RecipeOption::Method => unreachable!("every method is tested"),
        RecipeOption::Sparsity => options.sparsity = "0.3".parse().ok(),
        RecipeOption::Pattern => options.pattern = "1:4".parse().ok(),
        RecipeOption::Price => options.price = "0.3".parse().ok(),
        RecipeOption::Effort => options.effort = Some(Effort::Quick),
        RecipeOption::Allocation => options.allocation = Some(Allocation::Flow),
        RecipeOption::Scope => options.scope = Some(ScopeName::Model),
        RecipeOption::BlockSize => options.block_size = Some(8),
        RecipeOption::Iterations => options.iterations = Some(7),
        RecipeOption::Beta => options.beta = Some(3.0),
        RecipeOption::Inflow => options.inflow = Some(4.0),
        RecipeOption::Calibration => unreachable!("the text is no option of the recipe"),
        RecipeOption::CalibrationTokens => options.calibration.tokens = Some(512),
        RecipeOption::Window => options.calibration.window = Some(64),
        RecipeOption::Seed => options.calibration.seed = Some(9),
        RecipeOption::Arithmetic => {
            // Whether the machine has it is no question of the recipe.
            options.arithmetic = Some(match physarium::model::Arithmetic::of_machine() {
                physarium::model::Arithmetic::F32 => Arithmetic::Bf16x2,
                _ => Arithmetic::F32,
            });
        }
        RecipeOption::AllowNonfinite => options.non_finite = Some(NonFinite::Keep),
    }
}

#[test]
fn every_option_changes_the_recipe_or_is_refused() {
    let text = text();
    for method in METHODS {
        for given in AMOUNTS.into_iter().filter(|given| is_valid(method, *given)) {
            let base = options(method, given);
            let expected = recipe(&base, &text).unwrap();
            let refused = without_effect(method, given);
            for option in [FLOW, CALIBRATION, OTHERS].concat() {
                let mut changed = base.clone();
                set(&mut changed, option);
                let context = format!("{} with {given:?}: {}", method.text(), option.name());
                match recipe(&changed, &text) {
                    Ok(recipe) => {
                        assert!(!refused.contains(&option), "{context} is accepted");
                        assert_ne!(recipe, expected, "{context} is ignored");
                    }
                    Err(e @ RecipeError::NoEffect { .. }) => {
                        assert!(refused.contains(&option), "{context} is refused");
                        let begins = format!("{} has no effect", option.name());
                        let why = e.to_string();
                        assert!(
                            why.len() > begins.len() && why.starts_with(&begins),
                            "{context}: {why}"
                        );
                    }
                    Err(e) => panic!("{context}: {e}"),
                }
            }
        }
    }
}

#[test]
fn the_block_size_needs_tiles() {
    let text = text();
    for (method, scope) in [
        (MagnitudeFlow, ScopeName::Tensor),
        (MagnitudeFlow, ScopeName::Model),
        (Magnitude, ScopeName::Tensor),
        (Magnitude, ScopeName::Model),
    ] {
        let base = options(method, Given::Sparsity);
        let scoped = RecipeOptions { scope: Some(scope), block_size: Some(8), ..base.clone() };
        let (option, why) = (RecipeOption::BlockSize, NoEffect::NoTiles);
        assert_eq!(recipe(&scoped, &text), Err(RecipeError::NoEffect { option, why }));
        let tiles = RecipeOptions { scope: Some(ScopeName::Tile), block_size: Some(8), ..base };
        assert_eq!(recipe(&tiles, &text).unwrap().needs().tile_edge, Some(8));
    }
}

#[test]
fn options_that_set_the_amount_exclude_each_other() {
    let text = text();
    let amounts = [RecipeOption::Sparsity, RecipeOption::Pattern, RecipeOption::Price];
    for method in METHODS {
        for (first, with) in amounts.into_iter().enumerate() {
            for option in amounts.into_iter().skip(first + 1) {
                let mut both = options(method, Given::Nothing);
                set(&mut both, with);
                set(&mut both, option);
                assert_eq!(recipe(&both, &text), Err(RecipeError::Conflict { option, with }));
            }
        }
    }
}

#[test]
fn an_option_that_a_method_needs_is_named() {
    let text = text();
    let calibrated = [RecipeOption::Sparsity, RecipeOption::Pattern, RecipeOption::Price];
    for (method, one_of) in
        [(Magnitude, &calibrated[..2]), (Wanda, &calibrated), (SparseGpt, &calibrated)]
    {
        match recipe(&options(method, Given::Nothing), &text) {
            Err(RecipeError::Missing { method: named, one_of: options }) => {
                assert_eq!((named, &options[..]), (method, one_of));
            }
            other => panic!("{}: {other:?}", method.text()),
        }
    }
    for method in [MagnitudeFlow, Magnitude] {
        let (option, why) = (RecipeOption::Price, NoEffect::WeightsOnly);
        let priced = recipe(&options(method, Given::Price), &text);
        assert_eq!(priced, Err(RecipeError::NoEffect { option, why }));
    }
    for method in [Wanda, SparseGpt, ActivationFlow] {
        let one_of = vec![RecipeOption::Calibration];
        let without_text = options(method, Given::Sparsity).build(None);
        assert_eq!(without_text, Err(RecipeError::Missing { method, one_of }));
    }
}

/// The method as manifests hold it, with `$` for the calibration.
fn expected(method: MethodName, given: Given) -> String {
    match (method, given) {
        (MagnitudeFlow, Given::Nothing) => {
            r#"{"name":"magnitude-flow","block_size":256,"iterations":30,"beta":2.0,"inflow":5.16}"#
                .to_owned()
        }
        (MagnitudeFlow, Given::Sparsity) => {
            r#"{"name":"magnitude","sparsity":0.5,"scope":"tile","block_size":256}"#.to_owned()
        }
        (Magnitude, Given::Sparsity) => {
            r#"{"name":"magnitude","sparsity":0.5,"scope":"tensor"}"#.to_owned()
        }
        (MagnitudeFlow | Magnitude, _) => {
            r#"{"name":"magnitude-pattern","pattern":"2:4"}"#.to_owned()
        }
        (method, given) => {
            let amount = match given {
                Given::Nothing => r#""price":0.02"#,
                Given::Sparsity => r#""sparsity":0.5"#,
                Given::Pattern => r#""pattern":"2:4""#,
                Given::Price => r#""price":0.1"#,
            };
            let flow = flow_of(method);
            format!(r#"{{"name":"{}",{amount},"calibration":${flow}}}"#, method.text())
        }
    }
}

/// The parameters of the standard effort.
const STANDARD: &str = r#""flow":{"steps":6,"coupling":[0.5,0.5],"levels":1,"exponent":[2.0,32.0],"refit_steps":6,"target_share":0.6,"stream_share":1.0,"damping":0.02}"#;

/// The key of a method's standard effort, if it has one.
fn flow_of(method: MethodName) -> String {
    match method {
        ActivationFlow => format!(",{STANDARD}"),
        _ => String::new(),
    }
}

#[test]
fn efforts_are_parameters_in_the_recipe() {
    let text = text();
    let mut all = Vec::new();
    for effort in Effort::ALL {
        let mut options = options(ActivationFlow, Given::Sparsity);
        options.effort = Some(effort);
        let recipe = recipe(&options, &text).unwrap();
        let Criterion::ActivationFlow { flow: Some(flow), .. } = recipe.method.criterion() else {
            panic!("{recipe:?}");
        };
        assert_eq!(Effort::of(&flow), Some(effort));
        let words = format!("activation-flow with {} effort, sparsity 0.5", effort.text());
        assert!(method_in_words(&recipe).starts_with(&words), "{}", method_in_words(&recipe));
        let written = serde_json::to_string(&recipe.method).unwrap();
        assert_eq!(serde_json::from_str::<Method>(&written).unwrap(), recipe.method);
        assert_eq!(written.contains(STANDARD), effort == Effort::Standard, "{written}");
        all.push(written);
    }
    all.dedup();
    assert_eq!(all.len(), 3);
    // The default of the solver is the standard effort.
    let flow = Effort::Standard.steps();
    let default = physarium::flow::activation::ActivationFlow::default();
    assert_eq!(
        [flow.steps, flow.refit_steps],
        [default.steps, default.refit_steps].map(|n| n as u32)
    );
    assert_eq!(flow.exponent.map(|b| b as f32), default.exponent);
    assert_eq!(flow.coupling.map(|c| c as f32), default.coupling);
    assert_eq!(flow.target_share as f32, default.target_share);
    assert_eq!(flow.damping, default.damping);
}

/// A record without parameters is of dynamics that this program does not have.
#[test]
fn a_recipe_of_earlier_dynamics_is_refused() {
    let text = text();
    let recipe = recipe(&options(ActivationFlow, Given::Sparsity), &text).unwrap();
    let written = serde_json::to_string(&recipe).unwrap();
    let earlier: Recipe =
        serde_json::from_str(&written.replace(&format!(",{STANDARD}"), "")).unwrap();
    assert_ne!(earlier, recipe);
    let why =
        Surgery::plan(&demo().join("model"), earlier, Options::default()).map(|_| ()).unwrap_err();
    assert!(why.to_string().contains("key \"flow\""), "{why}");
}

#[test]
fn every_method_with_every_amount_gives_its_recipe() {
    let text = text();
    let calibration = CalibrationOptions { tokens: Some(512), window: Some(64), seed: Some(9) };
    let used = serde_json::to_string(&text.calibration(512, 64, 9)).unwrap();
    let method_of = |options: &RecipeOptions| {
        let recipe = recipe(options, &text).unwrap();
        assert_eq!(
            (&recipe.target[..], &recipe.skip[..]),
            (&options.target[..], &options.skip[..])
        );
        assert_eq!(recipe.non_finite, NonFinite::Refuse);
        serde_json::to_string(&recipe.method).unwrap()
    };
    for method in METHODS {
        for given in AMOUNTS.into_iter().filter(|given| is_valid(method, *given)) {
            let mut options = options(method, given);
            options.skip = vec!["*.v_proj.weight".to_owned()];
            if method.is_activation_aware() {
                options.calibration = calibration;
            }
            assert_eq!(method_of(&options), expected(method, given).replace('$', &used));
        }
    }
    let scoped =
        |method, scope| RecipeOptions { scope: Some(scope), ..options(method, Given::Sparsity) };
    for method in [MagnitudeFlow, Magnitude] {
        for (scope, form) in [
            (ScopeName::Tile, r#""tile","block_size":256"#),
            (ScopeName::Tensor, r#""tensor""#),
            (ScopeName::Model, r#""model""#),
        ] {
            let expected = format!(r#"{{"name":"magnitude","sparsity":0.5,"scope":{form}}}"#);
            assert_eq!(method_of(&scoped(method, scope)), expected);
        }
    }
    for method in [Wanda, SparseGpt, ActivationFlow] {
        for (allocation, amount) in
            [(Allocation::Uniform, "sparsity"), (Allocation::Flow, "model-sparsity")]
        {
            let options = RecipeOptions {
                allocation: Some(allocation),
                calibration,
                ..options(method, Given::Sparsity)
            };
            let (name, flow) = (method.text(), flow_of(method));
            let expected =
                format!(r#"{{"name":"{name}","{amount}":0.5,"calibration":{used}{flow}}}"#);
            assert_eq!(method_of(&options), expected);
        }
    }
}
