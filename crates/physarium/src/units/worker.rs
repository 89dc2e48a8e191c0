//! A process that runs units until all are done.

use std::time::{Duration, Instant};

use super::plan::Unit;
use super::share::Share;
use super::workplace::Workplace;
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::progress::{Event, Progress};

/// How long to wait before looking again what is done.
pub(super) const WAIT: Duration = Duration::from_millis(500);

/// A process that runs the units of its share as soon as they are ready.
#[derive(Debug, Clone, Copy)]
pub struct Worker {
    /// Its share.
    pub share: Share,
    /// After this time without a new result, it runs units of other shares too: their process may be gone.
    pub patience: Duration,
}

impl Worker {
    /// Runs units until all of the plan are done. Returns how many this process ran.
    ///
    /// # Errors
    /// As [`Workplace::run`].
    pub fn run(
        &self,
        place: &Workplace,
        cancel: &Cancel,
        progress: &mut dyn Progress,
    ) -> Result<usize> {
        let units = &place.plan().units;
        let own = self.own(place);
        let mut undone: Vec<usize> = (0..units.len()).collect();
        let (mut ran, mut last_result) = (0, Instant::now());
        loop {
            cancel.check()?;
            if place.is_published() {
                return Ok(ran);
            }
            let before = undone.len();
            undone = still_undone(place, undone)?;
            if undone.is_empty() {
                return Ok(ran);
            }
            if undone.len() < before {
                last_result = Instant::now();
            }
            let helps = last_result.elapsed() >= self.patience;
            match ready(place, &undone, |index| helps || own[index])? {
                Some(unit) => {
                    let (name, number, of) =
                        (&unit.id[..], units.len() - undone.len() + 1, units.len());
                    progress.event(Event::Run { name, number, of });
                    place.run(&unit.id, cancel, progress)?;
                    ran += 1;
                    last_result = Instant::now();
                }
                None => std::thread::sleep(WAIT),
            }
        }
    }

    /// For each unit, whether it is of this share. Units that can run side by side are dealt out in turn.
    fn own(&self, place: &Workplace) -> Vec<bool> {
        let mut dealt = std::collections::HashMap::new();
        let mut is_own = |wave: usize| {
            let number: &mut usize = dealt.entry(wave).or_default();
            *number += 1;
            self.share.takes(*number - 1)
        };
        place.plan().waves().into_iter().map(&mut is_own).collect()
    }
}

/// Those of some units that are not done.
fn still_undone(place: &Workplace, units: Vec<usize>) -> Result<Vec<usize>> {
    let all = &place.plan().units;
    let mut undone = Vec::with_capacity(units.len());
    let mut units = units.into_iter();
    for index in units.by_ref() {
        if !place.is_done(&all[index])? {
            undone.push(index);
            // The plan is in order, so hardly any unit after this one is done: they are looked at when it is.
            if undone.len() > LOOKED_AT {
                break;
            }
        }
    }
    undone.extend(units);
    Ok(undone)
}

/// Units that are not done and are looked at again.
const LOOKED_AT: usize = 64;

/// The first of some units that a process may run and that needs no unit which is not done.
fn ready<'a>(
    place: &'a Workplace,
    undone: &[usize],
    may_run: impl Fn(usize) -> bool,
) -> Result<Option<&'a Unit>, Error> {
    let all = &place.plan().units;
    for index in undone.iter().copied().filter(|index| may_run(*index)).take(LOOKED_AT) {
        if place.missing(&all[index])?.is_none() {
            return Ok(Some(&all[index]));
        }
    }
    Ok(None)
}
