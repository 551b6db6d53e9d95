//! The order of a key's waiters (T2).
//!
//! A key's queue is a circular list through the waiters' slab: the slot keeps its head and length, the tail is the
//! head's predecessor. Joining at the tail, leaving from anywhere and taking the head are O(1).

use super::super::slab::{NIL, Slab};
use super::Waiter;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Queue {
    pub(crate) head: u32,
    pub(crate) len: u32,
}

impl Queue {
    pub(crate) const EMPTY: Self = Self { head: NIL, len: 0 };

    pub(crate) fn first(self) -> Option<u32> {
        (self.head != NIL).then_some(self.head)
    }

    /// Puts a waiter that is in no queue at the end of this one.
    #[inline]
    pub(crate) fn push_back(&mut self, waiters: &mut Slab<Waiter>, id: u32) {
        let tail = if self.head == NIL {
            self.head = id;
            id
        } else {
            let tail = std::mem::replace(&mut waiters[self.head].prev, id);
            waiters[tail].next = id;
            tail
        };
        let waiter = &mut waiters[id];
        (waiter.prev, waiter.next) = (tail, self.head);
        self.len += 1;
    }

    /// Takes out a waiter that is in this queue.
    #[inline]
    pub(crate) fn remove(&mut self, waiters: &mut Slab<Waiter>, id: u32) {
        let links = waiters[id].take_links();
        self.unlink(waiters, id, links);
    }

    /// The same for a waiter that its [links](Waiter::take_links) were taken from.
    #[inline(always)]
    pub(crate) fn unlink(&mut self, waiters: &mut Slab<Waiter>, id: u32, (prev, next): (u32, u32)) {
        if next == id {
            self.head = NIL;
        } else {
            waiters[prev].next = next;
            waiters[next].prev = prev;
            if self.head == id {
                self.head = next;
            }
        }
        self.len -= 1;
    }

    pub(crate) fn iter(self, waiters: &Slab<Waiter>) -> impl Iterator<Item = (u32, &Waiter)> {
        let mut next = self.head;
        (0..self.len).map(move |_| {
            let id = next;
            next = waiters[id].next;
            (id, &waiters[id])
        })
    }
}
