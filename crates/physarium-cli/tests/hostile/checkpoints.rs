//! Headers, indices, manifests, journals and packed files of strangers, with each command that reads them.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use super::{MODEL, Ran, physarium};

/// What is made in an empty directory.
type Make = fn(&Path);

/// A hostile checkpoint or packed file.
struct Hostile {
    name: &'static str,
    make: Make,
    /// The commands that read it, in which `IT` is its path and `OUT` a path for output.
    commands: &'static [&'static str],
    /// Allowed exit codes. A checkpoint that is only odd may be read.
    codes: &'static [i32],
    /// What every error says.
    says: &'static str,
}

const READERS: &[&str] =
    &["inspect IT", "audit IT", "verify IT --against MODEL", "prune IT --out OUT --dry-run"];
const PACKED: &[&str] =
    &["unpack IT/x.physpack --out OUT", "eval IT/x.physpack --text MODEL/config.json"];
const RECORDS: &[&str] = &["audit IT", "verify IT --against MODEL"];

fn run(command: &str, it: &Path) -> Ran {
    let out = it.with_extension("out");
    let replaced = command
        .replace("IT", it.to_str().unwrap())
        .replace("OUT", out.to_str().unwrap())
        .replace("MODEL", MODEL);
    let arguments: Vec<&str> = replaced.split_whitespace().collect();
    physarium(&arguments)
}

fn check_all(all: &[Hostile]) {
    let mut wrong = Vec::new();
    for Hostile { name, make, commands, codes, says } in all {
        let dir = tempfile::tempdir().unwrap();
        let it = dir.path().join("it");
        fs::create_dir(&it).unwrap();
        make(&it);
        for command in *commands {
            let ran = run(command, &it);
            let code = ran.code.unwrap_or(-1);
            let said = ran.stderr.lines().filter(|line| line.starts_with("error:")).count();
            let told = match code {
                0 => true,
                // A check that failed says so on stdout.
                1 => ran.stdout.len() < 20_000,
                _ => said == 1 && ran.stderr.contains(says) && ran.stderr.len() < 3000,
            };
            let raw = |text: &str| text.chars().any(|c| c.is_control() && !"\n\r".contains(c));
            if !codes.contains(&code) || !told || raw(&ran.stderr) || raw(&ran.stdout) {
                let shown = format!("{:.400} | {:.200}", ran.stderr, ran.stdout);
                wrong.push(format!("{name}: {command}: {:?} {shown}", ran.code));
            }
        }
        assert!(!it.with_extension("out").exists(), "{name}: nothing is written");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Writes a shard of this header and zeros.
fn shard(it: &Path, json: &str, data: u64) {
    let path = it.join("model.safetensors");
    let header = [&(json.len() as u64).to_le_bytes(), json.as_bytes()].concat();
    fs::write(&path, &header).unwrap();
    let file = fs::File::options().write(true).open(&path).unwrap();
    file.set_len(header.len() as u64 + data).unwrap();
}

fn one(name: &str, shape: &str, data: u64) -> String {
    format!(r#"{{"{name}":{{"dtype":"BF16","shape":{shape},"data_offsets":[0,{data}]}}}}"#)
}

const Q: &str = "model.layers.0.self_attn.q_proj.weight";

#[test]
fn headers() {
    check_all(&[
        Hostile {
            name: "a million tensors",
            make: |it| {
                let mut json = String::from("{");
                for at in 0..1_000_000 {
                    write!(json, r#""t{at}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}},"#)
                        .unwrap();
                }
                json.pop();
                shard(it, &(json + "}"), 0);
            },
            commands: READERS,
            codes: &[1, 2],
            says: "more than 400000 tensors",
        },
        Hostile {
            name: "a name of a megabyte",
            make: |it| shard(it, &one(&"n".repeat(1 << 20), "[2,2]", 8), 8),
            commands: READERS,
            codes: &[0, 1, 2],
            says: "",
        },
        Hostile {
            name: "a target with a name of a megabyte",
            make: |it| {
                let name = format!("{}.layers.0.self_attn.q_proj.weight", "m.".repeat(1 << 19));
                shard(it, &one(&name, "[4,4]", 32), 32);
            },
            commands: READERS,
            codes: &[0, 1, 2],
            says: "",
        },
        Hostile {
            name: "zeros after an overflow",
            make: |it| shard(it, &one(Q, "[9223372036854775808,4,0]", 0), 0),
            commands: READERS,
            codes: &[1, 2],
            says: "shape overflows",
        },
        Hostile {
            name: "a shape of zeros",
            make: |it| shard(it, &one(Q, "[0,18446744073709551615]", 0), 0),
            commands: READERS,
            codes: &[0, 1, 2],
            says: "",
        },
        Hostile {
            name: "many dimensions",
            make: |it| shard(it, &one(Q, &format!("[{}1]", "1,".repeat(1_000_000)), 2), 2),
            commands: READERS,
            codes: &[1, 2],
            says: "1024 dimensions",
        },
        Hostile {
            name: "nested metadata",
            make: |it| {
                let nested = "[".repeat(100_000) + &"]".repeat(100_000);
                shard(it, &format!(r#"{{"__metadata__":{{"a":{nested}}}}}"#), 0);
            },
            commands: READERS,
            codes: &[1, 2],
            says: "header is not valid",
        },
        Hostile {
            name: "a nested unknown field",
            make: |it| {
                let nested = "{\"a\":".repeat(100_000) + "1" + &"}".repeat(100_000);
                shard(
                    it,
                    &one(Q, "[0]", 0).replacen(
                        "\"dtype\"",
                        &format!("\"x\":{nested},\"dtype\""),
                        1,
                    ),
                    0,
                );
            },
            commands: READERS,
            codes: &[1, 2],
            says: "header is not valid",
        },
        Hostile {
            name: "the longest header, of brackets",
            make: |it| shard(it, &"[".repeat(100_000_000), 0),
            commands: READERS,
            codes: &[1, 2],
            says: "header is not valid",
        },
        Hostile {
            name: "the longest header, of metadata",
            make: |it| {
                let mut json = String::from(r#"{"__metadata__":{"#);
                for at in 0..5_000_000 {
                    write!(json, "\"{at}\":\"\",").unwrap();
                }
                json.pop();
                shard(it, &(json + "}}"), 0);
            },
            commands: READERS,
            codes: &[1, 2],
            says: "more than 400000 keys",
        },
        Hostile {
            name: "terabytes in a sparse file",
            make: |it| shard(it, &one(Q, "[1048576,1048576]", 1 << 41), 1 << 41),
            commands: &["inspect IT"],
            codes: &[0, 2],
            says: "",
        },
        Hostile {
            name: "names with controls",
            make: |it| {
                shard(
                    it,
                    &one(r"\u001b[31mx\u0000\n\u009b.layers.0.mlp.up_proj.weight", "[2,2]", 8),
                    8,
                )
            },
            commands: READERS,
            codes: &[0, 1, 2],
            says: "",
        },
    ]);
}

/// Writes an index, beside a shard of one tensor.
fn index(it: &Path, map: &str) {
    shard(it, &one(Q, "[4,4]", 32), 32);
    fs::rename(it.join("model.safetensors"), it.join("a.safetensors")).unwrap();
    let index = format!(r#"{{"metadata":{{"total_size":32}},"weight_map":{map}}}"#);
    fs::write(it.join("model.safetensors.index.json"), index).unwrap();
}

/// An index of many entries, each in the shard that `place` names.
fn many(it: &Path, place: fn(usize) -> String) {
    let mut map = String::from("{");
    for at in 0..1_000_000 {
        write!(map, "\"t{at}\":\"{}\",", place(at)).unwrap();
    }
    map.pop();
    index(it, &(map + "}"));
}

#[test]
fn indices() {
    check_all(&[
        Hostile {
            name: "a million tensors in one shard",
            make: |it| many(it, |_| "a.safetensors".into()),
            commands: READERS,
            codes: &[1, 2],
            says: "not found in any shard",
        },
        Hostile {
            name: "a million shards",
            make: |it| many(it, |at| format!("{at}.safetensors")),
            commands: READERS,
            codes: &[1, 2],
            says: "shards are missing",
        },
        Hostile {
            name: "more tensors in three shards than in one",
            make: |it| {
                let mut map = String::from("{");
                for number in 0..3 {
                    let mut json = String::from("{");
                    for at in 0..150_000 {
                        write!(
                            json,
                            r#""{number}.{at}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}},"#
                        )
                        .unwrap();
                    }
                    json.pop();
                    shard(it, &(json + "}"), 0);
                    let name = format!("{number}.safetensors");
                    fs::rename(it.join("model.safetensors"), it.join(&name)).unwrap();
                    write!(map, r#""{number}.0":"{name}","#).unwrap();
                }
                map.pop();
                let index = format!(r#"{{"weight_map":{map}}}}}"#);
                fs::write(it.join("model.safetensors.index.json"), index).unwrap();
            },
            commands: READERS,
            codes: &[1, 2],
            says: "too many tensors",
        },
        Hostile {
            name: "a shard of a megabyte's name",
            make: |it| index(it, &format!(r#"{{"a":"{}.safetensors"}}"#, "s".repeat(1 << 20))),
            commands: READERS,
            codes: &[1, 2],
            says: "bad shard name",
        },
        Hostile {
            name: "a path",
            make: |it| index(it, r#"{"a":"../a.safetensors"}"#),
            commands: READERS,
            codes: &[1, 2],
            says: "bad shard name",
        },
        Hostile {
            name: "a nul",
            make: |it| index(it, r#"{"a":"a\u0000.safetensors"}"#),
            commands: READERS,
            codes: &[1, 2],
            says: "bad shard name",
        },
        Hostile {
            name: "nested",
            make: |it| index(it, &"{\"a\":".repeat(100_000)),
            commands: READERS,
            codes: &[1, 2],
            says: "index is not valid",
        },
    ]);
}

/// Prunes the demo model into `it`, and returns its journal and manifest.
fn output(it: &Path) -> [String; 2] {
    fs::remove_dir(it).unwrap();
    let ran = physarium(&["prune", MODEL, "--out", it.to_str().unwrap(), "--quiet"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    ["physarium.journal.jsonl", "physarium.manifest.json"]
        .map(|name| fs::read_to_string(it.join(name)).unwrap())
}

fn journal(it: &Path, change: fn(&str) -> String) {
    let [journal, _] = output(it);
    fs::write(it.join("physarium.journal.jsonl"), change(&journal)).unwrap();
}

fn manifest(it: &Path, change: fn(&str) -> String) {
    let [_, manifest] = output(it);
    fs::write(it.join("physarium.manifest.json"), change(&manifest)).unwrap();
}

#[test]
fn journals_and_manifests() {
    let broken = |name, make| Hostile { name, make, commands: RECORDS, codes: &[1, 2], says: "" };
    let verified = |name, make| Hostile {
        name,
        make,
        commands: &["verify IT --against MODEL"],
        codes: &[1],
        says: "",
    };
    check_all(&[
        broken("a million short lines", |it| {
            journal(it, |text| text.lines().next().unwrap().to_owned() + &"\n{}".repeat(1_000_000))
        }),
        broken("a million records", |it| {
            journal(it, |text| {
                // Without checks a line is not physarium's; the first must fail before the others are kept.
                let second = text.lines().nth(1).unwrap();
                text.to_owned() + &format!("{second}\n").repeat(120_000_000 / second.len())
            })
        }),
        broken("a nested line", |it| journal(it, |text| "[".repeat(1_000_000) + "\n" + text)),
        broken("nothing", |it| journal(it, |_| String::new())),
        verified("an empty manifest", |it| manifest(it, |_| String::new())),
        verified("half a manifest", |it| manifest(it, |text| text[..text.len() / 2].to_owned())),
        verified("a manifest of blanks", |it| manifest(it, |_| " ".repeat(60 << 20))),
        verified("a nested manifest", |it| manifest(it, |_| "{\"a\":[".repeat(1_000_000))),
        verified("a path up", |it| manifest(it, |text| text.replace("config.json", "../x"))),
        verified("an absolute path", |it| {
            manifest(it, |text| text.replace("config.json", "/etc/passwd"))
        }),
        verified("a nul", |it| manifest(it, |text| text.replace("config.json", "a\\u0000"))),
        verified("a path twice", |it| {
            manifest(it, |text| text.replace("generation_config.json", "config.json"))
        }),
        verified("a million files", |it| {
            manifest(it, |text| {
                let entry = r#"{"path":"x","size_bytes":1,"sha256":""},"#;
                text.replacen(
                    "\"files\": [",
                    &format!("\"files\": [{}", entry.repeat(1_000_000)),
                    1,
                )
            })
        }),
    ]);
}

/// Packs the demo model and changes the bytes.
fn packed(it: &Path, change: fn(Vec<u8>) -> Vec<u8>) {
    let path = it.join("x.physpack");
    let ran = physarium(&["pack", MODEL, "--out", path.to_str().unwrap(), "--quiet"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    fs::write(&path, change(fs::read(&path).unwrap())).unwrap();
}

/// A container with this header and so many bytes.
fn container(it: &Path, json: &str, data: u64) {
    shard(it, json, data);
    fs::rename(it.join("model.safetensors"), it.join("x.physpack")).unwrap();
}

#[test]
fn packed_files() {
    let refused =
        |name, make| Hostile { name, make, commands: PACKED, codes: &[2], says: "x.physpack" };
    check_all(&[
        refused("empty", |it| packed(it, |_| Vec::new())),
        refused("half", |it| packed(it, |bytes| bytes[..bytes.len() / 2].to_vec())),
        refused("one bit", |it| {
            packed(it, |mut bytes| {
                let at = bytes.len() - 200;
                bytes[at] ^= 4;
                bytes
            })
        }),
        refused("a million blobs", |it| {
            let mut json = String::from("{");
            for at in 0..1_000_000 {
                write!(json, r#""dense:{at}":{{"dtype":"U8","shape":[0],"data_offsets":[0,0]}},"#)
                    .unwrap();
            }
            json.pop();
            container(it, &(json + "}"), 0);
        }),
        refused("contents of a gigabyte", |it| {
            let entry = |begin: u64, end: u64| {
                format!(
                    r#"{{"dtype":"U8","shape":[{}],"data_offsets":[{begin},{end}]}}"#,
                    end - begin
                )
            };
            let size = (1 << 30) - 64;
            let mut json = format!(
                r#"{{"physarium.physpack/1:contents":{},"physarium.physpack/1:seal":{}}}"#,
                entry(0, size),
                entry(size, size + 64)
            );
            while !(json.len() + 8).is_multiple_of(64) {
                json.push(' ');
            }
            container(it, &json, size + 64);
        }),
    ]);
}
