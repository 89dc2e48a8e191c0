/*!
Which fields of a config describe its rotary embedding.

In: a config of transformers 4.x (`rope_theta`, `rope_scaling`) or 5.x (`rope_parameters`), or one with both, as
written by 5.x and edited as model cards say. Out: the [`Dialect`] that transformers 5 would use. A config whose
fields contradict each other is an error.
*/

use super::fields::Fields;
use crate::error::Result;

/// Share of a head's features that is rotated, by the names that families give it.
const PARTIAL: [&str; 3] = ["partial_rotary_factor", "rotary_pct", "rope_pct"];
/// Type of the layers that attend to all positions, by its name in configs.
pub(crate) const FULL: &str = "full_attention";
/// Type of the layers that attend within a window.
pub(crate) const SLIDING: &str = "sliding_attention";
/// Names of objects inside `rope_parameters` where layers differ.
const LAYER_TYPES: [&str; 3] = [FULL, SLIDING, "chunked_attention"];
/// The field for a context length before it was extended.
const ORIGINAL: &str = "original_max_position_embeddings";

/// One description of a rotary embedding.
pub(crate) struct Dialect<'a> {
    /// The config.
    config: &'a Fields,
    /// Where the base of the frequencies stands if the object does not state one.
    pub(crate) theta: ThetaField,
    /// The object that describes the rotary embedding; empty if the config has none.
    pub(crate) object: Fields,
    /// Its name in the config.
    pub(crate) name: &'static str,
}

/// A field of the config for the base of the frequencies.
#[derive(Clone, Copy)]
pub(crate) struct ThetaField {
    pub(crate) name: &'static str,
    pub(crate) unless_stated: f64,
}

const THETA: ThetaField = ThetaField { name: "rope_theta", unless_stated: 10_000.0 };

impl<'a> Dialect<'a> {
    /// The descriptions that a config has, that in use first.
    pub(crate) fn all(config: &'a Fields) -> Result<Vec<Dialect<'a>>> {
        let mut all = Vec::new();
        for name in ["rope_scaling", "rope_parameters"] {
            let object = config.object(name)?.filter(|object| !object.is_empty());
            all.extend(object.map(|object| Dialect { config, theta: THETA, object, name }));
        }
        if all.is_empty() {
            let (theta, object) = (THETA, config.nothing());
            all.push(Dialect { config, theta, object, name: "rope_parameters" });
        }
        all.iter().try_for_each(Dialect::refuse_partial)?;
        Ok(all)
    }

    /// The description for one type of layers, where layers differ: the object of that name in `rope_parameters` (5.x). For
    /// layers that attend to all positions it may stand in `rope_scaling` (4.x).
    pub(crate) fn of_layers(
        config: &'a Fields,
        layer_type: &'static str,
        theta: ThetaField,
    ) -> Result<Dialect<'a>> {
        let by_type = config.object("rope_parameters")?.unwrap_or_else(|| config.nothing());
        if let Some(other) = by_type.other_than(&[FULL, SLIDING]) {
            let supported = "an object for full_attention and one for sliding_attention";
            return Err(config.unsupported("rope_parameters", &other, supported));
        }
        let mut object = by_type.object(layer_type)?.unwrap_or_else(|| config.nothing());
        let mut name = "rope_parameters";
        if layer_type == FULL
            && let Some(scaling) =
                config.object("rope_scaling")?.filter(|object| !object.is_empty())
        {
            if !object.is_empty() {
                let found = "both".to_owned();
                let expected = "rope_scaling or rope_parameters.full_attention";
                return Err(config.conflict("rope_scaling", expected, found));
            }
            (object, name) = (scaling, "rope_scaling");
        }
        let dialect = Dialect { config, theta, object, name };
        dialect.refuse_partial()?;
        Ok(dialect)
    }

    /// Fails if only a part of a head's features is to be rotated.
    fn refuse_partial(&self) -> Result<()> {
        for fields in [self.config, &self.object] {
            for field in PARTIAL {
                if let Some(part) = fields.number(field)?.filter(|part| *part != 1.0) {
                    return Err(fields.unsupported(field, &part.to_string(), "1"));
                }
            }
        }
        Ok(())
    }

    /// The base of the frequencies.
    pub(crate) fn theta(&self) -> Result<f64> {
        let stated = self.object.number("rope_theta")?.or(self.config.number(self.theta.name)?);
        Ok(stated.unwrap_or(self.theta.unless_stated))
    }

    /// Whether the config states another base beside this description.
    pub(crate) fn has_two_thetas(&self) -> Result<bool> {
        let inside = self.object.number("rope_theta")?;
        let beside = self.config.number(self.theta.name)?;
        Ok(inside.zip(beside).is_some_and(|(inside, beside)| inside != beside))
    }

    /// Fails if `other`, which is not in use, states another base: transformers 5 drops it, and with it perhaps
    /// the base that the model was trained with.
    pub(crate) fn refuse_other_theta(&self, other: &Dialect<'_>) -> Result<()> {
        let (used, stated) = (self.theta()?, other.object.number("rope_theta")?);
        match stated.filter(|stated| *stated != used) {
            None => Ok(()),
            Some(stated) => {
                let found = format!("{used} by rope_scaling and {stated} by rope_parameters");
                let expected = "one rope_theta in rope_scaling and rope_parameters";
                Err(self.config.conflict("rope_theta", expected, found))
            }
        }
    }

    /// Name of the scaling.
    ///
    /// # Errors
    /// `Unsupported` for a description that differs between layers.
    pub(crate) fn kind(&self) -> Result<&str> {
        let by_layer = LAYER_TYPES.into_iter().find(|name| self.object.has(name));
        if let Some(layers) = by_layer.map(str::to_owned).or_else(|| self.object.nested()) {
            let supported = "one description for all layers";
            return Err(self.config.unsupported(self.name, &format!("by {layers}"), supported));
        }
        match self.object.text("rope_type")? {
            Some(kind) => Ok(kind),
            None => Ok(self.object.text("type")?.unwrap_or("default")),
        }
    }

    /// Context length in tokens before it was extended: as stated, or the config's maximum.
    pub(crate) fn original_positions(&self) -> Result<Option<f64>> {
        let (inside, beside) = (self.object.number(ORIGINAL)?, self.config.number(ORIGINAL)?);
        if let (Some(inside), Some(beside)) = (inside, beside)
            && inside != beside
        {
            let found = format!("{inside} in {} and {beside} beside it", self.name);
            return Err(self.config.conflict(ORIGINAL, "one number", found));
        }
        match inside.or(beside) {
            Some(positions) => Ok(Some(positions)),
            None => self.config.number("max_position_embeddings"),
        }
    }

    /// As [`Dialect::original_positions`], where it is required.
    pub(crate) fn required_original_positions(&self) -> Result<f64> {
        let missing = || self.config.fault("max_position_embeddings", "a positive number", None);
        self.original_positions()?.ok_or_else(missing)
    }
}
