//! What the table, its functions and its channels are called: [`Names`].

use std::hash::Hasher;

use siphasher::sip::SipHasher13;

/// The longest name of a table: names of functions begin with it, and PostgreSQL cuts at 63 bytes.
const LONGEST_TABLE: usize = 40;
/// The longest name that PostgreSQL keeps.
const LONGEST: usize = 63;

/// The functions know each other by the names that they have in the DDL; a later version of them has another number.
const VERSION: &str = "v1";

/// Checked names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Names {
    schema: String,
    table: String,
}

impl Names {
    pub(super) fn new(schema: &str, table: &str) -> Result<Self, &'static str> {
        let is_bad =
            |name: &str, longest| name.is_empty() || name.len() > longest || name.chars().any(char::is_control);
        if is_bad(schema, LONGEST) {
            return Err("the name of the schema has 1 to 63 bytes, and no control characters");
        }
        if is_bad(table, LONGEST_TABLE) {
            return Err("the name of the table has 1 to 40 bytes, and no control characters");
        }
        if [schema, table].iter().any(|name| name.contains(['@', '\'', '\\', '$'])) {
            return Err("the names of the schema and the table have no @, $, quote or backslash");
        }
        Ok(Self { schema: schema.into(), table: table.into() })
    }

    /// The schema, quoted.
    pub(super) fn schema(&self) -> String {
        quoted(&self.schema)
    }

    /// The table, quoted.
    pub(super) fn table(&self) -> String {
        format!("{}.{}", quoted(&self.schema), quoted(&self.table))
    }

    /// A function, quoted.
    pub(super) fn function(&self, name: &str) -> String {
        format!("{}.{}", quoted(&self.schema), quoted(&format!("{}_{VERSION}_{name}", self.table)))
    }

    /// A number that stands for the table, the same in every process and version.
    fn number(&self) -> u64 {
        let mut hasher = SipHasher13::new_with_keys(0, 0);
        hasher.write(self.schema.as_bytes());
        hasher.write_u8(0);
        hasher.write(self.table.as_bytes());
        hasher.finish()
    }

    /// The key of the advisory lock, for one transaction, under which the table is made or swept.
    pub(super) fn advisory_lock(&self) -> i64 {
        self.number().cast_signed()
    }

    /// On which all processes hear of the table. Behind it and an underscore, the first 18 letters of a ticket name the
    /// channel of its process.
    pub(super) fn channel(&self) -> String {
        format!("leasehold_{:016x}", self.number())
    }
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_and_those_that_cannot_be_are_refused() {
        let names = Names::new("My \"schema\"", "locks; DROP TABLE x").unwrap();
        assert_eq!(names.table(), "\"My \"\"schema\"\"\".\"locks; DROP TABLE x\"");
        assert_eq!(names.function("acquire"), "\"My \"\"schema\"\"\".\"locks; DROP TABLE x_v1_acquire\"");
        for (schema, table) in [("", "t"), ("s", ""), ("s", "a'b"), ("s\n", "t"), ("s", "$$"), ("s", "@table@")] {
            assert!(Names::new(schema, table).is_err(), "{schema:?} {table:?}");
        }
        assert!(Names::new("s", &"x".repeat(41)).is_err());
    }

    #[test]
    fn the_channel_of_a_table_stays_what_it_is() {
        // It stands in the functions of tables that exist.
        assert_eq!(Names::new("public", "leasehold_locks").unwrap().channel(), "leasehold_6715d420e9850529");
        assert_ne!(Names::new("a", "bc").unwrap().channel(), Names::new("ab", "c").unwrap().channel());
    }
}
