//! The solution by distinct magnitudes against a literal one, in which every weight is its own tube.

use std::collections::BTreeMap;

use physarium_flow::{Census, Conductance, Cut, FloatFormat, FlowParams, TileView, apply_cut};

/// A tile to test.
struct Case {
    name: String,
    format: FloatFormat,
    rows: usize,
    cols: usize,
    bits: Vec<u32>,
}

/// The equations of `conductance.rs` as they are written: D = 1; Q = I0 N D f / sum(D f);
/// D = Q^b / (1 + Q^b); dead when D < 1e-3 max D. The sum is over distinct magnitudes in ascending
/// order.
fn literal_mask(case: &Case, iterations: u32, beta: f64, inflow: f64) -> Vec<bool> {
    let food: Vec<f64> = case.bits.iter().map(|&bits| magnitude(case.format, bits)).collect();
    let finite: Vec<usize> = (0..food.len()).filter(|&i| food[i].is_finite()).collect();
    let n = finite.len() as f64;
    let mut conductance = vec![1.0f64; food.len()];
    for _ in 0..iterations {
        let mut distinct: BTreeMap<u64, (f64, f64)> = BTreeMap::new();
        for &i in &finite {
            let entry = distinct.entry(food[i].to_bits()).or_insert((0.0, conductance[i]));
            entry.0 += 1.0;
        }
        let mut sum = 0.0;
        for (bits, (count, d)) in distinct {
            sum += d * (f64::from_bits(bits) * count);
        }
        if sum == 0.0 {
            return vec![false; food.len()];
        }
        for &i in &finite {
            let response = (conductance[i] * food[i] * (inflow * n / sum)).powf(beta);
            conductance[i] = response / (1.0 + response);
        }
    }
    let largest = finite.iter().map(|&i| conductance[i]).fold(0.0, f64::max);
    let is_dead =
        |i: usize| food[i].is_finite() && food[i] != 0.0 && conductance[i] < 1e-3 * largest;
    (0..food.len()).map(is_dead).collect()
}

fn magnitude(format: FloatFormat, bits: u32) -> f64 {
    match format {
        FloatFormat::Bf16 => f64::from(f32::from_bits((bits & 0x7fff) << 16)),
        FloatFormat::F16 => half::f16::from_bits((bits & 0x7fff) as u16).to_f64(),
        FloatFormat::F32 => f64::from(f32::from_bits(bits & 0x7fff_ffff)),
    }
}

fn bytes(case: &Case) -> Vec<u8> {
    let size = case.format.size_bytes();
    case.bits.iter().flat_map(|bits| bits.to_le_bytes()[..size].to_vec()).collect()
}

/// The solution under test: census, conductance, cut.
fn solve(case: &Case, params: FlowParams) -> (Vec<u8>, Cut) {
    let mut data = bytes(case);
    let stride = case.cols * case.format.size_bytes();
    let tile = TileView::new(&data, case.format, [case.rows, case.cols], stride);
    let mut census = Census::default();
    let magnitudes = census.take(&tile);
    // Beside another tile, as the engine does: neither may see the other.
    let one = TileView::new(&[0x80, 0x3f, 0, 0], case.format, [1, 1], 4);
    let other = Census::default().take(&one).clone();
    let mut conductance = Conductance::default();
    let [alone] = conductance.cuts([magnitudes], case.format, params);
    let [_, cut] = conductance.cuts([&other, magnitudes], case.format, params);
    assert_eq!(alone, cut, "{}", case.name);
    apply_cut(&mut data, case.format, cut, 0);
    (data, cut)
}

fn check(case: &Case, iterations: u32, beta: f64, inflow: f64) {
    let params = FlowParams::new(iterations, beta, inflow).expect("valid parameters");
    let (data, _) = solve(case, params);
    let before = bytes(case);
    let mask = literal_mask(case, iterations, beta, inflow);
    let size = case.format.size_bytes();
    for (i, pruned) in mask.iter().enumerate() {
        let range = i * size..(i + 1) * size;
        let expected = if *pruned { vec![0; size] } else { before[range.clone()].to_vec() };
        assert_eq!(data[range], expected, "{} weight {i} of {}", case.name, mask.len());
    }
}

/// A small random generator, so that the tiles are the same on every machine.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    fn gaussian(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.unit()).cos()
    }
}

fn encode(format: FloatFormat, value: f64) -> u32 {
    match format {
        FloatFormat::Bf16 => u32::from(half::bf16::from_f64(value).to_bits()),
        FloatFormat::F16 => u32::from(half::f16::from_f64(value).to_bits()),
        FloatFormat::F32 => (value as f32).to_bits(),
    }
}

const FORMATS: [FloatFormat; 3] = [FloatFormat::Bf16, FloatFormat::F16, FloatFormat::F32];

fn cases() -> Vec<Case> {
    let shapes = [(1, 1), (1, 17), (17, 1), (2, 3), (16, 16), (7, 33), (64, 64)];
    let mut noise = Noise(7);
    let mut cases = Vec::new();
    for format in FORMATS {
        for (rows, cols) in shapes {
            let mut add = |kind: &str, value: &mut dyn FnMut(usize) -> u32| {
                let name = format!("{format:?} {rows}x{cols} {kind}");
                let bits = (0..rows * cols).map(value).collect();
                cases.push(Case { name, format, rows, cols, bits });
            };
            let sign = match format {
                FloatFormat::F32 => 1 << 31,
                FloatFormat::Bf16 | FloatFormat::F16 => 1 << 15,
            };
            let infinity = format.infinity_key();
            add("gaussian", &mut |_| encode(format, noise.gaussian() * 0.02));
            add("uniform", &mut |_| encode(format, noise.unit() - 0.5));
            add("all equal", &mut |_| encode(format, -0.37));
            add("all zero", &mut |i| if i % 2 == 0 { 0 } else { sign });
            add("zeros among", &mut |i| match i % 3 {
                0 => encode(format, noise.gaussian()),
                1 => 0,
                _ => sign,
            });
            add("subnormal", &mut |_| (noise.next() as u32 % 100) | sign);
            add("huge outlier", &mut |i| match i {
                0 => infinity - 1,
                _ => encode(format, noise.gaussian() * 1e-3),
            });
            add("non-finite among", &mut |i| match i % 5 {
                0 => infinity,
                1 => infinity + 1,
                _ => encode(format, noise.gaussian()),
            });
            add("two values", &mut |i| encode(format, if i % 4 == 0 { 1.0 } else { 0.2 }));
        }
    }
    cases
}

#[test]
fn distinct_magnitudes_give_the_mask_of_the_literal_equations() {
    for case in cases() {
        check(&case, 30, 2.0, FlowParams::DEFAULT_INFLOW);
    }
}

#[test]
fn the_same_for_other_parameters() {
    for case in cases().iter().filter(|case| case.bits.len() <= 300) {
        check(case, 1, 2.0, 5.0);
        check(case, 60, 2.0, 0.5);
        check(case, 30, 1.5, 3.0);
        check(case, 12, 4.0, 20.0);
    }
}

#[test]
fn a_full_tile_of_each_format() {
    let mut noise = Noise(11);
    for format in FORMATS {
        let (rows, cols) = (256, 256);
        let bits = (0..rows * cols).map(|_| encode(format, noise.gaussian() * 0.03)).collect();
        let case = Case { name: format!("{format:?} full"), format, rows, cols, bits };
        check(&case, 30, 2.0, FlowParams::DEFAULT_INFLOW);
    }
}

fn default_params() -> FlowParams {
    FlowParams::new(
        FlowParams::DEFAULT_ITERATIONS,
        FlowParams::DEFAULT_BETA,
        FlowParams::DEFAULT_INFLOW,
    )
    .expect("the defaults are valid")
}

/// Fraction of full F32 tiles of one distribution that is pruned.
fn share(mut value: impl FnMut() -> f64) -> f64 {
    let (mut dead, mut all) = (0u64, 0u64);
    for _ in 0..8 {
        let bits = (0..65_536).map(|_| encode(FloatFormat::F32, value())).collect();
        let case =
            Case { name: "share".into(), format: FloatFormat::F32, rows: 256, cols: 256, bits };
        let (data, _) = solve(&case, default_params());
        dead += data.chunks(4).filter(|weight| weight == &[0; 4]).count() as u64;
        all += 65_536;
    }
    dead as f64 / all as f64
}

#[test]
fn default_inflow_prunes_two_ninths_of_a_gaussian() {
    let mut noise = Noise(3);
    let gaussian = share(|| noise.gaussian());
    assert!((gaussian - 2.0 / 9.0).abs() < 0.002, "{gaussian}");
    // The shape of the distribution decides: fewer weights of a flat one are pruned, more of a peaked one.
    let uniform = share(|| noise.unit() - 0.5);
    assert!((uniform - 0.178).abs() < 0.003, "{uniform}");
    let laplace = share(|| -(1.0 - noise.unit()).ln());
    assert!((laplace - 0.296).abs() < 0.004, "{laplace}");
}

#[test]
fn parameters_out_of_range_are_refused() {
    for (iterations, beta, inflow) in
        [(0, 2.0, 5.0), (10_001, 2.0, 5.0), (30, 1.0, 5.0), (30, f64::NAN, 5.0), (30, 2.0, 0.0)]
    {
        assert!(FlowParams::new(iterations, beta, inflow).is_err());
    }
}
