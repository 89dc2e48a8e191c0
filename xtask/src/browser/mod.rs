/*!
Browser tests: makes HTML reports with the program and tests them in Chromium.

In: the tests in `tests/browser`, and chromium, node and npm on PATH. Out: what the tests print; with `--screenshots` a
picture of every page. Without one of the programs, or without the npm registry, the tests are skipped, and a notice
says so; it is an error instead if the environment has `CI` and `PHYSARIUM_BROWSER=required`.
*/

mod made_up;
mod pages;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail, ensure};

use crate::cargo::{build_physarium, root};
use crate::external::{Optional, on_path};

/// Names of Chromium, the first that is on PATH is used.
const CHROMIUM: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];
const SKIPPABLE: Optional = Optional {
    tests: "browser tests",
    untested: "The HTML reports are",
    variable: "PHYSARIUM_BROWSER",
};
/// Where the tests are, from the root of the workspace.
const TESTS: &str = "tests/browser";
/// Installs exactly what the lock file says. No package has a script that is needed.
const INSTALL: [&str; 6] =
    ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline", "--fetch-retries=1"];
/// What npm says if it cannot reach the registry.
const UNREACHABLE: [&str; 7] = [
    "ENOTFOUND",
    "EAI_AGAIN",
    "ECONNREFUSED",
    "ECONNRESET",
    "ENETUNREACH",
    "EHOSTUNREACH",
    "ETIMEDOUT",
];

/// Which program makes the pages, and where their pictures go.
#[derive(clap::Args, Default)]
pub struct Browser {
    /// Program that makes the pages [default: a release build of this workspace]
    #[arg(long, value_name = "FILE")]
    physarium: Option<PathBuf>,
    /// Write the pages into this new directory and keep them [default: a temporary directory]
    #[arg(long, value_name = "DIR")]
    pages: Option<PathBuf>,
    /// Save a picture of every page into this directory
    #[arg(long, value_name = "DIR")]
    screenshots: Option<PathBuf>,
}

/// The programs that the tests need.
struct Tools {
    chromium: PathBuf,
    node: PathBuf,
    npm: PathBuf,
}

impl Browser {
    /// Makes the pages and tests them.
    pub fn run(&self) -> anyhow::Result<()> {
        let tools = match Tools::find() {
            Ok(tools) => tools,
            Err(missing) => return SKIPPABLE.skip(&missing),
        };
        let root = root()?;
        let tests = root.join(TESTS);
        println!("== browser: npm {}", INSTALL.join(" "));
        if let Some(unreachable) = tools.install(&tests)? {
            return SKIPPABLE.skip(&unreachable);
        }
        let program = match &self.physarium {
            Some(program) => program.clone(),
            None => build_physarium()?,
        };
        let temporary = tempfile::tempdir()?;
        let pages = self.pages.as_deref().unwrap_or(temporary.path());
        println!("== browser: pages");
        pages::make(&program.canonicalize()?, &root, pages)?;
        self.test(&tools, &tests, &pages.canonicalize()?)
    }

    fn test(&self, tools: &Tools, tests: &Path, pages: &Path) -> anyhow::Result<()> {
        println!("== browser: node --test");
        let mut command = Command::new(&tools.node);
        command
            .args(["--test", "--test-reporter=spec"])
            .current_dir(tests)
            .env("PAGES", pages)
            .env("CHROMIUM", &tools.chromium);
        if let Some(screenshots) = &self.screenshots {
            command.env("SCREENSHOTS", std::path::absolute(screenshots)?);
        }
        let status = command.status().context("node cannot be started")?;
        ensure!(status.success(), "browser tests: failed");
        Ok(())
    }
}

impl Tools {
    /// # Errors
    /// The names of the programs that are not there.
    fn find() -> Result<Tools, String> {
        let chromium = CHROMIUM.into_iter().find_map(on_path);
        match (chromium, on_path("node"), on_path("npm")) {
            (Some(chromium), Some(node), Some(npm)) => Ok(Tools { chromium, node, npm }),
            (chromium, node, npm) => {
                let all = [("chromium", chromium), ("node", node), ("npm", npm)];
                let missing = all.iter().filter(|(_, path)| path.is_none()).map(|(name, _)| *name);
                let missing = missing.collect::<Vec<_>>().join(", no ");
                Err(format!("no {missing} on PATH (Debian: apt-get install chromium nodejs npm)"))
            }
        }
    }

    /// Installs the packages of the tests; returns why not if the registry cannot be reached.
    fn install(&self, tests: &Path) -> anyhow::Result<Option<String>> {
        let output = Command::new(&self.npm)
            .args(INSTALL)
            .current_dir(tests)
            .output()
            .context("npm cannot be started")?;
        if output.status.success() {
            return Ok(None);
        }
        let said = String::from_utf8_lossy(&output.stderr);
        match UNREACHABLE.into_iter().find(|code| said.contains(code)) {
            Some(code) => Ok(Some(format!("npm cannot reach its registry ({code})"))),
            None => bail!("npm {}: {said}", INSTALL.join(" ")),
        }
    }
}
