//! Circles between the files of a crate: groups in which every file needs every other, by however many steps.

use std::path::Path;

use super::modules::Modules;
use super::references::{Reference, references};

/// Files that need each other, and the places that say so.
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
    let mut needs = vec![Vec::new(); modules.n_files()];
    for reference in &references {
        needs[reference.from].push(reference.to);
    }
    let groups = strongly_connected(&needs).into_iter().filter(|files| files.len() > 1);
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

/// Says which files form a circle, edge after edge with the places that make it. Paths are shown
/// relative to `base`.
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
