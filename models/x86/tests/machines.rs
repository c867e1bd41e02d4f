//! The machine files.
#![allow(missing_docs)]

use sim::Cycles;
use x86::ipi::undisturbed_shootdown;
use x86::walker::HOST_LEVELS;
use x86::{ApicMode, Costs, CpuIndex, Distance, Machine, MachineError, NestedPaging, walk_cost};

fn all() -> Vec<Machine> {
    Machine::presets()
        .iter()
        .map(|name| Machine::preset(name).unwrap())
        .collect()
}

#[test]
fn every_cost_has_a_source_and_lies_in_its_range() {
    for (machine, name) in all().iter().zip(Machine::presets()) {
        assert_eq!(machine.name, *name);
        let table = machine.cost_table();
        let priced = |name: &&&str| machine.costs.get(name).is_some();
        assert_eq!(table.len(), Costs::NAMES.iter().filter(priced).count());
        for row in &table {
            assert!(
                !row.source.is_empty() && !row.description.is_empty(),
                "{}",
                row.name
            );
            assert!(
                row.low <= row.value_as_given && row.value_as_given <= row.high,
                "{}",
                row.name
            );
            assert!(row.value_cycles > Cycles::ZERO, "{} {}", machine.name, row.name);
            assert_eq!(machine.costs.get(row.name), Some(row.value_cycles));
        }
        assert!(!machine.targets().is_empty());
    }
}

#[test]
fn only_harpertown_lacks_nested_paging() {
    for machine in all() {
        let vendor = match machine.features.svm_asids {
            Some(_) => NestedPaging::Npt,
            None => NestedPaging::Ept,
        };
        let wanted = match machine.name.as_str() {
            "harpertown-2008" => NestedPaging::Absent,
            _ => vendor,
        };
        assert_eq!(machine.nested_paging, wanted, "{}", machine.name);
    }
}

#[test]
fn parts_of_a_shootdown_add_up_to_its_targets() {
    for machine in all() {
        let mode = ApicMode::for_cpus(machine.cpus() as usize);
        let one = undisturbed_shootdown(&machine.costs, mode, 1);
        let two = undisturbed_shootdown(&machine.costs, mode, 2);
        let near = |cycles: Cycles, target: &str| {
            let want = machine.target(target).unwrap().in_cycles(&machine);
            let off = cycles.get().abs_diff(want.get());
            // Each part was rounded to a cycle of its own.
            assert!(off <= 4, "{} {target}: {cycles:?} for {want:?}", machine.name);
        };
        near(one, "shootdown_1_target");
        near(two - one, "shootdown_further_target");
        assert_eq!(undisturbed_shootdown(&machine.costs, mode, 0), Cycles::ZERO);
    }
}

#[test]
fn walks_of_four_references_cost_their_target() {
    for machine in all() {
        let want = machine.target("page_walk").unwrap().in_cycles(&machine);
        assert_eq!(walk_cost(&machine.costs, HOST_LEVELS), want, "{}", machine.name);
    }
}

#[test]
fn shape_places_cpus_in_cores_and_sockets() {
    let machine = Machine::preset("harpertown-2008").unwrap();
    let cpu = CpuIndex::new;
    assert_eq!(machine.cpus(), 8);
    assert_eq!((machine.socket_of(cpu(3)), machine.socket_of(cpu(4))), (0, 1));
    assert_eq!(machine.distance(cpu(0), cpu(1)), Distance::SameComplex);
    assert_eq!(machine.distance(cpu(0), cpu(3)), Distance::SameSocket);
    assert_eq!(
        machine.line_transfer(cpu(0), cpu(4)),
        machine.costs.line_transfer_far
    );
    assert_eq!(machine.line_transfer(cpu(1), cpu(1)), Cycles::ZERO);
    assert_eq!(machine.ns(1_000), Cycles::new(2_793));
    assert_eq!(machine.to_ns(machine.ns(1_000)), 999);
}

#[test]
fn unknown_machine_suggests_the_nearest() {
    let error = Machine::preset("harpertown-2007").unwrap_err();
    assert_eq!(error.suggestion, Some("harpertown-2008"));
    assert_eq!(
        error.to_string(),
        "unknown machine `harpertown-2007` (did you mean `harpertown-2008`?); \
         known machines: harpertown-2008, barcelona-2008, nehalem-2009, skylake-sp-2017, zen3-2021, \
         zen4-2022, sapphire-rapids-2023, modern-2s"
    );
    assert_eq!(
        Machine::preset("barcelona").unwrap_err().suggestion,
        Some("barcelona-2008")
    );
    assert_eq!(Machine::preset("vax").unwrap_err().suggestion, None);
}

#[test]
fn costs_can_be_overridden_by_name() {
    let mut machine = Machine::preset("modern-2s").unwrap();
    machine.set_cost("invlpg", Cycles::new(7)).unwrap();
    assert_eq!(machine.costs.invlpg, Cycles::new(7));
    let error = machine.set_cost("invlgp", Cycles::new(7)).unwrap_err();
    assert!(matches!(
        error,
        MachineError::UnknownCost {
            suggestion: Some("invlpg"),
            ..
        }
    ));
}

#[test]
fn files_that_contradict_themselves_are_refused() {
    let good = include_str!("../machines/sapphire-rapids-2023.json");
    let refuse = |from: &str, to: &str, why: &str| {
        assert!(good.contains(from), "{from}");
        let error = Machine::from_json(&good.replacen(from, to, 1))
            .unwrap_err()
            .to_string();
        assert!(error.contains(why), "{error}");
    };
    refuse("\"cycle_ps\": 350", "\"cycle_ps\": 0", "cycle_ps is zero");
    refuse(
        "\"value\": 215",
        "\"value\": 9999",
        "costs.invlpg: value 9999 lies outside its range, 100 to 260",
    );
    refuse("\"sockets\"", "\"sokets\"", "sokets");
    refuse("\"ways\": 6", "\"ways\": 7", "multiple of ways");
}
