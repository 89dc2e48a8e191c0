//! What the `use` items of a module bring into scope.

use proc_macro2::Ident;
use syn::visit::{self, Visit};
use syn::{Item, ItemUse, UseTree, Visibility};

use super::attributes::{of_item, only_in_tests};

/// One leaf of a `use` tree.
pub struct Import {
    /// Segments of the path, without a `*` or `self` at its end.
    pub path: Vec<String>,
    /// What comes into scope.
    pub binding: Binding,
    /// Who can use it.
    pub kind: ImportKind,
    /// Line in the file, from 1.
    pub line: usize,
}

/// What an import brings into scope.
#[derive(PartialEq, Eq)]
pub enum Binding {
    /// One name.
    Name(String),
    /// Every name of the module at the path.
    All,
}

/// Who can use an import.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum ImportKind {
    /// The module itself and its descendants.
    Private,
    /// Other modules too: `pub use`, `pub(crate) use`.
    Reexport,
}

/// First segment of a path that begins with `::`. No module has this name, so the path leaves the crate.
const OUTSIDE: &str = "{outside}";

/// Collects the imports of the items that it visits, those in function bodies too.
#[derive(Default)]
pub struct Imports {
    /// The imports, in source order.
    pub found: Vec<Import>,
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
        let first = item.leading_colon.as_ref().map(|_| OUTSIDE.to_owned());
        self.tree(first.into_iter().collect(), &item.tree, kind);
    }
}

impl Imports {
    fn tree(&mut self, mut path: Vec<String>, tree: &UseTree, kind: ImportKind) {
        match tree {
            UseTree::Path(inner) => {
                path.push(inner.ident.to_string());
                self.tree(path, &inner.tree, kind);
            }
            UseTree::Group(inner) => {
                inner.items.iter().for_each(|tree| self.tree(path.clone(), tree, kind));
            }
            UseTree::Name(inner) => self.leaf(path, &inner.ident, None, kind),
            UseTree::Rename(inner) => self.leaf(path, &inner.ident, Some(&inner.rename), kind),
            UseTree::Glob(inner) => {
                let line = inner.star_token.span.start().line;
                self.found.push(Import { path, binding: Binding::All, kind, line });
            }
        }
    }

    fn leaf(
        &mut self,
        mut path: Vec<String>,
        last: &Ident,
        rename: Option<&Ident>,
        kind: ImportKind,
    ) {
        if last != "self" {
            path.push(last.to_string());
        }
        let name = rename.map(Ident::to_string).or_else(|| path.last().cloned());
        let binding = Binding::Name(name.unwrap_or_default());
        self.found.push(Import { path, binding, kind, line: last.span().start().line });
    }
}
