//! `import`: recordings become scenarios, or compact recordings.

use translate::trace::{self, Format};

use super::translate::failure;
use crate::cli::{ImportCommand, ImportKind, StraceArgs, TraceArgs};
use crate::console::Console;
use crate::exit::Verdict;
use crate::failure::Failure;
use crate::input;
use crate::output::{Plan, Rendering};

/// Writes the scenario of a recording.
pub(crate) fn import(args: &ImportCommand, console: &Console) -> Result<Verdict, Failure> {
    match &args.kind {
        ImportKind::Strace(args) => strace(args, console),
        ImportKind::Lackey(args) => references(args, Some(Format::Lackey), console),
        ImportKind::Memtrace(args) => references(args, Some(Format::Memtrace), console),
        ImportKind::Champsim(args) => references(args, Some(Format::ChampSim), console),
        ImportKind::Auto(args) => references(args, None, console),
    }
}

/// Writes the compact form of a recording of references.
fn references(args: &TraceArgs, format: Option<Format>, console: &Console) -> Result<Verdict, Failure> {
    if args.file.is_dir() {
        return Err(Failure::file(&args.file, "is a directory, not a recording"));
    }
    let summary = trace::import(&args.file, format, &args.output).map_err(failure)?;
    console.note(&summary.to_string());
    console.note(&format!("wrote {}", args.output.display()));
    Ok(Verdict::Fine)
}

fn strace(args: &StraceArgs, console: &Console) -> Result<Verdict, Failure> {
    let plan = Plan::single(Rendering::Scenario, &args.output)?;
    let imported = input::import(&args.file, Some(&args.import))?;
    for line in imported.summary.lines() {
        console.note(&line);
    }
    let text = input::text(imported.scenario);
    plan.write(console, &|_, out| out.write_all(text.as_bytes()))?;
    Ok(Verdict::Fine)
}
