//! Fears about work that many ask for and one does: one file each.

mod calls;
mod locks;
