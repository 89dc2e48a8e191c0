/*!
From a path in a module to the file that defines what the path names.

Re-exports are followed to the definition. Items that a macro generates are invisible here, so a name
that a module does not define or import counts as defined in that module's file.
*/

use syn::Item;

use super::imports::{Binding, Import, ImportKind};
use super::modules::Modules;

/// What a path names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// A module.
    Module(usize),
    /// An item, and the index of the file that defines it.
    Item { file: usize, name: String },
    /// Something of another crate, or a local name.
    Outside,
}

/// Where a segment stands in its path: more can follow a module, but not a function of the same name.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Position {
    Within,
    Last,
}

/// Resolves paths in the modules of one crate.
pub struct Resolver<'a> {
    modules: &'a Modules,
    /// Imports being followed, as module and index: stops imports that lead to each other.
    following: Vec<(usize, usize)>,
}

impl<'a> Resolver<'a> {
    /// A resolver for these modules.
    pub fn new(modules: &'a Modules) -> Resolver<'a> {
        Resolver { modules, following: Vec::new() }
    }

    /// What a path names that is written in module `at`.
    pub fn path(&mut self, at: usize, path: &[String]) -> Found {
        let mut here = Found::Module(at);
        for (index, segment) in path.iter().enumerate() {
            let Found::Module(module) = here else { break };
            let position = if index + 1 == path.len() { Position::Last } else { Position::Within };
            here = match segment.as_str() {
                "crate" => Found::Module(0),
                "self" => Found::Module(module),
                "super" => self.modules.module(module).parent.map_or(Found::Outside, Found::Module),
                name => match self.name(module, name, position) {
                    Some(found) => found,
                    None if index == 0 => Found::Outside,
                    None => self.own(module, name),
                },
            };
        }
        here
    }

    /// What an import of module `at` brings into scope.
    pub fn import(&mut self, at: usize, import: &Import) -> Vec<Found> {
        match (&import.binding, self.path(at, &import.path)) {
            (Binding::All, Found::Module(module)) => self.exports(module),
            (_, found) => vec![found],
        }
    }

    /// The items that module `at` defines or re-exports.
    fn exports(&mut self, at: usize) -> Vec<Found> {
        let modules = self.modules;
        let module = modules.module(at);
        let names = module.items.iter().filter_map(defined_name);
        let mut found: Vec<Found> = names.map(|name| self.own(at, &name)).collect();
        for (index, import) in module.imports.iter().enumerate() {
            if import.kind == ImportKind::Reexport {
                let exported = self.guarded((at, index), |own| own.import(at, import));
                found.extend(exported.unwrap_or_default());
            }
        }
        found
    }

    /// What a name means in module `at`. Items and named imports shadow globs.
    fn name(&mut self, at: usize, name: &str, position: Position) -> Option<Found> {
        let module = self.modules.module(at);
        let child = module.children.get(name).map(|child| Found::Module(*child));
        if position == Position::Within && child.is_some() {
            return child;
        }
        if module.items.iter().any(|item| defined_name(item).is_some_and(|own| own == name)) {
            return Some(self.own(at, name));
        }
        self.named_import(at, name).or(child).or_else(|| self.glob_import(at, name, position))
    }

    fn named_import(&mut self, at: usize, name: &str) -> Option<Found> {
        let modules = self.modules;
        let mut imports = modules.module(at).imports.iter().enumerate();
        imports.find_map(|(index, import)| match &import.binding {
            Binding::Name(own) if own == name => {
                self.guarded((at, index), |resolver| resolver.path(at, &import.path))
            }
            _ => None,
        })
    }

    fn glob_import(&mut self, at: usize, name: &str, position: Position) -> Option<Found> {
        let modules = self.modules;
        let mut imports = modules.module(at).imports.iter().enumerate();
        imports.find_map(|(index, import)| {
            if import.binding != Binding::All {
                return None;
            }
            let found = self.guarded((at, index), |own| match own.path(at, &import.path) {
                Found::Module(module) => own.name(module, name, position),
                _ => None,
            });
            found.flatten()
        })
    }

    /// Follows an import, unless it is being followed.
    fn guarded<T>(
        &mut self,
        import: (usize, usize),
        follow: impl FnOnce(&mut Self) -> T,
    ) -> Option<T> {
        if self.following.contains(&import) {
            return None;
        }
        self.following.push(import);
        let found = follow(self);
        self.following.pop();
        Some(found)
    }

    fn own(&self, at: usize, name: &str) -> Found {
        Found::Item { file: self.modules.module(at).file, name: name.to_owned() }
    }
}

/// The name that an item adds to its module, if it adds one.
fn defined_name(item: &Item) -> Option<String> {
    let ident = match item {
        Item::Const(item) => &item.ident,
        Item::Enum(item) => &item.ident,
        Item::Fn(item) => &item.sig.ident,
        Item::Macro(item) => item.ident.as_ref()?,
        Item::Static(item) => &item.ident,
        Item::Struct(item) => &item.ident,
        Item::Trait(item) => &item.ident,
        Item::TraitAlias(item) => &item.ident,
        Item::Type(item) => &item.ident,
        Item::Union(item) => &item.ident,
        _ => return None,
    };
    Some(ident.to_string())
}
