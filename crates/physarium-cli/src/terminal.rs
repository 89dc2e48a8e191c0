//! Progress on stderr: a bar on a terminal, plain lines otherwise, JSON lines for programs.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use physarium::audit::Step;
use physarium::{Cancel, Event, Progress, Silent};

use crate::output::{note, size};

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Style {
    /// A bar on a terminal, plain lines otherwise
    Auto,
    /// A progress bar
    Bar,
    /// Periodic lines
    Plain,
    /// JSON objects, one per line
    Json,
    /// No progress
    None,
}

/// What shows the progress of a command.
pub fn progress(style: Style) -> Box<dyn Progress> {
    match style {
        Style::Auto if std::io::stderr().is_terminal() => Box::new(Bar::new()),
        Style::Auto | Style::Plain => Box::new(Lines::new(Shape::Plain)),
        Style::Bar => Box::new(Bar::new()),
        Style::Json => Box::new(Lines::new(Shape::Json)),
        Style::None => Box::new(Silent),
    }
}

/// Shows the steps of an audit or a verification, and stops it on a signal.
pub fn steps<'a>(
    task: &'static str,
    progress: &'a mut dyn Progress,
    cancel: &'a Cancel,
) -> impl FnMut(Step) -> Result<(), physarium::checkpoint::Error> + 'a {
    move |step| {
        match step {
            Step::Total(bytes) => progress.event(Event::Started { task, bytes, tensors: 0 }),
            Step::Read(bytes) => progress.event(Event::Bytes(bytes)),
        }
        match cancel.is_raised() {
            true => Err(physarium::checkpoint::Error::Interrupted),
            false => Ok(()),
        }
    }
}

/// A bar with amounts done, rate and time left.
struct Bar {
    bar: ProgressBar,
    tensors: u64,
    of: u64,
}

impl Bar {
    fn new() -> Bar {
        Bar { bar: ProgressBar::hidden(), tensors: 0, of: 0 }
    }
}

impl Progress for Bar {
    fn event(&mut self, event: Event<'_>) {
        match event {
            Event::Started { task, bytes, tensors } => {
                self.of = tensors;
                let template = "{prefix} [{bar:30}] {decimal_bytes}/{decimal_total_bytes} {msg} \
                                {decimal_bytes_per_sec}, {eta} left";
                self.bar = bar(task, bytes, template);
            }
            Event::TokensStarted { task, tokens } => {
                let template = "{prefix} [{bar:30}] {human_pos}/{human_len} tokens, {per_sec}, \
                                {eta} left";
                self.bar = bar(task, tokens, template);
            }
            Event::Bytes(done) | Event::Tokens(done) => self.bar.inc(done),
            Event::Tensor(_) => {
                self.tensors += 1;
                self.bar.set_message(format!("{}/{} tensors,", self.tensors, self.of));
            }
            Event::Resumed { shards, of } => self.bar.suspend(|| resumed(shards, of)),
            Event::Step(what) => self.bar.suspend(|| note(what)),
            Event::Finished => self.bar.finish_and_clear(),
            _ => {}
        }
    }
}

fn bar(task: &'static str, total: u64, template: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(template).expect("a valid template");
    ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr_with_hz(10))
        .with_style(style.progress_chars("=> "))
        .with_prefix(task)
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn resumed(shards: usize, of: usize) {
    note(&format!("resuming: {shards} of {of} shards already done and verified"));
}

/// The format of progress lines.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    Plain,
    Json,
}

/// What is counted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unit {
    Bytes,
    Tokens,
}

impl Unit {
    /// An amount for display.
    fn show(self, amount: u64) -> String {
        match self {
            Unit::Bytes => size(amount),
            Unit::Tokens => format!("{} tokens", physarium::audit::grouped(amount)),
        }
    }

    /// Its name in JSON.
    fn name(self) -> &'static str {
        match self {
            Unit::Bytes => "bytes",
            Unit::Tokens => "tokens",
        }
    }
}

/// Progress as lines, at most one per interval.
struct Lines {
    shape: Shape,
    unit: Unit,
    task: &'static str,
    began: Instant,
    last_line: Instant,
    done: u64,
    total: u64,
    tensors: u64,
    of: u64,
}

impl Lines {
    fn new(shape: Shape) -> Lines {
        let now = Instant::now();
        let (done, total, tensors, of) = (0, 0, 0, 0);
        Lines {
            shape,
            unit: Unit::Bytes,
            task: "",
            began: now,
            last_line: now,
            done,
            total,
            tensors,
            of,
        }
    }

    fn interval(&self) -> Duration {
        match self.shape {
            Shape::Plain => Duration::from_secs(5),
            Shape::Json => Duration::from_millis(200),
        }
    }

    fn print(&mut self, event: &str) {
        self.last_line = Instant::now();
        let seconds = self.began.elapsed().as_secs_f64();
        let rate = self.done as f64 / seconds.max(1e-9);
        let left = self.total.saturating_sub(self.done) as f64 / rate.max(1e-9);
        match self.shape {
            Shape::Plain => note(&format!(
                "{}: {} of {}{}, {}/s, {left:.0} s left",
                self.task,
                self.unit.show(self.done),
                self.unit.show(self.total),
                self.tensor_note(),
                self.unit.show(rate as u64),
            )),
            Shape::Json => note(
                &serde_json::json!({
                    "event": event, "task": self.task, (self.unit.name()): self.done,
                    (format!("total_{}", self.unit.name())): self.total, "tensors": self.tensors,
                    "total_tensors": self.of, "seconds": seconds,
                })
                .to_string(),
            ),
        }
    }

    fn tensor_note(&self) -> String {
        match self.of {
            0 => String::new(),
            of => format!(", {} of {of} tensors", self.tensors),
        }
    }
}

impl Progress for Lines {
    fn event(&mut self, event: Event<'_>) {
        match event {
            Event::Started { task, bytes, tensors } => {
                *self = Lines { task, total: bytes, of: tensors, ..Lines::new(self.shape) };
                if self.shape == Shape::Json {
                    self.print("started");
                }
            }
            Event::Resumed { shards, of } if self.shape == Shape::Plain => resumed(shards, of),
            Event::Resumed { shards, of } => {
                note(
                    &serde_json::json!({"event": "resumed", "shards": shards, "of": of})
                        .to_string(),
                );
            }
            Event::Step(what) if self.shape == Shape::Plain => note(what),
            Event::Step(what) => {
                note(&serde_json::json!({"event": "step", "what": what}).to_string())
            }
            Event::TokensStarted { task, tokens } => {
                let (unit, total) = (Unit::Tokens, tokens);
                *self = Lines { task, unit, total, ..Lines::new(self.shape) };
                if self.shape == Shape::Json {
                    self.print("started");
                }
            }
            Event::Bytes(done) | Event::Tokens(done) => {
                self.done += done;
                if self.last_line.elapsed() >= self.interval() {
                    self.print("progress");
                }
            }
            Event::Tensor(_) => self.tensors += 1,
            Event::Finished if self.shape == Shape::Json => self.print("finished"),
            _ => {}
        }
    }
}
