//! Token-by-token decoding with cached keys and values gives the results of transformers.
#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

mod families;

use std::path::{Path, PathBuf};

use physarium_model::{Arithmetic, Compute, Decoder, Generation, Residency, VectorKind, vector};
use serde_json::Value;

use families::MODELS;

fn golden(name: &str) -> (PathBuf, Vec<u32>, Vec<f64>) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    let text = std::fs::read_to_string(dir.join("golden.json")).unwrap();
    let golden: Value = serde_json::from_str(&text).unwrap();
    let numbers = |field: &str| golden[field].as_array().unwrap().clone();
    let tokens = numbers("tokens").iter().map(|n| n.as_u64().unwrap() as u32).collect();
    let nll = numbers("nll").iter().map(|n| n.as_f64().unwrap()).collect();
    (dir, tokens, nll)
}

/// NLL of each token but the first. Tokens are fed in pieces of these lengths, then one by one.
fn nll(decoder: &Decoder, compute: &Compute, tokens: &[u32], pieces: &[usize]) -> Vec<Option<f64>> {
    let mut generation = Generation::new(compute, decoder, tokens.len()).unwrap();
    let mut found = vec![None; tokens.len() - 1];
    let mut pieces = pieces.iter().copied().chain(std::iter::repeat(1));
    while generation.seen() < tokens.len() - 1 {
        let begin = generation.seen();
        let end = (begin + pieces.next().unwrap()).min(tokens.len() - 1);
        let logits = generation.feed(&tokens[begin..end]).unwrap();
        found[end - 1] = Some(vector::LogSum::of(logits).nll(logits[tokens[end] as usize]));
    }
    found
}

#[test]
fn every_family_matches_transformers_token_by_token() {
    for name in MODELS {
        let (dir, tokens, expected) = golden(name);
        let decoder = Decoder::open(&dir, Residency::Resident).unwrap();
        for compute in [
            Compute::new(2).unwrap().sparing_memory(),
            Compute::with_arithmetic(1, Arithmetic::F32).unwrap(),
        ] {
            for pieces in [&[][..], &[5], &[3, 1, 20]] {
                let found = nll(&decoder, &compute, &tokens, pieces);
                for (at, (found, expected)) in found.iter().zip(&expected).enumerate() {
                    let Some(found) = found else { continue };
                    let off = (found - expected).abs();
                    assert!(off < 1e-4, "{name}, token {at}, {pieces:?}: {found}, not {expected}");
                }
            }
        }
    }
}

#[test]
fn logits_do_not_depend_on_threads_or_vectors() {
    let (dir, tokens, _) = golden("qwen2");
    let decoder = Decoder::open(&dir, Residency::Resident).unwrap();
    let logits = |compute: Compute| {
        let mut generation = Generation::new(&compute, &decoder, tokens.len()).unwrap();
        let fed = tokens.iter().map(|token| generation.feed(&[*token]).unwrap().to_vec());
        fed.last().unwrap()
    };
    let first = logits(Compute::new(1).unwrap());
    assert_eq!(first, logits(Compute::new(3).unwrap()));
    for kind in VectorKind::available() {
        assert_eq!(first, logits(Compute::new(1).unwrap().with_vectors(kind)), "{}", kind.name());
    }
}

#[test]
fn nothing_is_allocated_by_the_number_of_positions() {
    let (dir, tokens, _) = golden("qwen2-yarn");
    let decoder = Decoder::open(&dir, Residency::Streamed).unwrap();
    let compute = Compute::new(1).unwrap();
    let logits = |positions| {
        let mut generation = Generation::new(&compute, &decoder, positions).unwrap();
        generation.feed(&tokens[..5]).unwrap();
        generation.feed(&tokens[5..9]).unwrap().to_vec()
    };
    assert!(logits(usize::MAX) == logits(9));
}

#[test]
#[should_panic(expected = "more than 3")]
fn more_tokens_than_positions_are_refused() {
    let (dir, tokens, _) = golden("llama");
    let decoder = Decoder::open(&dir, Residency::Streamed).unwrap();
    let compute = Compute::new(1).unwrap();
    let _ = Generation::new(&compute, &decoder, 3).unwrap().feed(&tokens[..4]);
}
