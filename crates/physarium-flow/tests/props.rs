//! Properties that hold for any tile.

use physarium_flow::{
    Census, Conductance, Counts, Cut, FloatFormat, FlowParams, MagnitudeSearch, TileView,
    apply_cut, apply_pattern, count_ties, exact_cut, locate_tie,
};
use proptest::prelude::*;

const FORMATS: [FloatFormat; 3] = [FloatFormat::Bf16, FloatFormat::F16, FloatFormat::F32];

/// Any bit patterns, with many ties and zeros among them.
fn any_bytes() -> impl Strategy<Value = (FloatFormat, Vec<u8>)> {
    let element = prop_oneof![
        2 => any::<u32>(),
        2 => (0u32..8).prop_map(|v| v << 23 | v << 7),
        1 => Just(0u32),
        1 => Just(0x8000_8000u32),
    ];
    (prop::sample::select(&FORMATS), prop::collection::vec(element, 0..300)).prop_map(
        |(format, elements)| {
            let bytes =
                elements.iter().flat_map(|e| e.to_le_bytes()[..format.size_bytes()].to_vec());
            (format, bytes.collect())
        },
    )
}

fn keys(format: FloatFormat, bytes: &[u8]) -> Vec<u32> {
    let size = format.size_bytes();
    let mask = if size == 2 { 0x7fff } else { 0x7fff_ffff };
    bytes
        .chunks(size)
        .map(|element| {
            let mut wide = [0; 4];
            wide[..size].copy_from_slice(element);
            u32::from_le_bytes(wide) & mask
        })
        .collect()
}

fn one_row(bytes: &[u8], format: FloatFormat) -> TileView<'_> {
    TileView::new(bytes, format, [1, bytes.len() / format.size_bytes()], bytes.len())
}

fn flow_cut(bytes: &[u8], format: FloatFormat) -> Cut {
    let params = FlowParams::new(30, 2.0, FlowParams::DEFAULT_INFLOW).expect("valid");
    let mut census = Census::default();
    let found = census.take(&one_row(bytes, format));
    let [cut] = Conductance::default().cuts([found], format, params);
    cut
}

/// Every weight is unchanged or +0.0, and the counts agree.
fn assert_only_pruned(before: &[u8], after: &[u8], format: FloatFormat, counts: Counts) {
    let size = format.size_bytes();
    let mut pruned = 0;
    for (old, new) in before.chunks(size).zip(after.chunks(size)) {
        if old != new {
            assert!(new.iter().all(|byte| *byte == 0), "{new:?} is not +0.0");
            pruned += 1;
        }
    }
    let zeros = keys(format, before).iter().filter(|key| **key == 0).count() as u64;
    let non_finite =
        keys(format, before).iter().filter(|key| **key >= format.infinity_key()).count() as u64;
    assert_eq!(counts, Counts { pruned, already_zero: zeros, non_finite });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn exactly_k_weights_are_zero((format, before) in any_bytes(), share in 0.0..=1.0f64) {
        let n = (before.len() / format.size_bytes()) as u64;
        let wanted = (share * n as f64).round() as u64;
        let mut census = Census::default();
        let tile = one_row(&before, format);
        let found = census.take(&tile).clone();
        let cut = exact_cut(&tile, &found, wanted);
        let mut after = before.clone();
        let counts = apply_cut(&mut after, format, cut, 0);
        assert_only_pruned(&before, &after, format, counts);
        let zeros = counts.pruned + counts.already_zero;
        prop_assert_eq!(zeros, wanted.clamp(found.zeros, found.finite()));
        // No pruned weight is larger than a kept one, and the first of equal ones are pruned.
        let (old, new) = (keys(format, &before), keys(format, &after));
        let pruned = |i: &usize| new[*i] == 0 && old[*i] != 0;
        let largest_pruned = (0..old.len()).filter(|i| pruned(i)).map(|i| (old[i], i)).max();
        let smallest_kept = (0..old.len()).filter(|i| new[*i] != 0).map(|i| (old[i], i)).min();
        prop_assert!(
            largest_pruned < smallest_kept || largest_pruned.is_none() || smallest_kept.is_none()
        );
        // Pruning again to the same sparsity changes nothing.
        let tile = one_row(&after, format);
        let again = exact_cut(&tile, Census::default().take(&tile), wanted);
        prop_assert_eq!(apply_cut(&mut after.clone(), format, again, 0).pruned, 0);
    }

    #[test]
    fn a_cut_applied_in_pieces_is_the_same_cut((format, before) in any_bytes(), k in 0u64..300, at in 0usize..300) {
        let tile = one_row(&before, format);
        let cut = exact_cut(&tile, Census::default().take(&tile), k);
        let size = format.size_bytes();
        let at = at.min(before.len() / size);
        let mut whole = before.clone();
        let mut pieces = before.clone();
        let expected = apply_cut(&mut whole, format, cut, 0);
        let mut counts = apply_cut(&mut pieces[..at * size], format, cut, 0);
        counts += apply_cut(&mut pieces[at * size..], format, cut, at as u64);
        prop_assert_eq!(whole, pieces);
        prop_assert_eq!(expected, counts);
    }

    #[test]
    fn the_flow_never_prunes_a_larger_weight_before_a_smaller_one((format, before) in any_bytes()) {
        let mut after = before.clone();
        let cut = flow_cut(&before, format);
        let counts = apply_cut(&mut after, format, cut, 0);
        assert_only_pruned(&before, &after, format, counts);
        prop_assert_eq!(cut.ties_end, 0);
        // The largest weight is kept.
        let finite = keys(format, &before).into_iter().filter(|k| *k < format.infinity_key());
        let largest = finite.max().unwrap_or(0);
        prop_assert!(cut.below <= largest);
    }

    #[test]
    fn the_flow_does_not_depend_on_order(values in prop::collection::vec(-2.0f32..2.0, 1..200), seed in any::<u64>()) {
        let mut shuffled = values.clone();
        shuffled.sort_by_key(|v| u64::from(v.to_bits()).wrapping_mul(seed | 1));
        let bytes = |values: &[f32]| -> Vec<u8> { values.iter().flat_map(|v| v.to_le_bytes()).collect() };
        prop_assert_eq!(
            flow_cut(&bytes(&values), FloatFormat::F32),
            flow_cut(&bytes(&shuffled), FloatFormat::F32)
        );
    }

    #[test]
    fn the_flow_is_the_same_for_tiles_scaled_by_powers_of_two(values in prop::collection::vec(0.01f32..2.0, 1..300), exponent in -60i32..60) {
        let cut = |scale: f32| {
            let bytes: Vec<u8> = values.iter().flat_map(|v| (v * scale).to_le_bytes()).collect();
            FloatFormat::F32.magnitude(flow_cut(&bytes, FloatFormat::F32).below)
        };
        let scale = 2f32.powi(exponent);
        prop_assert_eq!(cut(1.0) * f64::from(scale), cut(scale));
    }

    #[test]
    fn nothing_of_a_uniform_tile_is_pruned(value in 0.001f32..1000.0, n in 1usize..300) {
        let bytes: Vec<u8> = std::iter::repeat_n(value.to_le_bytes(), n).flatten().collect();
        let mut after = bytes.clone();
        let counts = apply_cut(&mut after, FloatFormat::F32, flow_cut(&bytes, FloatFormat::F32), 0);
        prop_assert_eq!(counts.pruned, 0);
    }

    #[test]
    fn a_pattern_keeps_n_of_each_m((format, before) in any_bytes(), keep in 1usize..8, more in 1usize..8) {
        let group = keep + more;
        let mut after = before.clone();
        let counts = apply_pattern(&mut after, format, keep, group);
        assert_only_pruned(&before, &after, format, counts);
        let (old, new) = (keys(format, &before), keys(format, &after));
        let infinity = format.infinity_key();
        for (old, new) in old.chunks(group).zip(new.chunks(group)) {
            let kept = new.iter().filter(|key| **key != 0).count();
            let protected = old.iter().filter(|key| **key >= infinity).count();
            let had = old.iter().filter(|key| **key != 0).count();
            prop_assert_eq!(kept, had.min(keep).max(protected));
            let smallest_kept = new.iter().filter(|key| **key != 0).min();
            let largest_pruned = old.iter().zip(new).filter(|(o, n)| o != n).map(|(o, _)| o).max();
            prop_assert!(largest_pruned <= smallest_kept || smallest_kept.is_none());
        }
    }

    #[test]
    fn the_search_over_pieces_finds_what_sorting_finds(
        pieces in prop::collection::vec(any_bytes(), 1..5), share in 0.0..=1.0f64
    ) {
        let mut all: Vec<u32> = pieces
            .iter()
            .flat_map(|(format, bytes)| {
                let finite = keys(*format, bytes).into_iter().filter(|k| *k < format.infinity_key());
                finite.map(|key| format.binary32_key(key)).collect::<Vec<_>>()
            })
            .collect();
        all.sort_unstable();
        let zeros = (share * all.len() as f64).round() as u64;
        let mut census = Census::default();
        let mut coarse = MagnitudeSearch::coarse();
        for (format, bytes) in &pieces {
            let mut part = coarse.fork();
            part.count(bytes, *format, &mut census);
            coarse.merge(&part);
        }
        prop_assert_eq!(coarse.finite(), all.len() as u64);
        let Some((mut fine, below)) = coarse.refine(zeros) else {
            prop_assert_eq!(zeros, all.len() as u64);
            return Ok(());
        };
        for (format, bytes) in &pieces {
            fine.count(bytes, *format, &mut census);
        }
        let found = fine.found(zeros, below);
        prop_assert_eq!(found.below, all[zeros as usize]);
        let smaller = all.iter().filter(|key| **key < found.below).count() as u64;
        prop_assert_eq!(smaller + found.ties, zeros);
        // If a format can represent the tie, its ties can be counted and located.
        for (format, bytes) in &pieces {
            if let Some(key) = found.tie_key(*format) {
                let mut left = count_ties(bytes, *format, key);
                if left > 0 {
                    let end = locate_tie(bytes, *format, key, &mut left).expect("counted before");
                    prop_assert_eq!(keys(*format, bytes)[end as usize - 1], key);
                }
            }
        }
    }
}
