//! `check`: what is wrong with scenario files. Runs nothing.

use std::path::Path;

use scenarios::diagnostic::Diagnostics;
use serde_json::{Value, json};

use crate::cli::{CheckArgs, CheckFormat};
use crate::console::Console;
use crate::exit::Verdict;
use crate::failure::Failure;
use crate::input::{self, Wishes};
use crate::output::to_stdout;

/// Checks every file; one bad file does not keep the others from being checked.
pub(crate) fn check(args: &CheckArgs, console: &Console) -> Result<Verdict, Failure> {
    let mut bad = false;
    let mut reports = Vec::new();
    let mut lines = String::new();
    for path in &args.files {
        let (resolved, found) = match input::examine(path, Wishes::default(), console) {
            Ok((loaded, found)) => (Some(loaded.resolved), Ok(found)),
            Err(Failure::Findings(found)) => (None, Ok(*found)),
            Err(other) => (None, Err(other)),
        };
        bad |= found.as_ref().map_or(true, Diagnostics::has_errors);
        match args.format {
            CheckFormat::Json => reports.push(report(path, &found)),
            CheckFormat::Text => {
                lines += &summary(path, &found);
                match &found {
                    Ok(found) => console.findings(found),
                    Err(failure) => console.failure(failure),
                }
            }
        }
        if let (true, Some(resolved)) = (args.print_resolved, resolved) {
            lines = format!("{resolved:#}\n");
            to_stdout(|out| out.write_all(lines.as_bytes()))?;
        }
    }
    match args.format {
        _ if args.print_resolved => {}
        CheckFormat::Json => to_stdout(|out| super::json(&reports, out))?,
        CheckFormat::Text => to_stdout(|out| out.write_all(lines.as_bytes()))?,
    }
    if bad {
        Err(Failure::Reported)
    } else {
        Ok(Verdict::Fine)
    }
}

fn summary(path: &Path, found: &Result<Diagnostics, Failure>) -> String {
    let (errors, warnings) = match found {
        Ok(found) => (
            found.errors().count() + found.more_errors,
            found.warnings().count() + found.more_warnings,
        ),
        Err(_) => (1, 0),
    };
    let word = match (errors, warnings) {
        (0, 0) => "ok".to_owned(),
        (0, w) => format!("ok, {}", counted(w, "warning")),
        (e, 0) => counted(e, "error"),
        (e, w) => format!("{}, {}", counted(e, "error"), counted(w, "warning")),
    };
    format!("{}: {word}\n", path.display())
}

fn counted(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// The findings as the library writes them, with the name of the file; a file that could not be
/// looked at has a `message` instead.
fn report(path: &Path, found: &Result<Diagnostics, Failure>) -> Value {
    let mut value = match found {
        Ok(found) => found.to_json(),
        Err(Failure::Plain(message)) => json!({ "message": message }),
        Err(_) => json!({}),
    };
    value["file"] = json!(path.display().to_string());
    value["ok"] = json!(found.as_ref().is_ok_and(|found| !found.has_errors()));
    value
}
