/*!
Which files of a crate refer to which others, and where.

A `mod` declaration is no reference, nor is a re-export in a file with child modules: it only forwards.
An import of a whole module is none either; the items of it that are then used are.
*/

use std::collections::BTreeSet;

use super::imports::{Binding, Import, ImportKind};
use super::modules::{Module, Modules};
use super::paths::code_paths;
use super::resolve::{Found, Resolver};

/// A place in one file that needs another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// Index of the file that refers.
    pub from: usize,
    /// Index of the file that defines the item.
    pub to: usize,
    /// Line in `from`, from 1.
    pub line: usize,
    /// The path as it is written there.
    pub path: String,
}

/// All references between the files of a crate: per pair of files and item, the first place that names it.
pub fn references(modules: &Modules) -> Vec<Reference> {
    let mut seen = BTreeSet::new();
    let mut references = Vec::new();
    for index in 0..modules.n_modules() {
        let from = modules.module(index).file;
        for Place { path, line, found } in places(modules, index) {
            if let Found::Item { file: to, name } = found
                && to != from
                && seen.insert((from, to, name))
            {
                references.push(Reference { from, to, line, path });
            }
        }
    }
    references
}

/// A path in a module, and what it names.
struct Place {
    path: String,
    line: usize,
    found: Found,
}

/// The imports of a module, then the paths in its code.
fn places(modules: &Modules, index: usize) -> Vec<Place> {
    let module = modules.module(index);
    let mut places = Vec::new();
    for import in module.imports.iter().filter(|import| !forwards(module, import)) {
        let found = Resolver::new(modules).import(index, import);
        let place = |found| Place { path: written(import), line: import.line, found };
        places.extend(found.into_iter().map(place));
    }
    for path in code_paths(&module.items) {
        let found = Resolver::new(modules).path(index, &path.segments);
        places.push(Place { path: path.segments.join("::"), line: path.line, found });
    }
    places
}

fn forwards(module: &Module, import: &Import) -> bool {
    import.kind == ImportKind::Reexport && !module.children.is_empty()
}

fn written(import: &Import) -> String {
    let path = import.path.join("::");
    if import.binding == Binding::All { format!("{path}::*") } else { path }
}
