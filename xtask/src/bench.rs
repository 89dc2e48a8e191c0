//! The benchmarks are a program of their own, so that the gate does not compile for them what it measures.

use std::ffi::OsString;

use anyhow::{Context, ensure};

use crate::cargo::{build_physarium, cargo};

/// A benchmark with its options; `--help` lists both.
#[derive(clap::Args)]
#[command(disable_help_flag = true)]
pub struct Bench {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "BENCHMARK")]
    arguments: Vec<OsString>,
}

impl Bench {
    /// Builds physarium and the benchmarks, and runs one.
    pub fn run(&self) -> anyhow::Result<()> {
        let physarium = build_physarium()?;
        let status = cargo()?
            .args(["run", "--quiet", "--locked", "--release", "--package", "physarium-bench", "--"])
            .args(&self.arguments)
            .env("PHYSARIUM", physarium)
            .status()
            .context("cannot start cargo")?;
        ensure!(status.success(), "the benchmark failed");
        Ok(())
    }
}
