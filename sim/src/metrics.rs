//! Declared metrics.
//!
//! A subsystem declares its counters once, with name, unit, kind and description, and gets a
//! plain struct whose fields it increments. Schema, glossary and tests derive from the table.

/// Whether a metric counts events or reports a level.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MetricKind {
    /// Grows at each event.
    Counter,
    /// A level; the name says whether its maximum or final value.
    Gauge,
}

/// Declaration of a metric.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MetricDef {
    /// Dotted name.
    pub name: &'static str,
    /// Unit.
    pub unit: &'static str,
    /// Kind.
    pub kind: MetricKind,
    /// One sentence.
    pub description: &'static str,
}

/// Declares a struct of `u64` metrics together with their definitions.
///
/// ```
/// sim::metric_set! {
///     /// What a door counts.
///     pub struct DoorMetrics {
///         opened: Counter, "door.opened", "count", "times the door was opened";
///     }
/// }
/// let mut m = DoorMetrics::default();
/// m.opened += 1;
/// assert_eq!(m.values().next().unwrap().1, 1);
/// ```
#[macro_export]
macro_rules! metric_set {
    ($(#[$meta:meta])* $vis:vis struct $name:ident {
        $($field:ident: $kind:ident, $metric:literal, $unit:literal, $text:literal;)+
    }) => {
        $(#[$meta])*
        #[derive(Clone, Default, Debug, PartialEq, Eq, Hash)]
        $vis struct $name {
            $(#[doc = $text] pub $field: u64,)+
        }

        impl $name {
            /// Declarations, in order of the fields.
            pub const DEFS: &'static [$crate::MetricDef] = &[$($crate::MetricDef {
                name: $metric,
                unit: $unit,
                kind: $crate::MetricKind::$kind,
                description: $text,
            },)+];

            /// Every metric with its present value.
            pub fn values(&self) -> impl Iterator<Item = (&'static $crate::MetricDef, u64)> {
                Self::DEFS.iter().zip([$(self.$field,)+])
            }

            /// What was counted since an earlier moment; gauges keep their value.
            #[must_use]
            pub fn since(&self, before: &Self) -> Self {
                Self { $($field: match $crate::MetricKind::$kind {
                    $crate::MetricKind::Counter => self.$field - before.$field,
                    $crate::MetricKind::Gauge => self.$field,
                },)+ }
            }

            /// Adds counters and takes the larger of gauges.
            pub fn merge(&mut self, other: &Self) {
                $(self.$field = match $crate::MetricKind::$kind {
                    $crate::MetricKind::Counter => self.$field + other.$field,
                    $crate::MetricKind::Gauge => self.$field.max(other.$field),
                };)+
            }
        }
    };
}
