//! Tokens that clients choose: UUIDs in any of their spellings.

use leasehold::Token;

pub(super) fn hold(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match text.parse::<Token>() {
        Ok(token) => {
            let text = text.to_ascii_lowercase();
            let bare = text.strip_prefix("urn:uuid:").unwrap_or(&text);
            let bare =
                bare.strip_prefix('{').map_or(bare, |bare| bare.strip_suffix('}').expect("a brace ends as it began"));
            let digits = bare.replace('-', "");
            let shown = token.to_string();
            assert_eq!(token.as_uuid().simple().to_string(), digits, "{text:?}");
            assert_eq!(shown.replace('-', ""), digits);
            assert_eq!(shown.parse(), Ok(token), "another token");
            assert_eq!(shown.to_uppercase().parse(), Ok(token), "another token");
            assert!(!format!("{token:?}").contains(&shown[..8]), "it shows itself");
        }
        Err(_) => {
            let hex = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
            assert!(!hex, "{text:?} is a UUID");
        }
    }
}
