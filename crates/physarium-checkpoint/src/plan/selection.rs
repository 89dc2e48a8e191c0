//! Which tensors to prune, as globs on their names.

use globset::{Glob, GlobMatcher};

use super::names::Named;
use crate::error::{Error, Result};
use crate::open::checkpoint::Checkpoint;

/// Which tensors to prune.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// Globs on tensor names; empty means the default projections.
    pub target: Vec<String>,
    /// Globs on names of tensors that are not pruned even if `target` matches them.
    pub skip: Vec<String>,
}

/// The names that a [`Selection`] takes, with its globs compiled.
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
    /// Compiles the globs of `selection`.
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

    /// What the name of a tensor says; `None` if no `target` glob matches it or, without such globs, if it is not the
    /// name of a default projection. `skip` globs are not applied.
    pub fn named(&self, name: &str) -> Option<Named> {
        if self.target.is_empty() {
            return Named::of_default_target(name);
        }
        let chosen = self.target.iter().any(|pattern| pattern.matches(name));
        chosen.then(|| Named::of(name))
    }

    /// The `skip` glob that matches a tensor's name.
    pub(super) fn skip_pattern(&self, name: &str) -> Option<&str> {
        let pattern = self.skip.iter().find(|pattern| pattern.matches(name))?;
        Some(&pattern.glob)
    }

    /// Fails if a glob matches no tensor: it is most likely misspelt.
    ///
    /// # Errors
    /// `PatternMatchesNothing`.
    pub(super) fn refuse_unmatched(&self, checkpoint: &Checkpoint) -> Result<()> {
        let unmatched =
            |pattern: &&Pattern| !checkpoint.tensors().any(|(_, t)| pattern.matches(&t.name));
        match self.target.iter().chain(&self.skip).find(unmatched) {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn names(target: &[&str], skip: &[&str]) -> Result<TargetNames> {
        let own = |globs: &[&str]| globs.iter().map(|glob| (*glob).to_owned()).collect();
        TargetNames::new(&Selection { target: own(target), skip: own(skip) })
    }

    #[test]
    fn without_targets_the_default_projections_are_taken() {
        let names = names(&[], &["*"]).expect("well-formed");
        let named = names.named("model.layers.2.mlp.up_proj.weight").expect("a projection");
        assert_eq!((named.projection.as_str(), named.site.layer), ("mlp.up_proj", Some(2)));
        for other in ["model.layers.2.mlp.up_proj.bias", "lm_head.weight", ""] {
            assert_eq!(names.named(other), None, "{other}");
        }
    }

    #[test]
    fn targets_replace_the_default_projections() {
        let names = names(&["lm_head.*", "*.layers.[12].mlp.*"], &[]).expect("well-formed");
        for taken in ["lm_head.weight", "model.layers.1.mlp.router.weight"] {
            assert!(names.named(taken).is_some(), "{taken}");
        }
        for other in ["model.layers.1.self_attn.q_proj.weight", "model.layers.3.mlp.up_proj.weight"]
        {
            assert_eq!(names.named(other), None, "{other}");
        }
    }

    #[test]
    fn skip_patterns_are_found_in_their_order() {
        let names = names(&[], &["*.layers.1.*", "*.mlp.*"]).expect("well-formed");
        let skip = |name: &str| names.skip_pattern(name).map(str::to_owned);
        assert_eq!(skip("model.layers.1.mlp.up_proj.weight").as_deref(), Some("*.layers.1.*"));
        assert_eq!(skip("model.layers.2.mlp.up_proj.weight").as_deref(), Some("*.mlp.*"));
        assert_eq!(skip("lm_head.weight"), None);
        assert!(names.named("model.layers.1.mlp.up_proj.weight").is_some());
    }

    #[test]
    fn a_glob_that_is_not_well_formed_is_an_error_of_its_option() {
        for (target, skip, expected) in
            [(&["ok", "["][..], &[][..], "--target ["), (&[], &["{a"], "--skip {a")]
        {
            let error = names(target, skip).expect_err("not well-formed");
            assert!(matches!(error, Error::Pattern { .. }), "{error}");
            assert!(error.to_string().starts_with(expected), "{error}");
        }
    }
}
