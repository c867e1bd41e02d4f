//! What people read beside the results: remarks, warnings and errors, all on stderr.

use std::io::{self, Write};

use anstream::{AutoStream, ColorChoice};
use scenarios::diagnostic::{self, Diagnostics};

use crate::cli::When;
use crate::failure::Failure;

/// Whether remarks are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Talk {
    /// Errors and warnings only.
    Quiet,
    /// Everything.
    Normal,
}

/// The terminal, or whatever stands for it.
pub(crate) struct Console {
    color: When,
    pub(crate) talk: Talk,
}

impl Console {
    pub(crate) fn new(color: When, talk: Talk) -> Console {
        Console { color, talk }
    }

    /// Whether results on stdout are coloured.
    pub(crate) fn stdout_color(&self) -> reports::text::Color {
        match self.colored(AutoStream::choice(&io::stdout())) {
            Colored::Yes => reports::text::Color::Always,
            Colored::No => reports::text::Color::Never,
        }
    }

    /// `automatic` already heeds `NO_COLOR`, `CLICOLOR_FORCE` and the terminal.
    fn colored(&self, automatic: ColorChoice) -> Colored {
        match (self.color, automatic) {
            (When::Always, _) => Colored::Yes,
            (When::Never, _) | (When::Auto, ColorChoice::Never) => Colored::No,
            (When::Auto, _) => Colored::Yes,
        }
    }

    /// A remark, not said when quiet.
    pub(crate) fn note(&self, text: &str) {
        if self.talk == Talk::Normal {
            self.say(&format!("{text}\n"));
        }
    }

    /// Something to look at, even when quiet.
    pub(crate) fn warn(&self, text: &str) {
        self.headed("warning", "\x1b[1;33m", text);
    }

    /// Findings about scenario files.
    pub(crate) fn findings(&self, found: &Diagnostics) {
        let color = match self.stderr() {
            Colored::Yes => diagnostic::Color::Always,
            Colored::No => diagnostic::Color::Never,
        };
        if !found.is_empty() {
            self.say(&found.render(color));
        }
    }

    /// An error that ends the program.
    pub(crate) fn failure(&self, failure: &Failure) {
        match failure {
            Failure::Plain(message) => self.headed("error", "\x1b[1;31m", message),
            Failure::Findings(found) => self.findings(found),
            Failure::Reported => {}
        }
    }

    fn headed(&self, word: &str, style: &str, text: &str) {
        match self.stderr() {
            Colored::Yes => self.say(&format!("{style}{word}\x1b[0m: {text}\n")),
            Colored::No => self.say(&format!("{word}: {text}\n")),
        }
    }

    fn stderr(&self) -> Colored {
        self.colored(AutoStream::choice(&io::stderr()))
    }

    fn say(&self, text: &str) {
        // If stderr is gone there is nobody left to tell.
        let _ = io::stderr().lock().write_all(text.as_bytes());
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Colored {
    Yes,
    No,
}
