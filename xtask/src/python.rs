/*!
The Python package: builds the wheel, installs it into a fresh environment, and tests it there.

In: the package in `crates/physarium-python`, the tests in `tests/python`, and python3 on PATH. Out: the wheel in
`wheels` of the build directory, its size, and what mypy and pytest print. Without python3, or without PyPI, the tests
are skipped, and a notice says so; it is an error instead if the environment has `CI` and `PHYSARIUM_PYTHON=required`.
*/

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail, ensure};

use crate::cargo::{as_from_a_shell, root, target_dir};
use crate::external::{Optional, on_path};

const TESTS: Optional = Optional {
    tests: "Python tests",
    untested: "The Python package is",
    variable: "PHYSARIUM_PYTHON",
};
/// Largest wheel, in bytes.
const MAX_WHEEL: u64 = 15_000_000;
/// What the wheel is built with, and what it is tested with; exact versions.
const BUILD_PACKAGES: &str = "tests/python/build-requirements.txt";
const TEST_PACKAGES: &str = "tests/python/requirements.txt";
const RAY_PACKAGES: &str = "tests/python/ray-requirements.txt";
/// The tests: types of the package for its oldest Python, its stub against the module, types of its use, and its runs.
const TESTS_WITHOUT_RAY: [&[&str]; 4] = [
    &["mypy", "--strict", "--python-version=3.10", "--package", "physarium"],
    &["mypy.stubtest", "physarium._physarium"],
    &["mypy", "--strict", "tests/python"],
    &["pytest", "--quiet", "-p", "no:cacheprovider", "tests/python", "--ignore", RAY_TESTS],
];
/// The tests that need Ray, which is installed after the others have passed without it.
const RAY_TESTS: &str = "tests/python/test_ray.py";
const TESTS_WITH_RAY: [&[&str]; 1] = [&["pytest", "--quiet", "-p", "no:cacheprovider", RAY_TESTS]];
/// What pip says if it cannot reach PyPI.
const UNREACHABLE: [&str; 6] = [
    "NewConnectionError",
    "NameResolutionError",
    "ConnectTimeoutError",
    "ReadTimeoutError",
    "ProxyError",
    "Network is unreachable",
];

/// Directories of a run.
struct Package {
    /// The workspace.
    root: PathBuf,
    /// Where environments are made.
    work: PathBuf,
    /// Where the wheel is.
    wheels: PathBuf,
}

/// How the installation of packages ended.
enum Installed {
    Yes,
    /// Why PyPI cannot be reached.
    Unreachable(&'static str),
}

/// Builds and tests the package.
pub fn run() -> anyhow::Result<()> {
    let Some(python) = on_path("python3") else {
        return TESTS.skip("no python3 on PATH (Debian: apt-get install python3 python3-venv)");
    };
    let package = Package::new()?;
    let tools = package.work.join("tools");
    if let Err(why) = environment(&python, &tools) {
        return TESTS.skip(&format!("{why:#} (Debian: apt-get install python3-venv)"));
    }
    if let Installed::Unreachable(code) =
        package.install(&tools, &["--requirement", BUILD_PACKAGES])?
    {
        return TESTS.skip(&format!("pip cannot reach PyPI ({code})"));
    }
    let wheel = package.build(&tools)?;
    let fresh = package.work.join("fresh");
    if fresh.exists() {
        fs::remove_dir_all(&fresh).with_context(|| fresh.display().to_string())?;
    }
    environment(&python, &fresh)?;
    let shown = wheel.to_string_lossy();
    let stages: [(&[&str], &[&[&str]]); 2] = [
        (&["--requirement", TEST_PACKAGES, &shown], &TESTS_WITHOUT_RAY),
        (&["--requirement", RAY_PACKAGES], &TESTS_WITH_RAY),
    ];
    for (packages, tests) in stages {
        match package.install(&fresh, packages)? {
            Installed::Yes => package.test(&fresh, tests)?,
            Installed::Unreachable(code) => {
                return TESTS.skip(&format!("pip cannot reach PyPI ({code})"));
            }
        }
    }
    Ok(())
}

/// Makes a virtual environment, if there is none.
fn environment(python: &Path, dir: &Path) -> anyhow::Result<()> {
    if dir.join("bin/pip").is_file() {
        return Ok(());
    }
    let output = Command::new(python).args(["-m", "venv", "--clear"]).arg(dir).output()?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    let first = said.trim().lines().next().unwrap_or("no reason given");
    ensure!(output.status.success(), "python3 -m venv: {first}");
    Ok(())
}

impl Package {
    fn new() -> anyhow::Result<Package> {
        let (root, target) = (root()?, target_dir()?);
        Ok(Package { work: target.join("python"), wheels: target.join("wheels"), root })
    }

    fn install(&self, environment: &Path, what: &[&str]) -> anyhow::Result<Installed> {
        println!("== python: pip install {}", what.join(" "));
        let output = Command::new(environment.join("bin/pip"))
            .args([
                "install",
                "--quiet",
                "--disable-pip-version-check",
                "--retries=1",
                "--timeout=20",
            ])
            .args(what)
            .current_dir(&self.root)
            .output()?;
        if output.status.success() {
            return Ok(Installed::Yes);
        }
        let said = String::from_utf8_lossy(&output.stderr);
        match UNREACHABLE.into_iter().find(|code| said.contains(code)) {
            Some(code) => Ok(Installed::Unreachable(code)),
            None => bail!("pip install {}: {said}", what.join(" ")),
        }
    }

    /// Builds the wheel and checks its size.
    fn build(&self, tools: &Path) -> anyhow::Result<PathBuf> {
        if self.wheels.exists() {
            fs::remove_dir_all(&self.wheels)?;
        }
        let mut maturin = as_from_a_shell(tools.join("bin/maturin"))?;
        maturin.args(["build", "--release", "--locked", "--quiet", "--out"]).arg(&self.wheels);
        self.step("maturin build --release", maturin)?;
        let wheels = fs::read_dir(&self.wheels)?.collect::<Result<Vec<_>, _>>()?;
        let [wheel] = &wheels[..] else { bail!("expected one wheel, found {}", wheels.len()) };
        let (path, bytes) = (wheel.path(), wheel.metadata()?.len());
        println!("== python: {} has {bytes} bytes", path.display());
        ensure!(bytes <= MAX_WHEEL, "the wheel has {bytes} bytes, expected at most {MAX_WHEEL}");
        Ok(path)
    }

    /// Runs mypy and pytest.
    fn test(&self, fresh: &Path, modules: &[&[&str]]) -> anyhow::Result<()> {
        for &module in modules {
            let mut python = Command::new(fresh.join("bin/python"));
            python.arg("-m").args(module).env("MPLBACKEND", "Agg");
            self.step(&module.join(" "), python)?;
        }
        Ok(())
    }

    fn step(&self, what: &str, mut command: Command) -> anyhow::Result<()> {
        println!("== python: {what}");
        let status = command.current_dir(&self.root).status();
        let status = status.with_context(|| format!("{what}: cannot be started"))?;
        ensure!(status.success(), "{what}: failed");
        Ok(())
    }
}
