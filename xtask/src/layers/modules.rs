/*!
The modules of a crate, each with the file that holds it.

Loading starts at a crate's root file and follows `mod` declarations, as the compiler does. An inline
module belongs to the file around it. Test-only items are left out; `#[path]` is not supported.
*/

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use syn::visit::Visit;
use syn::{Item, ItemMod};

use super::attributes::{drop_test_methods, of_item, only_in_tests};
use super::imports::{Import, Imports};

/// Reads the text of a source file.
pub type Read<'a> = &'a dyn Fn(&Path) -> io::Result<String>;

/// All modules of one crate. The root has index 0.
#[derive(Default)]
pub struct Modules {
    files: Vec<PathBuf>,
    modules: Vec<Module>,
}

/// One module.
pub struct Module {
    /// Index of the file that holds it.
    pub file: usize,
    /// Index of the module around it; the root has none.
    pub parent: Option<usize>,
    /// Child modules by name.
    pub children: BTreeMap<String, usize>,
    /// What its `use` items bring into scope.
    pub imports: Vec<Import>,
    /// Its items, without child modules.
    pub items: Vec<Item>,
}

impl Modules {
    /// Loads the crate with this root file (`lib.rs`, `main.rs`).
    ///
    /// # Errors
    /// A file that cannot be read or parsed, a module without a file.
    pub fn load(root: &Path, read: Read<'_>) -> anyhow::Result<Modules> {
        let mut loader = Loader { read, modules: Modules::default() };
        let text = read(root).with_context(|| root.display().to_string())?;
        let dir = root.parent().unwrap_or(Path::new(""));
        loader.file(root.to_owned(), &text, Nest { dir: dir.to_owned(), parent: None })?;
        Ok(loader.modules)
    }

    /// A file by its index.
    pub fn file(&self, file: usize) -> &Path {
        &self.files[file]
    }

    /// Number of files.
    pub fn n_files(&self) -> usize {
        self.files.len()
    }

    /// A module by its index.
    pub fn module(&self, module: usize) -> &Module {
        &self.modules[module]
    }

    /// Number of modules.
    pub fn n_modules(&self) -> usize {
        self.modules.len()
    }
}

/// Where a module is: the directory of its child modules' files, and the module around it.
struct Nest {
    dir: PathBuf,
    parent: Option<usize>,
}

struct Loader<'a> {
    read: Read<'a>,
    modules: Modules,
}

impl Loader<'_> {
    /// Adds a file and the modules below it; returns its module.
    fn file(&mut self, path: PathBuf, text: &str, nest: Nest) -> anyhow::Result<usize> {
        let parsed = syn::parse_file(text).with_context(|| path.display().to_string())?;
        self.modules.files.push(path);
        self.module(self.modules.files.len() - 1, parsed.items, nest)
    }

    fn module(&mut self, file: usize, items: Vec<Item>, nest: Nest) -> anyhow::Result<usize> {
        let index = self.modules.modules.len();
        let (mut own, mut nested) = (Vec::new(), Vec::new());
        for mut item in items.into_iter().filter(|item| !only_in_tests(of_item(item))) {
            drop_test_methods(&mut item);
            match item {
                Item::Mod(module) => nested.push(module),
                item => own.push(item),
            }
        }
        let mut imports = Imports::default();
        own.iter().for_each(|item| imports.visit_item(item));
        self.modules.modules.push(Module {
            file,
            parent: nest.parent,
            children: BTreeMap::new(),
            imports: imports.found,
            items: own,
        });
        for module in nested {
            let name = module.ident.to_string();
            let child = Nest { dir: nest.dir.join(&name), parent: Some(index) };
            let child = self.child(file, module, child)?;
            self.modules.modules[index].children.insert(name, child);
        }
        Ok(index)
    }

    fn child(&mut self, file: usize, module: ItemMod, nest: Nest) -> anyhow::Result<usize> {
        if let Some((_, items)) = module.content {
            return self.module(file, items, nest);
        }
        for path in [nest.dir.with_extension("rs"), nest.dir.join("mod.rs")] {
            match (self.read)(&path) {
                Ok(text) => return self.file(path, &text, nest),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error).with_context(|| path.display().to_string()),
            }
        }
        let parent = self.modules.files[file].display();
        bail!("{parent}: no file for `mod {}`", module.ident)
    }
}
