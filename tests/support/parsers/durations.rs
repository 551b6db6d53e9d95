//! Durations as people write them (`--ttl 1h`), TTLs, and seconds as numbers.

use std::time::Duration;

use leasehold::{Ttl, TtlFault};

use super::settings::Settings;

/// No setting is longer.
const YEAR: Duration = Duration::from_secs(366 * 86_400);

pub(super) fn hold(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let parsed = humantime::parse_duration(text);
    if let Ok(span) = parsed {
        let shown = humantime::format_duration(span).to_string();
        assert_eq!(humantime::parse_duration(&shown), Ok(span), "{text:?} is shown as {shown:?}");
        ttl(span);
    }
    match Settings::read([&format!("--ttl={text}")]) {
        Ok(settings) => {
            assert_eq!(Ok(settings.serve.ttl), parsed, "{text:?}");
            assert!(settings.serve.ttl <= YEAR, "{text:?}");
        }
        Err(why) => {
            assert!(parsed.as_ref().map_or(true, |span| *span > YEAR), "{text:?}: {why}");
            assert!(why.contains("--ttl"), "it does not say what is wrong: {why}");
        }
    }
    if let Ok(seconds) = text.parse::<f64>() {
        from_seconds(seconds);
    }
}

/// A TTL is cut to whole milliseconds, within its bounds.
fn ttl(span: Duration) {
    let bounds = Ttl::MIN..=Ttl::MAX;
    match Ttl::new(span) {
        Ok(ttl) => {
            assert!(bounds.contains(&span), "{span:?}");
            assert!(ttl.as_duration() <= span && span - ttl.as_duration() < Duration::from_millis(1), "{span:?}");
            assert_eq!(Ttl::new(ttl.as_duration()), Ok(ttl));
        }
        Err(why) => {
            assert!(!bounds.contains(&span), "{span:?}: {why}");
            super::is_plain(&why.to_string());
        }
    }
}

fn from_seconds(seconds: f64) {
    match Ttl::from_secs_f64(seconds) {
        Ok(ttl) => {
            let off = (ttl.as_duration().as_secs_f64() - seconds).abs();
            assert!(off <= 0.001_000_1, "{seconds}: {ttl:?}");
        }
        Err(TtlFault::NotANumber) => assert!(seconds.is_nan()),
        Err(TtlFault::Negative) => assert!(seconds < 0.0),
        Err(TtlFault::Zero | TtlFault::TooShort { .. }) => assert!((0.0..0.001).contains(&seconds), "{seconds}"),
        Err(TtlFault::TooLong { .. }) => assert!(seconds > Ttl::MAX.as_secs_f64(), "{seconds}"),
        Err(other) => panic!("{seconds}: {other}"),
    }
}
