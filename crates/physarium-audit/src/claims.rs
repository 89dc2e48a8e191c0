/*!
Claims: sentences about a pruned model, judged by an audit's numbers.

In: `claims.toml` (`docs/FORMATS.md`). Out: per claim one of three verdicts. A percentage that is
claimed with d decimals is true when the exact share rounds to it. A percentage without a
denominator is never correct, however true the number: which of the denominators would make it true
is said instead.
*/

use std::fmt;
use std::path::Path;

use physarium_checkpoint::printable;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::report::{Audit, Projection, Tensor};
use crate::share::{Share, grouped, percent, rounds_to};

/// A file of claims.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    path: std::path::PathBuf,
    claims: Vec<Claim>,
}

/// One claim.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claim {
    /// Its name in the report.
    pub id: String,
    /// Where the sentence stands.
    pub source: String,
    /// The sentence.
    pub sentence: String,
    /// What it counts.
    count: Countable,
    /// How many.
    value: Value,
    /// Of what, as the sentence names it.
    of: Option<String>,
}

/// What a claim can count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Countable {
    Pruned,
    Processed,
    Target,
    Untouched,
    AlreadyZero,
    Zero,
    Tensors,
}

impl fmt::Display for Countable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Countable::Pruned => "pruned",
            Countable::Processed => "processed",
            Countable::Target => "target",
            Countable::Untouched => "untouched",
            Countable::AlreadyZero => "already_zero",
            Countable::Zero => "zero",
            Countable::Tensors => "tensors",
        })
    }
}

/// An integer, or a percentage as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "toml::Value")]
enum Value {
    Count(u64),
    /// `units / 10^decimals` per cent.
    Percent {
        units: u128,
        decimals: u32,
    },
}

/// A denominator: the model, the target, or one projection.
#[derive(Clone, Copy)]
enum Whole<'a> {
    Target,
    Model,
    Projection(&'a Projection),
}

/// What became of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// True as stated.
    Correct,
    /// The number is true of another denominator than the stated one, or none is stated.
    Denominator,
    /// The number is not true of any.
    Wrong,
}

/// A judged claim.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Judgement {
    /// The claim's id.
    pub id: String,
    /// Where the sentence stands.
    pub source: String,
    /// The sentence.
    pub sentence: String,
    /// What became of it.
    pub verdict: Verdict,
    /// What is claimed, with its denominator where it has one.
    pub claimed: String,
    /// What is measured: of the stated denominator, or of target and model where none is stated.
    pub measured: Vec<Share>,
    /// Denominators of which the claimed number is true.
    pub true_of: Vec<String>,
    /// What the sentence should say; absent when it is correct.
    pub should_say: Option<String>,
}

impl Claims {
    /// Reads a file of claims.
    ///
    /// # Errors
    /// `Claims` when the file cannot be read, or a claim is not well-formed.
    pub fn read(path: &Path) -> Result<Claims> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct File {
            #[serde(default)]
            claim: Vec<Claim>,
        }
        let fault = |what: String| Error::Claims { path: path.to_owned(), what };
        let text = std::fs::read_to_string(path).map_err(|e| fault(format!("cannot read: {e}")))?;
        let File { claim: claims } =
            toml::from_str(&text).map_err(|e| fault(e.to_string().trim_end().to_owned()))?;
        if claims.is_empty() {
            return Err(fault("no claims, expected at least one [[claim]]".to_owned()));
        }
        for (i, claim) in claims.iter().enumerate() {
            if claims[..i].iter().any(|other| other.id == claim.id) {
                return Err(fault(format!("claim {}: id is used twice", claim.id)));
            }
        }
        Ok(Claims { path: path.to_owned(), claims })
    }

    /// Judges every claim.
    ///
    /// # Errors
    /// `Claims` when a claim names a denominator that the audit has not, `Unmeasured` when it counts
    /// something that the audit could not.
    pub fn judge(&self, audit: &Audit) -> Result<Vec<Judgement>> {
        self.claims.iter().map(|claim| self.judge_one(claim, audit)).collect()
    }

    fn judge_one(&self, claim: &Claim, audit: &Audit) -> Result<Judgement> {
        let stated = match &claim.of {
            None => None,
            Some(of) => Some(self.whole(claim, audit, of)?),
        };
        let share = |whole| self.share(claim, audit, whole);
        let measured = match stated {
            Some(whole) => vec![share(whole)?],
            None => vec![share(Whole::Target)?, share(Whole::Model)?],
        };
        let mut judgement = Judgement {
            id: claim.id.clone(),
            source: claim.source.clone(),
            sentence: claim.sentence.clone(),
            verdict: Verdict::Correct,
            claimed: claim.value.written(claim.of.as_deref()),
            measured,
            true_of: Vec::new(),
            should_say: None,
        };
        match claim.value {
            Value::Count(value) => {
                // Without a denominator, the last is the model: all that is counted is in it.
                let counted = judgement.measured[judgement.measured.len() - 1].part;
                if counted != value {
                    judgement.verdict = Verdict::Wrong;
                    judgement.should_say = Some(grouped(counted));
                }
            }
            Value::Percent { units, decimals } => {
                let is_true = |s: &Share| rounds_to(s.part, s.whole, units, decimals);
                let all = candidates(audit).map(share).collect::<Result<Vec<Share>>>()?;
                let truths: Vec<&Share> = all.iter().filter(|s| is_true(s)).collect();
                judgement.true_of = truths.iter().map(|share| share.of.clone()).collect();
                if stated.is_some() && is_true(&judgement.measured[0]) {
                    return Ok(judgement);
                }
                let digits = decimals.max(2);
                let (verdict, say) = match truths.as_slice() {
                    [] => (Verdict::Wrong, judgement.measured.iter().collect()),
                    truths => (Verdict::Denominator, truths.to_vec()),
                };
                judgement.verdict = verdict;
                let say: Vec<String> =
                    say.into_iter().map(|share| sentence(share, digits)).collect();
                judgement.should_say = Some(say.join(", or "));
            }
        }
        Ok(judgement)
    }

    /// The denominator that a claim names.
    fn whole<'a>(&self, claim: &Claim, audit: &'a Audit, of: &str) -> Result<Whole<'a>> {
        let last = |p: &Projection| p.projection.rsplit('.').next() == Some(of);
        let matching: Vec<&Projection> =
            audit.projections.iter().filter(|p| p.projection == of || last(p)).collect();
        match (of, matching.as_slice()) {
            ("target", _) => Ok(Whole::Target),
            ("model", _) => Ok(Whole::Model),
            (_, [one]) => Ok(Whole::Projection(one)),
            (_, found) => {
                let names: Vec<&str> =
                    audit.projections.iter().map(|p| p.projection.as_str()).collect();
                let what = format!(
                    "claim {}: of = \"{of}\" names {} projections, expected target, model or one of {}",
                    claim.id,
                    found.len(),
                    names.join(", ")
                );
                Err(Error::Claims { path: self.path.clone(), what })
            }
        }
    }

    /// What the claim counts, as a share of `whole`, of which only what is in it counts.
    fn share(&self, claim: &Claim, audit: &Audit, whole: Whole<'_>) -> Result<Share> {
        let inside = |field: fn(&Tensor) -> Option<u64>| -> Option<u64> {
            let of_whole = |tensor: &&Tensor| match whole {
                Whole::Target | Whole::Model => true,
                Whole::Projection(projection) => tensor.role == projection.projection,
            };
            audit.tensors.iter().filter(of_whole).map(field).sum()
        };
        let part = match (claim.count, whole) {
            (Countable::Pruned, _) => inside(|t| t.pruned),
            (Countable::Processed, _) => inside(|t| t.processed),
            (Countable::Target, _) => inside(|t| Some(t.elements)),
            (Countable::AlreadyZero, _) => inside(|t| t.already_zero),
            (Countable::Zero, _) => inside(|t| Some(t.zero)),
            (Countable::Tensors, _) => inside(|t| Some(u64::from(t.processed? > 0))),
            // What is untouched is no target.
            (Countable::Untouched, Whole::Target | Whole::Projection(_)) => Some(0),
            (Countable::Untouched, Whole::Model) => Some(audit.untouched.elements),
        };
        let part = part.ok_or_else(|| Error::Unmeasured {
            path: self.path.clone(),
            id: claim.id.clone(),
            count: claim.count.to_string(),
        })?;
        let by_tensor = claim.count == Countable::Tensors;
        let (whole, of) = match whole {
            Whole::Target if by_tensor => (audit.target.tensors, "target"),
            Whole::Target => (audit.target.elements, "target"),
            Whole::Model if by_tensor => (audit.model.tensors, "model"),
            Whole::Model => (audit.model.elements, "model"),
            Whole::Projection(p) if by_tensor => (p.tensors, p.projection.as_str()),
            Whole::Projection(p) => (p.elements, p.projection.as_str()),
        };
        Ok(Share::new(part, whole, of))
    }
}

/// Every denominator that a sentence may have meant, the likeliest first.
fn candidates(audit: &Audit) -> impl Iterator<Item = Whole<'_>> {
    let wholes = [Whole::Target, Whole::Model].into_iter();
    wholes.chain(audit.projections.iter().map(Whole::Projection))
}

fn sentence(share: &Share, decimals: u32) -> String {
    let percent = percent(share.part, share.whole, decimals);
    let (of, part, whole) = (printable(&share.of), grouped(share.part), grouped(share.whole));
    format!("{percent} % of {of} ({part} of {whole})")
}

impl Value {
    fn written(&self, of: Option<&str>) -> String {
        let number = match *self {
            Value::Count(count) => grouped(count),
            Value::Percent { units, decimals: 0 } => format!("{units} %"),
            Value::Percent { units, decimals } => {
                let scale = 10u128.pow(decimals);
                let (whole, rest) = (units / scale, units % scale);
                format!("{whole}.{rest:0width$} %", width = decimals as usize)
            }
        };
        match of {
            Some(of) => format!("{number} of {of}"),
            None => number,
        }
    }
}

impl TryFrom<toml::Value> for Value {
    type Error = String;

    fn try_from(value: toml::Value) -> Result<Value, String> {
        match value {
            toml::Value::Integer(count) => u64::try_from(count)
                .map(Value::Count)
                .map_err(|_| format!("value must not be negative, found {count}")),
            toml::Value::String(text) => parse_percent(&text)
                .ok_or_else(|| format!("value must be like \"22.22 %\", found {text:?}")),
            other => {
                Err(format!("value must be an integer or a percentage as text, found {other}"))
            }
        }
    }
}

/// `22.22 %`, with or without the blank; at most nine decimals.
fn parse_percent(text: &str) -> Option<Value> {
    let number = text.strip_suffix('%')?.trim_end();
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let point_alone = number.contains('.') && fraction.is_empty();
    if whole.is_empty() || whole.len() > 9 || fraction.len() > 9 || point_alone {
        return None;
    }
    if !digits(whole) || !digits(fraction) {
        return None;
    }
    let units = format!("{whole}{fraction}").parse().ok()?;
    Some(Value::Percent { units, decimals: fraction.len() as u32 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_keep_their_decimals() {
        let percent = |units, decimals| Some(Value::Percent { units, decimals });
        assert_eq!(parse_percent("22.22 %"), percent(2222, 2));
        assert_eq!(parse_percent("6%"), percent(6, 0));
        assert_eq!(parse_percent("19.040 %"), percent(19_040, 3));
        for bad in ["22.22", "22,22 %", ".5 %", "5. %", "-1 %", "%", "1e3 %"] {
            assert_eq!(parse_percent(bad), None, "{bad}");
        }
    }
}
