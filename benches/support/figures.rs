//! The figures that a bench leaves for `report`.

use std::path::Path;

use serde_json::{Map, Value};

/// Writes the figures where `report` looks for them.
pub(crate) fn keep(file: &str, figures: &[(impl AsRef<str>, f64)]) -> Result<(), Box<dyn std::error::Error>> {
    let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    let folder = Path::new(&target).join("criterion");
    std::fs::create_dir_all(&folder)?;
    let figures: Map<_, _> =
        figures.iter().map(|(name, figure)| (name.as_ref().to_owned(), Value::from(*figure))).collect();
    Ok(std::fs::write(folder.join(file), Value::from(figures).to_string())?)
}
