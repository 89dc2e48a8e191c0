//! `compare` is a run like any other: it checks before it works, removes nothing that it did not make, and resumes.
#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

const ROWS: [&str; 3] = ["magnitude-0.5", "wanda-0.5", "sparsegpt-0.5"];
const COMPARE: &str = "compare demo --out table --text text.txt --eval-window 256 --sparsity 0.5 \
                       --methods magnitude,wanda,sparsegpt --calibration calibration.txt \
                       --calibration-tokens 4096 --window 256";

/// A working directory with `demo`, the bundled model, and texts.
struct Work(tempfile::TempDir);

/// The result of a run.
#[derive(Debug)]
struct Ran {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Work {
    fn new() -> Work {
        let work = Work(tempfile::tempdir().unwrap());
        let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../demo");
        fs::create_dir(work.path("demo")).unwrap();
        for entry in fs::read_dir(demo.join("model")).unwrap().map(Result::unwrap) {
            fs::copy(entry.path(), work.path("demo").join(entry.file_name())).unwrap();
        }
        fs::copy(demo.join("calibration.txt"), work.path("calibration.txt")).unwrap();
        let text = fs::read_to_string(demo.join("heldout.txt")).unwrap();
        fs::write(work.path("text.txt"), &text[..text.floor_char_boundary(8000)]).unwrap();
        work
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn spawn(&self, arguments: &str) -> Child {
        Command::new(env!("CARGO_BIN_EXE_physarium"))
            .current_dir(self.0.path())
            .args(arguments.split_whitespace())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    fn run(&self, arguments: &str) -> Ran {
        end(self.spawn(arguments), String::new())
    }

    /// Runs until stderr has a line with `needle`, then calls `then`, and waits for the end.
    fn until(&self, arguments: &str, needle: &str, then: impl FnOnce(&Child)) -> Ran {
        let mut child = self.spawn(arguments);
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut seen = String::new();
        while stderr.read_line(&mut seen).unwrap() > 0 && !seen.contains(needle) {}
        then(&child);
        stderr.read_to_string(&mut seen).unwrap();
        end(child, seen)
    }

    fn table(&self) -> String {
        fs::read_to_string(self.path("table/physarium.compare.md")).unwrap_or_default()
    }

    fn json(&self) -> Value {
        let text = fs::read_to_string(self.path("table/physarium.compare.json")).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    /// Everything in the directory, with the bytes of its files.
    fn contents(&self, dir: &str) -> Vec<(PathBuf, Vec<u8>)> {
        let mut found = Vec::new();
        let mut dirs = vec![self.path(dir)];
        while let Some(dir) = dirs.pop() {
            for entry in fs::read_dir(&dir).into_iter().flatten().map(Result::unwrap) {
                match entry.path().is_dir() {
                    true => dirs.push(entry.path()),
                    false => found.push((entry.path(), fs::read(entry.path()).unwrap())),
                }
            }
        }
        found.sort();
        found
    }
}

fn end(mut child: Child, mut stderr: String) -> Ran {
    let mut stdout = String::new();
    child.stdout.take().unwrap().read_to_string(&mut stdout).unwrap();
    if let Some(mut rest) = child.stderr.take() {
        rest.read_to_string(&mut stderr).unwrap();
    }
    Ran { code: child.wait().unwrap().code(), stdout, stderr }
}

fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill").args([name, &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

/// A table without what a run took: its last two columns.
fn numbers(table: &str) -> Vec<String> {
    let rows = table.lines().filter(|line| line.starts_with("| "));
    rows.map(|row| row.rsplitn(4, '|').nth(3).unwrap().to_owned()).collect()
}

/// The names of the rows, without the header and the dense model.
fn names(table: &str) -> Vec<String> {
    let rows = table.lines().filter_map(|line| line.strip_prefix("| "));
    let names = rows.skip(1).map(|row| row.split(' ').next().unwrap().to_owned());
    names.filter(|name| name != "dense").collect()
}

#[test]
fn a_comparison_killed_in_its_second_row_ends_with_the_same_table() {
    let work = Work::new();
    let whole = work.run(&COMPARE.replace("--out table", "--out whole"));
    assert_eq!(whole.code, Some(0), "{}", whole.stderr);
    assert_eq!(whole.stderr.matches("evaluating the dense model").count(), 1, "{}", whole.stderr);
    let killed = work.until(COMPARE, "[2/3]", |child| signal(child, "-KILL"));
    assert_eq!(killed.code, None, "{}", killed.stderr);
    assert_eq!(names(&work.table()), ROWS[..1]);
    let resumed = work.run(COMPARE);
    assert_eq!(resumed.code, Some(0), "{}", resumed.stderr);
    assert_eq!(numbers(&resumed.stdout), numbers(&whole.stdout));
    assert_eq!(work.table(), resumed.stdout);
    // The first row and the dense model are not computed again.
    assert!(resumed.stderr.contains("[1/3] magnitude-0.5: kept"), "{}", resumed.stderr);
    assert!(!resumed.stderr.contains("evaluating the dense model"), "{}", resumed.stderr);
    assert!(resumed.stderr.contains("[2/3] wanda-0.5\n"), "{}", resumed.stderr);
    // Once more: every row is kept, and the table is the same to the byte.
    let again = work.run(COMPARE);
    assert_eq!((again.code, &again.stdout), (Some(0), &resumed.stdout));
    assert_eq!(again.stderr.matches(": kept, measured before").count(), 3, "{}", again.stderr);
    for row in ROWS {
        assert!(!work.path("table").join(row).exists(), "{row} is left");
    }
    assert!(!work.path("table/.physarium-compare/dense.states").exists());
}

#[test]
fn workers_share_the_rows_of_a_table() {
    let work = Work::new();
    let whole = work.run(&COMPARE.replace("--out table", "--out whole"));
    assert_eq!(whole.code, Some(0), "{}", whole.stderr);
    let worker = |share: &str| work.spawn(&format!("{COMPARE} --worker {share}"));
    let workers: Vec<Child> = ["0/2", "1/2"].map(worker).into();
    for (child, made) in workers.into_iter().zip(["made 2 rows of 3", "made 1 row of 3"]) {
        let ran = end(child, String::new());
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        let said =
            "; once all workers have ended, the same command without --worker prints the table\n";
        assert_eq!(ran.stdout, format!("{made}{said}"));
    }
    for (share, own) in [("0/2", &[0, 2][..]), ("1/2", &[1]), ("0/1", &[0, 1, 2])] {
        let ran = work.run(&format!("{COMPARE} --worker {share} --format json"));
        let json: Value = serde_json::from_str(&ran.stdout).unwrap();
        let rows: Vec<&str> = json["runs"]
            .as_array()
            .unwrap()
            .iter()
            .map(|run| run["name"].as_str().unwrap())
            .collect();
        assert_eq!(rows, own.iter().map(|row| ROWS[*row]).collect::<Vec<_>>());
        assert_eq!(json["complete"], own.len() == ROWS.len(), "{share}");
    }
    assert!(!work.path("table/physarium.compare.md").exists());
    let together = work.run(COMPARE);
    assert_eq!(together.code, Some(0), "{}", together.stderr);
    assert_eq!(together.stderr.matches(": kept").count(), 3, "{}", together.stderr);
    assert_eq!(numbers(&together.stdout), numbers(&whole.stdout));
    let held: Vec<_> = work.contents("table").into_iter().map(|(path, _)| path).collect();
    assert!(!held.iter().any(|path| path.to_string_lossy().ends_with(".states")), "{held:?}");
}

#[test]
fn a_comparison_killed_before_its_first_record_is_begun_again() {
    let work = Work::new();
    let records = work.path("table/.physarium-compare");
    fs::create_dir_all(&records).unwrap();
    fs::write(records.join("lock-1-of-2"), "").unwrap();
    fs::write(records.join("comparison.json.part"), "{\"body\":").unwrap();
    let ran = work.run(COMPARE);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert_eq!(names(&ran.stdout), ROWS);
}

#[test]
fn the_numbers_are_those_of_eval() {
    let work = Work::new();
    let ran = work.run(&format!("{COMPARE} --keep --format json"));
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let json: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(json["complete"], true);
    for run in json["runs"].as_array().unwrap() {
        let name = run["name"].as_str().unwrap();
        let eval = work.run(&format!(
            "eval table/{name} --against demo --text text.txt --window 256 --format json"
        ));
        let eval: Value = serde_json::from_str(&eval.stdout).unwrap();
        assert_eq!(run["evaluation"]["against"], eval["against"], "{name}");
        assert_eq!(run["evaluation"]["perplexity"], eval["perplexity"], "{name}");
        assert_eq!(json["dense"]["perplexity"], eval["against"]["perplexity"], "{name}");
        let peak = run["prune_peak_rss_bytes"].as_u64().unwrap();
        assert!((1 << 20..1 << 30).contains(&peak), "{name}: {peak}");
    }
}

#[test]
fn ctrl_c_prints_and_writes_the_rows_so_far_and_how_to_resume() {
    let work = Work::new();
    let ran = work.until(COMPARE, "[2/3]", |child| signal(child, "-INT"));
    assert_eq!(ran.code, Some(130), "{}", ran.stderr);
    assert_eq!(names(&ran.stdout), ROWS[..1], "{}", ran.stdout);
    assert!(
        ran.stdout.contains("| dense |") && ran.stdout.contains("Unfinished"),
        "{}",
        ran.stdout
    );
    assert_eq!(work.table(), ran.stdout);
    assert_eq!(work.json()["complete"], false);
    assert!(ran.stderr.contains("interrupted; 1 of 3 rows are kept in table"), "{}", ran.stderr);
    let line = ran.stderr.lines().find_map(|line| line.strip_prefix("to resume: ")).unwrap();
    let resumed =
        Command::new("sh").args(["-c", line]).current_dir(work.0.path()).output().unwrap();
    assert_eq!(resumed.status.code(), Some(0));
    assert_eq!(names(&work.table()), ROWS);
    assert!(!work.table().contains("Unfinished"));
}

#[test]
fn what_a_user_has_at_its_paths_is_left_untouched() {
    let work = Work::new();
    for (path, needle) in [
        ("table/wanda-0.5/mine.txt", "table/wanda-0.5: output exists and is not empty"),
        ("table/wanda-0.5", "table/wanda-0.5: output exists"),
        ("table/physarium.compare.md", "physarium.compare.md: not made by this comparison"),
        ("table/physarium.compare.json", "physarium.compare.json: not made by this comparison"),
        ("table/physarium.compare.md.part", "compare.md.part: not made by this comparison"),
        ("table/sparsegpt-0.5.lock", "sparsegpt-0.5.lock: not made by this comparison"),
        ("table/.physarium-compare", ".physarium-compare: not made by this comparison"),
        ("table/.physarium-compare/mine.txt", ".physarium-compare: not made by this comparison"),
        (
            "table/.sparsegpt-0.5.physarium-partial/mine.txt",
            ".sparsegpt-0.5.physarium-partial: not made by this comparison",
        ),
    ] {
        let file = work.path(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, "mine").unwrap();
        let before = work.contents("table");
        for options in ["", " --restart"] {
            let ran = work.run(&format!("{COMPARE}{options}"));
            assert_eq!(ran.code, Some(2), "{path}: {}", ran.stderr);
            assert!(ran.stderr.contains(needle), "{path}: {}", ran.stderr);
            assert!(!ran.stderr.contains("[1/3]"), "{path}: {}", ran.stderr);
            assert!(work.contents("table") == before, "{path}");
        }
        fs::remove_dir_all(work.path("table")).unwrap();
    }
    // A finished output of another run.
    fs::create_dir(work.path("table")).unwrap();
    assert_eq!(work.run("prune demo --out table/magnitude-0.5").code, Some(0));
    let before = work.contents("table");
    let ran = work.run(COMPARE);
    assert_eq!(ran.code, Some(2), "{}", ran.stderr);
    let needle = "table/magnitude-0.5: not made by this comparison";
    assert!(ran.stderr.contains(needle), "{}", ran.stderr);
    assert!(work.contents("table") == before);
}

#[test]
fn everything_is_checked_before_the_first_row() {
    let work = Work::new();
    let third = "--target *.q_proj.weight --target lm_head.weight";
    let short = COMPARE.replace("--calibration-tokens 4096", "--calibration-tokens 99999999");
    for (arguments, needle) in [
        // The first method could prune it, the activation-aware ones cannot.
        (format!("{COMPARE} {third}"), "lm_head.weight"),
        (format!("{COMPARE} --skip *.typo"), "--skip *.typo: matches no tensor"),
        (COMPARE.replace("text.txt", "nowhere.txt"), "nowhere.txt"),
        (COMPARE.replace("--eval-window 256", "--eval-window 4096"), "a window of 4096 tokens"),
        (COMPARE.replace("--eval-window 256", "--eval-window 256 --limit 100"), "too short"),
        (short, "calibration text too short"),
        (COMPARE.replace("--out table", "--out demo/table"), "written into the checkpoint"),
        (COMPARE.replace("--out table", "--out text.txt/table"), "text.txt"),
    ] {
        let ran = work.run(&arguments);
        assert_eq!(ran.code, Some(2), "{arguments}: {}", ran.stderr);
        assert!(ran.stderr.contains(needle), "{arguments}: no {needle} in {}", ran.stderr);
        let worked = ["[1/3]", "evaluating"].iter().any(|begun| ran.stderr.contains(begun));
        assert!(!worked, "{arguments}: {}", ran.stderr);
        assert!(!work.path("table").exists() && !work.path("demo/table").exists(), "{arguments}");
    }
}

#[test]
fn a_row_that_fails_is_in_the_table_and_the_rest_goes_on() {
    let work = Work::new();
    // Appears after everything was checked.
    let ran = work.until(COMPARE, "[1/3]", |_| {
        fs::create_dir(work.path("table/wanda-0.5")).unwrap();
        fs::write(work.path("table/wanda-0.5/mine.txt"), "mine").unwrap();
    });
    assert_eq!(ran.code, Some(2), "{}", ran.stderr);
    assert_eq!(names(&ran.stdout), ROWS, "{}", ran.stdout);
    assert!(ran.stdout.contains("| wanda-0.5 | failed: "), "{}", ran.stdout);
    assert!(ran.stderr.contains("error: wanda-0.5: "), "{}", ran.stderr);
    assert_eq!(work.table(), ran.stdout);
    let json = work.json();
    assert_eq!(json["failed"][0]["name"], "wanda-0.5");
    assert_eq!(json["runs"].as_array().unwrap().len(), 2);
    assert_eq!(fs::read_to_string(work.path("table/wanda-0.5/mine.txt")).unwrap(), "mine");
    fs::remove_dir_all(work.path("table/wanda-0.5")).unwrap();
    let ran = work.run(COMPARE);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(names(&ran.stdout) == ROWS && !ran.stdout.contains("failed"), "{}", ran.stdout);
    assert!(!ran.stderr.contains("evaluating the dense model"), "{}", ran.stderr);
}

#[test]
fn a_comparison_of_other_inputs_is_refused_and_names_what_differs() {
    let work = Work::new();
    let killed = work.until(COMPARE, "[2/3]", |child| signal(child, "-KILL"));
    assert_eq!(killed.code, None);
    let config = fs::read_to_string(work.path("demo/config.json")).unwrap();
    let text = fs::read_to_string(work.path("text.txt")).unwrap();
    let before = work.contents("table");
    let refused = |arguments: &str, part: &str| {
        let ran = work.run(arguments);
        assert_eq!(ran.code, Some(2), "{}", ran.stderr);
        let needle = format!("another comparison, which differs in: {part}\n");
        assert!(ran.stderr.contains(&needle), "{part}: {}", ran.stderr);
        assert!(work.contents("table") == before, "{part}");
    };
    refused(&COMPARE.replace("--sparsity 0.5", "--sparsity 0.6"), "contenders");
    refused(&format!("{COMPARE} --keep"), "outputs");
    fs::write(work.path("demo/config.json"), format!("{config}\n")).unwrap();
    refused(COMPARE, "model");
    fs::write(work.path("demo/config.json"), &config).unwrap();
    fs::write(work.path("text.txt"), format!("{text} And more.")).unwrap();
    refused(COMPARE, "evaluation");
    let ran = work.run(&format!("{COMPARE} --restart"));
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(!ran.stderr.contains("kept"), "{}", ran.stderr);
}

#[test]
fn a_kept_model_that_was_changed_fails_its_row_and_stays() {
    let work = Work::new();
    let compare = format!("{COMPARE} --keep");
    assert_eq!(work.run(&compare).code, Some(0));
    let shard = work.path("table/wanda-0.5/model-00001-of-00002.safetensors");
    let mut bytes = fs::read(&shard).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&shard, &bytes).unwrap();
    let ran = work.run(&compare);
    assert_eq!(ran.code, Some(2), "{}", ran.stderr);
    let needle = "| wanda-0.5 | failed: ";
    assert!(ran.stdout.contains(needle) && ran.stdout.contains("model-00001"), "{}", ran.stdout);
    assert!(fs::read(&shard).unwrap() == bytes);
    // A model that was removed is made again.
    fs::remove_dir_all(work.path("table/wanda-0.5")).unwrap();
    let ran = work.run(&compare);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(ran.stderr.contains("[2/3] wanda-0.5\n"), "{}", ran.stderr);
    assert_eq!(work.run("verify table/wanda-0.5 --against demo").code, Some(0));
}
