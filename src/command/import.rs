//! `import`: recordings become scenarios.

use crate::cli::{ImportCommand, ImportKind, StraceArgs};
use crate::console::Console;
use crate::exit::Verdict;
use crate::failure::Failure;
use crate::input;
use crate::output::{Plan, Rendering};

/// Writes the scenario of a recording.
pub(crate) fn import(args: &ImportCommand, console: &Console) -> Result<Verdict, Failure> {
    match &args.kind {
        ImportKind::Strace(args) => strace(args, console),
    }
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
