//! A bar on a terminal.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use physarium::{Event, Progress};

use super::work::{Work, kept_run, resumed};
use crate::output::note;

/// The bar is drawn anew at least this often, so that a long step is seen to be alive.
const TICK: Duration = Duration::from_millis(500);

/// A bar with the position, the speed and the time left.
pub(super) struct Bar {
    bar: ProgressBar,
    work: Work,
    /// Before the task: `[2/4] `.
    run: String,
}

impl Bar {
    pub fn new() -> Bar {
        Bar { bar: ProgressBar::hidden(), work: Work::none(), run: String::new() }
    }

    fn begin(&mut self, work: Work) {
        let template = "{prefix} [{bar:30}] {msg}, {elapsed} elapsed";
        let style = ProgressStyle::with_template(template).expect("a valid template");
        self.bar.finish_and_clear();
        self.bar =
            ProgressBar::with_draw_target(Some(work.total), ProgressDrawTarget::stderr_with_hz(10))
                .with_style(style.progress_chars("=> "))
                .with_prefix(format!("{}{}", self.run, work.task))
                .with_message(work.position());
        self.bar.enable_steady_tick(TICK);
        self.work = work;
    }
}

impl Progress for Bar {
    fn event(&mut self, event: Event<'_>) {
        if let Some(work) = Work::begun_by(event) {
            return self.begin(work);
        }
        if self.work.advance(event) {
            self.bar.set_position(self.work.done);
            self.bar.set_message(format!(
                "{}, {}{}",
                self.work.position(),
                self.work.speed(),
                self.work.left()
            ));
        }
        match event {
            Event::Resumed { kept, count, of } => {
                self.bar.suspend(|| note(&resumed(kept, count, of)));
            }
            Event::Run { name, number, of } => {
                self.run = format!("[{number}/{of}] ");
                self.bar.suspend(|| note(&format!("[{number}/{of}] {name}")));
            }
            Event::RunKept { name, number, of } => {
                self.bar.suspend(|| note(&kept_run(name, number, of)));
            }
            Event::Step(what) => self.bar.suspend(|| note(what)),
            Event::Finished => self.bar.finish_and_clear(),
            _ => {}
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
