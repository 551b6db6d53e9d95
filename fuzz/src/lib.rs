//! The properties that the tests hold the parsers to, for the fuzz targets.

#[path = "../../tests/support/parsers/mod.rs"]
mod parsers;

/// Holds the parser of this name to what must hold.
///
/// # Panics
/// Something does not hold, or nothing has this name.
pub fn hold(name: &str, data: &[u8]) {
    parsers::hold(name, data);
}
