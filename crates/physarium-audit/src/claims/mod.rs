/*!
Claims: sentences about a pruned model, judged by the numbers of an audit.

In: `claims.toml` (`docs/FORMATS.md`). Out: a verdict per claim. There is none on 0 of 0. A percentage with d decimals is
true if the exact share rounds to it. A percentage without a denominator is never correct, even if the number
is: the judgement then names the denominators for which it is true.
*/

pub(crate) mod claim;
mod judge;
mod value;
