//! An evaluation in parts gives what one without them gives.

use std::fs;
use std::path::PathBuf;

use physarium::checkpoint::BosPlace;
use physarium::{
    Cancel, Error, EvalRequest, Evaluation, PartsScored, PartsShare, Share, Silent, evaluate,
    evaluate_in_parts, score_parts,
};

use crate::StopAfter;

/// The demo model on five parts of its held-out text.
struct Demo {
    model: PathBuf,
    text: PathBuf,
    dir: tempfile::TempDir,
}

impl Demo {
    fn new() -> Demo {
        let demo = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../demo");
        let dir = tempfile::tempdir().unwrap();
        Demo { model: demo.join("model"), text: demo.join("heldout.txt"), dir }
    }

    fn request(&self) -> EvalRequest<'_> {
        EvalRequest {
            model: &self.model,
            against: Some(&self.model),
            text: &self.text,
            field: None,
            window: Some(512),
            stride: Some(400),
            limit: Some(32_000),
            bos: BosPlace::Text,
            threads: 2,
            arithmetic: None,
        }
    }

    fn parts(&self) -> PathBuf {
        self.dir.path().join("parts")
    }

    fn evaluate(&self) -> Result<Evaluation, Error> {
        evaluate_in_parts(&self.request(), &self.parts(), &Cancel::default(), &mut Silent)
    }

    fn score(&self, index: usize, count: usize) -> PartsScored {
        let (dir, share) = (self.parts(), Share::new(index, count).unwrap());
        let parts = PartsShare { dir: &dir, share };
        score_parts(&self.request(), parts, &Cancel::default(), &mut Silent).unwrap()
    }
}

/// Everything but what was measured of the process.
fn numbers(evaluation: &Evaluation) -> String {
    let mut json = serde_json::to_value(evaluation).unwrap();
    for measured in ["seconds", "tokens_per_second", "peak_rss_bytes"] {
        assert!(json.as_object_mut().unwrap().remove(measured).is_some());
    }
    json.to_string()
}

#[test]
fn workers_share_the_parts_of_an_evaluation() {
    let demo = Demo::new();
    let whole = evaluate(&demo.request(), &Cancel::default(), &mut Silent).unwrap();
    assert_eq!(demo.score(2, 3), PartsScored { scored: 1, kept: 0, of: 5 });
    assert_eq!(demo.score(0, 3), PartsScored { scored: 2, kept: 0, of: 5 });
    assert_eq!(demo.score(0, 3), PartsScored { scored: 0, kept: 2, of: 5 });
    // A damaged record counts as none.
    let damaged = demo.parts().join("part-00004.json");
    let text = fs::read_to_string(&damaged).unwrap();
    let changed = text.replacen("\"nll\":4", "\"nll\":3", 1);
    assert_ne!(changed, text);
    fs::write(&damaged, changed).unwrap();
    let together = demo.evaluate().unwrap();
    assert_eq!(numbers(&together), numbers(&whole));
    assert_eq!(together.tokens, whole.tokens);
    assert_eq!(demo.score(1, 2), PartsScored { scored: 0, kept: 2, of: 5 });
}

#[test]
fn an_evaluation_that_is_stopped_goes_on_where_it_was() {
    let demo = Demo::new();
    let cancel = Cancel::default();
    let mut progress = StopAfter { tokens: 20_000, cancel: cancel.clone(), done: 0 };
    let partial =
        evaluate_in_parts(&demo.request(), &demo.parts(), &cancel, &mut progress).unwrap();
    assert!(partial.partial);
    assert_eq!(demo.score(0, 1).kept, 2);
    let whole = evaluate(&demo.request(), &Cancel::default(), &mut Silent).unwrap();
    assert_eq!(partial.tokens[..], whole.tokens[..partial.tokens.len()]);
    assert_eq!(numbers(&demo.evaluate().unwrap()), numbers(&whole));
}

#[test]
fn other_parts_and_other_files_are_refused() {
    let demo = Demo::new();
    demo.score(0, 5);
    let other = EvalRequest { window: Some(256), stride: None, ..demo.request() };
    let refused = evaluate_in_parts(&other, &demo.parts(), &Cancel::default(), &mut Silent);
    let said = refused.unwrap_err().to_string();
    assert!(said.contains("another evaluation, which differs in: evaluation"), "{said}");
    fs::remove_file(demo.parts().join("physarium.eval-parts.json")).unwrap();
    let said = demo.evaluate().unwrap_err().to_string();
    assert!(said.contains("expected an empty directory"), "{said}");
}
