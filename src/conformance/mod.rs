//! What a store and a manager over it are held to, as checks that anybody can run over his own: [`store`] and
//! [`manager`].

pub mod manager;
pub mod store;
