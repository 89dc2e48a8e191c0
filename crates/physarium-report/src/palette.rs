/*!
The colours of heat maps.

Lightness falls in equal steps in OKLCH (Ottosson 2020, <https://bottosson.github.io/posts/oklab/>), so that equal steps look
equal and the order is there without hue; the hue goes from yellow to blue, which all kinds of colour vision tell apart.
*/

/// Number of colours.
pub(crate) const STEPS: usize = 21;

/// A colour, and the one of black and white that is read on it.
#[derive(Debug, Clone, serde::Serialize)]
pub(crate) struct Color {
    /// `#rrggbb`.
    pub(crate) background: String,
    pub(crate) text: &'static str,
}

/// The colours, from light to dark.
pub(crate) fn colors() -> Vec<Color> {
    (0..STEPS).map(|step| color(step as f64 / (STEPS - 1) as f64)).collect()
}

/// The step of a value in a range.
pub(crate) fn step(value: f64, [least, most]: [f64; 2]) -> usize {
    let share = if most > least { (value - least) / (most - least) } else { 0.0 };
    (share * (STEPS - 1) as f64).round().clamp(0.0, (STEPS - 1) as f64) as usize
}

fn color(share: f64) -> Color {
    let lightness = 0.97 - 0.67 * share;
    let hue = (100.0 + 165.0 * share).to_radians();
    // The most that sRGB has along this path.
    let chroma = 0.045 + 0.075 * (std::f64::consts::PI * share).sin() + 0.02 * share;
    let linear = linear_srgb([lightness, chroma * hue.cos(), chroma * hue.sin()]);
    let luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
    let [r, g, b] = linear.map(|channel| (gamma(channel) * 255.0).round() as u8);
    Color {
        background: format!("#{r:02x}{g:02x}{b:02x}"),
        text: if luminance > 0.179 { "#000" } else { "#fff" },
    }
}

fn linear_srgb([l, a, b]: [f64; 3]) -> [f64; 3] {
    let cube = |x: f64| x * x * x;
    let long = cube(l + 0.3963377774 * a + 0.2158037573 * b);
    let medium = cube(l - 0.1055613458 * a - 0.0638541728 * b);
    let short = cube(l - 0.0894841775 * a - 1.2914855480 * b);
    [
        4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short,
        -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short,
        -0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short,
    ]
    .map(|channel| channel.clamp(0.0, 1.0))
}

fn gamma(linear: f64) -> f64 {
    if linear <= 0.0031308 { 12.92 * linear } else { 1.055 * linear.powf(1.0 / 2.4) - 0.055 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_darken_and_their_text_is_read() {
        let luminance = |color: &str| {
            let channel = |at: usize| {
                let value =
                    f64::from(u8::from_str_radix(&color[at..at + 2], 16).expect("hex")) / 255.0;
                if value <= 0.04045 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
            };
            0.2126 * channel(1) + 0.7152 * channel(3) + 0.0722 * channel(5)
        };
        let all = colors();
        for pair in all.windows(2) {
            assert!(luminance(&pair[0].background) > luminance(&pair[1].background));
        }
        for color in all {
            let here = luminance(&color.background) + 0.05;
            let contrast = if color.text == "#000" { here / 0.05 } else { 1.05 / here };
            assert!(contrast >= 4.5, "{color:?}: {contrast}");
        }
    }

    #[test]
    fn values_out_of_range_have_the_colour_at_its_end() {
        assert_eq!(step(-1.0, [0.0, 1.0]), 0);
        assert_eq!(step(9.0, [0.0, 1.0]), STEPS - 1);
        assert_eq!(step(0.5, [0.5, 0.5]), 0);
        assert_eq!(step(f64::NAN, [0.0, 1.0]), 0);
    }
}
