//! Names and lengths of files, and the number of files in one directory.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use syn::spanned::Spanned;

use super::attributes::{of_item, only_in_tests};

/// Maximum number of lines of a file; test-only items of a source file do not count.
const MAX_LINES: usize = 500;
/// Maximum number of `.rs` files in one directory of `src`.
const MAX_FILES: usize = 12;
/// File names that do not tell what a file contains.
const BAD_NAMES: [&str; 5] = ["utils.rs", "util.rs", "helpers.rs", "common.rs", "types.rs"];

/// Faults of the files of the package in directory `root`. File names are relative to `base`.
///
/// # Errors
/// A directory or file that cannot be read, or is not Rust.
pub fn faults(root: &Path, base: &Path) -> anyhow::Result<Vec<String>> {
    let mut faults = Vec::new();
    let sources = rust_files(&root.join("src"))?;
    for path in &sources {
        let text = read(path)?;
        let lines = source_lines(&text).with_context(|| path.display().to_string())?;
        faults.extend(file_fault(path.strip_prefix(base).unwrap_or(path), lines));
    }
    for dir in ["tests", "benches"] {
        for path in rust_files(&root.join(dir))? {
            let lines = read(&path)?.lines().count();
            faults.extend(file_fault(path.strip_prefix(base).unwrap_or(&path), lines));
        }
    }
    faults.extend(crowded(&sources, base));
    Ok(faults)
}

fn read(path: &Path) -> anyhow::Result<String> {
    fs::read_to_string(path).with_context(|| path.display().to_string())
}

/// All `.rs` files below a directory, sorted; none if there is no such directory.
fn rust_files(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    if !dir.is_dir() {
        return Ok(files);
    }
    for entry in fs::read_dir(dir).with_context(|| dir.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(rust_files(&path)?);
        } else if path.extension().is_some_and(|end| end == "rs") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Number of lines, without those of test-only items.
fn source_lines(text: &str) -> syn::Result<usize> {
    let file = syn::parse_file(text)?;
    let tests = file.items.iter().filter(|item| only_in_tests(of_item(item)));
    let test_lines: usize = tests
        .map(|item| {
            let span = item.span();
            span.end().line + 1 - span.start().line
        })
        .sum();
    Ok(text.lines().count() - test_lines)
}

fn file_fault(shown: &Path, lines: usize) -> Option<String> {
    let name = shown.file_name().unwrap_or_default().to_string_lossy();
    if BAD_NAMES.contains(&name.as_ref()) {
        return Some(format!("{}: a name that does not tell the content", shown.display()));
    }
    let fault = format!("{}: {lines} lines, at most {MAX_LINES}", shown.display());
    (lines > MAX_LINES).then_some(fault)
}

/// One line per directory with too many files.
fn crowded(sources: &[PathBuf], base: &Path) -> Vec<String> {
    let mut counts: BTreeMap<&Path, usize> = BTreeMap::new();
    for dir in sources.iter().filter_map(|path| path.parent()) {
        *counts.entry(dir).or_default() += 1;
    }
    let full = counts.into_iter().filter(|(_, count)| *count > MAX_FILES);
    full.map(|(dir, count)| {
        let shown = dir.strip_prefix(base).unwrap_or(dir).display();
        format!("{shown}: {count} files in one directory, at most {MAX_FILES}")
    })
    .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]
mod tests {
    use std::path::{Path, PathBuf};

    use super::{MAX_FILES, MAX_LINES, crowded, file_fault, source_lines};

    #[test]
    fn lines_of_tests_do_not_count() {
        let text =
            "#[cfg(test)]\nuse a::b;\n\nfn f() {}\n\n#[cfg(test)]\nmod tests {\n    fn g() {}\n}\n";
        assert_eq!(source_lines(text).unwrap(), 3);
        assert_eq!(source_lines("fn f() {}\n").unwrap(), 1);
    }

    #[test]
    fn a_file_is_too_long_or_badly_named() {
        assert_eq!(file_fault(Path::new("src/plan.rs"), MAX_LINES), None);
        let long = file_fault(Path::new("src/plan.rs"), MAX_LINES + 1);
        assert_eq!(long.unwrap(), "src/plan.rs: 501 lines, at most 500");
        assert!(file_fault(Path::new("src/utils.rs"), 1).is_some());
    }

    #[test]
    fn files_are_counted_per_directory() {
        let files = |dir: &str, count: usize| -> Vec<PathBuf> {
            (0..count).map(|i| Path::new(dir).join(format!("{i}.rs"))).collect()
        };
        let mut sources = files("/w/src", MAX_FILES);
        sources.extend(files("/w/src/a", MAX_FILES));
        assert_eq!(crowded(&sources, Path::new("/w")), Vec::<String>::new());
        sources.extend(files("/w/src/b", MAX_FILES + 1));
        let expected = ["src/b: 13 files in one directory, at most 12"];
        assert_eq!(crowded(&sources, Path::new("/w")), expected);
    }
}
