//! Slots that stand for what the kernel allocates and points to.

/// Slots that are reused last in, first out: the same calls give the same slots on every host.
#[derive(Clone, Debug)]
pub(crate) struct Arena<T> {
    slots: Vec<T>,
    free: Vec<u32>,
}

impl<T> Arena<T> {
    /// Without slots.
    pub(crate) const fn new() -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
        }
    }

    /// Puts a value into a free slot.
    ///
    /// # Panics
    /// If 2^32 slots are in use.
    pub(crate) fn put(&mut self, value: T) -> u32 {
        if let Some(at) = self.free.pop() {
            self.slots[at as usize] = value;
            at
        } else {
            self.slots.push(value);
            u32::try_from(self.slots.len() - 1).expect("fewer than 2^32 slots")
        }
    }

    /// The slot keeps its last value until it is reused; nothing may refer to it any more.
    pub(crate) fn release(&mut self, at: u32) {
        self.free.push(at);
    }

    /// What a slot holds.
    #[inline]
    pub(crate) fn get(&self, at: u32) -> &T {
        &self.slots[at as usize]
    }

    /// What a slot holds, to be changed.
    #[inline]
    pub(crate) fn get_mut(&mut self, at: u32) -> &mut T {
        &mut self.slots[at as usize]
    }

    /// The number of slots in use.
    pub(crate) const fn in_use(&self) -> usize {
        self.slots.len() - self.free.len()
    }
}
