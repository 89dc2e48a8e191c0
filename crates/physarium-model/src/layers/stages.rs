//! The stages of a layer with their weights.

use physarium_checkpoint::Site;
use physarium_kernels::Linear;

use crate::open::shapes::StageKind;

/// A stage of one layer.
#[derive(Debug, Clone)]
pub struct Stage {
    pub(crate) layer: usize,
    pub(crate) kind: StageKind,
    /// In forward order.
    pub(crate) maps: Vec<(Site, Linear)>,
}

impl Stage {
    /// Index of its layer; the first is 0.
    pub fn layer(&self) -> usize {
        self.layer
    }

    /// What its inputs are computed from.
    pub fn kind(&self) -> StageKind {
        self.kind
    }

    /// Its maps in forward order, each with its site.
    pub fn maps(&self) -> &[(Site, Linear)] {
        &self.maps
    }

    /// Replaces the map at `site`.
    ///
    /// # Panics
    /// If the stage has no map at `site`, or the shapes differ.
    #[track_caller]
    pub fn replace(&mut self, site: &Site, map: Linear) {
        let old = self.maps.iter_mut().find(|(other, _)| other == site);
        let (_, old) = old.unwrap_or_else(|| panic!("no map at {site:?} in this stage"));
        assert_eq!([old.outputs(), old.inputs()], [map.outputs(), map.inputs()]);
        *old = map;
    }
}
