//! SIGKILL at random moments, also while a killed run is resumed.

use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use physarium_fixtures::Noise;

use super::{Fixture, prune};

#[test]
fn killed_at_many_moments() {
    let fixture = Fixture::new(256);
    let rounds = std::env::var("PHYSARIUM_FAULT_ROUNDS").map_or(40, |n| n.parse().unwrap());
    let mut noise = Noise::new(1);
    let (mut kills, mut resumed) = (0, 0);
    for round in 0..rounds {
        fixture.clean();
        let context = format!("round {round}");
        // Up to five kills in a row, each of a run that resumes the one before.
        for _ in 0..1 + noise.below(5) {
            let mut child = prune(fixture.path(), "out").spawn().unwrap();
            let micros = noise.below(fixture.took.as_micros() as u64 * 11 / 10);
            std::thread::sleep(Duration::from_micros(micros));
            child.kill().unwrap();
            kills += u32::from(child.wait().unwrap().signal() == Some(9));
            if fixture.check(&context) {
                break;
            }
        }
        resumed += u32::from(fixture.journalled_shards() > 0);
        fixture.settle(&context);
    }
    eprintln!("{rounds} rounds, {kills} runs killed, {resumed} continued with shards kept");
    // The number depends on the load of the machine.
    assert!(kills > 0, "no run was killed in time");
}

/// A killed run keeps as many shards as it had finished.
#[test]
fn killed_after_each_shard() {
    let fixture = Fixture::new(256);
    for shards in 0..3 {
        fixture.killed_after(shards);
        // The run may have finished another shard before the kill; `finish` compares the number it reports.
        fixture.finish(&format!("killed after {shards} shards"));
    }
}
