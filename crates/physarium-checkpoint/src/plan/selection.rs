//! Which tensors the user wants pruned, as globs on their names.

use globset::{Glob, GlobMatcher};

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

/// A selection whose globs are well-formed.
pub(super) struct Patterns {
    pub target: Vec<Pattern>,
    pub skip: Vec<Pattern>,
}

pub(super) struct Pattern {
    option: &'static str,
    pub glob: String,
    matcher: GlobMatcher,
}

impl Pattern {
    pub fn matches(&self, name: &str) -> bool {
        self.matcher.is_match(name)
    }
}

impl Patterns {
    /// # Errors
    /// `Pattern` for a glob that is not well-formed.
    pub fn new(selection: &Selection) -> Result<Patterns> {
        let compile = |option: &'static str, globs: &[String]| {
            let compile_one = |glob: &String| {
                let matcher = Glob::new(glob)
                    .map_err(|source| Error::Pattern { option, pattern: glob.clone(), source })?
                    .compile_matcher();
                Ok(Pattern { option, glob: glob.clone(), matcher })
            };
            globs.iter().map(compile_one).collect::<Result<Vec<_>>>()
        };
        Ok(Patterns {
            target: compile("--target", &selection.target)?,
            skip: compile("--skip", &selection.skip)?,
        })
    }

    /// # Errors
    /// `PatternMatchesNothing` for a glob that matches no tensor.
    pub fn refuse_idle(&self, checkpoint: &Checkpoint) -> Result<()> {
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
