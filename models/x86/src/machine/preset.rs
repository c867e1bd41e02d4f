//! The machines that come with the simulator.

/// Name and file of each; the name is that in the file.
macro_rules! presets {
    ($($name:literal),+ $(,)?) => {
        pub(super) const PRESETS: &[(&str, &str)] =
            &[$(($name, include_str!(concat!("../../machines/", $name, ".json"))),)+];
        pub(super) const NAMES: &[&str] = &[$($name),+];
    };
}

presets![
    "harpertown-2008",
    "barcelona-2008",
    "nehalem-2009",
    "skylake-sp-2017",
    "zen3-2021",
    "zen4-2022",
    "sapphire-rapids-2023",
    "modern-2s",
];

/// The file of a preset.
pub(super) fn text(name: &str) -> Option<&'static str> {
    PRESETS
        .iter()
        .find_map(|(known, text)| (*known == name).then_some(*text))
}
