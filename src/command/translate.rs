//! `translate`: a stream or a recording through the MMUs of a machine.

mod source;

use std::path::Path;

use reports::schema::Tool;
use reports::schema::translate::{Oracle as OracleKind, TranslateResult};
use reports::text::TextOptions;
use translate::engine::{DataCaching, Setup};
use translate::frames::Watched;
use translate::frames::{Oracle, Unwatched};
use translate::result::About;
use translate::{Reuse, Task, TranslateError, Translator};
use x86::{Machine, PagingMode};

use super::render_translate;
use crate::cli::{TranslateArgs, Wish};
use crate::console::Console;
use crate::exit::Verdict;
use crate::failure::Failure;
use crate::output::{self, Plan};
use crate::progress::Bar;
use source::Opened;

pub(super) use source::failure;

/// What the bar shows when the number of references is known, and when it is not.
const KNOWN: &str = "{bar:30} {human_pos}/{human_len} references, {per_sec}, {eta} left";
const UNKNOWN: &str = "{spinner} {human_pos} references, {per_sec}";

/// Runs a source and writes what it cost.
pub(crate) fn translate(args: &TranslateArgs, console: &Console) -> Result<Verdict, Failure> {
    let plan = Plan::new(&args.output, None)?;
    let machine = Machine::find(&args.machine, Path::new(""));
    let machine = machine.map_err(|error| Failure::new(error.to_string()))?;
    let task = task(args, machine);
    let opened = source::open(args)?;
    let result = match args.no_oracle() {
        Wish::Silent => run::<Watched>(task, opened, args, OracleKind::On, console)?,
        Wish::Asked => run::<Unwatched>(task, opened, args, OracleKind::Off, console)?,
    };
    let text = TextOptions {
        width: output::width(args.output.width),
        color: console.stdout_color(),
        detail: args.output.detail(),
    };
    plan.write(console, &|what, out| render_translate(&result, what, &text, out))?;
    Ok(Verdict::of_translation(&result))
}

fn task(args: &TranslateArgs, machine: Machine) -> Task {
    let setup = Setup {
        mode: if args.levels > PagingMode::FourLevel.levels() {
            PagingMode::FiveLevel
        } else {
            PagingMode::FourLevel
        },
        pages: args.pages,
        data: match args.cache_data() {
            Wish::Asked => DataCaching::Through,
            Wish::Silent => DataCaching::Bypass,
        },
        machine,
    };
    Task {
        what_if: args
            .what_if
            .iter()
            .copied()
            .filter(|pages| *pages != args.pages)
            .collect(),
        reuse: match args.reuse() {
            Wish::Asked => Reuse::Found,
            Wish::Silent => Reuse::Ignored,
        },
        warmup: args.warmup,
        limit: args.recording.limit.unwrap_or(u64::MAX),
        ..Task::new(setup)
    }
}

fn run<O: Oracle>(
    task: Task,
    mut opened: Opened,
    args: &TranslateArgs,
    oracle: OracleKind,
    console: &Console,
) -> Result<TranslateResult, Failure> {
    let mut translator = Translator::<O>::new(task).map_err(|error| Failure::new(error.to_string()))?;
    let length = opened.length();
    let bar = Bar::new(length, length.map_or(UNKNOWN, |_| KNOWN), console.talk);
    let ran = translator.run(&mut opened, |done| bar.reach(done));
    bar.clear();
    ran.map_err(|error| match error {
        TranslateError::Source(error) => failure(error),
        other => Failure::new(other.to_string()),
    })?;
    Ok(translator.result(About {
        tool: Tool {
            name: env!("CARGO_PKG_NAME").to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        },
        seed: opened.seed(),
        source: opened.describe(),
        oracle,
        top: args.top as usize,
    }))
}
