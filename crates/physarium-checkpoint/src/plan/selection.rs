//! Which tensors the user wants pruned, as globs on their names.

use globset::{Glob, GlobMatcher};

use super::names::Named;
use crate::error::{Error, Result};
use crate::open::checkpoint::Checkpoint;

/// Which tensors the user wants pruned.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// Globs on tensor names; empty means the default projections.
    pub target: Vec<String>,
    /// Globs on tensor names that are left alone even where `target` matches them.
    pub skip: Vec<String>,
}

/// The names that a selection takes: a [`Selection`] whose globs are well-formed.
#[derive(Debug)]
pub struct TargetNames {
    target: Vec<Pattern>,
    skip: Vec<Pattern>,
}

#[derive(Debug)]
struct Pattern {
    option: &'static str,
    glob: String,
    matcher: GlobMatcher,
}

impl Pattern {
    fn matches(&self, name: &str) -> bool {
        self.matcher.is_match(name)
    }
}

impl TargetNames {
    /// The names that `selection` takes.
    ///
    /// # Errors
    /// `Pattern` for a glob that is not well-formed.
    pub fn new(selection: &Selection) -> Result<TargetNames> {
        let compile = |option: &'static str, globs: &[String]| {
            let compile_one = |glob: &String| {
                let matcher = Glob::new(glob)
                    .map_err(|source| Error::Pattern { option, pattern: glob.clone(), source })?
                    .compile_matcher();
                Ok(Pattern { option, glob: glob.clone(), matcher })
            };
            globs.iter().map(compile_one).collect::<Result<Vec<_>>>()
        };
        Ok(TargetNames {
            target: compile("--target", &selection.target)?,
            skip: compile("--skip", &selection.skip)?,
        })
    }

    /// What the name of a tensor says, if the selection takes it: with no `target` globs, the name of a
    /// default projection. `skip` globs are not looked at.
    pub fn named(&self, name: &str) -> Option<Named> {
        if self.target.is_empty() {
            return Named::of_default_target(name);
        }
        let chosen = self.target.iter().any(|pattern| pattern.matches(name));
        chosen.then(|| Named::of(name))
    }

    /// The `skip` glob that matches a tensor's name.
    pub(super) fn skipping(&self, name: &str) -> Option<&str> {
        let pattern = self.skip.iter().find(|pattern| pattern.matches(name))?;
        Some(&pattern.glob)
    }

    /// # Errors
    /// `PatternMatchesNothing` for a glob that matches no tensor.
    pub(super) fn refuse_idle(&self, checkpoint: &Checkpoint) -> Result<()> {
        let idle =
            |pattern: &&Pattern| !checkpoint.tensors().any(|(_, t)| pattern.matches(&t.name));
        match self.target.iter().chain(&self.skip).find(idle) {
            None => Ok(()),
            Some(pattern) => Err(Error::PatternMatchesNothing {
                option: pattern.option,
                pattern: pattern.glob.clone(),
                tensors: checkpoint.tensors().count(),
                dir: checkpoint.dir().to_owned(),
            }),
        }
    }
}
