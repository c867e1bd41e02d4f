//! Which CPUs share what, and what a cache line costs between them.

use sim::Cycles;

use super::Machine;

/// Number of a CPU inside one machine, counted thread by thread, core by core, socket by socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CpuIndex(u32);

impl CpuIndex {
    /// The CPU with this number.
    #[inline]
    #[must_use]
    pub const fn new(number: u32) -> Self {
        CpuIndex(number)
    }

    /// The number.
    #[inline]
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

/// How far apart two CPUs are for a cache line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Distance {
    /// The same CPU, or threads of one core: the line is already there.
    SameCore,
    /// Cores of one complex: they share the outermost cache, others of the socket do not. Only on
    /// machines whose sockets have several complexes (AMD's CCX, Harpertown's pairs).
    SameComplex,
    /// Cores of one socket.
    SameSocket,
    /// Different sockets.
    CrossSocket,
}

impl Machine {
    /// Logical CPUs.
    #[must_use]
    pub const fn cpus(&self) -> u32 {
        self.sockets * self.cores_per_socket * self.threads_per_core
    }

    /// The core of a CPU, counted over all sockets.
    #[inline]
    #[must_use]
    pub const fn core_of(&self, cpu: CpuIndex) -> u32 {
        cpu.get() / self.threads_per_core
    }

    /// The socket of a CPU.
    #[inline]
    #[must_use]
    pub const fn socket_of(&self, cpu: CpuIndex) -> u32 {
        self.core_of(cpu) / self.cores_per_socket
    }

    /// The memory node of a CPU.
    #[inline]
    #[must_use]
    pub const fn node_of(&self, cpu: CpuIndex) -> u32 {
        let cores_per_node = self.sockets * self.cores_per_socket / self.nodes;
        self.core_of(cpu) / cores_per_node
    }

    /// Cores that share one outermost cache: a whole socket, or one of its complexes.
    #[inline]
    #[must_use]
    pub fn cores_per_complex(&self) -> u32 {
        let outermost = self.caches.llc.as_ref().map_or(&self.caches.l2, |llc| &llc.cache);
        outermost.cores.min(self.cores_per_socket)
    }

    /// Complexes of a socket.
    #[must_use]
    pub fn complexes_per_socket(&self) -> u32 {
        self.cores_per_socket / self.cores_per_complex()
    }

    /// The complex of a CPU, counted over all sockets.
    #[inline]
    #[must_use]
    pub fn complex_of(&self, cpu: CpuIndex) -> u32 {
        self.core_of(cpu) / self.cores_per_complex()
    }

    /// How far apart two CPUs are.
    #[inline]
    #[must_use]
    pub fn distance(&self, a: CpuIndex, b: CpuIndex) -> Distance {
        if self.core_of(a) == self.core_of(b) {
            Distance::SameCore
        } else if self.socket_of(a) != self.socket_of(b) {
            Distance::CrossSocket
        } else if self.has_complexes() && self.complex_of(a) == self.complex_of(b) {
            Distance::SameComplex
        } else {
            Distance::SameSocket
        }
    }

    /// Whether a socket has complexes of several cores each.
    #[must_use]
    pub fn has_complexes(&self) -> bool {
        let cores = self.cores_per_complex();
        cores > 1 && cores < self.cores_per_socket
    }

    /// Cost of moving a cache line from one CPU to another; none inside a CPU.
    #[inline]
    #[must_use]
    pub fn line_transfer(&self, from: CpuIndex, to: CpuIndex) -> Cycles {
        let costs = &self.costs;
        match self.distance(from, to) {
            Distance::SameCore if from == to => Cycles::ZERO,
            Distance::SameCore => costs.line_transfer_sibling.unwrap_or(Cycles::ZERO),
            Distance::SameComplex => costs.line_transfer_complex.unwrap_or(costs.line_transfer_near),
            Distance::SameSocket => costs.line_transfer_near,
            Distance::CrossSocket => costs.line_transfer_far,
        }
    }

    /// Cost of a cache line between the closest cores of a socket: of one complex, if it has several.
    #[must_use]
    pub fn line_transfer_closest(&self) -> Cycles {
        self.costs
            .line_transfer_complex
            .unwrap_or(self.costs.line_transfer_near)
    }

    /// Analytic time from one CPU's turn to the next one's when two CPUs fight for a spinlock: the
    /// spinning CPU fetches the released word, its locked operation claims the line, and both
    /// pay the operations themselves. What rows C10 and C13 of the hardware reference time.
    #[must_use]
    pub fn contended_handoff(&self, from: CpuIndex, to: CpuIndex) -> Cycles {
        self.costs.lock_uncontended + self.line_transfer(from, to) * 2
    }
}
