//! What the `use` items of a module bring into scope.

use syn::visit::{self, Visit};
use syn::{Item, ItemUse, UseTree, Visibility};

use super::attributes::{of_item, only_in_tests};

/// One leaf of a `use` tree.
pub struct Import {
    /// Segments from the first to the last, without `*` and without a `self` at the end.
    pub path: Vec<String>,
    /// What comes into scope.
    pub binding: Binding,
    /// Who sees it.
    pub kind: ImportKind,
    /// Where it is written, from 1.
    pub line: usize,
}

/// What an import brings into scope.
#[derive(Clone, PartialEq, Eq)]
pub enum Binding {
    /// One name.
    Name(String),
    /// All that the path has.
    All,
}

/// Who sees an import.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum ImportKind {
    /// The module itself and what is below it.
    Private,
    /// Others as well: `pub use`, `pub(crate) use`.
    Reexport,
}

/// The first segment of a path that begins with `::`: no module has this name, so it leads out of the crate.
const OUTSIDE: &str = "{outside}";

/// Collects the imports of the items that it visits, those in function bodies too.
#[derive(Default)]
pub struct Imports {
    /// What was found.
    pub found: Vec<Import>,
}

impl Imports {
    fn add(&mut self, path: Vec<String>, binding: Binding, leaf: Leaf) {
        self.found.push(Import { path, binding, kind: leaf.kind, line: leaf.line });
    }

    fn tree(&mut self, mut path: Vec<String>, tree: &UseTree, kind: ImportKind) {
        match tree {
            UseTree::Path(inner) => {
                path.push(inner.ident.to_string());
                self.tree(path, &inner.tree, kind);
            }
            UseTree::Name(inner) => {
                let leaf = Leaf { kind, line: inner.ident.span().start().line };
                if inner.ident != "self" {
                    path.push(inner.ident.to_string());
                }
                let name = path.last().cloned().unwrap_or_default();
                self.add(path, Binding::Name(name), leaf);
            }
            UseTree::Rename(inner) => {
                let leaf = Leaf { kind, line: inner.ident.span().start().line };
                if inner.ident != "self" {
                    path.push(inner.ident.to_string());
                }
                self.add(path, Binding::Name(inner.rename.to_string()), leaf);
            }
            UseTree::Glob(inner) => {
                let line = inner.star_token.span.start().line;
                self.add(path, Binding::All, Leaf { kind, line });
            }
            UseTree::Group(inner) => {
                inner.items.iter().for_each(|tree| self.tree(path.clone(), tree, kind));
            }
        }
    }
}

/// What the last segment of a `use` tree adds to its path.
struct Leaf {
    kind: ImportKind,
    line: usize,
}

impl<'ast> Visit<'ast> for Imports {
    fn visit_item(&mut self, item: &'ast Item) {
        if !only_in_tests(of_item(item)) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        let kind = match item.vis {
            Visibility::Inherited => ImportKind::Private,
            _ => ImportKind::Reexport,
        };
        let outside = item.leading_colon.as_ref().map(|_| OUTSIDE.to_owned());
        self.tree(outside.into_iter().collect(), &item.tree, kind);
    }
}
