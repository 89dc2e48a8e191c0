//! `--memory`: what is kept in a file or refused, and that no byte depends on it.

use std::fs;
use std::path::Path;

use physarium_fixtures::write_wide_model;
use serde_json::Value;

use super::Work;

const METHODS: [&str; 3] = ["wanda", "sparsegpt", "activation-flow"];

/// A model whose residual streams are most of what a run holds, and its text.
fn work() -> Work {
    let work = Work::new();
    write_wide_model(&work.path("wide")).unwrap();
    let text = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../demo/calibration.txt");
    fs::copy(text, work.path("calibration.txt")).unwrap();
    work
}

fn prune(method: &str, out: &str, tokens: u32) -> String {
    format!(
        "prune wide --out {out} --method {method} --sparsity 0.5 --calibration calibration.txt \
         --window 512 --calibration-tokens {tokens} --format json -q"
    )
}

fn number(value: &Value, field: &str) -> u64 {
    value[field].as_u64().unwrap_or_else(|| panic!("no {field} in {value}"))
}

/// The number of MB that would do, by the refusal.
fn least(work: &Work, run: &str) -> u64 {
    let ran = work.run(run);
    assert_eq!((ran.code, &*ran.stdout), (2, ""), "{}", ran.stderr);
    let (_, rest) = ran.stderr.split_once("not enough memory, expected ").unwrap();
    let (least, rest) = rest.split_once(" MB, which are enough for this run, found ").unwrap();
    assert!(rest.contains("(--memory)") && !rest.contains("hint"), "{}", ran.stderr);
    least.parse().unwrap()
}

/// Where a dry run says that residual streams are.
fn kept_in(dry: &Value) -> &str {
    dry["streams"]["kept_in"].as_str().unwrap()
}

/// What a dry run says of inputs that are needed twice.
fn inputs(dry: &Value) -> &str {
    dry["pruned_inputs"].as_str().unwrap()
}

fn files(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let read = |entry: fs::DirEntry| {
        (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())
    };
    let mut all: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| read(entry.unwrap())).collect();
    all.sort();
    all
}

/// Inputs are computed twice, then the streams go to a file, if a limit forces that; the output and its records are the
/// same, and the peak is within what was said and what was allowed.
#[test]
fn a_limit_changes_no_byte() {
    let work = work();
    for method in METHODS {
        work.ok(&prune(method, "whole", 32_768));
        let expected = files(&work.path("whole"));
        for threads in [1, 2] {
            let run = format!("{} --threads {threads}", prune(method, "out", 32_768));
            let dry = work.json(&format!("{run} --dry-run"));
            assert_eq!((kept_in(&dry), inputs(&dry)), ("memory", "kept"), "{dry}");
            let streams = number(&dry["streams"], "bytes");
            let both = if method == "activation-flow" { 2 } else { 1 };
            assert_eq!(streams, both * 32_768 * 256 * 4);
            let mut said = number(&dry, "resident_bytes");
            for (less, places, run_on) in [
                (16 << 20, ("memory", "computed twice"), 1),
                (streams / 3, ("file", "computed twice"), 2),
            ] {
                let limit = said - less;
                let run = format!("{run} --memory {limit}");
                let dry = work.json(&format!("{run} --dry-run"));
                assert_eq!((kept_in(&dry), inputs(&dry)), places, "{method}: {dry}");
                assert_eq!(number(&dry["streams"], "bytes"), streams);
                said = number(&dry, "resident_bytes");
                assert!(number(&dry, "workers") == threads && said <= limit, "{dry}");
                assert_eq!(number(&dry, "memory_limit_bytes"), limit);
                if threads == run_on {
                    let ran = work.json(&run);
                    assert!(files(&work.path("out")) == expected, "{method}, {threads} threads");
                    // Only Linux tells the peak.
                    if let Some(used) = ran["peak_rss_bytes"].as_u64() {
                        let most = used + used / 4 + (64 << 20);
                        assert!(
                            (used..=most).contains(&said),
                            "{method}: {said} said, {used} used"
                        );
                    }
                    fs::remove_dir_all(work.path("out")).unwrap();
                }
            }
        }
        fs::remove_dir_all(work.path("whole")).unwrap();
    }
}

#[test]
fn what_does_not_fit_is_refused_and_the_least_named_is_enough() {
    let work = work();
    // On as few threads as a limit takes.
    let run = prune("sparsegpt", "out", 4096) + " --threads 4";
    let needed = least(&work, &format!("{run} --memory 1MB"));
    // A process does not begin with exactly as much each time.
    assert!(least(&work, &format!("{run} --memory 1MB --dry-run")).abs_diff(needed) <= 50);
    work.nothing_was_written("out");
    let enough = format!("{run} --memory {needed}MB");
    let dry = work.json(&format!("{enough} --dry-run"));
    assert!(number(&dry, "resident_bytes") <= needed * 1_000_000, "{dry}");
    assert!(number(&work.json(&enough), "peak_rss_bytes") <= needed * 1_000_000);

    // A method by magnitudes has one bound; fewer threads keep it.
    let run = "prune model --out small --threads 4 --format json -q";
    let bound = |run: &str| number(&work.json(&format!("{run} --dry-run")), "resident_bytes");
    let four = bound(run);
    let fewer = format!("{run} --memory {}", four - 1);
    assert!(bound(&fewer) < four);
    assert!(number(&work.json(&format!("{fewer} --dry-run")), "workers") < 4);
    let needed = least(&work, &format!("{run} --memory 1KiB"));
    work.ok(&format!("{run} --memory {needed}MB"));

    let compare = "compare wide --out table --text calibration.txt --limit 1024 --eval-window 512 \
                   --calibration calibration.txt --calibration-tokens 1024 --window 512 \
                   --methods magnitude,wanda --sparsity 0.5 -q";
    // The most that a row needs.
    let needed = least(&work, &format!("{compare} --memory 1MB"));
    assert!(needed > 60 && !work.path("table").exists(), "{needed}");
    work.ok(&format!("{compare} --memory {needed}MB"));
}

#[test]
fn a_dry_run_says_what_goes_where() {
    let work = work();
    let dry = format!("{} --dry-run", prune("wanda", "out", 32_768)).replace("--format json", "");
    let said = work.ok(&dry);
    assert!(said.contains("\nresidual streams: 33.55 MB in memory\n"), "{said}");
    assert!(said.contains(" resident with ") && !said.contains("scratch"), "{said}");
    let needed = |run: &str| number(&work.json(&format!("{run} --format json")), "resident_bytes");
    let twice = format!("{dry} --memory {}", needed(&dry) - (16 << 20));
    let said = work.ok(&twice);
    assert!(
        said.contains("\ninputs of o and down: computed twice, as memory has no room"),
        "{said}"
    );
    assert!(said.contains("\nresidual streams: 33.55 MB in memory\n"), "{said}");
    let limit = (needed(&twice) - 33_554_432 / 3) / 1_000_000;
    let said = work.ok(&format!("{dry} --memory {limit}MB"));
    assert!(said.contains("\nresidual streams: 33.55 MB in a scratch file"), "{said}");
    assert!(said.contains(&format!(", of {limit}.00 MB allowed\n")), "{said}");
    let said = work.ok("prune model --out out --dry-run --memory 1GiB");
    assert!(said.contains(", of 1.07 GB allowed\n") && !said.contains("streams"), "{said}");
    work.fails(2, "prune model --out out --memory 8B", &["not enough memory"]);
    for size in ["8", "0GB", "much", "1XB"] {
        let run = format!("prune model --out out --memory {size}");
        work.fails(2, &run, &["--memory", "such as 8GB or 512MiB"]);
    }
    work.nothing_was_written("out");
}
