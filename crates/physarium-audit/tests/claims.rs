//! Claims: which files are rejected, and how claims are judged by an audit with known numbers.
#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::fs;
use std::path::{Path, PathBuf};

use physarium_audit::{
    Audit, AuditRequest, Claims, Evidence, Judgement, Share, Verdict, audit, markdown, text,
};
use physarium_fixtures::{Kind, Tensor, header};
use tempfile::TempDir;

const UP: &str = "model.layers.0.mlp.up_proj.weight";
const Q: &str = "model.layers.0.self_attn.q_proj.weight";
const CROSS_Q: &str = "model.layers.0.cross_attn.q_proj.weight";

/// One weight as BF16 bits.
type Bits = u16;
const ONE: Bits = 0x3f80;

/// An original and its pruned copy:
///
/// | | elements | pruned | already zero |
/// |---|---|---|---|
/// | `mlp.up_proj` | 8 | 1 | 0 |
/// | `self_attn.q_proj` | 16 | 2 | 1 |
/// | norm | 16 | | |
struct Known {
    dir: TempDir,
}

impl Known {
    fn new() -> Known {
        let dir = tempfile::tempdir().unwrap();
        let weights = |zeros: &[usize], n: usize| -> Vec<Bits> {
            (0..n).map(|i| if zeros.contains(&i) { 0 } else { ONE }).collect()
        };
        write(&dir.path().join("base"), &[(UP, weights(&[], 8)), (Q, weights(&[3], 16))]);
        write(&dir.path().join("out"), &[(UP, weights(&[7], 8)), (Q, weights(&[0, 3, 9], 16))]);
        Known { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn audit(&self) -> Audit {
        audit_of(&self.path("out"), Some(&self.path("base")))
    }

    /// Reads and judges claims in TOML; an error is the message that users see.
    fn judge(&self, toml: impl AsRef<[u8]>, audit: &Audit) -> Result<Vec<Judgement>, String> {
        let file = self.path("claims.toml");
        fs::write(&file, toml).unwrap();
        let claims = Claims::read(&file).map_err(|e| e.to_string())?;
        claims.judge(audit).map_err(|e| e.to_string())
    }
}

/// A checkpoint of BF16 projections four wide, and a norm of 16 weights.
fn write(dir: &Path, projections: &[(&str, Vec<Bits>)]) {
    let mut tensors: Vec<Tensor> = projections
        .iter()
        .map(|(name, weights)| Tensor::new(*name, Kind::Bf16, &[weights.len() as u64 / 4, 4]))
        .collect();
    tensors.push(Tensor::new("model.norm.weight", Kind::Bf16, &[16]));
    let weights = projections.iter().flat_map(|(_, weights)| weights).chain(&[ONE; 16]);
    let data: Vec<u8> = weights.flat_map(|bits| bits.to_le_bytes()).collect();
    fs::create_dir(dir).unwrap();
    fs::write(dir.join("model.safetensors"), [header(&tensors), data].concat()).unwrap();
}

fn audit_of(dir: &Path, against: Option<&Path>) -> Audit {
    let evidence = Evidence::Bytes;
    let request = AuditRequest { dir, against, evidence, selection: None, threads: 1 };
    let audit = audit(&request, &mut |_| Ok(())).unwrap();
    assert_eq!(audit.contradiction(), None);
    audit
}

/// A claim in TOML; without a denominator if `of` is empty.
fn claim(id: &str, count: &str, value: &str, of: &str) -> String {
    let of = if of.is_empty() { String::new() } else { format!("of = \"{of}\"\n") };
    format!(
        "[[claim]]\nid = \"{id}\"\nsource = \"report\"\nsentence = \"said\"\n\
         count = \"{count}\"\nvalue = {value}\n{of}\n"
    )
}

fn judge_one(known: &Known, count: &str, value: &str, of: &str) -> Judgement {
    let mut judged = known.judge(claim("a", count, value, of), &known.audit()).unwrap();
    assert_eq!(judged.len(), 1);
    judged.remove(0)
}

#[test]
fn the_fixture_has_the_numbers_of_its_table() {
    let audit = Known::new().audit();
    assert!(audit.denominator_correct, "{:#?}", audit.identities);
    assert_eq!((audit.model.elements, audit.target.elements), (40, 24));
    assert_eq!(audit.pruned.as_ref().unwrap().elements, 3);
    assert_eq!(audit.already_zero.as_ref().unwrap().elements, 1);
}

#[test]
fn malformed_claims_files_are_rejected() {
    let known = Known::new();
    let good = |rest: &str| {
        format!("[[claim]]\nid = \"a\"\nsource = \"s\"\nsentence = \"t\"\n{rest}\n").into_bytes()
    };
    let value = |value: &str| good(&format!("count = \"pruned\"\nvalue = {value}"));
    let mut cases: Vec<(Vec<u8>, &str)> = vec![
        (b"".to_vec(), "no claims, expected at least one [[claim]]"),
        (b"# nothing here\n".to_vec(), "no claims"),
        (b"\xff\xfe".to_vec(), "not UTF-8"),
        (b"[[claim]".to_vec(), "expected"),
        (b"claim = 1".to_vec(), "invalid type"),
        (b"[[claims]]\nid = \"a\"".to_vec(), "unknown field `claims`"),
        (b"title = \"x\"".to_vec(), "unknown field `title`"),
        (b"[[claim]]\nid = 1".to_vec(), "invalid type"),
        (b"[[claim]]\nid = \"a\"".to_vec(), "missing field `source`"),
        (good("value = 1"), "missing field `count`"),
        (good("count = \"pruned\""), "missing field `value`"),
        (good("count = \"coverage\"\nvalue = 1"), "unknown variant `coverage`"),
        (good("count = \"Pruned\"\nvalue = 1"), "unknown variant `Pruned`"),
        (good("count = \"pruned\"\nvalue = 1\nwhole = \"x\""), "unknown field `whole`"),
        (good("count = \"pruned\"\nvalue = 1\nof = 3"), "invalid type"),
        (good("count = \"pruned\"\nvalue = 1\nvalue = 2"), "duplicate key"),
        (value("-1"), "must not be negative, found -1"),
        (value("18446744073709551615"), ""),
        ([value("1"), value("1")].concat(), "claim a: duplicate id"),
    ];
    for bad in ["1.5", "true", "[1]", "{a = 1}", "1e3", "nan", "2026-11-23"] {
        cases.push((value(bad), "value must be an integer or a percentage as text, found"));
    }
    for bad in [
        "22.22",
        "22,22 %",
        ".5 %",
        "5. %",
        "-1 %",
        "+1 %",
        "%",
        " %",
        "1e3 %",
        "",
        "1 2 %",
        "1.2.3 %",
        "NaN %",
        "0x1 %",
        "1234567890 %",
        "1.1234567890 %",
        "1 per cent",
    ] {
        cases.push((value(&format!("\"{bad}\"")), "value must be like \"22.22 %\", or a count"));
    }
    for (toml, needle) in cases {
        let shown = String::from_utf8_lossy(&toml).into_owned();
        let error = known.judge(&toml, &known.audit()).expect_err(&shown);
        assert!(error.contains("claims.toml: "), "no file name in {error:?}");
        assert!(error.contains(needle), "no {needle:?} in {error:?} for {shown:?}");
    }
    for not_a_file in [known.path("absent"), known.path("base")] {
        let error = Claims::read(&not_a_file).unwrap_err().to_string();
        assert!(error.contains(&*not_a_file.to_string_lossy()), "{error}");
    }
}

#[test]
fn percentages_are_true_when_the_exact_share_rounds_to_them() {
    let known = Known::new();
    // Target: 3 of 24 = 12.5 % exactly. Model: 3 of 40 = 7.5 % exactly. Ties round to both values.
    let correct = [
        ("12.5 %", "target"),
        ("12.5%", "target"),
        ("12.50 %", "target"),
        ("12.500000000 %", "target"),
        ("012.5 %", "target"),
        ("12 %", "target"),
        ("13 %", "target"),
        ("7.5 %", "model"),
        ("7 %", "model"),
        ("8 %", "model"),
        ("12 %", "mlp.up_proj"),
        ("13 %", "self_attn.q_proj"),
    ];
    for (value, of) in correct {
        let judged = judge_one(&known, "pruned", &format!("\"{value}\""), of);
        assert_eq!(judged.verdict, Verdict::Correct, "{value} of {of}");
        assert!(judged.true_of.contains(&of.to_owned()) && judged.should_say.is_none());
    }
    for value in ["11 %", "14 %", "12.4 %", "12.6 %", "12.499999999 %", "12.500000001 %", "0 %"] {
        let judged = judge_one(&known, "pruned", &format!("\"{value}\""), "target");
        assert_eq!(judged.verdict, Verdict::Wrong, "{value}");
        assert!(judged.true_of.is_empty());
        let say = judged.should_say.unwrap();
        assert!(say.starts_with("12.50") && say.ends_with(" % of target (3 of 24)"), "{say}");
    }
    // The correction has as many decimals as the claim, at least two.
    let say = |value: &str| judge_one(&known, "pruned", value, "model").should_say.unwrap();
    assert_eq!(say("\"1 %\""), "7.50 % of model (3 of 40)");
    assert_eq!(say("\"1.0000 %\""), "7.5000 % of model (3 of 40)");
    let thirds = judge_one(&known, "already_zero", "\"4.1 %\"", "target");
    assert_eq!(thirds.should_say.unwrap(), "4.17 % of target (1 of 24)");
}

#[test]
fn a_wrong_or_missing_denominator_is_distinguished_from_a_wrong_number() {
    let known = Known::new();
    let swapped = judge_one(&known, "pruned", "\"7.5 %\"", "target");
    assert_eq!((swapped.verdict, &*swapped.true_of), (Verdict::Denominator, &["model".into()][..]));
    assert_eq!(swapped.claimed, "7.5 % of target");
    assert_eq!(swapped.measured, [Share::new(3, 24, "target")]);
    assert_eq!(swapped.should_say.as_deref(), Some("7.50 % of model (3 of 40)"));

    let bare = judge_one(&known, "pruned", "\"12.5 %\"", "");
    assert_eq!(bare.verdict, Verdict::Denominator);
    assert_eq!(bare.claimed, "12.5 %");
    assert_eq!(bare.true_of, ["target", "mlp.up_proj", "self_attn.q_proj"]);
    assert_eq!(bare.measured, [Share::new(3, 24, "target"), Share::new(3, 40, "model")]);
    assert_eq!(
        bare.should_say.as_deref(),
        Some(
            "12.50 % of target (3 of 24), or 12.50 % of mlp.up_proj (1 of 8), or 12.50 % of \
             self_attn.q_proj (2 of 16)"
        )
    );

    let wrong = judge_one(&known, "pruned", "\"50 %\"", "");
    assert_eq!((wrong.verdict, wrong.true_of.len()), (Verdict::Wrong, 0));
    let say = "12.50 % of target (3 of 24), or 7.50 % of model (3 of 40)";
    assert_eq!(wrong.should_say.as_deref(), Some(say));
}

#[test]
fn projections_are_named_in_full_or_by_their_last_part() {
    let known = Known::new();
    for of in ["self_attn.q_proj", "q_proj"] {
        let judged = judge_one(&known, "pruned", "2", of);
        assert_eq!(judged.verdict, Verdict::Correct);
        assert_eq!(judged.measured, [Share::new(2, 16, "self_attn.q_proj")]);
        assert_eq!(judge_one(&known, "zero", "\"18.75 %\"", of).verdict, Verdict::Correct);
    }
    for of in ["k_proj", "attn.q_proj", "Target", "", "proj", "layers"] {
        let toml = claim("odd", "pruned", "1", "?").replace('?', of);
        let error = known.judge(toml, &known.audit()).unwrap_err();
        let said = format!(
            "claim odd: of = \"{of}\" matches 0 projections, expected target, model, original (with \
             an original) or one of mlp.up_proj, self_attn.q_proj"
        );
        assert!(error.contains(&said), "{error}");
    }
    // A last part that two projections share is not a denominator.
    let weights = vec![ONE; 8];
    write(&known.path("two"), &[(Q, weights.clone()), (CROSS_Q, weights)]);
    let audit = audit_of(&known.path("two"), Some(&known.path("two")));
    let error = known.judge(claim("a", "pruned", "0", "q_proj"), &audit).unwrap_err();
    assert!(error.contains("matches 2 projections"), "{error}");
    let judged = known.judge(claim("a", "pruned", "0", "cross_attn.q_proj"), &audit).unwrap();
    assert_eq!(judged[0].verdict, Verdict::Correct);
}

#[test]
fn integers_count_within_the_denominator() {
    let known = Known::new();
    let counts = [
        ("pruned", "", 3),
        ("pruned", "target", 3),
        ("pruned", "model", 3),
        ("pruned", "up_proj", 1),
        ("processed", "", 24),
        ("processed", "q_proj", 16),
        ("target", "", 24),
        ("target", "up_proj", 8),
        ("already_zero", "", 1),
        ("already_zero", "up_proj", 0),
        ("zero", "", 4),
        ("zero", "q_proj", 3),
        ("untouched", "", 16),
        ("untouched", "model", 16),
        // Untouched tensors are not targets.
        ("untouched", "target", 0),
        ("untouched", "q_proj", 0),
        ("tensors", "", 2),
        ("tensors", "q_proj", 1),
    ];
    for (count, of, n) in counts {
        let judged = judge_one(&known, count, &n.to_string(), of);
        assert_eq!(judged.verdict, Verdict::Correct, "{count} of {of:?}");
        let judged = judge_one(&known, count, &(n + 1).to_string(), of);
        assert_eq!(judged.verdict, Verdict::Wrong, "{count} of {of:?}");
        assert_eq!(judged.should_say, Some(n.to_string()));
    }
    let large = judge_one(&known, "pruned", "1450103613", "target");
    assert_eq!(large.claimed, "1,450,103,613 of target");
}

#[test]
fn every_count_has_its_own_share() {
    let known = Known::new();
    let shares = [
        ("processed", "target", "100 %"),
        ("processed", "model", "60 %"),
        ("target", "model", "60.00 %"),
        ("untouched", "model", "40 %"),
        ("untouched", "target", "0 %"),
        ("already_zero", "q_proj", "6.25 %"),
        ("zero", "target", "16.67 %"),
        // Tensors among tensors: 2 of 2, 2 of 3, 1 of 1.
        ("tensors", "target", "100 %"),
        ("tensors", "model", "66.67 %"),
        ("tensors", "up_proj", "100 %"),
    ];
    for (count, of, value) in shares {
        let judged = judge_one(&known, count, &format!("\"{value}\""), of);
        assert_eq!(judged.verdict, Verdict::Correct, "{count} {value} of {of}");
    }
    // 16 untouched elements would be 66.67 % of the 24 in the target, but none of them is in it.
    let judged = judge_one(&known, "untouched", "\"66.67 %\"", "target");
    assert_eq!(judged.verdict, Verdict::Wrong);
}

#[test]
fn claims_about_counts_that_the_audit_lacks_are_errors() {
    let known = Known::new();
    // Neither an original nor a journal: zeros are counted, pruned weights are unknown.
    let audit = audit_of(&known.path("out"), None);
    for count in ["pruned", "processed", "already_zero", "tensors", "untouched"] {
        for value in ["0", "\"0 %\""] {
            let error = known.judge(claim("b", count, value, "target"), &audit).unwrap_err();
            let said = format!("claims.toml: claim b: this audit has no count of {count}");
            assert!(error.contains(&said) && error.contains("--against"), "{error}");
        }
    }
    let error = known.judge(claim("b", "untouched", "\"40 %\"", "model"), &audit).unwrap_err();
    assert!(error.contains("has no count of untouched"), "{error}");
    let known_all_the_same = [("zero", "4"), ("target", "24")];
    for (count, value) in known_all_the_same {
        let judged = known.judge(claim("b", count, value, ""), &audit).unwrap();
        assert_eq!(judged[0].verdict, Verdict::Correct, "{count}");
    }
}

#[test]
fn one_tensor_that_cannot_be_compared_is_named_and_other_claims_are_judged() {
    let known = Known::new();
    let weights = vec![ONE; 8];
    write(&known.path("other"), &[(UP, weights.clone()), (Q, weights)]);
    // Half of the original's q_proj: nothing is known of it, and everything of up_proj.
    let audit = audit_of(&known.path("other"), Some(&known.path("base")));
    for (value, of) in [("0", "up_proj"), ("\"0 %\"", "up_proj"), ("\"0 %\"", "mlp.up_proj")] {
        let judged = known.judge(claim("b", "pruned", value, of), &audit).unwrap();
        assert_eq!(judged[0].verdict, Verdict::Correct, "{value} of {of}");
    }
    let judged = known.judge(claim("b", "pruned", "\"9 %\"", "up_proj"), &audit).unwrap();
    assert_eq!(judged[0].verdict, Verdict::Wrong);
    assert_eq!(judged[0].should_say.as_deref(), Some("0.00 % of mlp.up_proj (0 of 8)"));
    for count in ["pruned", "processed", "already_zero", "tensors"] {
        for of in ["target", "model", "q_proj", ""] {
            let error = known.judge(claim("b", count, "\"0 %\"", of), &audit).unwrap_err();
            let said = format!(
                "claim b: this audit has no count of {count}; cannot be compared with the original: {Q}"
            );
            assert!(error.contains(&said) && !error.contains("--against"), "{error}");
        }
    }
}

#[test]
fn judgements_keep_their_order_and_are_the_same_after_json() {
    let known = Known::new();
    let toml = [
        claim("one", "pruned", "\"12.5 %\"", "target"),
        claim("two", "pruned", "\"7.5 %\"", "target"),
        claim("a|b\\nc", "pruned", "99", ""),
    ];
    let mut audit = known.audit();
    audit.claims = known.judge(toml.concat(), &audit).unwrap();
    let json = serde_json::to_value(&audit).unwrap();
    let verdicts: Vec<&str> =
        json["claims"].as_array().unwrap().iter().map(|c| c["verdict"].as_str().unwrap()).collect();
    assert_eq!(verdicts, ["correct", "denominator", "wrong"]);
    assert_eq!(serde_json::from_value::<Audit>(json).unwrap(), audit);
    let text = text(&audit);
    assert!(
        text.contains("claim two: 7.5 % of target -> wrong or missing denominator; should say")
    );
    // An id cannot end a cell or a row of the table.
    let markdown = markdown(&audit);
    assert!(markdown.contains("\n| a\\|b\\nc | 99 | wrong | 3 |\n"), "{markdown}");
}
