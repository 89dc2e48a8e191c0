//! How far a task is, by the events of a run.

use std::time::{Duration, Instant};

use physarium::audit::grouped;
use physarium::{Event, Kept};

use crate::output::{counted, duration, size};

/// What is counted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Bytes, and tensors of this many.
    Bytes { tensors: u64 },
    /// Tokens of a text.
    Tokens,
    /// Steps of the work on this many layers.
    Layers(u64),
}

/// A task in progress.
pub struct Work {
    pub task: &'static str,
    pub unit: Unit,
    pub done: u64,
    pub total: u64,
    pub tensors: u64,
    began: Instant,
}

impl Work {
    /// No task.
    pub fn none() -> Work {
        Work::of("", Unit::Bytes { tensors: 0 }, 0)
    }

    /// The task that an event begins.
    pub fn begun_by(event: Event<'_>) -> Option<Work> {
        Some(match event {
            Event::Started { task, bytes, tensors } => {
                Work::of(task, Unit::Bytes { tensors }, bytes)
            }
            Event::TokensStarted { task, tokens } => Work::of(task, Unit::Tokens, tokens),
            Event::LayersStarted { task, layers, steps } => {
                Work::of(task, Unit::Layers(layers), steps)
            }
            _ => return None,
        })
    }

    fn of(task: &'static str, unit: Unit, total: u64) -> Work {
        Work { task, unit, done: 0, total, tensors: 0, began: Instant::now() }
    }

    /// Counts what an event reports. Returns whether that moves the work forward.
    pub fn advance(&mut self, event: Event<'_>) -> bool {
        match event {
            Event::Bytes(done) | Event::Tokens(done) => self.done += done,
            Event::LayerStep => self.done += 1,
            Event::Tensor(_) => self.tensors += 1,
            _ => {}
        }
        matches!(event, Event::Bytes(_) | Event::Tokens(_) | Event::LayerStep)
    }

    /// The number of the layer that is worked on, from 1.
    pub fn layer(&self, layers: u64) -> u64 {
        let done = u128::from(self.done) * u128::from(layers) / u128::from(self.total.max(1));
        (done as u64 + 1).min(layers)
    }

    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// How far it is: `layer 12 of 30`, `1.2 GB of 3.1 GB, 40 of 338 tensors`.
    pub fn position(&self) -> String {
        match self.unit {
            Unit::Layers(layers) => format!("layer {} of {layers}", self.layer(layers)),
            Unit::Tokens => format!("{} of {} tokens", grouped(self.done), grouped(self.total)),
            Unit::Bytes { tensors: 0 } => format!("{} of {}", size(self.done), size(self.total)),
            Unit::Bytes { tensors } => format!(
                "{} of {}, {} of {tensors} tensors",
                size(self.done),
                size(self.total),
                self.tensors
            ),
        }
    }

    /// Its speed, and the time so far and left: `1.10 GB/s, 3.0 s elapsed, 5.1 s left`.
    pub fn pace(&self) -> String {
        format!("{}{} elapsed, {}", self.speed(), duration(self.elapsed()), self.left())
    }

    /// Work done per second; nothing for layers, whose time is no use as a rate.
    pub fn speed(&self) -> String {
        match self.unit {
            Unit::Bytes { .. } => format!("{}/s, ", size(self.rate() as u64)),
            Unit::Tokens => format!("{} tokens/s, ", grouped(self.rate() as u64)),
            Unit::Layers(_) => String::new(),
        }
    }

    /// The time left, by the speed so far.
    pub fn left(&self) -> String {
        if self.done == 0 {
            return "time left not yet known".to_owned();
        }
        let seconds = self.total.saturating_sub(self.done) as f64 / self.rate().max(1e-9);
        format!("{} left", duration(Duration::try_from_secs_f64(seconds).unwrap_or_default()))
    }

    fn rate(&self) -> f64 {
        self.done as f64 / self.elapsed().as_secs_f64().max(1e-9)
    }
}

/// A run of several that was finished before.
pub fn kept_run(name: &str, number: usize, of: usize) -> String {
    format!("[{number}/{of}] {name}: kept, measured before")
}

/// What is kept of an interrupted run.
pub fn resumed(kept: Kept, count: usize, of: usize) -> String {
    match kept {
        Kept::Shards => {
            format!("resuming: {count} of {} kept, verified by digest", counted(of as u64, "shard"))
        }
        Kept::Layers => {
            let layers = counted(of as u64, "layer");
            format!("resuming: solved weights of {count} of {layers} kept, verified by digest")
        }
        Kept::Parts => {
            format!("resuming: scores of {count} of {} kept", counted(of as u64, "part"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_counted_from_one_and_never_beyond_the_last() {
        let begun = Event::LayersStarted { task: "calibrate", layers: 30, steps: 120 };
        let mut work = Work::begun_by(begun).expect("a task");
        assert_eq!(work.position(), "layer 1 of 30");
        assert_eq!(work.left(), "time left not yet known");
        (0..47).for_each(|_| assert!(work.advance(Event::LayerStep)));
        assert_eq!(work.position(), "layer 12 of 30");
        (47..120).for_each(|_| assert!(work.advance(Event::LayerStep)));
        assert_eq!(work.position(), "layer 30 of 30");
    }

    #[test]
    fn rates_have_units() {
        let mut work =
            Work::begun_by(Event::TokensStarted { task: "eval", tokens: 4096 }).expect("a task");
        assert!(work.advance(Event::Tokens(1024)));
        assert_eq!(work.position(), "1,024 of 4,096 tokens");
        assert!(work.pace().contains(" tokens/s, "), "{}", work.pace());
        let begun = Event::Started { task: "prune", bytes: 2_000_000, tensors: 7 };
        let mut work = Work::begun_by(begun).expect("a task");
        assert!(!work.advance(Event::Tensor("a")));
        assert!(work.advance(Event::Bytes(1_000_000)));
        assert_eq!(work.position(), "1.00 MB of 2.00 MB, 1 of 7 tensors");
    }
}
