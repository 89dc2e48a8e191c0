//! The page of an audit: what was done to a model, of what, and whether that is what was claimed.

mod elements;
mod heat;
mod verdict;

use physarium::audit::{Audit, Share, Tensor, Verdict, grouped};
use physarium::checkpoint::{printable, visible};
use physarium::method_in_words;
use serde::Serialize;

use elements::elements;
use heat::Heat;
use verdict::{Summary, verdict};

use crate::chart::{self, BINS, both, histogram};
use crate::frame::{picture, render, safe};
use crate::words::{Cell, Table, counted, percent, quoted};

/// The page of an audit.
pub fn audit_page(audit: &Audit) -> String {
    render("audit.html", &Page::of(audit), audit)
}

/// The pictures of an audit as SVG files, each with its name: where the elements went, and how sparse the tiles are, if
/// that is known.
pub(crate) fn pictures(audit: &Audit) -> Vec<(&'static str, String)> {
    let [width, _] = chart::WIDTHS;
    let flow = picture(&chart::flow(&elements(audit), width));
    let tiles = tiles(audit).map(|tiles| ("tiles", picture(&tiles.draw(width))));
    std::iter::once(("flow", flow)).chain(tiles).collect()
}

#[derive(Serialize)]
struct Page {
    title: String,
    against: Option<String>,
    verdict: Summary,
    counts: Vec<Count>,
    flow: minijinja::Value,
    claims: Vec<Claim>,
    heats: Vec<Heat>,
    tiles: Option<Tiles>,
    has_magnified: bool,
    projections: Table,
    tensors: usize,
    untouched: Vec<[String; 3]>,
    identities: Table,
    warnings: Vec<String>,
    origin: Option<Origin>,
}

/// A count that stands out.
#[derive(Serialize)]
struct Count {
    id: &'static str,
    name: &'static str,
    value: u64,
    text: String,
    share: String,
}

#[derive(Serialize)]
struct Claim {
    id: String,
    source: String,
    sentence: String,
    claimed: String,
    class: &'static str,
    verdict: String,
    should_say: Option<String>,
}

#[derive(Serialize)]
struct Tiles {
    edge: u64,
    count: u64,
    drawn: minijinja::Value,
    #[serde(skip)]
    counts: [u64; BINS],
}

/// Where the checkpoint is from, and how to check that.
#[derive(Serialize)]
struct Origin {
    facts: Vec<(&'static str, String)>,
    commands: Vec<(&'static str, String)>,
    recipe: Option<String>,
    shards: Table,
}

impl Page {
    fn of(audit: &Audit) -> Page {
        let provenance = audit.provenance.as_ref();
        let name = provenance.map_or("checkpoint".to_owned(), |p| printable(&p.checkpoint));
        let elements = elements(audit);
        Page {
            title: format!("Audit of {name}"),
            against: provenance.and_then(|p| p.against.as_ref()).map(|name| printable(name)),
            verdict: verdict(audit),
            counts: counts(audit),
            flow: safe(both(|width| chart::flow(&elements, width))),
            claims: claims(audit),
            heats: [heat::sparsity(&audit.tensors), heat::error(&audit.tensors)]
                .into_iter()
                .flatten()
                .collect(),
            tiles: tiles(audit),
            has_magnified: !audit.magnified.is_empty(),
            projections: projections(audit),
            tensors: audit.tensors.len(),
            untouched: untouched(audit),
            identities: identities(audit),
            warnings: audit.warnings.iter().map(|warning| visible(warning).into_owned()).collect(),
            origin: provenance.map(|_| origin(audit)),
        }
    }
}

fn counts(audit: &Audit) -> Vec<Count> {
    let count =
        |id, name, value, share: String| Count { id, name, value, text: grouped(value), share };
    let mut all = vec![
        count(
            "model",
            "model",
            audit.model.elements,
            counted(audit.model.tensors as usize, "tensor"),
        ),
        count("target", "target", audit.target.elements, audit.target.of_model.sentence()),
    ];
    if let Some(pruned) = &audit.pruned {
        let shares = format!("{}, {}", pruned.of_target.sentence(), pruned.of_model.sentence());
        all.push(count("pruned", "pruned", pruned.elements, shares));
    }
    if let Some(changed) = audit.changed.as_ref().filter(|changed| changed.elements > 0) {
        all.push(count(
            "changed",
            "changed otherwise",
            changed.elements,
            changed.of_target.sentence(),
        ));
    }
    let name = if audit.untouched.compared { "untouched" } else { "not targets (not compared)" };
    let untouched = &audit.untouched;
    all.push(count("untouched", name, untouched.elements, untouched.of_model.sentence()));
    all
}

fn claims(audit: &Audit) -> Vec<Claim> {
    let claim = |claim: &physarium::audit::Judgement| {
        let (class, mark) = match claim.verdict {
            Verdict::Correct => ("good", "✓"),
            Verdict::Denominator | Verdict::Wrong => ("bad", "✗"),
            Verdict::CannotBeJudged => ("unknown", "?"),
        };
        Claim {
            id: printable(&claim.id),
            source: printable(&claim.source),
            sentence: printable(&claim.sentence),
            claimed: printable(&claim.claimed),
            class,
            verdict: format!("{mark} {}", claim.verdict.words()),
            should_say: claim
                .should_say
                .as_ref()
                .or(claim.reason.as_ref())
                .map(|say| printable(say)),
        }
    };
    audit.claims.iter().map(claim).collect()
}

/// The distribution of the tiles' sparsities.
fn tiles(audit: &Audit) -> Option<Tiles> {
    let mut counts = [0; BINS];
    let mut edge = 0;
    for map in audit.tensors.iter().flat_map(Tensor::tile_maps) {
        edge = map.edge;
        for [zeros, all] in map.tiles().unwrap_or_default() {
            counts[((zeros * BINS as u64 / all) as usize).min(BINS - 1)] += 1;
        }
    }
    let mut tiles =
        Tiles { edge, count: counts.iter().sum(), drawn: minijinja::Value::UNDEFINED, counts };
    tiles.drawn = safe(both(|width| tiles.draw(width)));
    (tiles.count > 0).then_some(tiles)
}

impl Tiles {
    fn draw(&self, width: f64) -> String {
        let edge = self.edge;
        let label = format!("Number of tiles of {edge} x {edge} weights by their share of zeros");
        histogram(&label, &self.counts, width)
    }
}

fn projections(audit: &Audit) -> Table {
    let columns =
        ["projection", "tensors", "weights", "pruned", "of projection", "least", "mean", "most"];
    let row = |p: &physarium::audit::Projection| {
        vec![
            Cell::text(&p.projection),
            Cell::count(p.tensors),
            Cell::count(p.elements),
            Cell::count(p.pruned),
            Cell::percent(p.of_projection.as_ref().and_then(|share| share.share)),
            Cell::percent(p.sparsity_min),
            Cell::percent(p.sparsity_mean),
            Cell::percent(p.sparsity_max),
        ]
    };
    Table {
        id: "projections".to_owned(),
        caption: "Least, mean and most: the share of zeros of any origin in its matrices."
            .to_owned(),
        columns: columns.map(str::to_owned).to_vec(),
        rows: audit.projections.iter().map(row).collect(),
    }
}

/// Tensors that are no targets by the reason: how many, and how many elements.
fn untouched(audit: &Audit) -> Vec<[String; 3]> {
    let mut reasons: std::collections::BTreeMap<&str, [u64; 2]> = Default::default();
    for skipped in &audit.skipped {
        let [tensors, elements] = reasons.entry(&skipped.reason).or_default();
        *tensors += 1;
        *elements += skipped.elements;
    }
    let row = |(reason, [tensors, elements]): (&str, [u64; 2])| {
        [printable(reason), grouped(tensors), grouped(elements)]
    };
    reasons.into_iter().map(row).collect()
}

fn identities(audit: &Audit) -> Table {
    let row = |identity: &physarium::audit::Identity| {
        let holds = if identity.holds { "✓ holds" } else { "✗ false" };
        vec![
            Cell { value: None, text: visible(&identity.says).into_owned() },
            Cell::count(identity.left),
            Cell::count(identity.right),
            Cell::text(holds),
        ]
    };
    Table {
        id: "checks".to_owned(),
        caption: "Each compares two numbers that were counted in different ways.".to_owned(),
        columns: ["these are equal", "left", "right", ""].map(str::to_owned).to_vec(),
        rows: audit.identities.iter().map(row).collect(),
    }
}

fn origin(audit: &Audit) -> Origin {
    let provenance = audit.provenance.as_ref().expect("asked for with one");
    let mut facts = vec![("audited by", printable(&provenance.audited_by))];
    facts.extend(provenance.pruned_by.as_ref().map(|tool| ("pruned by", printable(tool))));
    facts.extend(provenance.recipe.as_ref().map(|recipe| ("method", method_in_words(recipe))));
    let dir = quoted(&provenance.checkpoint);
    let original = provenance.against.as_ref().map_or("ORIGINAL".to_owned(), |name| quoted(name));
    let mut commands = Vec::new();
    if let Some(recipe) = &provenance.recipe {
        let text = recipe.needs().calibration.map_or(String::new(), |calibration| {
            facts.push(("calibration text, SHA-256", calibration.text_sha256.to_string()));
            let tokens = format!(
                "{} in windows of {}",
                grouped(calibration.tokens),
                grouped(calibration.window)
            );
            facts.push(("calibration tokens", tokens));
            facts.push((
                "BOS in calibration, if the tokenizer adds it",
                calibration.bos.to_string(),
            ));
            " --calibration TEXT".to_owned()
        });
        let repeat = format!(
            "physarium prune {original} --out NEW --recipe {dir}/physarium.manifest.json{text}"
        );
        commands.push(("repeat the run", repeat));
        commands
            .push(("verify every byte", format!("physarium verify {dir} --against {original}")));
    }
    commands.push(("count again", format!("physarium audit {dir} --against {original}")));
    let shard = |shard: &physarium::checkpoint::journal::ShardRecord| {
        let bytes = Cell::bytes(shard.size_bytes);
        let digests =
            [&shard.input_sha256, &shard.output_sha256].map(|d| Cell::text(&d.to_string()));
        [vec![Cell::text(&shard.name), bytes], digests.to_vec()].concat()
    };
    Origin {
        facts,
        commands,
        recipe: provenance.recipe.as_ref().map(|recipe| {
            let json = serde_json::to_string_pretty(recipe).expect("a recipe is plain JSON");
            visible(&json).into_owned()
        }),
        shards: Table {
            id: "shards".to_owned(),
            caption: "SHA-256 of each file before and after, as the journal states it.".to_owned(),
            columns: ["file", "size", "before", "after"].map(str::to_owned).to_vec(),
            rows: provenance.shards.iter().map(shard).collect(),
        },
    }
}

/// The pruned share of the target and of the model in words, for a page with several audits.
pub(crate) fn in_short(audit: &Audit) -> Vec<(&'static str, Cell)> {
    let findings = verdict(audit).findings.into_iter();
    let findings = findings.map(|finding| format!("{} {}", finding.mark, finding.says));
    let share = |share: Option<&Share>| Cell::percent(share.and_then(|share| share.share));
    let pruned = audit.pruned.as_ref();
    let mut rows = vec![
        ("verdict", Cell::text(&findings.collect::<Vec<_>>().join(" "))),
        ("elements of the model", Cell::count(audit.model.elements)),
        ("elements of the target", Cell::count(audit.target.elements)),
        ("target, of model", share(Some(&audit.target.of_model))),
        ("pruned", Cell::count(pruned.map(|pruned| pruned.elements))),
        ("pruned, of target", share(pruned.map(|pruned| &pruned.of_target))),
        ("pruned, of model", share(pruned.map(|pruned| &pruned.of_model))),
        ("zero now, of target", share(Some(&audit.zero.of_target))),
        ("changed otherwise, of target", share(audit.changed.as_ref().map(|c| &c.of_target))),
    ];
    let recipe = audit.provenance.as_ref().and_then(|provenance| provenance.recipe.as_ref());
    rows.push((
        "method",
        recipe.map_or(Cell::unknown(), |recipe| Cell::text(&method_in_words(recipe))),
    ));
    rows
}

/// The share of zeros of each projection.
pub(crate) fn of_projections(audit: &Audit) -> Vec<(String, Cell)> {
    let share = |p: &physarium::audit::Projection| {
        let text = format!(
            "{} (mean of {})",
            percent(p.sparsity_mean),
            counted(p.tensors as usize, "tensor")
        );
        (printable(&p.projection), Cell { value: Some(p.sparsity_mean), text })
    };
    audit.projections.iter().map(share).collect()
}
