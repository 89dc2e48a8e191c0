//! Models on the command line: a directory, a packed file, the id of a model of the hub, or an address in an object store.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use clap::Args;
use physarium::checkpoint::{
    Checkpoint, FoundModel, HubCache, ModelName, ModelSource, StoreSource, printable_path,
};

use crate::arguments::INPUT;
use crate::stores;

/// The revision of a model of the hub; every command that takes a MODEL takes it.
#[derive(Args, Clone)]
pub struct RevisionArgument {
    /// Branch, tag or commit of the MODEL that is given by its hub id; ID@REVISION is the same [default: main]
    #[arg(long, value_name = "REVISION", help_heading = INPUT)]
    revision: Option<String>,
}

/// A model of the command line.
pub struct Model {
    /// Its directory or packed file.
    pub path: PathBuf,
    /// Its place on the hub or in a store, if it was given by name.
    pub source: Option<ModelSource>,
    /// As it is typed in another command.
    pub shown: String,
}

impl RevisionArgument {
    /// Finds the only model of a command.
    ///
    /// # Errors
    /// As [`find_both`](Self::find_both).
    pub fn find(&self, model: &Path) -> anyhow::Result<Model> {
        Ok(self.find_both(model, None)?.0)
    }

    /// Finds two models.
    ///
    /// # Errors
    /// As [`find_both`](Self::find_both).
    pub fn find_pair(&self, one: &Path, other: &Path) -> anyhow::Result<[Model; 2]> {
        let cache = cache();
        let mut names = [name(&cache, one)?, name(&cache, other)?];
        self.set_revision(&mut names)?;
        let [one, other] = names;
        Ok([found(&cache, one)?, found(&cache, other)?])
    }

    /// Finds a model and, if there is one, that which it is compared with. One of them may be given by id with
    /// `--revision`.
    ///
    /// # Errors
    /// For a model that is neither a path nor in the hub cache, and for a revision that belongs to none, or to several.
    pub fn find_both(
        &self,
        model: &Path,
        against: Option<&Path>,
    ) -> anyhow::Result<(Model, Option<Model>)> {
        if let Some(against) = against {
            let [model, against] = self.find_pair(model, against)?;
            return Ok((model, Some(against)));
        }
        let cache = cache();
        let mut names = [name(&cache, model)?];
        self.set_revision(&mut names)?;
        let [model] = names;
        Ok((found(&cache, model)?, None))
    }

    /// Gives the revision to the only model that is given by id.
    fn set_revision(&self, names: &mut [ModelName]) -> anyhow::Result<()> {
        let Some(revision) = &self.revision else { return Ok(()) };
        let ids = names.iter_mut().filter_map(|name| match name {
            ModelName::Hub(id) => Some(id),
            ModelName::Path(_) => None,
        });
        match ids.collect::<Vec<_>>().as_mut_slice() {
            [] => bail!("--revision has no effect: no model is given by a hub id (ORG/NAME)"),
            [id] => **id = id.clone().at(revision)?,
            [one, other, ..] => {
                bail!("--revision could be of {one} or of {other}: write ID@REVISION")
            }
        }
        Ok(())
    }
}

/// What the user means by a model. An address in a store counts as a path.
fn name(cache: &HubCache, model: &Path) -> anyhow::Result<ModelName> {
    match StoreSource::is_address(model) {
        true => Ok(ModelName::Path(model.to_owned())),
        false => Ok(cache.name(model)?),
    }
}

/// Finds a model.
fn found(cache: &HubCache, name: ModelName) -> anyhow::Result<Model> {
    let (FoundModel { path, source }, shown) = match name {
        ModelName::Path(path) if StoreSource::is_address(&path) => {
            (FoundModel::at(&stores::mirror(&path)?), path.display().to_string())
        }
        ModelName::Hub(id) => (cache.find(&id)?, id.to_string()),
        ModelName::Path(path) => (FoundModel::at(&path), path.display().to_string()),
    };
    Ok(Model { path, source, shown })
}

/// Fails if an output would be in the hub cache or in a store.
///
/// # Errors
/// With the place.
pub fn refuse_in_cache(out: &Path) -> anyhow::Result<()> {
    let hint = "hint: write it to a directory, then: physarium upload DIR ADDRESS";
    let address = out.display();
    ensure!(
        !StoreSource::is_address(out),
        "{address}: an address in a store, expected a path\n{hint}"
    );
    Ok(cache().refuse_output(out)?)
}

/// Fails if a file or directory of results would be in a checkpoint, where `verify` does not expect it; or in the hub cache or
/// in a store.
///
/// # Errors
/// With the place.
pub fn refuse_in_model(out: &Path) -> anyhow::Result<()> {
    refuse_in_cache(out)?;
    let shown = printable_path(out);
    let absolute = std::path::absolute(out).with_context(|| format!("{shown}: cannot resolve"))?;
    let real = absolute.ancestors().find_map(|above| above.canonicalize().ok());
    let Some(real) = real else { return Ok(()) };
    match real.ancestors().find(|above| Checkpoint::is_at(above)) {
        None => Ok(()),
        Some(dir) => bail!(
            "{shown}: would be written into the checkpoint {}, expected a place outside",
            printable_path(dir)
        ),
    }
}

/// The hub cache of this process's environment.
fn cache() -> HubCache {
    HubCache::of_environment(&|name| std::env::var_os(name))
}
