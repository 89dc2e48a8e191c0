//! Names and texts that would mislead a user, and sizes that would exhaust memory or time.

use std::fs;
use std::time::{Duration, Instant};

use physarium_checkpoint::Checkpoint;
use physarium_fixtures::{Fill, Kind, Tensor, write_checkpoint};

use super::{Case, a, sharded, single};

#[test]
fn hostile_names_are_read_but_never_printed_raw() {
    let long = "n".repeat(65_536);
    let names = ["\\u001b[31mred", "a\\nb", "../../etc/passwd", "\\u202etxt", "", " ", &long];
    for name in names {
        let named = |end: u64| {
            format!(r#"{{"{name}":{{"dtype":"F32","shape":[1],"data_offsets":[0,{end}]}}}}"#)
        };
        let text = Checkpoint::open(single(&named(8), 8).path()).unwrap_err().to_string();
        assert!(!text.contains(['\u{1b}', '\n', '\u{202e}']), "{text:?}");
        assert!(text.contains("size does not match") && text.len() < 1000, "{} bytes", text.len());
        let read = single(&named(4), 4).read();
        let spelt: String = serde_json::from_str(&format!("\"{name}\"")).unwrap();
        assert_eq!(read[0].0, spelt);
    }
    let twins = r#"{"\u00e9":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"e\u0301":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}"#;
    assert_eq!(single(twins, 2).read().len(), 2);
}

#[test]
fn hostile_text_is_never_printed_raw_or_in_full() {
    let long = "\\u001b\\u202e".repeat(30_000);
    for json in [
        a(&format!("\"{long}\""), "[1]", "[0,1]"),
        a(r#""U8""#, &format!("\"{long}\""), "[0,1]"),
        a(r#""U8""#, "[1]", &format!("\"{long}\"")),
        format!(r#"{{"a":"{long}"}}"#),
        format!(r#"{{"__metadata__":{{"{long}":"","{long}":""}}}}"#),
        format!(r#"{{"__metadata__":"{long}"}}"#),
    ] {
        let case = single(&json, 1);
        case.refused(&["header is not valid"]);
        let text = Checkpoint::open(case.path()).unwrap_err().to_string();
        assert!(text.len() < 5000, "{} bytes", text.len());
    }
    for map in [
        format!(r#"{{"x":"{long}"}}"#),
        format!(r#"{{"{long}":1}}"#),
        format!(r#"{{"{long}":"a.safetensors","{long}":"a.safetensors"}}"#),
        format!(r#"{{"{long}":"a.safetensors","y":"b.safetensors"}}"#),
        r#"{"x":"\u001b.safetensors"}"#.to_owned(),
        r#"{"x":"\u202e.safetensors"}"#.to_owned(),
    ] {
        let case = sharded(&map);
        case.refused(&[]);
        let text = Checkpoint::open(case.path()).unwrap_err().to_string();
        assert!(text.len() < 5000, "{} bytes", text.len());
    }
}

/// The header of `count` tensors of one byte; tensor `i` is from `bound(i)` to `bound(i + 1)`.
fn many(count: usize, bound: impl Fn(usize) -> usize) -> String {
    let entry = |i| {
        let (begin, end) = (bound(i), bound(i + 1));
        format!(r#""t{i}":{{"dtype":"U8","shape":[1],"data_offsets":[{begin},{end}]}}"#)
    };
    format!("{{{}}}", (0..count).map(entry).collect::<Vec<_>>().join(","))
}

#[test]
fn many_tensors_take_linear_time() {
    let begun = Instant::now();
    assert_eq!(single(&many(20_000, |i| i), 20_000).read().len(), 20_000);
    assert_eq!(single(&many(200_000, |i| i), 200_000).read().len(), 200_000);
    single(&many(100_000, |i| i % 2), 1).refused(&["overlaps"]);
    // Quadratic time would be minutes.
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}

#[test]
fn the_last_of_two_hundred_shards_is_corrupt() {
    let dir = tempfile::tempdir().unwrap();
    let tensors: Vec<Tensor> =
        (0..400).map(|i| Tensor::new(format!("t{i:03}"), Kind::Bf16, &[3, 5])).collect();
    write_checkpoint(dir.path(), &tensors, 200, Fill::Gaussian(1)).unwrap();
    let good = Checkpoint::open(dir.path()).unwrap();
    assert_eq!((good.shards().len(), good.tensors().count()), (200, 400));
    let last = dir.path().join("model-00200-of-00200.safetensors");
    let bytes = fs::read(&last).unwrap();
    fs::write(&last, &bytes[..bytes.len() - 1]).unwrap();
    Case { dir, fault: "model-00200-of-00200.safetensors" }.refused(&["tensor t399", "outside"]);
}
