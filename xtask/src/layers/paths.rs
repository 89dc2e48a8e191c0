//! The paths that code contains, in macros and attributes too.

use proc_macro2::{Delimiter, Ident, TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{Attribute, Item, ItemUse, Macro, Meta, Path};

use super::attributes::{of_item, only_in_tests};

/// A path, without generic arguments.
pub struct CodePath {
    /// Its segments; the first decides where it leads.
    pub segments: Vec<String>,
    /// Line in the file, from 1.
    pub line: usize,
}

/// All paths in these items, except those of `use` items.
pub fn code_paths(items: &[Item]) -> Vec<CodePath> {
    let mut paths = Paths::default();
    items.iter().for_each(|item| paths.visit_item(item));
    paths.found
}

#[derive(Default)]
struct Paths {
    found: Vec<CodePath>,
}

impl<'ast> Visit<'ast> for Paths {
    fn visit_item(&mut self, item: &'ast Item) {
        if !only_in_tests(of_item(item)) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_use(&mut self, _: &'ast ItemUse) {}

    fn visit_path(&mut self, path: &'ast Path) {
        if let (None, Some(first)) = (&path.leading_colon, path.segments.first()) {
            let segments = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
            self.found.push(CodePath { segments, line: first.ident.span().start().line });
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
    /// Paths in tokens that `syn` does not parse: arguments of macros and attributes, definitions of macros.
    fn tokens(&mut self, tokens: TokenStream) {
        let trees: Vec<TokenTree> = tokens.into_iter().collect();
        let mut at = 0;
        while at < trees.len() {
            match &trees[at] {
                TokenTree::Group(group) => self.tokens(group.stream()),
                TokenTree::Ident(first) if starts_path(&trees[..at]) => {
                    let mut segments = vec![first.to_string()];
                    while let Some(next) = continued(&trees[at + 1..]) {
                        segments.push(next.to_string());
                        at += 3;
                    }
                    if segments.len() > 1 || names_item(first, trees.get(at + 1)) {
                        self.found.push(CodePath { segments, line: first.span().start().line });
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

/// Whether an identifier after these tokens begins a path: it is no field, method, lifetime or later segment.
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

/// Whether an identifier by itself can name an item: a type, a constant or a call, not a variable.
fn names_item(ident: &Ident, next: Option<&TokenTree>) -> bool {
    let called = match next {
        Some(TokenTree::Group(group)) => group.delimiter() == Delimiter::Parenthesis,
        Some(tree) => is_punct(tree, '!'),
        None => false,
    };
    called || ident.to_string().starts_with(char::is_uppercase)
}
