//! An engine with an interrupt latency, tasks and lock classes for the tests of behaviour.

#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "each test file uses a part of it"
)]

use std::rc::Rc;

use sim::{
    Account, Action, Affinity, ClassDef, CpuId, Cx, Cycles, Engine, EngineConfig, Irqs, LockKind, Nesting,
    Object, Role, Schedule, Seeded, TaskSpec,
};

pub const WORK: Account = Account::new(7);

pub fn engine(cpus: u16) -> Rc<Engine> {
    let mut config = EngineConfig::without_costs(cpus);
    config.ipi_latency = Cycles::new(100);
    config.preempt_limit = 255;
    Engine::new(config, Schedule::Timed(Box::new(Seeded::new(1))))
}

pub fn on(cpu: u16, name: &str) -> TaskSpec {
    TaskSpec {
        name: name.into(),
        cpu: CpuId::new(cpu),
        affinity: Affinity::Pinned,
        role: Role::Worker,
    }
}

pub fn class(name: &'static str, kind: LockKind) -> ClassDef {
    ClassDef {
        name,
        kind,
        nesting: Nesting::Forbidden,
        rank: None,
        irqs: Irqs::Either,
    }
}

pub async fn work(cx: &Cx, cycles: u64) {
    cx.charge(WORK, Cycles::new(cycles));
    cx.step(Object::None, Action::Run).await;
}
