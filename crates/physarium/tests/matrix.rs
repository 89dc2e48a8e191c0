//! One matrix in memory: what a run makes of the same weights, for every method that needs no activations.
#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::path::Path;

use physarium::checkpoint::Checkpoint;
use physarium::{
    Cancel, Error, MatrixRequest, MethodName, Options, Output, RecipeOptions, ScopeName, Silent,
    Surgery, prune_matrix,
};
use physarium_fixtures::{Fill, Kind, Tensor, write_checkpoint};

/// Neither a multiple of the tiles' side nor of a group.
const SHAPE: [usize; 2] = [150, 130];
const NAME: &str = "model.layers.0.mlp.up_proj.weight";

fn weights_of(model: &Path) -> Vec<f32> {
    let checkpoint = Checkpoint::open(model).unwrap();
    let (shard, tensor) = checkpoint.tensors().find(|(_, tensor)| tensor.name == NAME).unwrap();
    let mut bytes = vec![0; tensor.size_bytes() as usize];
    shard.reopen().unwrap().read_exact_at(&mut bytes, tensor.begin).unwrap();
    bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

fn request<'a>(weights: &'a [f32], options: &'a RecipeOptions) -> MatrixRequest<'a> {
    MatrixRequest { weights, shape: SHAPE, gram: None, options, threads: 2 }
}

fn every_rule() -> Vec<RecipeOptions> {
    let sparsity = Some("0.4".parse().unwrap());
    let pattern = Some("2:4".parse().unwrap());
    let none = RecipeOptions::default;
    let magnitude = MethodName::Magnitude;
    vec![
        none(),
        RecipeOptions { block_size: Some(64), iterations: Some(9), ..none() },
        RecipeOptions { sparsity, block_size: Some(50), ..none() },
        RecipeOptions { sparsity, method: magnitude, ..none() },
        RecipeOptions { sparsity, method: magnitude, scope: Some(ScopeName::Tile), ..none() },
        RecipeOptions { pattern, ..none() },
    ]
}

#[test]
fn a_matrix_is_pruned_as_in_a_run() {
    let work = tempfile::tempdir().unwrap();
    let model = work.path().join("model");
    let tensor = Tensor::new(NAME, Kind::F32, &SHAPE.map(|size| size as u64));
    write_checkpoint(&model, &[tensor], 1, Fill::Gaussian(7)).unwrap();
    let weights = weights_of(&model);
    for (number, options) in every_rule().into_iter().enumerate() {
        let out = work.path().join(format!("out-{number}"));
        let recipe = options.recipe(&model, None).unwrap();
        let surgery = Surgery::plan(&model, recipe, Options::default()).unwrap();
        surgery.prune(Output::new(&out), &Cancel::default(), &mut Silent).unwrap();
        let found = prune_matrix(&request(&weights, &options), &Cancel::default()).unwrap();
        let bits = |weights: &[f32]| weights.iter().map(|w| w.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&found), bits(&weights_of(&out)), "{options:?}");
        assert_ne!(found, weights, "{options:?}");
    }
}

#[test]
fn a_cancelled_call_has_no_result() {
    let weights = vec![1.0; SHAPE[0] * SHAPE[1]];
    let cancel = Cancel::default();
    cancel.raise();
    let gram: Vec<f32> =
        (0..SHAPE[1] * SHAPE[1]).map(|i| if i % (SHAPE[1] + 1) == 0 { 1.0 } else { 0.0 }).collect();
    let sparsity = Some("0.5".parse().unwrap());
    for method in [MethodName::Wanda, MethodName::SparseGpt, MethodName::ActivationFlow] {
        let options = RecipeOptions { method, sparsity, ..RecipeOptions::default() };
        let request = MatrixRequest { gram: Some(&gram), ..request(&weights, &options) };
        assert!(matches!(prune_matrix(&request, &cancel), Err(Error::Stopped)), "{method:?}");
        assert!(prune_matrix(&request, &Cancel::default()).is_ok());
    }
    let options = RecipeOptions::default();
    assert!(matches!(prune_matrix(&request(&weights, &options), &cancel), Err(Error::Stopped)));
}
