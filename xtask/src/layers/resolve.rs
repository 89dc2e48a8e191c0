/*!
From a path in a module to the file that defines what it names.

Re-exports are followed to the definition. What a macro makes cannot be seen: a name that a module
does not seem to have counts as its own.
*/

use syn::Item;

use super::imports::{Binding, Import, ImportKind};
use super::modules::Modules;

/// What a path leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// A module as such.
    Module(usize),
    /// Something that a file defines.
    Item { file: usize, name: String },
    /// Something of another crate.
    Outside,
}

/// Whether more of a path follows a name: only a module or a type can be followed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Position {
    Within,
    Last,
}

/// Looks names up in the modules of one crate.
pub struct Resolver<'a> {
    modules: &'a Modules,
    /// Imports that are being followed, as module and index, so that two globs cannot chase each other.
    following: Vec<(usize, usize)>,
}

impl<'a> Resolver<'a> {
    /// Nothing is looked up yet.
    pub fn new(modules: &'a Modules) -> Resolver<'a> {
        Resolver { modules, following: Vec::new() }
    }

    /// Follows a path that is written in module `at`.
    pub fn path(&mut self, at: usize, path: &[String]) -> Found {
        let mut here = Found::Module(at);
        for (index, segment) in path.iter().enumerate() {
            let Found::Module(module) = here else { break };
            let position = if index + 1 == path.len() { Position::Last } else { Position::Within };
            here = match segment.as_str() {
                "crate" => Found::Module(0),
                "self" => Found::Module(module),
                "super" => self.modules.module(module).parent.map_or(Found::Outside, Found::Module),
                name => self.name(module, name, position).unwrap_or_else(|| {
                    if index == 0 { Found::Outside } else { self.own(module, name) }
                }),
            };
        }
        here
    }

    /// The files of all that a glob import of module `at` brings into scope.
    pub fn all(&mut self, at: usize) -> Vec<Found> {
        let modules = self.modules;
        let module = modules.module(at);
        let mut found: Vec<Found> = module
            .items
            .iter()
            .filter_map(|item| defined_name(item).map(|name| self.own(at, &name)))
            .collect();
        for (index, import) in module.imports.iter().enumerate() {
            if import.kind == ImportKind::Reexport {
                found.extend(
                    self.guarded(at, index, |own| own.expand(at, import)).unwrap_or_default(),
                );
            }
        }
        found
    }

    /// What one import of module `at` brings into scope.
    fn expand(&mut self, at: usize, import: &Import) -> Vec<Found> {
        match (&import.binding, self.path(at, &import.path)) {
            (Binding::All, Found::Module(module)) => self.all(module),
            (_, found) => vec![found],
        }
    }

    fn name(&mut self, at: usize, name: &str, position: Position) -> Option<Found> {
        let modules = self.modules;
        let module = modules.module(at);
        let child = module.children.get(name).map(|child| Found::Module(*child));
        if position == Position::Within && child.is_some() {
            return child;
        }
        if module.items.iter().any(|item| defined_name(item).is_some_and(|own| own == name)) {
            return Some(self.own(at, name));
        }
        let named = Binding::Name(name.to_owned());
        self.imported(at, &named, |own, import| Some(own.path(at, &import.path))).or(child).or_else(
            || {
                self.imported(at, &Binding::All, |own, import| match own.path(at, &import.path) {
                    Found::Module(module) => own.name(module, name, position),
                    _ => None,
                })
            },
        )
    }

    /// The first import of module `at` with this binding that gives something.
    fn imported(
        &mut self,
        at: usize,
        binding: &Binding,
        mut follow: impl FnMut(&mut Self, &'a Import) -> Option<Found>,
    ) -> Option<Found> {
        let modules = self.modules;
        let imports = modules.module(at).imports.iter().enumerate();
        imports.filter(|(_, import)| import.binding == *binding).find_map(|(index, import)| {
            self.guarded(at, index, |own| follow(own, import)).flatten()
        })
    }

    /// Follows an import unless that is being done already.
    fn guarded<T>(
        &mut self,
        at: usize,
        import: usize,
        follow: impl FnOnce(&mut Self) -> T,
    ) -> Option<T> {
        if self.following.contains(&(at, import)) {
            return None;
        }
        self.following.push((at, import));
        let found = follow(self);
        self.following.pop();
        Some(found)
    }

    fn own(&self, at: usize, name: &str) -> Found {
        Found::Item { file: self.modules.module(at).file, name: name.to_owned() }
    }
}

/// The name that an item puts into its module, if it puts one.
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
