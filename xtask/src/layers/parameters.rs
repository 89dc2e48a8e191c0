//! No function has more than four parameters beside `self`. Closures, `extern` and test functions are exempt.

use std::path::Path;

use syn::visit::{self, Visit};
use syn::{FnArg, ForeignItemFn, Item, Signature};

use super::attributes::{of_item, only_in_tests};
use super::modules::Modules;

/// Maximum number of parameters beside `self`.
const MAX_PARAMETERS: usize = 4;

/// A function with too many parameters.
#[derive(Debug, PartialEq, Eq)]
struct Excess {
    name: String,
    line: usize,
    parameters: usize,
}

/// One line per function with too many parameters. File names are relative to `base`.
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

    fn visit_foreign_item_fn(&mut self, _: &'ast ForeignItemFn) {}

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

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]
mod tests {
    use super::excesses;

    /// Names and counts of the functions that break the rule.
    fn found(text: &str) -> Vec<(String, usize)> {
        let items = syn::parse_file(text).unwrap().items;
        excesses(&items).into_iter().map(|excess| (excess.name, excess.parameters)).collect()
    }

    #[test]
    fn self_does_not_count() {
        let text = "impl A { fn four(&self, a: u8, b: u8, c: u8, d: u8) {} \
                    fn five(&mut self, a: u8, b: u8, c: u8, d: u8, [e, f]: [u8; 2]) {} }";
        assert_eq!(found(text), [("five".to_owned(), 5)]);
    }

    #[test]
    fn free_nested_and_trait_functions_count() {
        let text = "fn free(a: u8, b: u8, c: u8, d: u8, e: u8) { \
                        fn nested(a: u8, b: u8, c: u8, d: u8, e: u8, f: u8) {} }\
                    trait T { fn declared(a: u8, b: u8, c: u8, d: u8, e: u8); }";
        let expected = [("free", 5), ("nested", 6), ("declared", 5)];
        assert_eq!(found(text), expected.map(|(name, count)| (name.to_owned(), count)));
    }

    #[test]
    fn closures_foreign_and_test_functions_are_exempt() {
        let text = "fn f() { let g = |a: u8, b: u8, c: u8, d: u8, e: u8| a; }\
                    extern \"C\" fn back(a: u8, b: u8, c: u8, d: u8, e: u8) {}\
                    unsafe extern \"C\" { fn call(a: u8, b: u8, c: u8, d: u8, e: u8); }\
                    #[cfg(test)] mod tests { fn h(a: u8, b: u8, c: u8, d: u8, e: u8) {} }";
        assert_eq!(found(text), []);
    }
}
