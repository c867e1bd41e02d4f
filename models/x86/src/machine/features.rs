//! What the CPUs of a machine can do, beyond what all x86-64 CPUs can.

use serde::Deserialize;

use super::spec::sourced;
use crate::page_size::{PageSize, PageSizes};

/// Most pages one INVLPGB can cover: its count has 16 bits.
const MOST_INVLPGB_PAGES: u32 = 1 << 16;

macro_rules! features {
    ($($(#[doc = $doc:literal])+ $name:ident: $kind:ty,)+) => {
        /// What the CPUs can do. Where each comes from: [`super::Machine::feature_table`].
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct Features {
            $($(#[doc = $doc])+ pub $name: $kind,)+
        }

        /// The `features` object of a machine file.
        #[derive(Clone, Debug, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub(super) struct FeatureSheet {
            $($name: Sourced<$kind>,)+
        }

        impl FeatureSheet {
            pub(super) const fn values(&self) -> Features {
                Features { $($name: self.$name.value,)+ }
            }

            pub(super) fn rows(&self) -> Vec<FeatureRow> {
                vec![$(FeatureRow {
                    name: stringify!($name),
                    description: concat!($($doc),+).trim_ascii(),
                    value: self.$name.value.show(),
                    source: self.$name.source.clone(),
                    note: self.$name.note.clone(),
                },)+]
            }
        }
    };
}

features! {
    /// Most levels of page tables the CPUs can walk: 4 or 5.
    levels: u32,
    /// Page sizes a leaf can have.
    page_sizes: PageSizes,
    /// Tags for host address spaces (CR4.PCIDE), 4096 of them.
    pcid: bool,
    /// The INVPCID instruction.
    invpcid: bool,
    /// Tags for guests on Intel's VMX (VPID), 65536 of them.
    vpid: bool,
    /// Tags for guests on AMD's SVM (ASID): their number, the host's own among them.
    svm_asids: Option<u32>,
    /// Pages one INVLPGB can invalidate on all CPUs at once.
    invlpgb_pages: Option<u32>,
}

/// One line of [`super::Machine::feature_table`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeatureRow {
    /// A field of [`Features`].
    pub name: &'static str,
    /// What it is.
    pub description: &'static str,
    /// Its value: a number, page sizes, `yes`, `no` or `none`.
    pub value: String,
    /// Rows of the hardware reference, or other origin.
    pub source: String,
    /// How far to trust it.
    pub note: String,
}

/// A value and where it comes from.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sourced<T> {
    value: T,
    source: String,
    #[serde(default)]
    note: String,
}

impl Features {
    /// What is impossible, as key and reason.
    pub(super) fn check(&self) -> Result<(), (&'static str, String)> {
        if self.levels != 4 && self.levels != 5 {
            return Err((
                "levels",
                format!("{} levels: page tables have 4 or 5", self.levels),
            ));
        }
        for size in [PageSize::Size4K, PageSize::Size2M] {
            if !self.page_sizes.contains(size) {
                return Err((
                    "page_sizes",
                    format!("{size} is missing: every x86-64 CPU has it"),
                ));
            }
        }
        if self.svm_asids.is_some_and(|asids| asids < 2) {
            let why = "fewer than 2: the host has ASID 0; null means that there is no SVM";
            return Err(("svm_asids", why.to_owned()));
        }
        if self
            .invlpgb_pages
            .is_some_and(|pages| pages == 0 || pages > MOST_INVLPGB_PAGES)
        {
            let why = format!("give 1 to {MOST_INVLPGB_PAGES}, or null if there is no INVLPGB");
            return Err(("invlpgb_pages", why));
        }
        Ok(())
    }
}

impl FeatureSheet {
    pub(super) fn check(&self) -> Result<(), (&'static str, String)> {
        for row in self.rows() {
            sourced(&row.source).map_err(|why| (row.name, why))?;
        }
        self.values().check()
    }
}

/// How a value looks in a listing.
trait Show {
    fn show(&self) -> String;
}

impl Show for u32 {
    fn show(&self) -> String {
        self.to_string()
    }
}

impl Show for bool {
    fn show(&self) -> String {
        if *self { "yes" } else { "no" }.to_owned()
    }
}

impl Show for Option<u32> {
    fn show(&self) -> String {
        self.map_or_else(|| "none".to_owned(), |number| number.to_string())
    }
}

impl Show for PageSizes {
    fn show(&self) -> String {
        let sizes: Vec<String> = self.iter().map(|size| size.to_string()).collect();
        sizes.join(" ")
    }
}
