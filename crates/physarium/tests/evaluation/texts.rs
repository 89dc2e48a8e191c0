//! An evaluation that is cancelled returns what it has.

use std::path::PathBuf;

use physarium::checkpoint::BosPlace;
use physarium::{Cancel, Error, EvalRequest, Silent, evaluate};

use crate::StopAfter;

#[test]
fn a_cancelled_evaluation_returns_its_scored_windows() {
    let demo = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../demo");
    let (model, text) = (demo.join("model"), demo.join("heldout.txt"));
    let request = EvalRequest {
        model: &model,
        against: None,
        text: &text,
        field: None,
        window: Some(512),
        stride: None,
        limit: Some(20_480),
        bos: BosPlace::Text,
        threads: 2,
        arithmetic: None,
    };
    let stop_after = |tokens| {
        let cancel = Cancel::default();
        let mut progress = StopAfter { tokens, cancel: cancel.clone(), done: 0 };
        evaluate(&request, &cancel, &mut progress)
    };
    let whole = evaluate(&request, &Cancel::default(), &mut Silent).unwrap();
    assert_eq!((whole.windows, whole.partial), (40, false));
    let partial = stop_after(10_000).unwrap();
    assert_eq!((partial.windows, partial.partial), (16, true));
    assert_eq!(partial.tokens[..], whole.tokens[..16 * 511]);
    assert!(matches!(stop_after(10), Err(Error::Stopped)));
}

#[test]
fn windows_and_strides_out_of_range_are_refused() {
    let demo = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../demo");
    let (model, text) = (demo.join("model"), demo.join("heldout.txt"));
    for (window, stride) in [(0, 1), (1, 1), (513, 1), (64, 0), (64, 65)] {
        let request = EvalRequest {
            model: &model,
            against: None,
            text: &text,
            field: None,
            window: Some(window),
            stride: Some(stride),
            limit: None,
            bos: BosPlace::Text,
            threads: 2,
            arithmetic: None,
        };
        let refused = evaluate(&request, &Cancel::default(), &mut Silent);
        assert!(matches!(refused, Err(Error::Usage(_))), "{window} {stride}: {refused:?}");
    }
}

#[test]
fn the_score_of_a_token_does_not_depend_on_how_many_are_scored_with_it() {
    let demo = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../demo");
    let (model, text) = (demo.join("model"), demo.join("heldout.txt"));
    let first_window = |tokens| {
        let request = EvalRequest {
            model: &model,
            against: None,
            text: &text,
            field: None,
            window: Some(tokens),
            stride: None,
            limit: Some(tokens),
            bos: BosPlace::Text,
            threads: 2,
            arithmetic: None,
        };
        evaluate(&request, &Cancel::default(), &mut Silent).unwrap().tokens
    };
    // The head takes 256 rows at a time: the last token of 258 would be alone.
    assert_eq!(first_window(258)[..], first_window(300)[..257]);
}
