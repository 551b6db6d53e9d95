//! The text of all statements: [`Statements`], and the [DDL](ddl) of what they call.

use super::ears::WATCH;
use super::names::Names;
use super::places::TICKET;

/// The functions, in an order in which each is there before those that call it.
const DDL: [&str; 5] = [
    include_str!("sql/table.sql"),
    include_str!("sql/row.sql"),
    include_str!("sql/acquire.sql"),
    include_str!("sql/hold.sql"),
    include_str!("sql/queue.sql"),
];

/// Every function that the DDL names.
const FUNCTIONS: [&str; 18] = [
    "pruned",
    "without_holder",
    "without_ticket",
    "turns",
    "tell",
    "put",
    "begin",
    "acquire",
    "release",
    "take_back",
    "extend",
    "downgrade",
    "exchange",
    "force",
    "notice",
    "renew",
    "leave",
    "sweep",
];

/// What makes the table and its functions, to be run as it is.
pub(super) fn ddl(names: &Names) -> String {
    let mut text = DDL.join("\n").replace("@table@", &names.table()).replace("@channel@", &names.channel());
    text = text.replace("@lock@", &names.advisory_lock().to_string());
    text = text.replace("@ticket@", &TICKET.as_micros().to_string()).replace("@watch@", &WATCH.as_micros().to_string());
    for name in FUNCTIONS {
        text = text.replace(&format!("@{name}@"), &names.function(name));
    }
    text
}

/// Declares the statements: what each is called, and its text, in which `{}` stands for the table or the function.
macro_rules! statements {
    (functions { $($function:ident($($params:literal)?);)* } reads { $($read:ident = $text:literal;)* }) => {
        /// The statements of one table.
        pub(super) struct Statements {
            $($function: String,)*
            $($read: String,)*
        }

        impl Statements {
            pub(super) fn new(names: &Names) -> Self {
                Self {
                    $($function: format!(
                        "SELECT {}({})", names.function(stringify!($function)), concat!($($params)?)
                    ),)*
                    $($read: $text.replace("{}", &names.table()),)*
                }
            }

            $(pub(super) fn $function(&self) -> &str {
                &self.$function
            })*

            $(pub(super) fn $read(&self) -> &str {
                &self.$read
            })*
        }
    };
}

statements! {
    functions {
        acquire("$1, $2, $3, $4, $5, $6, $7");
        exchange("$1, $2, $3, $4, $5, $6, $7, $8");
        release("$1, $2, $3");
        take_back("$1, $2, $3");
        extend("$1, $2, $3, $4");
        downgrade("$1, $2, $3");
        force("$1, $2, $3");
        notice("$1, $2, $3");
        renew("$1, $2, $3");
        leave("$1, $2, $3");
        sweep("$1, $2, $3");
    }
    reads {
        server = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint, \
            concat_ws(' ', pg_postmaster_start_time(), inet_server_addr(), inet_server_port()), \
            current_setting('synchronous_commit'), current_setting('fsync')";
        look = "SELECT mode, tokens, fences, ends, permits, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint \
            FROM {} WHERE key = $1";
        scan = "SELECT key, mode, cardinality(tokens), (SELECT max(e) FROM unnest(ends) AS e), \
            (extract(epoch FROM clock_timestamp()) * 1000000)::bigint \
            FROM {} WHERE key > $1 AND key >= $2 AND starts_with(key, $2) ORDER BY key LIMIT $3";
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ddl_has_every_name_in_it_and_no_placeholder_left() {
        let names = Names::new("s", "t").unwrap();
        let ddl = ddl(&names);
        assert!(!ddl.contains('@'), "{ddl}");
        for name in FUNCTIONS {
            let made = format!("CREATE OR REPLACE FUNCTION {}(", names.function(name));
            assert_eq!(ddl.matches(&made).count(), 1, "{name}");
        }
    }
}
