//! Circles between the files of a crate: groups in which every file refers to every other, directly or
//! through others.

use std::path::Path;

use super::modules::Modules;
use super::references::{Reference, references};

/// Files that refer to each other, and where they do.
#[derive(Debug)]
pub struct Circle {
    /// Indices of files, ascending.
    pub files: Vec<usize>,
    /// Every reference between two of the files.
    pub references: Vec<Reference>,
}

/// All circles of a crate.
pub fn circles(modules: &Modules) -> Vec<Circle> {
    let references = references(modules);
    let mut successors = vec![Vec::new(); modules.n_files()];
    for reference in &references {
        successors[reference.from].push(reference.to);
    }
    let groups = strongly_connected(&successors).into_iter().filter(|files| files.len() > 1);
    groups
        .map(|files| {
            let inside = |r: &&Reference| files.contains(&r.from) && files.contains(&r.to);
            let mut references: Vec<Reference> =
                references.iter().filter(inside).cloned().collect();
            references.sort_by_key(|r| (r.from, r.to, r.line));
            Circle { files, references }
        })
        .collect()
}

/// Lists the edges of a circle, each with the places that make it. File names are relative to `base`.
pub fn describe(circle: &Circle, modules: &Modules, base: &Path) -> String {
    let shown = |file: usize| {
        let path = modules.file(file);
        path.strip_prefix(base).unwrap_or(path).display().to_string()
    };
    let mut text = format!("circle of {} files", circle.files.len());
    let mut edge = None;
    for reference in &circle.references {
        if edge.replace((reference.from, reference.to)) != Some((reference.from, reference.to)) {
            let (from, to) = (shown(reference.from), shown(reference.to));
            text += &format!("\n  {from} -> {to}");
        }
        text += &format!("\n    {}:{}: {}", shown(reference.from), reference.line, reference.path);
    }
    text
}

/// Tarjan 1972: strongly connected components of a graph given by each node's successors.
fn strongly_connected(successors: &[Vec<usize>]) -> Vec<Vec<usize>> {
    let mut search = Search {
        successors,
        order: vec![None; successors.len()],
        lowest: vec![0; successors.len()],
        open: Vec::new(),
        visited: 0,
        components: Vec::new(),
    };
    for node in 0..successors.len() {
        if search.order[node].is_none() {
            search.visit(node);
        }
    }
    search.components
}

struct Search<'a> {
    successors: &'a [Vec<usize>],
    /// When a node was first visited.
    order: Vec<Option<usize>>,
    /// The earliest open node that a node reaches.
    lowest: Vec<usize>,
    /// Visited nodes whose component is not complete.
    open: Vec<usize>,
    visited: usize,
    components: Vec<Vec<usize>>,
}

impl Search<'_> {
    fn visit(&mut self, node: usize) {
        let order = self.visited;
        self.visited += 1;
        self.order[node] = Some(order);
        self.lowest[node] = order;
        self.open.push(node);
        for &next in &self.successors[node] {
            match self.order[next] {
                None => {
                    self.visit(next);
                    self.lowest[node] = self.lowest[node].min(self.lowest[next]);
                }
                Some(earlier) if self.open.contains(&next) => {
                    self.lowest[node] = self.lowest[node].min(earlier);
                }
                Some(_) => {}
            }
        }
        if self.lowest[node] == order
            && let Some(begin) = self.open.iter().position(|open| *open == node)
        {
            let mut component = self.open.split_off(begin);
            component.sort_unstable();
            self.components.push(component);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]
mod tests {
    use std::io;
    use std::path::Path;

    use super::{circles, describe, strongly_connected};
    use crate::layers::modules::Modules;

    /// A crate of these files, the root first.
    fn load(files: &[(&str, &str)]) -> Modules {
        let read = |path: &Path| {
            let file = files.iter().find(|(name, _)| Path::new(name) == path);
            file.map(|(_, text)| (*text).to_owned()).ok_or_else(|| io::ErrorKind::NotFound.into())
        };
        Modules::load(Path::new(files[0].0), &read).unwrap()
    }

    /// The files of each circle.
    fn found(files: &[(&str, &str)]) -> Vec<Vec<String>> {
        let modules = load(files);
        let name = |file: &usize| modules.file(*file).display().to_string();
        circles(&modules).iter().map(|circle| circle.files.iter().map(name).collect()).collect()
    }

    #[test]
    fn two_files_that_use_each_other() {
        let files = [
            ("lib.rs", "mod a; mod b; mod c;"),
            ("a.rs", "use crate::b::B; pub struct A(B);"),
            ("b.rs", "pub struct B;\nimpl B { fn a() -> crate::a::A { todo!() } }"),
            ("c.rs", "use crate::a::A; pub struct C(A);"),
        ];
        assert_eq!(found(&files), [["a.rs", "b.rs"]]);
        let modules = load(&files);
        let text = describe(&circles(&modules)[0], &modules, Path::new(""));
        let expected = "circle of 2 files\n  a.rs -> b.rs\n    a.rs:1: crate::b::B\n  \
                        b.rs -> a.rs\n    b.rs:2: crate::a::A";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_reexport_is_followed_to_the_file_that_defines_the_item() {
        let files = [
            ("lib.rs", "mod plan; mod recipe;"),
            ("plan/mod.rs", "mod choice; mod targets; pub use targets::Selection as Chosen;"),
            ("plan/choice.rs", "pub struct Choice;"),
            ("plan/targets.rs", "use crate::recipe::Recipe; pub struct Selection(Recipe);"),
            ("recipe.rs", "use crate::plan::Chosen; pub struct Recipe(Box<Chosen>);"),
        ];
        assert_eq!(found(&files), [["plan/targets.rs", "recipe.rs"]]);
    }

    #[test]
    fn globs_are_followed_too() {
        let files = [
            ("lib.rs", "mod a; mod b; pub use a::*;"),
            ("a/mod.rs", "mod inner; pub use self::inner::*;"),
            ("a/inner.rs", "use crate::b; pub struct A; fn f() { b::f(); }"),
            ("b.rs", "use crate::*; pub fn f() {}"),
        ];
        assert_eq!(found(&files), [["a/inner.rs", "b.rs"]]);
    }

    #[test]
    fn globs_of_each_other_end() {
        let files = [
            ("lib.rs", "mod a; mod b;"),
            ("a.rs", "pub use crate::b::*; pub struct A;"),
            ("b.rs", "pub use crate::a::*; pub struct B(Missing);"),
        ];
        assert_eq!(found(&files), [["a.rs", "b.rs"]]);
    }

    #[test]
    fn through_super() {
        let files = [
            ("lib.rs", "mod engine;"),
            ("engine/mod.rs", "mod solve; const EDGE: usize = 1; fn run() { solve::tile(); }"),
            ("engine/solve.rs", "pub fn tile() -> usize { super::EDGE }"),
        ];
        assert_eq!(found(&files), [["engine/mod.rs", "engine/solve.rs"]]);
    }

    #[test]
    fn through_three_files_and_a_folder_without_mod_rs() {
        let files = [
            ("main.rs", "mod a; mod c;"),
            ("a.rs", "mod b; pub fn f() { crate::c::f(); }"),
            ("a/b.rs", "pub fn f() { super::f(); }"),
            ("c.rs", "use crate::a; pub fn f() { a::b::f(); }"),
        ];
        assert_eq!(found(&files), [["a.rs", "a/b.rs", "c.rs"]]);
    }

    #[test]
    fn in_macros_and_attributes() {
        let files = [
            ("lib.rs", "mod a; mod b;"),
            ("a.rs", "#[arg(default_value_t = crate::b::B::One)] pub struct A;"),
            ("b.rs", "use crate::a; pub enum B { One } fn f() { g!(x, [a::A]); }"),
        ];
        assert_eq!(found(&files), [["a.rs", "b.rs"]]);
    }

    #[test]
    fn declaring_reexporting_and_importing_modules_makes_no_circle() {
        let files = [
            ("lib.rs", "mod a; pub mod b; pub use a::A; pub(crate) use b::deep; pub struct Root;"),
            ("a.rs", "use crate::Root; use crate::b; pub struct A(Root, b::deep::Deep);"),
            ("b/mod.rs", "pub mod deep; pub use crate::a::A; pub struct B;"),
            ("b/deep.rs", "use super::B; pub struct Deep(B);"),
        ];
        assert_eq!(found(&files), Vec::<Vec<String>>::new());
    }

    #[test]
    fn tests_other_crates_and_inline_modules_make_no_circle() {
        let files = [
            ("lib.rs", "mod a; mod b;"),
            ("a.rs", "pub struct A; mod inner { use super::A; } fn f() { inner::g(); }"),
            (
                "b.rs",
                "use crate::a::A; use ::a::C; use other::a; \
                 pub struct B { a: u8 } fn f(b: B) { format!(\"{}\", b.a(1)); }",
            ),
        ];
        assert_eq!(found(&files), Vec::<Vec<String>>::new());
        let tests = [
            "#[cfg(test)] mod tests { use crate::b::B; }",
            "#[cfg(all(test, unix))] use crate::b::B;",
            "impl A { #[cfg(test)] fn f(b: crate::b::B) {} }",
            "#[test] fn f() { crate::b::f(); }",
        ];
        for test in tests {
            let with_test = format!("{} {test}", files[1].1);
            assert_eq!(
                found(&[files[0], ("a.rs", &with_test), files[2]]),
                Vec::<Vec<String>>::new()
            );
        }
        let without = format!("{} #[cfg(not(test))] use crate::b::B;", files[1].1);
        assert_eq!(found(&[files[0], ("a.rs", &without), files[2]]), [["a.rs", "b.rs"]]);
    }

    #[test]
    fn a_missing_module_file_is_named() {
        let read = |path: &Path| match path == Path::new("lib.rs") {
            true => Ok("mod gone;".to_owned()),
            false => Err(io::ErrorKind::NotFound.into()),
        };
        let error = Modules::load(Path::new("lib.rs"), &read).err().unwrap();
        assert_eq!(error.to_string(), "lib.rs: no file for `mod gone`");
    }

    #[test]
    fn components_of_a_graph() {
        // A ring of 1, 2 and 3 with a way in and a way out, then two nodes that point at each other.
        let successors = [vec![1], vec![2], vec![3, 4], vec![1], vec![], vec![6, 4], vec![5]];
        let mut components = strongly_connected(&successors);
        components.sort();
        assert_eq!(components, [vec![0], vec![1, 2, 3], vec![4], vec![5, 6]]);
    }
}
