//! What Redis answers to scripts and about its slots, and what it says by itself. The first byte is how many locks a
//! script was run for, `0` for a script that takes one.

use leasehold::store::StoreError;
use leasehold::store::redis::probe::{Heard, heard, replies, slots};
use redis::{PushInfo, Value};

pub(super) fn hold(data: &[u8]) {
    let Some((locks, bytes)) = data.split_first() else { return };
    let Ok(value) = redis::parse_redis_value(bytes) else { return };
    let locks = usize::from(locks.saturating_sub(b'0'));
    script(value.clone(), (locks > 0).then_some(locks));
    cluster(&value);
    if let Value::Push { kind, data } = value {
        push(PushInfo { kind, data });
    }
}

fn script(answer: Value, locks: Option<usize>) {
    let rows = match (&answer, locks) {
        (Value::Array(rows), Some(locks)) if locks == rows.len() => rows.clone(),
        // All were done, at this time.
        (Value::Int(_), Some(locks)) => vec![Value::Array(vec![Value::Int(1), answer.clone()]); locks],
        (one, _) => vec![one.clone()],
    };
    match replies(answer, locks) {
        Ok(read) => {
            assert_eq!(read.len(), locks.unwrap_or(1));
            for (read, row) in read.iter().zip(&rows) {
                reply(read, row);
            }
        }
        Err(why) => {
            assert!(locks.is_some_and(|locks| rows.len() != locks || locks == 1), "{why}");
            assert!(matches!(why, StoreError::Protocol(_)), "{why:?}");
        }
    }
}

fn reply(read: &Result<Vec<i64>, StoreError>, row: &Value) {
    let numbers = match row {
        Value::Array(values) => {
            values.iter().map(|value| if let Value::Int(n) = value { Some(*n) } else { None }).collect()
        }
        _ => None,
    };
    let numbers: Option<Vec<i64>> = numbers.filter(|numbers: &Vec<i64>| (2..=5).contains(&numbers.len()));
    assert_eq!(read.as_ref().ok(), numbers.as_ref(), "{row:?}");
    if let Err(why) = read {
        assert!(!why.to_string().is_empty());
    }
}

fn cluster(answer: &Value) {
    let Some(ranges) = slots(answer, "asked") else { return };
    assert!(matches!(answer, Value::Array(rows) if rows.len() == ranges.len()));
    for (_, _, master) in ranges {
        let (host, port) = master.rsplit_once(':').unwrap_or_default();
        assert!(!host.is_empty() && port.parse::<u16>().is_ok(), "{master:?}");
    }
}

fn push(push: PushInfo) {
    let text = |at: usize| match push.data.get(at) {
        Some(Value::BulkString(bytes)) => std::str::from_utf8(bytes).ok().map(str::to_owned),
        _ => None,
    };
    let (first, second) = (text(0), text(1));
    match heard(push.clone()) {
        Heard::Message(channel, said) => {
            assert_eq!((Some(&*channel), Some(&*said)), (first.as_deref(), second.as_deref()))
        }
        Heard::Changed(keys) => assert!(matches!(&push.data[0], Value::Array(all) if all.len() >= keys.len())),
        Heard::Gone => assert_eq!(push.kind, redis::PushKind::Disconnection),
        Heard::Flushed => assert_eq!(push.kind, redis::PushKind::Invalidate),
        Heard::Nothing => {}
    }
}
