//! Fencing tokens as a holder sends them to a resource, in a header say.

use leasehold::FencingToken;

pub(super) fn hold(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let significant = text.trim_start_matches('0');
    // 2^64 - 1 has twenty digits.
    let number = (digits && significant.len() <= 20).then(|| significant.parse::<u128>().unwrap_or(0));
    let meant = number.and_then(|number| u64::try_from(number).ok()).filter(|number| *number > 0);
    match text.parse::<FencingToken>() {
        Ok(fence) => {
            assert_eq!(Some(fence.get()), meant, "{text:?}");
            assert_eq!(fence.to_string().parse(), Ok(fence));
            assert_eq!(FencingToken::try_from(fence.get()), Ok(fence));
        }
        Err(why) => {
            assert_eq!(None, meant, "{text:?}");
            super::is_plain(&why.to_string());
        }
    }
}
