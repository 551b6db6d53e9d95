//! `leasehold watch`: what happens to locks, a line each, as the server tells it.

use clap::Args;
use reqwest::Response;
use serde_json::Value;

use crate::client::{Client, ServerArgs};
use crate::exit::Failure;
use crate::output::print_line;
use crate::print::{Reader, plain, span};

#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct WatchArgs {
    /// Only keys that begin so
    #[arg(default_value = "")]
    prefix: String,

    /// Print each event as the server tells it, one JSON object a line
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    server: ServerArgs,
}

const EXAMPLES: &str = "\
The events are granted, released, expired, refreshed, lost, forced, deadlock; `missed` stands for those that came too fast.
Over a store they are what happens through the server that is asked.
In a pipe the columns are event, key, owner, fencing token, and what else is told (`ttl_ms=30000`), with tabs between.
It ends with code 69 when the stream breaks: what happened meanwhile is not told again.

Examples:
  leasehold watch
  leasehold watch order: --json | jq 'select(.kind == \"expired\")'";

/// Tells events until it is ended.
///
/// # Errors
/// The server refuses, cannot be reached, or has gone.
pub(crate) async fn watch(args: WatchArgs) -> Result<(), Failure> {
    let client = Client::new(&args.server)?;
    let mut stream = client.stream("/events", &[("prefix", &args.prefix)]).await?;
    let reader = Reader::of_stdout();
    let mut lines = Lines::default();
    loop {
        while let Some(line) = lines.next() {
            let Some(data) = line.strip_prefix("data:").map(str::trim_start) else { continue };
            if args.json {
                print_line(data)?;
            } else {
                print_line(&render(&client.read(data)?, reader))?;
            }
        }
        lines.push(&piece(&mut stream).await?);
    }
}

async fn piece(stream: &mut Response) -> Result<Vec<u8>, Failure> {
    let gone = || Failure::Unavailable("the server has ended the stream".to_owned());
    let piece = stream.chunk().await.map_err(|why| Failure::Unavailable(format!("the stream broke: {why}")))?;
    piece.map(Vec::from).ok_or_else(gone)
}

/// Whole lines out of pieces that end anywhere.
#[derive(Default)]
struct Lines(Vec<u8>);

impl Lines {
    fn push(&mut self, piece: &[u8]) {
        self.0.extend_from_slice(piece);
    }

    fn next(&mut self) -> Option<String> {
        let end = self.0.iter().position(|byte| *byte == b'\n')?;
        let line: Vec<u8> = self.0.drain(..=end).collect();
        Some(String::from_utf8_lossy(&line).trim_end().to_owned())
    }
}

fn render(event: &Value, reader: Reader) -> String {
    let text = |name: &str| match &event[name] {
        Value::String(text) => plain(text).into_owned(),
        Value::Null => String::new(),
        other => other.to_string(),
    };
    let told = ["kind", "key", "owner", "fencing_token", "sequence"];
    let more = event.as_object().into_iter().flatten().filter(|(name, _)| !told.contains(&name.as_str()));
    let (kind, key, owner, fence) = (text("kind"), text("key"), text("owner"), text("fencing_token"));
    if reader == Reader::Pipe {
        let more: Vec<String> = more.map(|(name, _)| format!("{name}={}", text(name))).collect();
        return [kind, key, owner, fence, more.join(" ")].join("\t");
    }
    let shown = more.map(|(name, value)| match (name.strip_suffix("_ms"), value.as_u64()) {
        (Some(name), Some(ms)) => format!("{name} {}", span(ms)),
        _ => format!("{name} {}", text(name)),
    });
    let kind = format!("{kind:<9}");
    let kind = if reader == Reader::Coloured { format!("\x1b[1m{kind}\x1b[0m") } else { kind };
    let owner = if owner.is_empty() { "-" } else { &owner };
    format!("{kind}  {key}  {owner}  {}", shown.collect::<Vec<_>>().join(", ")).trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lines_come_out_whole_however_they_are_cut() {
        let mut lines = Lines::default();
        let mut heard = Vec::new();
        for piece in
            ["event: gra", "nted\ndata: {\"k\":\"\u{20ac}", "\"}\r\n\n"].iter().flat_map(|text| text.as_bytes())
        {
            lines.push(&[*piece]);
            heard.extend(std::iter::from_fn(|| lines.next()));
        }
        assert_eq!(heard, ["event: granted", "data: {\"k\":\"\u{20ac}\"}", ""]);
    }

    #[test]
    fn an_event_is_a_line_for_people_and_columns_for_programs() {
        let event = json!({
            "sequence": 7, "kind": "granted", "key": "a\u{1b}b", "owner": null, "fencing_token": 9, "mode": "exclusive",
            "ttl_ms": 30000,
        });
        assert_eq!(render(&event, Reader::Plain), "granted    a\\u{1b}b  -  mode exclusive, ttl 30s");
        assert_eq!(render(&event, Reader::Pipe), "granted\ta\\u{1b}b\t\t9\tmode=exclusive ttl_ms=30000");
    }
}
