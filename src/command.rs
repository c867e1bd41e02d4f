//! One module a command.

pub(crate) mod check;
pub(crate) mod compare;
pub(crate) mod import;
pub(crate) mod list;
pub(crate) mod report;
pub(crate) mod run;
pub(crate) mod translate;

use std::io::{self, Write};

use clap::CommandFactory;
use reports::schema::translate::TranslateResult;
use reports::schema::{CompareResult, RunResult};
use reports::text::TextOptions;
use scenarios::ast::{self, KernelChoice, Scenario};

use crate::cli::{Cli, CompletionsArgs, OnOff, OverrideArgs, SchemaArgs, SchemaKind, UnsupportedRule};
use crate::console::Console;
use crate::engine::Overrides;
use crate::exit::Verdict;
use crate::failure::Failure;
use crate::output::{Rendering, to_stdout};

/// `schema`.
pub(crate) fn schema(args: &SchemaArgs) -> Result<Verdict, Failure> {
    let schema = match args.kind {
        SchemaKind::Scenario => scenarios::schema::scenario_schema(),
        SchemaKind::Result => schemars::schema_for!(RunResult).to_value(),
        SchemaKind::Compare => schemars::schema_for!(CompareResult).to_value(),
        SchemaKind::Translate => schemars::schema_for!(TranslateResult).to_value(),
    };
    to_stdout(|out| json(&schema, out))?;
    Ok(Verdict::Fine)
}

/// `completions`.
pub(crate) fn completions(args: &CompletionsArgs) -> Result<Verdict, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "mmusim", &mut script);
    to_stdout(|out| out.write_all(&script))?;
    Ok(Verdict::Fine)
}

/// The changes both `run` and `compare` accept.
fn overrides(args: &OverrideArgs) -> Overrides {
    Overrides {
        preempt: args.preempt.map(|preempt| match preempt {
            OnOff::On => ast::Switch::On,
            OnOff::Off => ast::Switch::Off,
        }),
        seed: args.seed,
        unsupported: args.unsupported.map(|rule| match rule {
            UnsupportedRule::Pin => ast::Unsupported::Pin,
            UnsupportedRule::Omit => ast::Unsupported::Omit,
            UnsupportedRule::Break => ast::Unsupported::Break,
        }),
        cpus: args.cpus,
        ..Overrides::default()
    }
}

/// A design runs on the kernel it was made for: said where the scenario names another.
fn tell_kernel(design: &str, kernel: &str, scenario: &Scenario, console: &Console) {
    let named = match &scenario.kernel {
        KernelChoice::Name(name) => Some(name),
        KernelChoice::Custom(def) => def.base.as_ref(),
    };
    if let Some(named) = named
        && kernel != named
    {
        console.note(&format!(
            "{design} runs on {kernel}, not on the scenario's {named}"
        ));
    }
}

/// Pretty, so that two results can be told apart with `diff`.
fn json(value: &impl serde::Serialize, out: &mut dyn Write) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, value)?;
    out.write_all(b"\n")
}

/// Writes one run in one form. Timelines need its events and are not written here.
fn render_run(
    result: &RunResult,
    what: Rendering,
    text: &TextOptions,
    out: &mut dyn Write,
) -> io::Result<()> {
    match what {
        Rendering::Json => json(result, out),
        Rendering::Text => out.write_all(reports::text::run_text(result, text).as_bytes()),
        Rendering::Ndjson => out.write_all(reports::ndjson::run_ndjson(result).as_bytes()),
        Rendering::Csv => out.write_all(reports::csv::run_csv(result).as_bytes()),
        Rendering::Html => out.write_all(reports::html::run_html(result).as_bytes()),
        Rendering::Trace | Rendering::Events | Rendering::Scenario => Err(no_such_form()),
    }
}

/// Writes a comparison in one form.
fn render_compare(
    result: &CompareResult,
    what: Rendering,
    text: &TextOptions,
    out: &mut dyn Write,
) -> io::Result<()> {
    match what {
        Rendering::Json => json(result, out),
        Rendering::Text => out.write_all(reports::text::compare_text(result, text).as_bytes()),
        Rendering::Ndjson => out.write_all(reports::ndjson::compare_ndjson(result).as_bytes()),
        Rendering::Csv => out.write_all(reports::csv::compare_csv(result).as_bytes()),
        Rendering::Html => out.write_all(reports::html::compare_html(result).as_bytes()),
        Rendering::Trace | Rendering::Events | Rendering::Scenario => Err(no_such_form()),
    }
}

/// Writes a translation in one form.
fn render_translate(
    result: &TranslateResult,
    what: Rendering,
    text: &TextOptions,
    out: &mut dyn Write,
) -> io::Result<()> {
    match what {
        Rendering::Json => json(result, out),
        Rendering::Text => out.write_all(reports::text::translate_text(result, text).as_bytes()),
        Rendering::Ndjson => out.write_all(reports::ndjson::translate_ndjson(result).as_bytes()),
        Rendering::Csv => out.write_all(reports::csv::translate_csv(result).as_bytes()),
        Rendering::Html => out.write_all(reports::html::translate_html(result).as_bytes()),
        Rendering::Trace | Rendering::Events | Rendering::Scenario => Err(no_such_form()),
    }
}

fn no_such_form() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "a saved result has no such form")
}
