/*!
Which file of a crate refers to which other, and where it says so.

A `mod` declaration and a re-export in a file with child modules forward only: they are no references.
An import of a module is none either: what is then used of that module is.
*/

use std::collections::BTreeSet;

use proc_macro2::{Delimiter, Ident, TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{Attribute, ImplItemFn, Item, ItemUse, Macro, Meta, Path, TraitItemFn};

use super::attributes::{of_item, only_in_tests};
use super::imports::{Binding, Import, ImportKind};
use super::modules::{Module, Modules};
use super::resolve::{Found, Resolver};

/// A place in one file that needs another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// Index of the file that refers.
    pub from: usize,
    /// Index of the file that defines what is meant.
    pub to: usize,
    /// Where, from 1.
    pub line: usize,
    /// The path as it is written.
    pub path: String,
}

/// All references between the files of a crate: for each item of another file, the first place that names it.
pub fn references(modules: &Modules) -> Vec<Reference> {
    let mut found = Collector { seen: BTreeSet::new(), references: Vec::new() };
    for index in 0..modules.n_modules() {
        let module = modules.module(index);
        let mut places = Vec::new();
        for import in module.imports.iter().filter(|import| !forwards(module, import)) {
            let targets = import_targets(modules, index, import);
            places.extend(targets.into_iter().map(|target| (written(import), import.line, target)));
        }
        let mut paths = Paths::default();
        module.items.iter().for_each(|item| paths.visit_item(item));
        for (path, line) in paths.found {
            let target = Resolver::new(modules).path(index, &path);
            places.push((path.join("::"), line, target));
        }
        found.add(module.file, places);
    }
    found.references
}

/// Keeps one reference per file and item.
struct Collector {
    seen: BTreeSet<(usize, usize, String)>,
    references: Vec<Reference>,
}

impl Collector {
    fn add(&mut self, from: usize, places: Vec<(String, usize, Found)>) {
        for (path, line, target) in places {
            let Found::Item { file: to, name } = target else { continue };
            if to != from && self.seen.insert((from, to, name)) {
                self.references.push(Reference { from, to, line, path });
            }
        }
    }
}

fn forwards(module: &Module, import: &Import) -> bool {
    import.kind == ImportKind::Reexport && !module.children.is_empty()
}

fn written(import: &Import) -> String {
    let path = import.path.join("::");
    if import.binding == Binding::All { format!("{path}::*") } else { path }
}

fn import_targets(modules: &Modules, at: usize, import: &Import) -> Vec<Found> {
    let mut resolver = Resolver::new(modules);
    match (resolver.path(at, &import.path), &import.binding) {
        (Found::Module(module), Binding::All) => resolver.all(module),
        (found, _) => vec![found],
    }
}

/// Collects the paths in the code of a module, with their lines; imports are looked at elsewhere.
#[derive(Default)]
struct Paths {
    found: Vec<(Vec<String>, usize)>,
}

impl<'ast> Visit<'ast> for Paths {
    fn visit_item(&mut self, item: &'ast Item) {
        if !only_in_tests(of_item(item)) {
            visit::visit_item(self, item);
        }
    }

    fn visit_impl_item_fn(&mut self, item: &'ast ImplItemFn) {
        if !only_in_tests(&item.attrs) {
            visit::visit_impl_item_fn(self, item);
        }
    }

    fn visit_trait_item_fn(&mut self, item: &'ast TraitItemFn) {
        if !only_in_tests(&item.attrs) {
            visit::visit_trait_item_fn(self, item);
        }
    }

    fn visit_item_use(&mut self, _: &'ast ItemUse) {}

    fn visit_path(&mut self, path: &'ast Path) {
        if let (None, Some(first)) = (&path.leading_colon, path.segments.first()) {
            let segments = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
            self.found.push((segments, first.ident.span().start().line));
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast Macro) {
        self.visit_path(&call.path);
        self.tokens(call.tokens.clone());
    }

    fn visit_attribute(&mut self, attribute: &'ast Attribute) {
        if let Meta::List(list) = &attribute.meta {
            self.tokens(list.tokens.clone());
        }
    }
}

impl Paths {
    /// Paths in tokens that are not parsed: what is given to a macro or an attribute, or is in its definition.
    fn tokens(&mut self, tokens: TokenStream) {
        let trees: Vec<TokenTree> = tokens.into_iter().collect();
        let mut at = 0;
        while at < trees.len() {
            match &trees[at] {
                TokenTree::Group(group) => self.tokens(group.stream()),
                TokenTree::Ident(first) if starts_path(&trees[..at]) => {
                    let mut path = vec![first.to_string()];
                    while let Some(next) = continued(&trees[at + 1..]) {
                        path.push(next.to_string());
                        at += 3;
                    }
                    if path.len() > 1 || names_item(first, trees.get(at + 1)) {
                        self.found.push((path, first.span().start().line));
                    }
                }
                _ => {}
            }
            at += 1;
        }
    }
}

fn is_punct(tree: &TokenTree, wanted: char) -> bool {
    matches!(tree, TokenTree::Punct(punct) if punct.as_char() == wanted)
}

/// Whether an identifier after these tokens is a path's first: not a field, a method or a later segment.
fn starts_path(before: &[TokenTree]) -> bool {
    match before {
        [.., a, b] if is_punct(a, ':') && is_punct(b, ':') => false,
        [.., a, b] if is_punct(b, '.') => is_punct(a, '.'),
        [.., b] => !is_punct(b, '.') && !is_punct(b, '\''),
        [] => true,
    }
}

/// The next segment, if `::` and an identifier follow.
fn continued(after: &[TokenTree]) -> Option<&Ident> {
    match after {
        [a, b, TokenTree::Ident(next), ..] if is_punct(a, ':') && is_punct(b, ':') => Some(next),
        _ => None,
    }
}

/// Whether an identifier alone is likely to name an item, not a variable: a type, a constant, a call.
fn names_item(ident: &Ident, next: Option<&TokenTree>) -> bool {
    let called = match next {
        Some(TokenTree::Group(group)) => group.delimiter() == Delimiter::Parenthesis,
        Some(tree) => is_punct(tree, '!'),
        None => false,
    };
    called || ident.to_string().starts_with(char::is_uppercase)
}
