/*!
What goes with what: for each option of a recipe, the methods that it has an effect with, and under which condition.

In: an option and a [`Case`], the method with what sets its amount. Out: nothing, or why the option would have no
effect. [`RecipeOptions`](crate::RecipeOptions) refuses an option from this table, and a comparison asks it which
methods an option is for. A new option takes a row here and is then refused wherever it would be ignored.
*/

use super::error::{MethodName, NoEffect, RecipeOption, ScopeName};

/// When an option has an effect with a method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    /// Always.
    Always,
    /// It sets the amount. Two of these exclude each other.
    Amount,
    /// With a sparsity.
    Sparsity,
    /// While the flow runs, which a sparsity and a pattern prevent.
    Flow,
    /// While the flow runs, and with a sparsity of each tile.
    FlowOrTiles,
    /// With a sparsity of each tile.
    Tiles,
    /// Never: it belongs to activations.
    NoActivations,
    /// Never: the method has no tiles.
    NoTiles,
    /// Never: it belongs to other methods.
    OtherMethods,
}

/// The methods, in the order of the table's columns.
const METHODS: [MethodName; 5] = [
    MethodName::MagnitudeFlow,
    MethodName::Magnitude,
    MethodName::Wanda,
    MethodName::SparseGpt,
    MethodName::ActivationFlow,
];

/// An option, and when it has an effect with each of [`METHODS`].
type Row = (RecipeOption, [Use; METHODS.len()]);

/// All options but the method itself.
#[rustfmt::skip]
const TABLE: [Row; 16] = {
    use Use::{Always, Amount, Flow, FlowOrTiles, NoActivations, NoTiles, OtherMethods, Sparsity, Tiles};
    [
        // Option                         magnitude-flow  magnitude      wanda         sparsegpt     activation-flow
        (RecipeOption::Sparsity,          [Amount,        Amount,        Amount,       Amount,       Amount]),
        (RecipeOption::Pattern,           [Amount,        Amount,        Amount,       Amount,       Amount]),
        (RecipeOption::Price,             [NoActivations, NoActivations, Amount,       Amount,       Amount]),
        (RecipeOption::Allocation,        [NoActivations, NoActivations, Sparsity,     Sparsity,     Sparsity]),
        (RecipeOption::Effort,            [NoActivations, NoActivations, OtherMethods, OtherMethods, Always]),
        (RecipeOption::Scope,             [Sparsity,      Sparsity,      OtherMethods, OtherMethods, OtherMethods]),
        (RecipeOption::BlockSize,         [FlowOrTiles,   Tiles,         NoTiles,      NoTiles,      NoTiles]),
        (RecipeOption::Iterations,        [Flow,          OtherMethods,  OtherMethods, OtherMethods, OtherMethods]),
        (RecipeOption::Beta,              [Flow,          OtherMethods,  OtherMethods, OtherMethods, OtherMethods]),
        (RecipeOption::Inflow,            [Flow,          OtherMethods,  OtherMethods, OtherMethods, OtherMethods]),
        (RecipeOption::Calibration,       [NoActivations, NoActivations, Always,       Always,       Always]),
        (RecipeOption::CalibrationTokens, [NoActivations, NoActivations, Always,       Always,       Always]),
        (RecipeOption::Window,            [NoActivations, NoActivations, Always,       Always,       Always]),
        (RecipeOption::Seed,              [NoActivations, NoActivations, Always,       Always,       Always]),
        (RecipeOption::Arithmetic,        [NoActivations, NoActivations, Always,       Always,       Always]),
        (RecipeOption::AllowNonfinite,    [Always,        Always,        OtherMethods, OtherMethods, OtherMethods]),
    ]
};

/// A method with what sets its amount: the condition of an option's effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Case {
    /// The method.
    pub method: MethodName,
    /// The option that sets the amount: sparsity, pattern or price; `None` if the method's own rule does.
    pub amount: Option<RecipeOption>,
    /// The scope of the sparsity, if it was given.
    pub scope: Option<ScopeName>,
}

impl Case {
    /// A method with the option that sets its amount.
    pub fn new(method: MethodName, amount: Option<RecipeOption>) -> Case {
        Case { method, amount, scope: None }
    }

    /// Whether `option` has an effect.
    ///
    /// # Errors
    /// Why it has none.
    pub fn effect_of(&self, option: RecipeOption) -> Result<(), NoEffect> {
        let set_by = |amount| Err(NoEffect::SetBy(amount));
        match (self.when(option), self.amount) {
            (Use::Always | Use::Amount, _) => Ok(()),
            (Use::Sparsity, Some(RecipeOption::Sparsity)) => Ok(()),
            (Use::Sparsity, _) => Err(NoEffect::WithoutSparsity),
            (Use::Flow | Use::FlowOrTiles, None) => Ok(()),
            (Use::Flow, Some(amount)) => set_by(amount),
            (Use::FlowOrTiles | Use::Tiles, Some(RecipeOption::Sparsity)) if self.has_tiles() => {
                Ok(())
            }
            (Use::FlowOrTiles | Use::Tiles | Use::NoTiles, _) => Err(NoEffect::NoTiles),
            (Use::NoActivations, _) => Err(NoEffect::WeightsOnly),
            (Use::OtherMethods, _) => Err(NoEffect::OtherMethod(self.method)),
        }
    }

    /// The options that set an amount of this method.
    pub fn amounts(&self) -> Vec<RecipeOption> {
        let sets = |row: &&Row| self.when(row.0) == Use::Amount;
        TABLE.iter().filter(sets).map(|row| row.0).collect()
    }

    /// Whether a sparsity is one of each tile.
    fn has_tiles(&self) -> bool {
        let by_default = ScopeName::by_default(self.method);
        self.scope.unwrap_or(by_default) == ScopeName::Tile
    }

    fn when(&self, option: RecipeOption) -> Use {
        let column = METHODS.iter().position(|method| *method == self.method);
        let row = TABLE.iter().find(|row| row.0 == option);
        match (row, column) {
            (Some((_, uses)), Some(column)) => uses[column],
            // The method: its own effect is the whole recipe.
            _ => Use::Always,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_option_has_one_row() {
        for option in RecipeOption::ALL {
            let rows = TABLE.iter().filter(|row| row.0 == option).count();
            let expected = usize::from(option != RecipeOption::Method);
            assert_eq!(rows, expected, "{}", option.name());
        }
    }
}
