/*!
Tests that need programs other than Rust's: finding those, and skipping loudly.

A skipped test is an error instead where the environment has `CI` and says that the tests are required.
*/

use std::env;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use anyhow::bail;

/// Tests that can be skipped.
pub struct Optional {
    /// What they are: `browser tests`.
    pub tests: &'static str,
    /// What is not tested without them.
    pub untested: &'static str,
    /// The environment variable that requires them by the value `required`.
    pub variable: &'static str,
}

impl Optional {
    /// Says loudly that nothing is tested.
    ///
    /// # Errors
    /// If the environment requires the tests.
    pub fn skip(&self, why: &str) -> anyhow::Result<()> {
        let Optional { tests, untested, variable } = self;
        let required = env::var_os(variable).is_some_and(|value| value == "required");
        if required && env::var_os("CI").is_some() {
            bail!("{tests}: {why}; {variable}=required");
        }
        let line = "*".repeat(80);
        println!("{line}\nSKIPPED: {tests}: {why}\n{untested} NOT tested.\n{line}");
        Ok(())
    }
}

/// The path of an executable file in a directory of PATH.
pub fn on_path(name: &str) -> Option<PathBuf> {
    let is_executable = |path: &PathBuf| {
        path.metadata().is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
    };
    let directories = env::var_os("PATH")?;
    env::split_paths(&directories).map(|directory| directory.join(name)).find(is_executable)
}
