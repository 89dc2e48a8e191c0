//! Names and values that would speak to the terminal, or be markup.

use std::fs;

use physarium_fixtures::{Fill, Kind, llama_tensors, write_checkpoint};
use serde_json::json;

use super::{Model, physarium};

/// Characters that no output may hold as they are: C0 without newline and tab, DEL, C1, bidirectional controls, line
/// separators, zero-width characters.
fn refuse_raw(what: &str, text: &str) {
    let bad = text.chars().find(|c| {
        c.is_control() && !matches!(c, '\n' | '\t')
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    });
    assert!(bad.is_none(), "{what}: {bad:?} in {text}");
}

const EVIL: &str =
    "\u{1b}[2J\u{9b}31m\u{7}\u{7f}\r\u{202e}x\u{2028}\u{200b}|`<script>[a](http://b)";

#[test]
fn names_of_tensors_and_files_are_escaped_everywhere() {
    let work = tempfile::tempdir().unwrap();
    let model = work.path().join("model");
    let mut tensors = llama_tensors(Kind::Bf16, 2, [32, 16, 48]);
    for (number, tensor) in tensors.iter_mut().enumerate() {
        if tensor.name.contains("layers.1.") {
            tensor.name = format!("{number}{EVIL}.{}", tensor.name);
        }
    }
    write_checkpoint(&model, &tensors, 2, Fill::Gaussian(3)).unwrap();
    let evil_config = json!({"model_type": EVIL, "architectures": [EVIL], "_name_or_path": EVIL});
    fs::write(model.join("config.json"), evil_config.to_string()).unwrap();
    fs::write(model.join(format!("{}.txt", EVIL.replace('/', "-"))), "x").unwrap();
    let out = work.path().join("out");
    let report = work.path().join("report");
    let claims = work.path().join("claims.toml");
    let claim = format!(
        "[[claim]]\nid = {0}\nsource = {0}\nsentence = {0}\ncount = \"pruned\"\nvalue = \"3 %\"\n",
        serde_json::to_string(&EVIL.replace(['\u{7f}', '\u{9b}'], "")).unwrap()
    );
    fs::write(&claims, claim).unwrap();
    let [model, out, report, claims] =
        [&model, &out, &report, &claims].map(|p| p.to_str().unwrap());
    for arguments in [
        vec!["inspect", model, "--tensors"],
        vec!["inspect", model, "--format", "json"],
        vec!["eval", model, "--text", "/dev/null"],
        vec!["run", model, "--prompt", "x"],
        vec!["prune", model, "--out", out, "--progress", "json"],
        vec!["audit", out, "--against", model, "--claims", claims, "--report", report],
        vec!["audit", out, "--against", model, "--claims", claims, "--format", "json"],
        vec!["verify", out, "--against", model],
        vec!["verify", model, "--against", out],
        vec!["verify", model, "--against", out, "--format", "json"],
    ] {
        let ran = physarium(&arguments);
        assert!(ran.code.is_some() && ran.code != Some(101), "{arguments:?}: {}", ran.stderr);
        refuse_raw(&format!("{arguments:?}"), &ran.stdout);
        refuse_raw(&format!("{arguments:?}"), &ran.stderr);
    }
    let written = fs::read_dir(report).unwrap().map(|entry| entry.unwrap().path());
    let card = std::path::Path::new(out).join("physarium.card.md");
    for path in written.chain([card]) {
        let text = fs::read_to_string(&path).unwrap();
        refuse_raw(&path.display().to_string(), &text);
        if path.extension().is_some_and(|extension| extension == "md") {
            for markup in ["<script", "`<", "x|", "[a]("] {
                assert!(!text.contains(markup), "{}: {markup}: {text}", path.display());
            }
            assert!(text.contains("&lt;script>\\[a\\]("), "{text}");
        }
    }
}

#[test]
fn values_of_the_configuration_are_escaped() {
    let model = Model::new();
    let dir = model.path().to_str().unwrap();
    let config: serde_json::Value =
        serde_json::from_slice(&fs::read(model.path().join("config.json")).unwrap()).unwrap();
    for field in ["model_type", "hidden_act", "torch_dtype", "rope_scaling", "hidden_size"] {
        let mut config = config.clone();
        config[field] = json!(EVIL);
        model.write("config.json", config.to_string().as_bytes());
        for arguments in [["run", dir, "--prompt", "x"], ["eval", dir, "--text", "/etc/hostname"]] {
            let ran = physarium(&arguments);
            refuse_raw(field, &ran.stderr);
            refuse_raw(field, &ran.stdout);
        }
    }
    model.write("config.json", format!("{{\"a\": {EVIL}").as_bytes());
    let ran = physarium(&["run", dir, "--prompt", "x"]);
    refuse_raw("no JSON", &ran.stderr);
}
