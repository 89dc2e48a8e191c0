//! The number of a claim: a count, or a percentage with its decimals.

use serde::Deserialize;

use crate::report::share::grouped;

/// An integer, or a percentage as it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "toml::Value")]
pub(super) enum Value {
    Count(u64),
    /// `units / 10^decimals` percent.
    Percent {
        units: u128,
        decimals: u32,
    },
}

impl Value {
    /// The number as reports print it, with its denominator if the claim states one.
    pub fn written(self, of: Option<&str>) -> String {
        let number = match self {
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
            toml::Value::String(text) => parse_percent(text.trim()).ok_or_else(|| {
                let integer = "or a count: an integer without quotes and separators";
                format!("value must be like \"22.22 %\", {integer}; found {text:?}")
            }),
            other => {
                Err(format!("value must be an integer or a percentage as text, found {other}"))
            }
        }
    }
}

/// `22.22 %`, with or without blanks before the percent sign; at most nine decimals.
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
