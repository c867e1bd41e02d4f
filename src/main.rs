//! Command line of mmusim: arguments, progress, diagnostics and exit codes. The only part of the
//! project that prints.

mod cli;
mod command;
mod console;
mod engine;
mod exit;
mod failure;
mod input;
mod output;
mod panic;
mod progress;
mod saved;

use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Command};
use console::Console;
use exit::Verdict;
use failure::Failure;

fn main() -> ExitCode {
    panic::install();
    let cli = Cli::parse();
    let console = Console::new(cli.color, cli.talk());
    match dispatch(&cli.command, &console) {
        Ok(verdict) => verdict.into(),
        Err(failure) => {
            console.failure(&failure);
            ExitCode::from(exit::USAGE)
        }
    }
}

fn dispatch(command: &Command, console: &Console) -> Result<Verdict, Failure> {
    match command {
        Command::Run(args) => command::run::run(args, console),
        Command::Compare(args) => command::compare::compare(args, console),
        Command::Translate(args) => command::translate::translate(args, console),
        Command::Check(args) => command::check::check(args, console),
        Command::Import(args) => command::import::import(args, console),
        Command::Report(args) => command::report::report(args, console),
        Command::Schema(args) => command::schema(args),
        Command::List(args) => command::list::list(args, console),
        Command::Completions(args) => command::completions(args),
    }
}
