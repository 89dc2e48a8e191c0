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
/// Names of objects inside `rope_parameters` where layers differ.
const LAYER_TYPES: [&str; 3] = ["full_attention", "sliding_attention", "chunked_attention"];
/// The field for a context length before it was extended.
const ORIGINAL: &str = "original_max_position_embeddings";

/// One description of a rotary embedding.
pub(crate) struct Dialect<'a> {
    /// The config.
    config: &'a Fields,
    /// The object that describes the rotary embedding; empty if the config has none.
    pub(crate) object: Fields,
    /// Its name in the config.
    pub(crate) name: &'static str,
}

impl<'a> Dialect<'a> {
    /// The descriptions that a config has, that in use first.
    pub(crate) fn all(config: &'a Fields) -> Result<Vec<Dialect<'a>>> {
        let mut all = Vec::new();
        for name in ["rope_scaling", "rope_parameters"] {
            let object = config.object(name)?.filter(|object| !object.is_empty());
            all.extend(object.map(|object| Dialect { config, object, name }));
        }
        for fields in std::iter::once(config).chain(all.iter().map(|dialect| &dialect.object)) {
            for field in PARTIAL {
                if let Some(part) = fields.number(field)?.filter(|part| *part != 1.0) {
                    return Err(fields.unsupported(field, &part.to_string(), "1"));
                }
            }
        }
        if all.is_empty() {
            all.push(Dialect { config, object: config.nothing(), name: "rope_parameters" });
        }
        Ok(all)
    }

    /// The base of the frequencies.
    pub(crate) fn theta(&self) -> Result<f64> {
        let stated = self.object.number("rope_theta")?.or(self.config.number("rope_theta")?);
        Ok(stated.unwrap_or(10_000.0))
    }

    /// Whether the config states another base beside this description.
    pub(crate) fn has_two_thetas(&self) -> Result<bool> {
        let inside = self.object.number("rope_theta")?;
        let beside = self.config.number("rope_theta")?;
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
