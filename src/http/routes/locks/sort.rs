//! The orders in which a list of locks can be asked for, by their names in a URL.

use serde::Serialize;
use utoipa::ToSchema;

use crate::ListOrder;
use crate::http::problem::Problem;
use crate::http::query::invalid;

/// What a list is ordered by.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, ToSchema)]
pub(in crate::http) enum Sort {
    #[serde(rename = "key")]
    Key,
    #[serde(rename = "-key")]
    KeyDescending,
    #[serde(rename = "owner")]
    Owner,
    #[serde(rename = "-owner")]
    OwnerDescending,
    #[serde(rename = "age")]
    LongestHeld,
    #[serde(rename = "-age")]
    LatestHeld,
    #[serde(rename = "remaining")]
    EndsFirst,
    #[serde(rename = "-remaining")]
    EndsLast,
    #[serde(rename = "waiting")]
    MostWaiting,
    #[serde(rename = "-waiting")]
    FewestWaiting,
    #[serde(rename = "wait")]
    LongestWait,
}

impl Sort {
    pub(in crate::http) fn read(name: Option<&str>) -> Result<Self, Problem> {
        Ok(match name {
            None | Some("key") => Self::Key,
            Some("-key") => Self::KeyDescending,
            Some("owner") => Self::Owner,
            Some("-owner") => Self::OwnerDescending,
            Some("age") => Self::LongestHeld,
            Some("-age") => Self::LatestHeld,
            Some("remaining") => Self::EndsFirst,
            Some("-remaining") => Self::EndsLast,
            Some("waiting") => Self::MostWaiting,
            Some("-waiting") => Self::FewestWaiting,
            Some("wait") => Self::LongestWait,
            Some(_) => return Err(invalid("there is no such `sort`; see /docs for those that there are")),
        })
    }

    pub(in crate::http) fn order(self) -> ListOrder {
        match self {
            Self::Key => ListOrder::Key,
            Self::KeyDescending => ListOrder::KeyDescending,
            Self::Owner => ListOrder::Owner,
            Self::OwnerDescending => ListOrder::OwnerDescending,
            Self::LongestHeld => ListOrder::LongestHeld,
            Self::LatestHeld => ListOrder::LatestHeld,
            Self::EndsFirst => ListOrder::EndsFirst,
            Self::EndsLast => ListOrder::EndsLast,
            Self::MostWaiting => ListOrder::MostWaiting,
            Self::FewestWaiting => ListOrder::FewestWaiting,
            Self::LongestWait => ListOrder::LongestWait,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_order_is_read_by_the_name_under_which_it_is_described() {
        let mut orders = Vec::new();
        for name in
            ["key", "-key", "owner", "-owner", "age", "-age", "remaining", "-remaining", "waiting", "-waiting", "wait"]
        {
            let sort = Sort::read(Some(name)).unwrap();
            assert_eq!(serde_json::to_value(sort).unwrap(), name);
            assert!(!orders.contains(&sort.order()), "{name}");
            orders.push(sort.order());
        }
        assert_eq!(Sort::read(None).unwrap(), Sort::Key);
        assert!(Sort::read(Some("-wait")).is_err() && Sort::read(Some("")).is_err());
    }
}
