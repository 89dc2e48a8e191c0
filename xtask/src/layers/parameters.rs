//! No function has more than four parameters beside `self`. Closures, `extern` and test functions are exempt.

use std::path::Path;

use syn::visit::{self, Visit};
use syn::{FnArg, ImplItemFn, Item, Signature, TraitItemFn};

use super::attributes::{of_item, only_in_tests};
use super::modules::Modules;

/// Most parameters beside `self`.
const MAX_PARAMETERS: usize = 4;

/// A function with too many parameters.
#[derive(Debug, PartialEq, Eq)]
struct Excess {
    name: String,
    line: usize,
    parameters: usize,
}

/// One line per function with too many parameters. Paths are shown relative to `base`.
pub fn faults(modules: &Modules, base: &Path) -> Vec<String> {
    let mut faults = Vec::new();
    for index in 0..modules.n_modules() {
        let module = modules.module(index);
        let path = modules.file(module.file);
        let shown = path.strip_prefix(base).unwrap_or(path).display();
        for Excess { name, line, parameters } in excesses(&module.items) {
            faults.push(format!(
                "{shown}:{line}: fn {name} has {parameters} parameters, at most {MAX_PARAMETERS}"
            ));
        }
    }
    faults
}

fn excesses(items: &[Item]) -> Vec<Excess> {
    let mut functions = Functions { excesses: Vec::new() };
    items.iter().for_each(|item| functions.visit_item(item));
    functions.excesses
}

struct Functions {
    excesses: Vec<Excess>,
}

impl<'ast> Visit<'ast> for Functions {
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

    fn visit_foreign_item_fn(&mut self, _: &'ast syn::ForeignItemFn) {}

    fn visit_signature(&mut self, signature: &'ast Signature) {
        let typed = |input: &&FnArg| matches!(input, FnArg::Typed(_));
        let parameters = signature.inputs.iter().filter(typed).count();
        if signature.abi.is_none() && parameters > MAX_PARAMETERS {
            let name = signature.ident.to_string();
            let line = signature.ident.span().start().line;
            self.excesses.push(Excess { name, line, parameters });
        }
    }
}
