//! Checks of operations that work on the file behind a mapping.
//!
//! Only mappings declared under `maps` are looked at, and only if no operation makes another mapping of
//! the same name: what an address or another name means is known when the script runs.

use super::Checker;
use super::facts::each_op;
use super::path::At;
use super::script::{Absent, Context};
use crate::ast::{Advice, FileKind, MadviseOp, MapDef, Op, Region, RemapFilePagesOp, Sharing};
use crate::diagnostic::Code;
use crate::diagnostic::suggest::quote;

impl<'a> Checker<'a> {
    pub(super) fn remap_file_pages(&mut self, op: &'a RemapFilePagesOp, context: Context<'a>, at: &At<'_>) {
        let here = at.key("region");
        self.region((&op.region).into(), Absent::Refused, context, &here);
        let Some((name, def)) = self.only_mapping(&op.region, context) else {
            return;
        };
        let file = def.file.as_deref().filter(|_| def.sharing == Sharing::Shared);
        let Some(file) = file else {
            let message = format!("mapping {} is not a shared mapping of a file", quote(name));
            let help = "give it a `file` and `\"sharing\": \"shared\"`";
            self.error(Code::WrongMapping, &here.key("map"), message, help);
            return;
        };
        let (Some(pages), Some(&size)) = (
            self.part_pages(&(&op.region).into(), context),
            self.facts.files.get(file),
        ) else {
            return;
        };
        let end = op.offset.saturating_add(pages);
        if end > size {
            let message = format!(
                "the pages end at page {end} of file {}, which has {size}",
                quote(file)
            );
            let help = "remap less, or make the file larger";
            self.error(Code::BeyondFile, &at.key("offset"), message, help);
        }
    }

    pub(super) fn madvise(&mut self, op: &'a MadviseOp, context: Context<'a>, at: &At<'_>) {
        let here = at.key("region");
        self.region((&op.region).into(), Absent::Refused, context, &here);
        if op.advice != Advice::Remove {
            return;
        }
        let Some((name, def)) = self.only_mapping(&op.region, context) else {
            return;
        };
        let map = here.key("map");
        if def.sharing != Sharing::Shared {
            let message = format!(
                "pages cannot be removed through mapping {}: it is private",
                quote(name)
            );
            let help = "give it `\"sharing\": \"shared\"`";
            self.error(Code::WrongMapping, &map, message, help);
            return;
        }
        let files = &self.scenario.files;
        if let Some((file, def)) = def.file.as_ref().and_then(|f| files.get_key_value(f))
            && def.kind != FileKind::Tmpfs
        {
            let message = format!("file {} has no holes: only files of tmpfs do", quote(file));
            let help = "give the file `\"kind\": \"tmpfs\"`";
            self.error(Code::WrongMapping, &map, message, help);
        }
    }

    /// The declaration behind a region, if its name can mean nothing else.
    fn only_mapping(&self, region: &'a Region, context: Context<'a>) -> Option<(&'a str, &'a MapDef)> {
        let name = region.map.as_deref().filter(|_| region.at.is_none())?;
        let process = self.scenario.processes.get(context.process)?;
        let def = process.maps.get(name)?;
        let mut renamed = false;
        for thread in process.threads.values() {
            each_op(&thread.script, &mut |op| {
                renamed |= matches!(op, Op::Mmap(m) if m.name.as_deref() == Some(name));
            });
        }
        (!renamed).then_some((name, def))
    }
}
