//! What is asked of a matrix in memory, and whether it can be done.

use physarium_checkpoint::{Amount, BosPlace, Calibration, Digest, NonFinite, Recipe};
use physarium_flow::{FloatFormat, non_finite_positions};

use crate::engine::{RowMajor, check_recipe};
use crate::error::{Error, Result};
use crate::recipe::arithmetic;
use crate::recipe::error::{NoEffect, RecipeError, RecipeOption, ScopeName};
use crate::recipe::options::RecipeOptions;

/// A matrix, and how it is pruned.
#[derive(Debug, Clone, Copy)]
pub struct MatrixRequest<'a> {
    /// Weights `[out_features, in_features]`, row by row.
    pub weights: &'a [f32],
    /// `[out_features, in_features]`.
    pub shape: [usize; 2],
    /// XᵀX ÷ tokens `[in_features, in_features]` of the inputs X `[tokens, in_features]`, for an activation-aware method.
    pub gram: Option<&'a [f32]>,
    /// How it is pruned. Options that need a whole model are refused: `allocation`, `price`, scope `model`, calibration,
    /// `target` and `skip`.
    pub options: &'a RecipeOptions,
    /// Worker threads; any number gives the same weights.
    pub threads: usize,
}

impl MatrixRequest<'_> {
    /// The recipe of the options.
    pub(super) fn recipe(&self) -> Result<Recipe> {
        self.refuse_options_of_a_model()?;
        if self.threads == 0 {
            return Err(Error::Usage("threads: expected at least 1, found 0".to_owned()));
        }
        let method = self.options.method;
        match (method.is_activation_aware(), self.gram) {
            (true, None) => {
                return Err(Error::Usage(format!("method {} needs gram", method.text())));
            }
            (false, Some(_)) => {
                let what = format!("gram has no effect with method {}", method.text());
                return Err(Error::Usage(what));
            }
            _ => {}
        }
        // Only there so that a recipe can be built: the Gram matrix stands for the text.
        let calibration = Calibration {
            text_sha256: Digest([0; 32]),
            tokens: 0,
            window: 0,
            seed: 0,
            bos: BosPlace::Text,
        };
        let recipe = self.options.build(Some(calibration))?;
        check_recipe(&recipe)?;
        arithmetic::check(recipe.arithmetic)?;
        match recipe.method.amount() {
            // The activation flow's own amount.
            Amount::Price(_) => Err(RecipeError::Missing {
                method,
                one_of: vec![RecipeOption::Sparsity, RecipeOption::Pattern],
            }
            .into()),
            Amount::Emergent | Amount::Sparsity { .. } | Amount::Pattern(_) => Ok(recipe),
        }
    }

    /// Fails for an option that means nothing without a model.
    fn refuse_options_of_a_model(&self) -> Result<()> {
        let RecipeOptions { target, skip, scope, .. } = self.options;
        let of_model = [
            RecipeOption::Price,
            RecipeOption::Allocation,
            RecipeOption::CalibrationTokens,
            RecipeOption::Window,
            RecipeOption::Seed,
        ];
        let given = self.options.given();
        if let Some(&option) = given.iter().find(|option| of_model.contains(option)) {
            return Err(RecipeError::NoEffect { option, why: NoEffect::OneMatrix }.into());
        }
        if *scope == Some(ScopeName::Model) {
            let why = NoEffect::OneMatrix;
            return Err(RecipeError::NoEffect { option: RecipeOption::Scope, why }.into());
        }
        if !(target.is_empty() && skip.is_empty()) {
            return Err(Error::Usage("target and skip have no effect on one matrix".to_owned()));
        }
        Ok(())
    }

    /// Fails for matrices that cannot be used.
    pub(super) fn check(&self, non_finite: NonFinite) -> Result<()> {
        let [rows, cols] = self.shape;
        if rows == 0 || cols == 0 {
            let found = format!("[{rows}, {cols}]");
            return Err(fault("weights", "at least one row and one column", found));
        }
        assert_eq!(self.weights.len(), rows * cols, "weights: not [{rows}, {cols}]");
        if non_finite == NonFinite::Refuse {
            require_finite("weights", self.weights, cols)?;
        }
        match self.gram {
            Some(gram) => check_gram(gram, cols),
            None => Ok(()),
        }
    }

    /// The layout of the weights.
    pub(super) fn layout(&self) -> RowMajor {
        let [rows, cols] = self.shape.map(|size| size as u64);
        RowMajor { format: FloatFormat::F32, rows, cols }
    }

    /// Number of weights.
    pub(super) fn elements(&self) -> u64 {
        self.weights.len() as u64
    }
}

/// A fault of one of the two matrices.
pub(super) fn fault(
    what: &'static str,
    expected: impl Into<String>,
    found: impl Into<String>,
) -> Error {
    Error::Matrix { what, expected: expected.into(), found: found.into() }
}

/// Fails for NaN and infinite numbers.
fn require_finite(what: &'static str, matrix: &[f32], cols: usize) -> Result<()> {
    let bad = non_finite_positions(bytemuck::cast_slice(matrix), FloatFormat::F32);
    let Some(first) = bad.first().map(|first| *first as usize) else { return Ok(()) };
    let (count, row, col) = (bad.len(), first / cols, first % cols);
    let found = format!("{count} NaN or infinite ones, the first at row {row}, column {col}");
    Err(fault(what, "finite numbers", found))
}

/// Fails for what cannot be XᵀX.
fn check_gram(gram: &[f32], cols: usize) -> Result<()> {
    /// Largest difference across the diagonal, as a fraction of the geometric mean of the two powers.
    const ASYMMETRY: f32 = 1e-3;
    assert_eq!(gram.len(), cols * cols, "gram: not [{cols}, {cols}]");
    require_finite("gram", gram, cols)?;
    let at = |row: usize, col: usize| gram[row * cols + col];
    for row in 0..cols {
        if at(row, row) < 0.0 {
            let found = format!("{} at row and column {row}", at(row, row));
            return Err(fault("gram", "a diagonal of squares", found));
        }
        for col in 0..row {
            let (low, high) = (at(row, col), at(col, row));
            if (low - high).abs() > ASYMMETRY * (at(row, row) * at(col, col)).sqrt() {
                let found = format!("{low} at [{row}, {col}] and {high} at [{col}, {row}]");
                return Err(fault("gram", "a symmetric matrix", found));
            }
        }
    }
    Ok(())
}
