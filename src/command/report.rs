//! `report`: a saved result in another form.

use reports::load::Loaded;
use reports::text::TextOptions;

use super::{render_compare, render_run, render_translate};
use crate::cli::ReportArgs;
use crate::console::Console;
use crate::exit::Verdict;
use crate::failure::Failure;
use crate::output::{self, Plan};
use crate::saved;

/// Renders a saved result. The verdict is on the rendering, not on what was saved.
pub(crate) fn report(args: &ReportArgs, console: &Console) -> Result<Verdict, Failure> {
    let plan = Plan::new(&args.output, None)?;
    let loaded = saved::read(&args.result)?;
    let text = TextOptions {
        width: output::width(args.output.width),
        color: console.stdout_color(),
        detail: args.output.detail(),
    };
    plan.write(console, &|what, out| match &loaded {
        Loaded::Run(run) => render_run(run, what, &text, out),
        Loaded::Compare(compared) => render_compare(compared, what, &text, out),
        Loaded::Translate(translated) => render_translate(translated, what, &text, out),
    })?;
    Ok(Verdict::Fine)
}
