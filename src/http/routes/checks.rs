//! The bounds of what a request asks for.

use std::time::Duration;

use crate::http::limits::Limits;
use crate::http::number::Number;
use crate::http::problem::Problem;
use crate::http::wire::{ModeName, whole_ms};
use crate::{LockError, Mode, TtlFault};

pub(super) fn checked_ttl(asked: Number, limits: &Limits) -> Result<Duration, Problem> {
    let refused = |fault: TtlFault| Problem::from(LockError::from(fault));
    match (asked, asked.span()) {
        (Number::Negative, _) => Err(refused(TtlFault::Negative)),
        (Number::Fraction, _) => {
            Err(refused(TtlFault::NotANumber).saying("invalid ttl: it is not a whole number of milliseconds"))
        }
        (_, Some(Duration::ZERO)) => Err(refused(TtlFault::Zero)),
        (_, Some(ttl)) if ttl < limits.min_ttl => Err(refused(TtlFault::TooShort { min: limits.min_ttl })),
        (_, Some(ttl)) if ttl <= limits.max_ttl => Ok(ttl),
        _ => Err(refused(TtlFault::TooLong { max: limits.max_ttl })),
    }
}

pub(super) fn checked_wait(asked: Number, limits: &Limits) -> Result<Duration, Problem> {
    asked.span().filter(|wait| *wait <= limits.max_wait).ok_or_else(|| {
        let max = whole_ms(limits.max_wait);
        invalid_option("wait_ms", format!("it must be a whole number from 0 to {max}"))
    })
}

pub(super) fn checked_permits(limit: Option<Number>, permits: Option<Number>) -> Result<(u32, u32), Problem> {
    let out_of_bounds = |option| invalid_option(option, format!("it must be a whole number from 1 to {}", u32::MAX));
    let count = |option, number: Number| number.count().filter(|count| *count > 0).ok_or_else(|| out_of_bounds(option));
    let Some(limit) = limit else {
        return Err(invalid_option("limit", "the mode permit needs it: how many permits the key has".to_owned()));
    };
    Ok((count("limit", limit)?, permits.map_or(Ok(1), |permits| count("permits", permits))?))
}

pub(super) fn checked_mode(mode: ModeName, limit: Option<Number>, permits: Option<Number>) -> Result<Mode, Problem> {
    Ok(match mode {
        ModeName::Exclusive => Mode::Exclusive,
        ModeName::Shared => Mode::Shared,
        ModeName::Permit => {
            let (limit, permits) = checked_permits(limit, permits)?;
            Mode::Permits { limit, permits }
        }
    })
}

pub(super) fn invalid_option(option: &'static str, why: String) -> Problem {
    let problem = Problem::from(LockError::InvalidOption { option, why: "it is out of bounds" });
    problem.saying(format!("invalid option `{option}`: {why}"))
}
