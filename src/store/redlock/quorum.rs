//! Stub.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Quorum {
    nodes: usize,
}
impl Quorum {
    pub(crate) fn of(nodes: usize) -> Result<Self, ()> {
        Ok(Self { nodes })
    }
    pub(crate) fn nodes(self) -> usize {
        self.nodes
    }
    pub(crate) fn needed(self) -> usize {
        self.nodes / 2 + 1
    }
}
