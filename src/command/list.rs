//! `list`: what scenarios can name, and what every run is held against.

mod hardware;
mod rules;

use std::fs;
use std::path::{Path, PathBuf};

use mm::notifier::Design;
use mm::{KernelPreemption, KernelProfile};
use scenarios::load;
use serde_json::{Value, json};
use sim::MetricKind;
use x86::{CostUnit, Machine, NestedPaging};

use crate::cli::{CheckFormat, ListArgs, ListKind};
use crate::console::Console;
use crate::engine;
use crate::exit::Verdict;
use crate::failure::{Failure, reason};
use crate::input;
use crate::output::to_stdout;

/// Folders of the library that hold no scenarios.
const NOT_SCENARIOS: [&str; 4] = ["schema", "src", "target", "tests"];

/// Most scenario files listed.
const MAX_FILES: usize = 10_000;

/// Rows under named columns.
struct Listing {
    heads: &'static [&'static str],
    rows: Vec<Vec<Value>>,
}

/// Prints a list.
pub(crate) fn list(args: &ListArgs, console: &Console) -> Result<Verdict, Failure> {
    let listing = match args.what {
        ListKind::Designs => designs(),
        ListKind::Kernels => kernels(),
        ListKind::Machines => machines(),
        ListKind::Metrics => metrics(),
        ListKind::Costs => costs(&machine(&args.machine)?),
        ListKind::Hardware => hardware(&machine(&args.machine)?),
        ListKind::Scenarios => scenarios(&args.folder, console)?,
        ListKind::Streams => streams(),
        ListKind::Locks => locks(kernel(&args.kernel)?),
        ListKind::Checks => Listing {
            heads: &[
                "check",
                "invariant",
                "reported_as",
                "when",
                "statement",
                "exceptions",
            ],
            rows: rules::checks(),
        },
    };
    match args.format {
        CheckFormat::Json => to_stdout(|out| super::json(&listing.objects(), out))?,
        CheckFormat::Text => to_stdout(|out| out.write_all(listing.text().as_bytes()))?,
    }
    Ok(Verdict::Fine)
}

fn designs() -> Listing {
    let row = |d: Design| {
        vec![
            json!(d.id),
            json!(d.short),
            json!(d.profile),
            json!(d.title),
            json!(d.summary),
        ]
    };
    Listing {
        heads: &["design", "short", "kernel", "title", "summary"],
        rows: Design::ALL.into_iter().map(row).collect(),
    }
}

fn kernels() -> Listing {
    let row = |k: KernelProfile| {
        let preempt = match k.preemption {
            KernelPreemption::Voluntary => "off",
            KernelPreemption::Full => "on",
        };
        vec![json!(k.name), json!(preempt), json!(k.title)]
    };
    Listing {
        heads: &["kernel", "preempt", "title"],
        rows: KernelProfile::ALL.into_iter().map(row).collect(),
    }
}

fn machines() -> Listing {
    let row = |name: &&str| {
        let m = Machine::preset(name).expect("the name is one of the presets");
        let nested = match m.nested_paging {
            NestedPaging::Absent => "none",
            NestedPaging::Npt => "NPT",
            NestedPaging::Ept => "EPT",
        };
        let mhz = 1_000_000 / m.cycle_ps.max(1);
        vec![
            json!(m.name),
            json!(m.cpus()),
            json!(m.sockets),
            json!(mhz),
            json!(m.memory_pages >> 18),
            json!(nested),
            json!(m.features.levels),
            json!(data_tlb(&m)),
            json!(m.title),
        ]
    };
    Listing {
        heads: &[
            "machine",
            "cpus",
            "sockets",
            "MHz",
            "GiB",
            "nested_paging",
            "levels",
            "data_tlb_4k",
            "title",
        ],
        rows: Machine::presets().iter().map(row).collect(),
    }
}

fn streams() -> Listing {
    let patterns = translate::stream::PATTERN_FORMS
        .iter()
        .map(|form| ("pattern", form));
    let options = translate::stream::OPTION_FORMS
        .iter()
        .map(|form| ("option", form));
    Listing {
        heads: &["kind", "written", "meaning"],
        rows: patterns
            .chain(options)
            .map(|(kind, form)| vec![json!(kind), json!(form.example), json!(form.meaning)])
            .collect(),
    }
}

fn metrics() -> Listing {
    let row = |def: &sim::MetricDef| {
        let kind = match def.kind {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
        };
        vec![
            json!(def.name),
            json!(kind),
            json!(def.unit),
            json!(def.description),
        ]
    };
    Listing {
        heads: &["metric", "kind", "unit", "description"],
        rows: engine::metrics().into_iter().map(row).collect(),
    }
}

/// Slots for 4 KiB pages of loads, level by level.
fn data_tlb(machine: &Machine) -> String {
    let slots = translate::describe::machine(machine).small_page_slots;
    match slots.second_level_data {
        0 => slots.loads.to_string(),
        second => format!("{} + {second}", slots.loads),
    }
}

fn costs(machine: &Machine) -> Listing {
    let row = |cost: x86::CostRow| {
        let unit = match cost.unit {
            CostUnit::Cycles => "cycles",
            CostUnit::Nanoseconds => "ns",
        };
        vec![
            json!(cost.name),
            json!(cost.value_as_given),
            json!(unit),
            json!(format!("{}-{}", cost.low, cost.high)),
            json!(cost.value_cycles.get()),
            json!(cost.source),
            json!(cost.description),
        ]
    };
    Listing {
        heads: &[
            "cost",
            "value",
            "unit",
            "range",
            "cycles",
            "source",
            "description",
        ],
        rows: machine.cost_table().into_iter().map(row).collect(),
    }
}

/// A preset, or the machine file at a path.
fn machine(name: &str) -> Result<Machine, Failure> {
    Machine::find(name, Path::new("")).map_err(|error| Failure::new(error.to_string()))
}

/// A kernel profile.
fn kernel(name: &str) -> Result<&'static KernelProfile, Failure> {
    KernelProfile::by_name(name).ok_or_else(|| {
        let known: Vec<_> = KernelProfile::ALL.iter().map(|k| k.name).collect();
        Failure::new(format!("unknown kernel `{name}`; known: {}", known.join(", ")))
    })
}

fn locks(profile: &KernelProfile) -> Listing {
    Listing {
        heads: &["rank", "lock", "kind", "nesting", "source"],
        rows: rules::locks(profile),
    }
}

fn hardware(machine: &Machine) -> Listing {
    Listing {
        heads: &["part", "value", "source", "note"],
        rows: hardware::rows(machine),
    }
}

fn scenarios(folder: &Path, console: &Console) -> Result<Listing, Failure> {
    let mut files = Vec::new();
    walk(folder, &mut files)
        .map_err(|e| Failure::file(folder, format!("cannot be listed: {}", reason(&e))))?;
    if files.len() == MAX_FILES {
        console.warn(&format!(
            "{}: only the first {MAX_FILES} files are listed",
            folder.display()
        ));
    }
    let row = |path: PathBuf| {
        let (kind, title) = if input::is_recording(&path) {
            ("recording", String::new())
        } else {
            match load::load_file(&path) {
                Ok(loaded) => ("scenario", loaded.scenario.title),
                Err(_) => ("broken", "run `mmusim check` on it".to_owned()),
            }
        };
        vec![json!(path.display().to_string()), json!(kind), json!(title)]
    };
    Ok(Listing {
        heads: &["file", "kind", "title"],
        rows: files.into_iter().map(row).collect(),
    })
}

/// Scenario files and recordings below a folder, sorted. Links are not followed.
fn walk(folder: &Path, found: &mut Vec<PathBuf>) -> std::io::Result<()> {
    let mut entries = fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let (path, kind) = (entry.path(), entry.file_type()?);
        let name = entry.file_name().to_string_lossy().into_owned();
        if found.len() == MAX_FILES {
            return Ok(());
        }
        if kind.is_dir() && !name.starts_with('.') && !NOT_SCENARIOS.contains(&name.as_str()) {
            walk(&path, found)?;
        } else if kind.is_file()
            && (input::is_recording(&path) || name.ends_with(".jsonc") || name.ends_with(".json"))
        {
            found.push(path);
        }
    }
    Ok(())
}

impl Listing {
    fn objects(&self) -> Vec<Value> {
        let object = |row: &Vec<Value>| {
            let members = self
                .heads
                .iter()
                .map(|h| (*h).to_owned())
                .zip(row.iter().cloned());
            Value::Object(members.collect())
        };
        self.rows.iter().map(object).collect()
    }

    /// Columns two blanks apart; numbers flush right.
    fn text(&self) -> String {
        let cell = |value: &Value| match value {
            Value::String(text) => text.replace(char::is_control, " "),
            other => other.to_string(),
        };
        let rows: Vec<Vec<String>> = self.rows.iter().map(|r| r.iter().map(cell).collect()).collect();
        let heads: Vec<String> = self.heads.iter().map(|h| (*h).to_owned()).collect();
        let width = |column: usize| {
            let cells = rows.iter().chain([&heads]).map(|row| row[column].chars().count());
            cells.max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..heads.len()).map(width).collect();
        let right = |column: usize| self.rows.first().is_some_and(|row| row[column].is_number());
        let line = |row: &Vec<String>| {
            let mut out = String::new();
            for (column, (text, width)) in row.iter().zip(&widths).enumerate() {
                out += &if right(column) {
                    format!("{text:>width$}  ")
                } else {
                    format!("{text:<width$}  ")
                };
            }
            out.trim_end().to_owned() + "\n"
        };
        std::iter::once(&heads).chain(&rows).map(line).collect()
    }
}
