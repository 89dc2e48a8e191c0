//! Audits that no checkpoint of ours has: with hostile names, and of a very large model.

use std::collections::BTreeMap;

use anyhow::{Context, ensure};
use serde_json::{Value, json};

/// Names that attack a page: markup, ends of quotes and scripts, properties of every object, invisible characters.
const HOSTILE: [&str; 14] = [
    "<script>window.hacked=1</script>",
    "</script><script>window.hacked=1</script>",
    "<img src=x onerror=window.hacked=1>",
    "\"><img src=x onerror=\"window.hacked=1",
    "'><svg onload='window.hacked=1'>",
    "<!--<script>window.hacked=1",
    "</title></style></textarea>",
    "&lt;b&gt;&amp;&#x27;",
    "override \u{202e}gnp.exe",
    "isolate \u{2067}and mark \u{200f}and space \u{200b}",
    "line\nbreak\u{2028}and \u{1b}[31mred",
    "__proto__",
    "constructor",
    "${window.hacked=1}{{window.hacked=1}}",
];
/// Length of a name without any place to break it.
const LONG: usize = 10_000;

/// The large model: layers, experts of each, the shape of a projection, and the tiles of its map.
const LAYERS: u64 = 94;
const EXPERTS: u64 = 128;
const PROJECTIONS: [&str; 3] = ["down_proj", "gate_proj", "up_proj"];
const SHAPE: [u64; 2] = [512, 768];
const EDGE: u64 = 256;
const TILES: u64 = (SHAPE[0] / EDGE) * (SHAPE[1] / EDGE);

/// The audit with hostile names of tensors, of a projection, of claims and of whatever else is free text.
///
/// # Errors
/// If the audit has no claims, or fewer tensors or projections than are renamed.
pub fn hostile(audit: &Value) -> anyhow::Result<Value> {
    let names: Vec<String> = HOSTILE.map(str::to_owned).into_iter().chain([long()]).collect();
    let mut new_names = BTreeMap::new();
    let tensors = strings(audit, "tensors", "name")?;
    let projections = strings(audit, "projections", "projection")?;
    ensure!(tensors.len() > names.len() && projections.len() > 2, "too few tensors to rename");
    new_names.extend(tensors.into_iter().zip(names.iter().cloned()));
    let roles = [HOSTILE[0].to_owned(), long()];
    new_names.extend(projections.into_iter().zip(roles));
    new_names.extend(strings(audit, "skipped", "name")?.into_iter().zip(names.iter().cloned()));

    let mut hostile = renamed(audit, &new_names);
    let claims = hostile["claims"].as_array_mut().context("no claims")?;
    let judged = claims.clone();
    ensure!(!judged.is_empty(), "no claims");
    *claims = names
        .iter()
        .zip(judged.iter().cycle())
        .map(|(name, claim)| with_texts(claim, name))
        .collect();
    hostile["warnings"] = names.iter().map(String::as_str).collect();
    Ok(hostile)
}

fn long() -> String {
    "w".repeat(LONG)
}

/// A claim of which every free text is the same.
fn with_texts(claim: &Value, text: &str) -> Value {
    let mut claim = claim.clone();
    for field in ["id", "source", "sentence"] {
        claim[field] = text.into();
    }
    claim
}

/// A field of each entry of a list.
fn strings(audit: &Value, list: &str, field: &str) -> anyhow::Result<Vec<String>> {
    let entries = audit[list].as_array().with_context(|| format!("no {list}"))?;
    let text = |entry: &Value| entry[field].as_str().map(str::to_owned);
    entries.iter().map(text).collect::<Option<_>>().with_context(|| format!("no {field} in {list}"))
}

/// Replaces every string that is one of the old names.
fn renamed(value: &Value, new_names: &BTreeMap<String, String>) -> Value {
    match value {
        Value::String(text) => new_names.get(text).unwrap_or(text).as_str().into(),
        Value::Array(entries) => entries.iter().map(|entry| renamed(entry, new_names)).collect(),
        Value::Object(fields) => {
            fields.iter().map(|(name, field)| (name.clone(), renamed(field, new_names))).collect()
        }
        other => other.clone(),
    }
}

/// An audit of a mixture of experts with 36,096 targets; what is not a target is taken from another audit.
///
/// # Errors
/// If the other audit has no targets.
pub fn large(audit: &Value) -> anyhow::Result<Value> {
    let template = audit["tensors"].get(0).context("no tensors")?;
    let mut noise = Noise(1);
    let mut tensors = Vec::new();
    let mut projections = PROJECTIONS.map(|name| Sums { name, ..Sums::default() });
    for layer in 0..LAYERS {
        for expert in 0..EXPERTS {
            for sums in &mut projections {
                let tiles = (0..TILES).map(|_| noise.zeros_of_tile()).collect();
                let name = sums.name;
                let name = format!("model.layers.{layer}.mlp.experts.{expert}.{name}.weight");
                let target = Target { name, role: sums.role(), layer, tiles };
                sums.add(target.zeros());
                tensors.push(target.json(template));
            }
        }
    }
    Ok(totals(audit, tensors, &projections))
}

/// A tensor of the large model.
struct Target {
    name: String,
    role: String,
    layer: u64,
    /// Zeros of each tile.
    tiles: Vec<u32>,
}

impl Target {
    fn zeros(&self) -> u64 {
        self.tiles.iter().map(|zeros| u64::from(*zeros)).sum()
    }

    /// The tensor with all fields of a template.
    fn json(&self, template: &Value) -> Value {
        let elements = SHAPE[0] * SHAPE[1];
        let tiles: Vec<u8> = self.tiles.iter().flat_map(|zeros| zeros.to_le_bytes()).collect();
        let fields = [
            ("name", json!(self.name)),
            ("role", json!(self.role)),
            ("layer", json!(self.layer)),
            ("shape", json!(SHAPE)),
            ("elements", json!(elements)),
            ("processed", json!(elements)),
            ("zero", json!(self.zeros())),
            ("pruned", json!(self.zeros())),
            ("tile_map", json!({"shape": SHAPE, "edge": EDGE, "zeros": base64::encode(tiles)})),
        ];
        let mut tensor = template.clone();
        for (field, value) in fields {
            tensor[field] = value;
        }
        tensor
    }
}

/// The audit with these targets instead of its own, and all sums over them.
fn totals(audit: &Value, tensors: Vec<Value>, projections: &[Sums]) -> Value {
    let count = tensors.len() as u64;
    let target: u64 = projections.iter().map(Sums::elements).sum();
    let zeros: u64 = projections.iter().map(|sums| sums.zeros).sum();
    let untouched = audit["untouched"]["elements"].as_u64().unwrap_or(0);
    let untouched_tensors = audit["untouched"]["tensors"].as_u64().unwrap_or(0);
    let model = target + untouched;
    let of_target = |part| share(part, target, "target");
    let of_model = |part| share(part, model, "model");
    let none = json!({"elements": 0, "of_target": of_target(0)});

    let mut large = audit.clone();
    if let Some(fields) = large.as_object_mut() {
        // They name tensors and recipes that this model does not have.
        for field in ["magnified", "provenance"] {
            fields.remove(field);
        }
    }
    large["identities"] = [
        ("target + skipped elements = model elements", model),
        ("elements by projection = target elements", target),
        ("pruned by projection = pruned", zeros),
        ("zero now = pruned + zero before", zeros),
    ]
    .map(|(says, sum)| json!({"says": says, "left": sum, "right": sum, "holds": true}))
    .into();
    large["model"] = json!({"tensors": count + untouched_tensors, "elements": model});
    large["target"] = json!({"tensors": count, "elements": target, "of_model": of_model(target)});
    large["processed"] = json!({
        "basis": "bytes", "tensors": count, "elements": target,
        "of_target": of_target(target), "of_model": of_model(target),
    });
    large["zero"] = json!({"elements": zeros, "of_target": of_target(zeros)});
    large["pruned"] = json!({
        "elements": zeros, "of_target": of_target(zeros), "of_model": of_model(zeros),
    });
    for field in ["already_zero", "zero_before", "no_longer_zero", "sign_bit_zero", "changed"] {
        large[field] = none.clone();
    }
    large["untouched"]["of_model"] = of_model(untouched);
    let none_of_model = json!({"elements": 0, "of_model": of_model(0)});
    for field in ["zero", "pruned", "already_zero"] {
        large["outside"][field] = none_of_model.clone();
    }
    large["original"] = large["model"].clone();
    large["tiles"] = Value::Null;
    large["projections"] = projections.iter().map(Sums::json).collect();
    large["tensors"] = tensors.into();
    large["claims"] = json!([]);
    large
}

fn share(part: u64, whole: u64, of: &str) -> Value {
    json!({"part": part, "whole": whole, "of": of, "share": part as f64 / whole as f64})
}

/// Sums over the tensors of a projection.
#[derive(Default)]
struct Sums {
    name: &'static str,
    tensors: u64,
    zeros: u64,
    /// Zeros of the tensors with fewest and with most.
    extremes: Option<[u64; 2]>,
}

impl Sums {
    fn role(&self) -> String {
        format!("mlp.experts.{}", self.name)
    }

    fn add(&mut self, zeros: u64) {
        let [fewest, most] = self.extremes.unwrap_or([zeros, zeros]);
        self.extremes = Some([fewest.min(zeros), most.max(zeros)]);
        self.tensors += 1;
        self.zeros += zeros;
    }

    fn elements(&self) -> u64 {
        self.tensors * SHAPE[0] * SHAPE[1]
    }

    fn json(&self) -> Value {
        let [fewest, most] = self.extremes.unwrap_or_default();
        let sparsity = |zeros: u64| zeros as f64 / (SHAPE[0] * SHAPE[1]) as f64;
        json!({
            "projection": self.role(),
            "tensors": self.tensors,
            "elements": self.elements(),
            "pruned": self.zeros,
            "of_projection": share(self.zeros, self.elements(), &self.role()),
            "sparsity_min": sparsity(fewest),
            "sparsity_mean": self.zeros as f64 / self.elements() as f64,
            "sparsity_max": sparsity(most),
        })
    }
}

/// Counts that do not compress better than those of a real model do (xorshift, Marsaglia 2003).
struct Noise(u64);

impl Noise {
    /// 10 % to 40 % of a tile's weights.
    fn zeros_of_tile(&mut self) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        let tile = EDGE * EDGE;
        (tile / 10 + self.0 % (tile * 3 / 10)) as u32
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]
mod tests {
    use serde_json::{Value, json};

    use super::{HOSTILE, LONG, hostile, large};

    /// As much of an audit as is changed.
    fn audit() -> Value {
        let tensor = |i| json!({"name": format!("tensor.{i}"), "role": format!("role.{}", i % 3)});
        json!({
            "untouched": {"tensors": 1, "elements": 10},
            "tensors": (0..20).map(tensor).collect::<Vec<_>>(),
            "projections": (0..3).map(|i| json!({"projection": format!("role.{i}")})).collect::<Vec<_>>(),
            "skipped": [{"name": "head"}],
            "magnified": [{"tensor": "tensor.0"}],
            "claims": [{"id": "a", "source": "b", "sentence": "c", "verdict": "correct"}],
            "warnings": [],
        })
    }

    #[test]
    fn hostile_names_are_everywhere_and_consistent() {
        let hostile = hostile(&audit()).unwrap();
        assert_eq!(hostile["tensors"][2]["name"], HOSTILE[2]);
        assert_eq!(hostile["magnified"][0]["tensor"], HOSTILE[0]);
        assert_eq!(hostile["projections"][0]["projection"], hostile["tensors"][0]["role"]);
        assert_eq!(hostile["projections"][1]["projection"].as_str().unwrap().len(), LONG);
        assert_eq!(hostile["skipped"][0]["name"], HOSTILE[0]);
        assert_eq!(hostile["claims"].as_array().unwrap().len(), HOSTILE.len() + 1);
        assert_eq!(hostile["claims"][1]["sentence"], HOSTILE[1]);
        assert_eq!(hostile["claims"][1]["verdict"], "correct");
    }

    #[test]
    fn totals_of_the_large_audit_are_the_sums_of_its_tensors() {
        let large = large(&audit()).unwrap();
        let tensors = large["tensors"].as_array().unwrap();
        assert_eq!(tensors.len(), 36_096);
        let sum = |entries: &[Value], field: &str| -> u64 {
            entries.iter().map(|entry| entry[field].as_u64().unwrap()).sum()
        };
        let projections = large["projections"].as_array().unwrap();
        for (field, total) in [("elements", "target"), ("pruned", "pruned"), ("zero", "zero")] {
            assert_eq!(large[total]["elements"], sum(tensors, field), "{field}");
            if field != "zero" {
                assert_eq!(large[total]["elements"], sum(projections, field), "{field}");
            }
        }
        assert_eq!(large["model"]["elements"], sum(tensors, "elements") + 10);
        assert_eq!(large.get("magnified"), None);
    }
}
