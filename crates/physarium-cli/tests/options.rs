//! No option is ignored: each changes what a command does, or is refused by name and with the reason.
#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use physarium::RecipeOption;
use serde_json::Value;

/// The result of a run.
struct Ran {
    code: i32,
    stdout: String,
    stderr: String,
}

fn run(arguments: &str) -> Ran {
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../demo");
    let output = Command::new(env!("CARGO_BIN_EXE_physarium"))
        .current_dir(demo)
        .args(arguments.split_whitespace())
        .output()
        .unwrap();
    Ran {
        code: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

const METHODS: [&str; 5] = ["magnitude-flow", "magnitude", "wanda", "sparsegpt", "activation-flow"];
const CALIBRATION: &str = "--calibration-tokens 512 --window 128";

fn is_activation_aware(method: &str) -> bool {
    !method.starts_with("magnitude")
}

/// A recipe option with a value that is not its default.
fn with_value(option: RecipeOption) -> String {
    let value = match option {
        RecipeOption::Method => "magnitude-flow",
        RecipeOption::Sparsity => "0.3",
        RecipeOption::Pattern => "1:4",
        RecipeOption::Allocation => "flow",
        RecipeOption::Price => "0.3",
        RecipeOption::Effort => "quick",
        RecipeOption::Scope => "model",
        RecipeOption::BlockSize => "8",
        RecipeOption::Iterations => "7",
        RecipeOption::Beta => "3",
        RecipeOption::Inflow => "4",
        RecipeOption::Calibration => "heldout.txt",
        RecipeOption::CalibrationTokens => "1024",
        RecipeOption::Window => "64",
        RecipeOption::Seed => "9",
        // That which is not the machine's default, or which it does not have.
        RecipeOption::Arithmetic => match physarium::model::Arithmetic::of_machine() {
            physarium::model::Arithmetic::F32 => "bf16x2",
            _ => "f32",
        },
        RecipeOption::AllowNonfinite => "",
    };
    format!("{} {value}", spelled(option))
}

fn spelled(option: RecipeOption) -> String {
    format!("--{}", option.name().replace('_', "-"))
}

/// The recipe of a run with these options, or the error.
fn recipe(options: &str) -> Result<Value, String> {
    let ran = run(&format!("prune model --out nowhere --dry-run --format json {options}"));
    match ran.code {
        0 => Ok(serde_json::from_str::<Value>(&ran.stdout).unwrap()["recipe"].take()),
        2 => Err(ran.stderr),
        code => panic!("{options}: exit {code}: {}", ran.stderr),
    }
}

#[test]
fn every_option_with_every_method_changes_the_recipe_or_is_refused() {
    for method in METHODS {
        for amount in ["", "--sparsity 0.5", "--pattern 2:4"] {
            let mut base = format!("--method {method} {amount}");
            if is_activation_aware(method) {
                base += &format!(" {CALIBRATION}");
            }
            // Refused because a method needs an amount: an option of its own is refused all the same.
            let expected = recipe(&base);
            for option in RecipeOption::ALL.into_iter().filter(|o| *o != RecipeOption::Method) {
                let twice = [RecipeOption::CalibrationTokens, RecipeOption::Window];
                if is_activation_aware(method) && twice.contains(&option) {
                    continue;
                }
                let context = format!("{base} {}", with_value(option));
                match (recipe(&context), &expected) {
                    (Ok(recipe), Ok(expected)) => {
                        assert_ne!(recipe, *expected, "{context} is ignored");
                    }
                    (Ok(_), Err(_)) => assert!(context.contains(&spelled(option))),
                    (Err(why), _) => {
                        // A method that needs an amount, an arithmetic that needs a processor.
                        let named = why.contains(&spelled(option)) || why.contains("needs");
                        assert!(why.starts_with("error: ") && named, "{context}: {why}");
                    }
                }
            }
        }
    }
}

/// The long options that a command's help lists.
fn listed(command: &str) -> BTreeSet<String> {
    let help = run(&format!("{command} --help")).stdout;
    let name = |line: &str| {
        let begin = line.trim_start().strip_prefix("-q, ").unwrap_or(line.trim_start());
        let name = begin.strip_prefix("--")?;
        Some(name.split([' ', '\n']).next()?.trim_end_matches("...").to_owned())
    };
    help.lines().filter(|line| line.starts_with("  ")).filter_map(name).collect()
}

#[test]
fn every_option_of_every_command_is_known_here() {
    let display = "format progress quiet";
    for (command, options) in [
        ("inspect", "revision target skip tensors format".to_owned()),
        (
            "prune",
            format!(
                "revision out recipe target skip strict dry-run force restart follow-links card threads memory {display}"
            ),
        ),
        (
            "audit",
            format!(
                "against from-journal from-report revision claims report target skip threads {display}"
            ),
        ),
        ("verify", format!("against revision {display}")),
        (
            "eval",
            format!(
                "text choices field window stride limit bos against revision parts worker per-token per-item threads \
                 arithmetic {display}"
            ),
        ),
        (
            "compare",
            format!(
                "revision out keep restart worker methods sparsity pattern allocation effort target skip calibration \
                     calibration-tokens window seed text eval-window limit eval-bos threads memory arithmetic {display}"
            ),
        ),
        ("pack", format!("revision out force follow-links {display}")),
        ("unpack", format!("out {display}")),
        (
            "run",
            "revision prompt chat max-tokens temperature top-p seed threads arithmetic format quiet"
                .to_owned(),
        ),
        ("report", "out pictures quiet".to_owned()),
        (
            "plan",
            format!(
                "revision out recipe target skip strict force follow-links card plan template workers \
                 threads {display}"
            ),
        ),
        ("unit", format!("worker take-over-after threads memory {display}")),
        ("finish", format!("wait force restart threads {display}")),
        ("demo", "demo out quiet".to_owned()),
        #[cfg(feature = "object-stores")]
        ("upload", display.to_owned()),
    ] {
        let mut known: BTreeSet<String> = options.split_whitespace().map(str::to_owned).collect();
        if command == "prune" || command == "plan" {
            known.extend(RecipeOption::ALL.map(|option| spelled(option)[2..].to_owned()));
        }
        let mut found = listed(command);
        found.remove("help");
        // A new option goes into a row of the table in `recipe/table.rs`, or into `PAIRS` below, or changes
        // what its command does whatever else is given.
        assert_eq!(found, known, "{command}");
    }
}

/// Options that exclude each other or have no effect together, and what says so.
const PAIRS: &[(&str, &str)] = &[
    (
        "prune model --out o --pattern 2:4 --scope tensor",
        "--scope has no effect without --sparsity",
    ),
    (
        "prune model --out o --method wanda --price 0.1 --allocation flow",
        "--allocation has no effect without --sparsity",
    ),
    (
        "prune model --out o --method wanda --pattern 2:4 --allocation flow",
        "--allocation has no effect without --sparsity",
    ),
    (
        "prune model --out o --sparsity 0.5 --pattern 2:4",
        "--pattern cannot be combined with --sparsity",
    ),
    (
        "prune model --out o --method wanda --price 0.1 --pattern 2:4",
        "--price cannot be combined with --pattern",
    ),
    ("prune model --out o --recipe r.toml --beta 3", "--beta has no effect with --recipe"),
    (
        "prune model --out o --recipe r.toml --method magnitude",
        "--method has no effect with --recipe",
    ),
    (
        "prune model --out o --arithmetic f32",
        "--arithmetic has no effect: the method does not use calibration",
    ),
    (
        "prune model --out o --method magnitude --sparsity 0.5 --arithmetic bf16x2",
        "--arithmetic has no effect: the method does not use calibration",
    ),
    (
        "prune model --out o --recipe r.toml --arithmetic f32",
        "--arithmetic has no effect with --recipe",
    ),
    ("prune model --out o --recipe r.toml --skip *.k_proj.weight", "cannot be used with"),
    ("eval model --text heldout.txt --arithmetic bf16", "possible values: f32, bf16x2"),
    ("run model --prompt Once --arithmetic bf16", "possible values: f32, bf16x2"),
    ("prune model --out o --quiet --progress json", "cannot be used with"),
    (
        "compare model --out o --text heldout.txt --sparsity 0.5 --worker 0/2 --restart",
        "cannot be used with",
    ),
    ("plan model --out o --template slurm", "--plan <FILE>"),
    ("plan model --out o --workers 3", "--template <TEMPLATE>"),
    ("unit plan.json shard-00001 --worker 0/2", "cannot be used with"),
    ("unit plan.json shard-00001 --take-over-after 3", "cannot be used with"),
    ("unit plan.json --worker 2/2", "expected a number below N"),
    ("unit plan.json", "the following required arguments were not provided"),
    ("inspect model --tensors --format json", "--tensors has no effect with --format json"),
    ("run model --prompt a --top-p 0.5", "--top-p has no effect without --temperature above 0"),
    ("run model --prompt a --seed 5", "--seed has no effect without --temperature above 0"),
    (
        "run model --prompt a --temperature 0 --seed 0",
        "--seed has no effect without --temperature above 0",
    ),
    ("eval model", "the following required arguments were not provided"),
    ("eval model --choices c --field body", "--field has no effect without --text"),
    ("eval model --choices c --window 64", "--window has no effect without --text"),
    ("eval model --choices c --stride 64", "--stride has no effect without --text"),
    ("eval model --choices c --limit 64", "--limit has no effect without --text"),
    ("eval model --choices c --bos text", "--bos has no effect without --text"),
    ("eval model --choices c --per-token o", "--per-token has no effect without --text"),
    ("eval model --text heldout.txt --per-item o", "--per-item has no effect without --choices"),
    ("inspect model --revision main", "--revision has no effect"),
    ("run model --prompt a --revision main", "--revision has no effect"),
    ("audit --from-report r --revision main", "cannot be used with"),
    ("audit model --from-journal j --threads 2", "cannot be used with"),
    ("audit model --from-journal j --against model", "cannot be used with"),
    ("audit --from-report r --against model", "cannot be used with"),
    ("audit --from-report r --threads 2", "cannot be used with"),
    (
        "compare model --out o --text heldout.txt --methods magnitude,magnitude-flow --sparsity 0.5 \
         --calibration calibration.txt",
        "--calibration has no effect: the method does not use calibration",
    ),
    (
        "compare model --out o --text heldout.txt --methods magnitude --sparsity 0.5 --seed 1",
        "--seed has no effect: the method does not use calibration",
    ),
    (
        "compare model --out o --text heldout.txt --methods wanda,magnitude --pattern 2:4 --allocation flow",
        "--allocation has no effect without --sparsity",
    ),
    (
        "compare model --out o --text heldout.txt --methods wanda,sparsegpt --sparsity 0.5 --effort quick",
        "--effort has no effect",
    ),
    (
        "compare model --out o --text heldout.txt --methods activation-flow --sparsity 0.5 --effort best,best",
        "activation-flow-0.5-best: listed twice",
    ),
    (
        "compare model --out o --text heldout.txt --methods magnitude --sparsity 0.5,0.50",
        "magnitude-0.5: listed twice",
    ),
    (
        "compare model --out o --text heldout.txt --methods magnitude,magnitude --pattern 2:4",
        "magnitude-2of4: listed twice",
    ),
];

#[test]
fn options_that_do_nothing_together_are_refused() {
    for (arguments, needle) in PAIRS {
        let ran = run(arguments);
        assert_eq!(ran.code, 2, "{arguments}: {}{}", ran.stdout, ran.stderr);
        assert!(ran.stderr.contains(needle), "{arguments}: no {needle:?} in {}", ran.stderr);
        assert!(ran.stdout.is_empty(), "{arguments}: {}", ran.stdout);
        let demo = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../demo");
        assert!(!demo.join("o").exists(), "{arguments}");
    }
}

#[test]
fn a_recipe_file_is_refused_by_its_name_and_key() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("run.toml");
    let tile = "name = 'magnitude'\nsparsity = 0.5\nscope = 'tile'\nblock_size = 64\n";
    let flow =
        "name = 'magnitude-flow'\nblock_size = 64\niterations = 3\nbeta = 2.0\ninflow = 5.0\n";
    for (method, old, new, needle) in [
        (tile, "0.5", "nan", "between 0 and 1, found NaN"),
        (tile, "0.5", "1.5", "between 0 and 1, found 1.5"),
        (tile, "= 64", "= 0", "\"block_size\": expected 1 or more, found 0"),
        (tile, "= 64", "= 5000", "between 1 and 1024, found 5000"),
        (tile, "= 64", "= 64\npattern = '2:4'", "\"pattern\": not a key of method magnitude"),
        (tile, "= 64", "= 64\nthreads = 2", "unknown field `threads`"),
        (flow, "= 2.0", "= nan", "\"beta\": expected a number above 1, found NaN"),
        (flow, "= 5.0", "= inf", "\"inflow\": expected a number above 0, found inf"),
    ] {
        for method in [method.to_owned(), method.replacen(old, new, 1)] {
            let good = method == tile || method == flow;
            let text = format!("target = []\nskip = []\nnon_finite = 'refuse'\n[method]\n{method}");
            std::fs::write(&file, text).unwrap();
            let ran = run(&format!("prune model --out o --dry-run --recipe {}", file.display()));
            assert_eq!(ran.code, if good { 0 } else { 2 }, "{method}: {}", ran.stderr);
            let named = ran.stderr.contains("run.toml: not a valid recipe");
            assert!(good || (named && ran.stderr.contains(needle)), "{method}: {}", ran.stderr);
        }
    }
}

#[test]
fn a_dry_run_says_what_force_and_restart_would_do() {
    let dir = tempfile::tempdir().unwrap();
    let (out, partial) = (dir.path().join("out"), dir.path().join(".out.physarium-partial"));
    let dry = format!("prune model --out {} --dry-run", out.display());
    let says = |options: &str, needle: &str| {
        let ran = run(&format!("{dry}{options}"));
        assert_eq!(ran.code, 0, "{options}: {}", ran.stderr);
        assert!(ran.stdout.contains(needle), "{options}: no {needle} in {}", ran.stdout);
    };
    assert!(!run(&dry).stdout.contains("finished"));
    std::fs::create_dir(&partial).unwrap();
    says("", "would resume the unfinished run");
    says(" --restart", "would discard the unfinished run");
    assert_eq!(run(&format!("prune model --out {} --restart", out.display())).code, 0);
    says(" --force", "would replace the finished output");
    // What the run would refuse, the dry run refuses.
    let refused = run(&dry);
    assert!(refused.code == 2 && refused.stderr.contains("output exists"), "{}", refused.stderr);
    // An unfinished run of another recipe, and a directory that no run made.
    assert_eq!(run(&format!("prune model --out {} --sparsity 0.5 --force", out.display())).code, 0);
    std::fs::rename(&out, &partial).unwrap();
    let other = "recipe.method.sparsity was 0.5, this run has 0.6";
    for options in ["", " --dry-run", " --dry-run --format json"] {
        let ran = run(&format!("prune model --out {} --sparsity 0.6{options}", out.display()));
        assert_eq!((ran.code, &*ran.stdout), (2, ""), "{options}");
        assert!(ran.stderr.contains(other), "{options}: {}", ran.stderr);
    }
    says(" --sparsity 0.5", "would resume the unfinished run");
    says(" --sparsity 0.6 --restart", "would discard the unfinished run");
    std::fs::remove_dir_all(&partial).unwrap();
    std::fs::create_dir(&partial).unwrap();
    std::fs::write(partial.join("mine.txt"), "mine").unwrap();
    let foreign = run(&dry);
    assert_eq!(foreign.code, 2, "{}", foreign.stdout);
    assert!(foreign.stderr.contains("that physarium did not make"), "{}", foreign.stderr);
    assert!(partial.join("mine.txt").is_file() && !out.exists());
    let inside = run("prune model --out model/inside --dry-run");
    assert!(inside.code == 2 && inside.stderr.contains("inside the input"), "{}", inside.stderr);
}
