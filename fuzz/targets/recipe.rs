//! The recipe in journals and manifests. Input: its JSON.
//!
//! A recipe that is accepted reads back what it writes, and can be described.
#![no_main]

use libfuzzer_sys::fuzz_target;
use physarium::checkpoint::{Recipe, TargetNames, printable};
use physarium::method_in_words;
use physarium_fuzz::{half, read_twice, scratch, two_of_four, write_model, write_seeds};

const CALIBRATION: &str = r#""calibration":{"text_sha256":"0000000000000000000000000000000000000000000000000000000000000000","tokens":512,"window":256,"seed":7}},"target":["*.q_proj.weight"],"skip":["*.0.*"],"non_finite":"keep"}"#;

fn seeds() {
    let dir = scratch("recipe");
    write_model(&dir);
    let text = |options: physarium::RecipeOptions| {
        let recipe = options.recipe(&dir, None).expect("a recipe");
        serde_json::to_vec(&recipe).expect("JSON")
    };
    let calibrated = |method: &str| format!("{{\"method\":{{{method},{CALIBRATION}").into_bytes();
    write_seeds(&[
        ("flow", text(physarium::RecipeOptions::default())),
        ("half", text(half())),
        ("pattern", text(two_of_four())),
        ("wanda", calibrated(r#""name":"wanda","sparsity":0.5"#)),
        ("sparsegpt", calibrated(r#""name":"sparsegpt","pattern":"4:8""#)),
        ("activation-flow", calibrated(r#""name":"activation-flow","price":0.02"#)),
        ("model", calibrated(r#""name":"activation-flow","model-sparsity":0.7"#)),
    ]);
}

fuzz_target!(init: seeds(), |data: &[u8]| {
    // Its readers escape the message.
    let read = || serde_json::from_slice::<Recipe>(data).map_err(|e| printable(&e.to_string()));
    let Some(recipe) = read_twice(read) else { return };
    let text = serde_json::to_string(&recipe).expect("a recipe is JSON");
    assert_eq!(serde_json::from_str::<Recipe>(&text).expect("reads back"), recipe);
    let needs = recipe.needs();
    assert_eq!(needs.calibration, recipe.method.criterion().calibration());
    method_in_words(&recipe);
    read_twice(|| TargetNames::new(&recipe.selection()).map(|_| ()));
});
