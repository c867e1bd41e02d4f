//! Progress on stderr, if that is a terminal and there is enough to wait for.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::console::Talk;

/// A task is long, and its progress shown, after this time.
const PATIENCE: Duration = Duration::from_millis(700);

/// A bar that appears if the task takes long.
pub(crate) struct Bar(ProgressBar);

impl Bar {
    /// A bar of so many steps, if that is known; `template` is one of indicatif's.
    pub(crate) fn new(steps: Option<u64>, template: &str, talk: Talk) -> Bar {
        let bar = ProgressBar::with_draw_target(steps, ProgressDrawTarget::hidden());
        bar.set_style(ProgressStyle::with_template(template).expect("the template is valid"));
        if talk == Talk::Quiet {
            bar.finish();
        }
        Bar(bar)
    }

    /// So many steps are done.
    pub(crate) fn reach(&self, done: u64) {
        self.appear();
        self.0.set_position(done);
    }

    /// One more step is done.
    pub(crate) fn advance(&self) {
        self.appear();
        self.0.inc(1);
    }

    fn appear(&self) {
        if !self.0.is_finished() && self.0.is_hidden() && self.0.elapsed() > PATIENCE {
            self.0.set_draw_target(ProgressDrawTarget::stderr());
        }
    }

    /// Takes the bar off the terminal.
    pub(crate) fn clear(&self) {
        self.0.finish_and_clear();
    }
}
