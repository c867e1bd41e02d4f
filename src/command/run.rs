//! `run`: one scenario, once.

use mm::notifier::Design;
use reports::text::TextOptions;
use reports::trace::{self, EventFilter};
use sim::Logging;

use super::{overrides, render_run, tell_kernel};
use crate::cli::RunArgs;
use crate::console::Console;
use crate::engine::{self, Overrides, Request};
use crate::exit::Verdict;
use crate::failure::Failure;
use crate::input::{self, Wishes};
use crate::output::{self, Plan, Rendering};

/// Runs a scenario and writes its result.
pub(crate) fn run(args: &RunArgs, console: &Console) -> Result<Verdict, Failure> {
    let plan = Plan::new(&args.output, Some(&args.timeline))?;
    let wishes = Wishes {
        import: Some(&args.import),
        cpus: args.overrides.cpus,
    };
    let input = input::scenario(&args.scenario, wishes, console)?;
    if args.kernel.is_none()
        && let Some(design) = args.design.as_deref().and_then(Design::by_name)
    {
        tell_kernel(design.id, design.profile, &input.scenario, console);
    }
    let timeline = plan.wants(Rendering::Trace) || plan.wants(Rendering::Events);
    let outcome = engine::run(&Request {
        scenario: &input.scenario,
        file: &input.file,
        overrides: Overrides {
            design: args.design.clone(),
            kernel: args.kernel.clone(),
            ..overrides(&args.overrides)
        },
        logging: if timeline { Logging::Full } else { Logging::Ring },
        max_events: args.overrides.max_events,
    })
    .map_err(|e| Failure::file(&args.scenario, e))?;
    let text = TextOptions {
        width: output::width(args.output.width),
        color: console.stdout_color(),
        detail: args.output.detail(),
    };
    let filter = EventFilter {
        tasks: args.timeline.events_task.clone(),
        cpus: args.timeline.events_cpu.clone(),
        kinds: args.timeline.events_kind.clone(),
    };
    let (result, events) = (&outcome.result, &outcome.events);
    plan.write(console, &|what, out| match what {
        Rendering::Trace => trace::perfetto(events, result.cycle_ps, out),
        Rendering::Events => trace::ftrace(events, result.cycle_ps, &filter, out),
        _ => render_run(result, what, &text, out),
    })?;
    Ok(Verdict::of(result))
}
