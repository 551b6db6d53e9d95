//! What the fuzz targets check of a parser: the same properties that the tests check.

#[path = "../../tests/support/parsers/mod.rs"]
mod parsers;

/// Checks the properties of the parser of this name with some data.
///
/// # Panics
/// Something does not hold, or nothing has this name.
pub fn hold(name: &str, data: &[u8]) {
    parsers::hold(name, data);
}
