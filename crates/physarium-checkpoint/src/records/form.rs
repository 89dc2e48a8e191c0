/*!
The form of a method in journals, manifests and recipe files.

In: keys that a file gives. Out: a [`Method`], or a sentence that names the key at fault, what was expected and what
was found: keys of another method, two amounts, a missing key, a number out of range. Writing goes the other way,
key for key as in schema 1.
*/

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::amounts::{NmPattern, Price, Sparsity};
use super::method::{Amount, Calibration, Criterion, FlowRecipe, FlowSteps, Method, Scope};

/// A method's name in a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Name {
    MagnitudeFlow,
    Magnitude,
    MagnitudePattern,
    Wanda,
    #[serde(rename = "sparsegpt")]
    SparseGpt,
    ActivationFlow,
}

/// A scope's name in a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum ScopeKey {
    Tile,
    Tensor,
    Model,
}

/// All keys that a method can have in a record. A key that is there has a value: null is none.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MethodKeys {
    name: Name,
    #[serde(default, deserialize_with = "value")]
    block_size: Option<u64>,
    #[serde(default, deserialize_with = "value")]
    iterations: Option<u32>,
    #[serde(default, deserialize_with = "value")]
    beta: Option<f64>,
    #[serde(default, deserialize_with = "value")]
    inflow: Option<f64>,
    #[serde(default, deserialize_with = "value")]
    sparsity: Option<Sparsity>,
    #[serde(default, deserialize_with = "value", rename = "model-sparsity")]
    model_sparsity: Option<Sparsity>,
    #[serde(default, deserialize_with = "value")]
    price: Option<Price>,
    #[serde(default, deserialize_with = "value")]
    pattern: Option<NmPattern>,
    #[serde(default, deserialize_with = "value")]
    scope: Option<ScopeKey>,
    #[serde(default, deserialize_with = "value")]
    calibration: Option<Calibration>,
    #[serde(default, deserialize_with = "value")]
    flow: Option<FlowSteps>,
}

fn value<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Option<T>, D::Error> {
    T::deserialize(from).map(Some)
}

/// The keys of an activation-aware method that set its amount.
const AMOUNTS: [&str; 4] = ["sparsity", "model-sparsity", "price", "pattern"];

impl Name {
    fn text(self) -> &'static str {
        match self {
            Name::MagnitudeFlow => "magnitude-flow",
            Name::Magnitude => "magnitude",
            Name::MagnitudePattern => "magnitude-pattern",
            Name::Wanda => "wanda",
            Name::SparseGpt => "sparsegpt",
            Name::ActivationFlow => "activation-flow",
        }
    }

    /// The keys that it has beside its name.
    fn keys(self) -> &'static [&'static str] {
        match self {
            Name::MagnitudeFlow => &["block_size", "iterations", "beta", "inflow"],
            Name::Magnitude => &["sparsity", "scope", "block_size"],
            Name::MagnitudePattern => &["pattern"],
            Name::Wanda | Name::SparseGpt => {
                &["sparsity", "model-sparsity", "price", "pattern", "calibration"]
            }
            Name::ActivationFlow => {
                &["sparsity", "model-sparsity", "price", "pattern", "calibration", "flow"]
            }
        }
    }
}

impl MethodKeys {
    /// The keys that are there, beside the name.
    fn given(&self) -> Vec<&'static str> {
        let keys = [
            ("block_size", self.block_size.is_some()),
            ("iterations", self.iterations.is_some()),
            ("beta", self.beta.is_some()),
            ("inflow", self.inflow.is_some()),
            ("sparsity", self.sparsity.is_some()),
            ("model-sparsity", self.model_sparsity.is_some()),
            ("price", self.price.is_some()),
            ("pattern", self.pattern.is_some()),
            ("scope", self.scope.is_some()),
            ("calibration", self.calibration.is_some()),
            ("flow", self.flow.is_some()),
        ];
        keys.into_iter().filter(|(_, given)| *given).map(|(key, _)| key).collect()
    }

    /// Fails for keys of other methods, and for two amounts.
    fn refuse_conflicts(&self) -> Result<(), String> {
        let (given, expected, name) = (self.given(), self.name.keys(), self.name.text());
        if let Some(key) = given.iter().find(|key| !expected.contains(key)) {
            let expected = expected.join(", ");
            return Err(format!(
                "key {key:?}: not a key of method {name}, expected {expected}, found {key}"
            ));
        }
        let amounts: Vec<&&str> = given.iter().filter(|key| AMOUNTS.contains(key)).collect();
        if let [one, two, ..] = amounts[..] {
            return Err(format!("key {two:?}: expected one amount, found also {one:?}"));
        }
        Ok(())
    }

    /// The value of a key that must be there.
    fn must<T>(&self, key: &str, value: Option<T>) -> Result<T, String> {
        let name = self.name.text();
        value.ok_or_else(|| format!("key {key:?}: expected a value for method {name}, found none"))
    }

    fn block_size(&self) -> Result<u64, String> {
        in_range(
            "block_size",
            self.must("block_size", self.block_size)?,
            |size| size > 0,
            "1 or more",
        )
    }

    fn magnitude_flow(&self) -> Result<Method, String> {
        let finite_above = |least: f64| move |value: f64| value.is_finite() && value > least;
        let iterations = self.must("iterations", self.iterations)?;
        let (beta, inflow) = (self.must("beta", self.beta)?, self.must("inflow", self.inflow)?);
        let flow = FlowRecipe {
            iterations: in_range("iterations", iterations, |steps| steps > 0, "1 or more")?,
            beta: in_range("beta", beta, finite_above(1.0), "a number above 1")?,
            inflow: in_range("inflow", inflow, finite_above(0.0), "a number above 0")?,
        };
        let criterion = Criterion::MagnitudeFlow { block_size: self.block_size()?, flow };
        method(criterion, Amount::Emergent)
    }

    fn magnitude(&self) -> Result<Method, String> {
        let sparsity = self.must("sparsity", self.sparsity)?;
        let scope = match (self.must("scope", self.scope)?, self.block_size) {
            (ScopeKey::Tile, _) => Scope::Tile { block_size: self.block_size()? },
            (_, Some(found)) => {
                let what =
                    format!("key \"block_size\": expected none without scope tile, found {found}");
                return Err(what);
            }
            (ScopeKey::Tensor, None) => Scope::Tensor,
            (ScopeKey::Model, None) => Scope::Model,
        };
        method(Criterion::Magnitude, Amount::Sparsity { sparsity, scope })
    }

    fn calibrated(&self, criterion: impl Fn(Calibration) -> Criterion) -> Result<Method, String> {
        let calibration = self.must("calibration", self.calibration)?;
        let Calibration { tokens, window, .. } = calibration;
        in_range("calibration.window", window, |window| window > 1, "2 or more")?;
        in_range("calibration.tokens", tokens, |tokens| tokens >= window, "a window or more")?;
        let over = |sparsity, scope| Amount::Sparsity { sparsity, scope };
        let amounts = [
            self.sparsity.map(|sparsity| over(sparsity, Scope::Tensor)),
            self.model_sparsity.map(|sparsity| over(sparsity, Scope::Model)),
            self.price.map(Amount::Price),
            self.pattern.map(Amount::Pattern),
        ];
        let amount = amounts.into_iter().flatten().next();
        method(criterion(calibration), self.must("sparsity", amount)?)
    }
}

fn in_range<T>(key: &str, value: T, fits: impl Fn(T) -> bool, expected: &str) -> Result<T, String>
where
    T: Copy + std::fmt::Display,
{
    match fits(value) {
        true => Ok(value),
        false => Err(format!("key {key:?}: expected {expected}, found {value}")),
    }
}

impl FlowSteps {
    /// Most steps of each kind: far more than have an effect.
    const MOST: u32 = 10_000;

    /// The parameters, if the dynamics are defined for them.
    fn in_range(self) -> Result<FlowSteps, String> {
        let up_to = |least: u32, most: u32| move |value: u32| (least..=most).contains(&value);
        in_range("flow.steps", self.steps, up_to(2, Self::MOST), "2 to 10000")?;
        in_range("flow.levels", self.levels, up_to(1, self.steps), "1 up to the steps")?;
        in_range("flow.refit_steps", self.refit_steps, up_to(0, Self::MOST), "at most 10000")?;
        let share = |share| (0.0..=1.0).contains(&share);
        in_range("flow.target_share", self.target_share, share, "a number of 0 to 1")?;
        in_range("flow.stream_share", self.stream_share, share, "a number of 0 to 1")?;
        let damping = |damping| (1e-6..=1e3).contains(&damping);
        in_range("flow.damping", self.damping, damping, "a number of 0.000001 to 1000")?;
        for (key, values) in [("flow.coupling", self.coupling), ("flow.exponent", self.exponent)] {
            for value in values {
                in_range(key, value, |v| (1e-3..=1e3).contains(&v), "numbers of 0.001 to 1000")?;
            }
        }
        Ok(self)
    }
}

fn method(criterion: Criterion, amount: Amount) -> Result<Method, String> {
    Method::new(criterion, amount).map_err(|e| e.to_string())
}

impl TryFrom<MethodKeys> for Method {
    type Error = String;

    fn try_from(keys: MethodKeys) -> Result<Method, String> {
        keys.refuse_conflicts()?;
        match keys.name {
            Name::MagnitudeFlow => keys.magnitude_flow(),
            Name::Magnitude => keys.magnitude(),
            Name::MagnitudePattern => {
                let pattern = keys.must("pattern", keys.pattern)?;
                method(Criterion::Magnitude, Amount::Pattern(pattern))
            }
            Name::Wanda => keys.calibrated(Criterion::Wanda),
            Name::SparseGpt => keys.calibrated(Criterion::SparseGpt),
            Name::ActivationFlow => {
                let flow = keys.flow.map(FlowSteps::in_range).transpose()?;
                keys.calibrated(|calibration| Criterion::ActivationFlow { calibration, flow })
            }
        }
    }
}

impl<'de> Deserialize<'de> for Method {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Method, D::Error> {
        MethodKeys::deserialize(from)?.try_into().map_err(D::Error::custom)
    }
}

impl Serialize for Method {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        MethodForm::from(*self).serialize(to)
    }
}

/// A method as it is written.
#[derive(Serialize)]
#[serde(tag = "name", rename_all = "kebab-case")]
enum MethodForm {
    MagnitudeFlow {
        block_size: u64,
        #[serde(flatten)]
        flow: FlowRecipe,
    },
    Magnitude {
        sparsity: Sparsity,
        #[serde(flatten)]
        scope: Scope,
    },
    MagnitudePattern {
        pattern: NmPattern,
    },
    Wanda(CalibratedForm),
    #[serde(rename = "sparsegpt")]
    SparseGpt(CalibratedForm),
    ActivationFlow {
        #[serde(flatten)]
        calibrated: CalibratedForm,
        #[serde(skip_serializing_if = "Option::is_none")]
        flow: Option<FlowSteps>,
    },
}

/// The amount and the calibration text of an activation-aware method.
#[derive(Serialize)]
struct CalibratedForm {
    #[serde(flatten)]
    amount: AmountForm,
    calibration: Calibration,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
enum AmountForm {
    /// Exact in each tensor.
    Sparsity(Sparsity),
    /// Exact over all targets together.
    ModelSparsity(Sparsity),
    Price(Price),
    Pattern(NmPattern),
}

impl From<Method> for MethodForm {
    fn from(method: Method) -> MethodForm {
        let calibrated = |calibration| {
            let amount = match method.amount() {
                Amount::Sparsity { sparsity, scope: Scope::Model } => {
                    AmountForm::ModelSparsity(sparsity)
                }
                Amount::Sparsity { sparsity, .. } => AmountForm::Sparsity(sparsity),
                Amount::Price(price) => AmountForm::Price(price),
                Amount::Pattern(pattern) => AmountForm::Pattern(pattern),
                Amount::Emergent => unreachable!("{}", MISMATCH),
            };
            CalibratedForm { amount, calibration }
        };
        match (method.criterion(), method.amount()) {
            (Criterion::MagnitudeFlow { block_size, flow }, _) => {
                MethodForm::MagnitudeFlow { block_size, flow }
            }
            (Criterion::Magnitude, Amount::Sparsity { sparsity, scope }) => {
                MethodForm::Magnitude { sparsity, scope }
            }
            (Criterion::Magnitude, Amount::Pattern(pattern)) => {
                MethodForm::MagnitudePattern { pattern }
            }
            (Criterion::Magnitude, Amount::Emergent | Amount::Price(_)) => {
                unreachable!("{}", MISMATCH)
            }
            (Criterion::Wanda(calibration), _) => MethodForm::Wanda(calibrated(calibration)),
            (Criterion::SparseGpt(calibration), _) => {
                MethodForm::SparseGpt(calibrated(calibration))
            }
            (Criterion::ActivationFlow { calibration, flow }, _) => {
                MethodForm::ActivationFlow { calibrated: calibrated(calibration), flow }
            }
        }
    }
}

/// Why every method has a form.
const MISMATCH: &str = "Method::new refuses amounts for which the criterion has no form";
