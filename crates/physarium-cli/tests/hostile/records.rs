//! Records of a run, claims and the index.

use std::fs::File;

use super::{Model, case, check, physarium};

/// A file of blanks that takes no room on disk.
fn blanks(model: &Model, name: &str, bytes: u64) {
    let file = File::create(model.path().join(name)).unwrap();
    file.set_len(bytes).unwrap();
}

#[test]
fn large_records_are_refused_by_their_size() {
    let model = Model::new();
    let dir = model.path().to_str().unwrap();
    for (name, arguments, limit) in [
        ("physarium.manifest.json", vec!["verify", dir, "--against", super::MODEL], 64u64 << 20),
        ("physarium.journal.jsonl", vec!["audit", dir], 128 << 20),
        ("model.safetensors.index.json", vec!["inspect", dir], 64 << 20),
    ] {
        let before = std::fs::read(model.path().join(name)).ok();
        for bytes in [limit + 1, 10 << 30] {
            blanks(&model, name, bytes);
            let ran = physarium(&arguments);
            assert_eq!(
                ran.code,
                Some(if name.ends_with("index.json") { 2 } else { 1 }),
                "{name}: {}",
                ran.stderr
            );
            for needle in [name, &format!("at most {limit} bytes"), &format!("{bytes} bytes")] {
                let told = ran.stderr.contains(needle) || ran.stdout.contains(needle);
                assert!(told, "{name}: {needle}: {}{}", ran.stderr, ran.stdout);
            }
        }
        match before {
            Some(bytes) => _ = model.write(name, &bytes),
            None => std::fs::remove_file(model.path().join(name)).unwrap(),
        }
    }
}

#[test]
fn deep_and_long_records_are_answered() {
    let list = || {
        format!("{{\"metadata\": {{\"a\": [{}0]}}, \"weight_map\": {{}}}}", "0,".repeat(20 << 20))
    };
    let deep = "[".repeat(1_000_000);
    let line = format!("{{\"tensor\": \"{}", "x".repeat(100 << 20));
    let index = vec![
        case("lists in lists", deep.clone(), "index is not valid"),
        case("a list of 20 million", list(), "empty weight_map"),
    ];
    check("model.safetensors.index.json", &["inspect", "MODEL"], index);
    // An audit does without a journal that it cannot read, and says so.
    for bytes in [deep.clone() + "\n", line.clone(), line + "\n"] {
        let model = Model::new();
        model.write("physarium.journal.jsonl", bytes.as_bytes());
        let ran = physarium(&["audit", model.path().to_str().unwrap()]);
        assert_eq!(ran.code, Some(1), "{}", ran.stderr);
        assert!(ran.stdout.contains("journal line 1, expected"), "{}", ran.stdout);
    }
    let nested = "claim = ".to_owned() + &"[".repeat(500_000);
    let claims = vec![
        case("lists in lists", nested, "max recursion depth"),
        case("a large file", " ".repeat(2 << 20), "at most 1048576 bytes"),
        case("no text", [0xff], "UTF-8"),
    ];
    for case in claims {
        let model = Model::new();
        let path = model.write("claims.toml", &case.bytes);
        let (dir, path) = (model.path().to_str().unwrap(), path.to_str().unwrap());
        let ran = physarium(&["audit", dir, "--claims", path]);
        assert_eq!(ran.code, Some(2), "{}: {}", case.name, ran.stderr);
        assert!(ran.stderr.len() < 2000, "{} bytes of error", ran.stderr.len());
        assert!(
            ran.stderr.contains(case.says) && ran.stderr.contains("claims.toml"),
            "{}",
            ran.stderr
        );
    }
    let model = Model::new();
    blanks(&model, "recipe.toml", 10 << 30);
    let recipe = model.path().join("recipe.toml");
    let out = model.path().with_extension("out");
    let [dir, recipe, out] = [model.path(), &recipe, &out].map(|path| path.to_str().unwrap());
    let ran = physarium(&["prune", dir, "--recipe", recipe, "--out", out]);
    assert_eq!(ran.code, Some(2), "{}", ran.stderr);
    assert!(ran.stderr.contains("recipe.toml") && ran.stderr.contains("at most"), "{}", ran.stderr);
}
