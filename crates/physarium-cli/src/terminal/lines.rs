//! Progress as lines, at most one per interval.

use std::time::{Duration, Instant};

use physarium::{Event, Kept, Progress};
use serde_json::json;

use super::work::{Unit, Work, kept_run, resumed};
use crate::output::{event_line, note};

/// The format of progress lines.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Plain,
    Json,
}

/// Progress as lines.
pub(super) struct Lines {
    shape: Shape,
    work: Work,
    last_line: Instant,
    /// Before the task: `[2/4] `.
    run: String,
}

impl Lines {
    pub fn new(shape: Shape) -> Lines {
        Lines { shape, work: Work::none(), last_line: Instant::now(), run: String::new() }
    }

    /// Time between lines; in a long run, a twentieth of the time so far, so that a log stays short.
    fn interval(&self) -> Duration {
        match self.shape {
            Shape::Plain => Duration::from_secs(5).max(self.work.elapsed() / 20),
            Shape::Json => Duration::from_millis(200),
        }
    }

    fn print(&mut self, event: &str) {
        self.last_line = Instant::now();
        let work = &self.work;
        match self.shape {
            Shape::Plain => {
                let (position, pace) = (work.position(), work.pace());
                note(&format!("{}{}: {position}, {pace}", self.run, work.task));
            }
            Shape::Json => event_line(&counts(event, work)),
        }
    }

    /// Prints an event that is not part of a task.
    fn tell(&self, plain: &str, json: &serde_json::Value) {
        match self.shape {
            Shape::Plain => note(plain),
            Shape::Json => event_line(json),
        }
    }
}

/// The fields of a task's event.
fn counts(event: &str, work: &Work) -> serde_json::Value {
    let mut fields =
        json!({"event": event, "task": work.task, "seconds": work.elapsed().as_secs_f64()});
    match work.unit {
        Unit::Bytes { tensors } => {
            fields["bytes"] = work.done.into();
            fields["total_bytes"] = work.total.into();
            fields["tensors"] = work.tensors.into();
            fields["total_tensors"] = tensors.into();
        }
        Unit::Tokens => {
            fields["tokens"] = work.done.into();
            fields["total_tokens"] = work.total.into();
        }
        Unit::Layers(layers) => {
            fields["layer"] = work.layer(layers).into();
            fields["layers"] = layers.into();
            fields["steps"] = work.done.into();
            fields["total_steps"] = work.total.into();
        }
    }
    fields
}

impl Progress for Lines {
    fn event(&mut self, event: Event<'_>) {
        if let Some(work) = Work::begun_by(event) {
            self.work = work;
            self.last_line = Instant::now();
            if self.shape == Shape::Json {
                self.print("started");
            }
            return;
        }
        if self.work.advance(event) && self.last_line.elapsed() >= self.interval() {
            self.print("progress");
        }
        match event {
            Event::Resumed { kept, count, of } => {
                let what = match kept {
                    Kept::Shards => "shards",
                    Kept::Layers => "layers",
                    Kept::Parts => "parts",
                };
                let json = json!({"event": "resumed", (what): count, "of": of});
                self.tell(&resumed(kept, count, of), &json);
            }
            Event::Run { name, number, of } => {
                self.run = format!("[{number}/{of}] ");
                let json = json!({"event": "run", "name": name, "number": number, "of": of});
                self.tell(&format!("[{number}/{of}] {name}"), &json);
            }
            Event::RunKept { name, number, of } => {
                let json = json!({"event": "run_kept", "name": name, "number": number, "of": of});
                self.tell(&kept_run(name, number, of), &json);
            }
            Event::Step(what) => self.tell(what, &json!({"event": "step", "what": what})),
            Event::Finished if self.shape == Shape::Json => self.print("finished"),
            _ => {}
        }
    }
}
