//! Fear: a verb of the command line tells a script something else than the server does, or ends with the wrong code.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::cli::{BINARY, Did, Running, Server, command};
use crate::kit::{self, until};

/// One line, cut at its tabs.
fn columns(line: &str) -> Vec<&str> {
    line.trim_end_matches('\n').split('\t').collect()
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|why| panic!("{why}: {text}"))
}

const VERBS: [&str; 17] = [
    "serve",
    "run",
    "acquire",
    "release",
    "heartbeat",
    "ls",
    "show",
    "stats",
    "force-release",
    "watch",
    "bench",
    "redlock",
    "postgres",
    "token",
    "config",
    "completions",
    "man",
];

#[test]
fn a_lock_goes_through_its_life_in_a_script() {
    let server = Server::start(&[]);
    let granted = server.did(&["acquire", "order:42", "--ttl", "50s", "--owner", "me"]).ok();
    let [token, fence, left] = columns(&granted)[..] else { panic!("{granted}") };
    assert!((40_000..=50_000).contains(&left.parse::<u64>().unwrap()), "{left}");

    let listed = server.did(&["ls"]).ok();
    let row = columns(&listed);
    assert_eq!(
        (row.len(), row[0], row[1], row[2], row[5], row[6], row[7]),
        (8, "order:42", "exclusive", "me", "1", "0", fence)
    );
    server.did(&["acquire", "order:42", "--nonblock"]).fails(1, "me has it");
    server.did(&["acquire", "order:42", "--wait", "10ms"]).fails(1, "me has it");

    let beaten = server.did(&["heartbeat", "order:42", token, "--ttl", "90s"]).ok();
    let [left, refreshes] = columns(&beaten)[..] else { panic!("{beaten}") };
    assert!(left.parse::<u64>().unwrap() > 60_000 && refreshes == "1", "{beaten}");

    let shown = server.did(&["show", "order:42"]).ok();
    let row = columns(&shown);
    assert_eq!(
        (row.len(), row[0], row[1], row[4], row[5], row[6]),
        (8, "holder", "me", "50000", "1", fence),
        "{shown}"
    );

    let mut by_environment = server.command(&["release", "order:42"]);
    by_environment.env("LEASEHOLD_LOCK_TOKEN", token);
    assert_eq!(Did::of(by_environment).ok(), "released\n");
    assert_eq!(server.did(&["release", "order:42", token]).ok(), "already gone\n");
    server.did(&["heartbeat", "order:42", token]).fails(75, "");
    server.did(&["show", "order:42"]).fails(1, "nobody holds");
    assert_eq!(server.did(&["ls"]).ok(), "");
}

#[test]
fn a_token_comes_from_stdin_and_is_not_repeated_when_it_is_wrong() {
    let server = Server::start(&[]);
    let token = "0f8fad5b-d9cb-469f-a165-70867728950e";
    let first = server.did(&["acquire", "k", "--lock-token", token]).ok();
    let again = server.did(&["acquire", "k", "--lock-token", token, "--owner", "me"]);
    assert!(first.starts_with(token) && again.code == 64, "another request than the first: {again:?}");
    let mut release = Running(server.command(&["release", "k", "-"]).stdin(Stdio::piped()).spawn().unwrap());
    writeln!(release.0.stdin.take().unwrap(), "{token}").unwrap();
    assert_eq!(release.end().ok(), "released\n");
    for verb in ["release", "heartbeat"] {
        let did = server.did(&[verb, "k", &token[..35]]).fails(64, "not a UUID");
        assert!(!did.stderr.contains(&token[..35]), "{did:?}");
        server.did(&[verb, "k"]).fails(64, "TOKEN");
    }
    let mut help = server.command(&["release", "--help"]);
    help.env("LEASEHOLD_LOCK_TOKEN", token);
    assert!(!Did::of(help).ok().contains(token));
}

#[test]
fn locks_are_shared_or_limited_on_demand() {
    let server = Server::start(&[]);
    for words in
        [["acquire", "a", "--shared", "--nonblock"].as_slice(), &["acquire", "b", "--limit", "2", "--nonblock"]]
    {
        server.did(words).ok();
        server.did(words).ok();
    }
    server.did(&["acquire", "a", "--nonblock"]).fails(1, "held");
    server.did(&["acquire", "b", "--nonblock"]).fails(64, "semaphore of 2");
    server.did(&["acquire", "b", "--limit", "2", "--nonblock"]).fails(1, "held");
    let listed = server.did(&["ls"]).ok();
    let kinds: Vec<_> = listed.lines().map(|line| (columns(line)[1], columns(line)[5])).collect();
    assert_eq!(kinds, [("shared", "2"), ("permit", "2")]);
    server.did(&["acquire", "c", "--limit", "5", "--permits", "4", "--nonblock"]).ok();
    server.did(&["acquire", "c", "--limit", "5", "--permits", "2", "--nonblock"]).fails(1, "held");
    server.did(&["acquire", "c", "--limit", "5", "--nonblock"]).ok();
    let shown = server.did(&["show", "c"]).ok();
    let modes: Vec<_> = shown.lines().map(|line| columns(line)[7]).collect();
    assert_eq!(modes, ["permit 4/5", "permit 1/5"]);
}

#[test]
fn json_is_what_the_server_said() {
    let server = Server::start(&[]);
    let lock = json(&server.did(&["acquire", "k", "--owner", "me", "--json"]).ok());
    let token = lock["token"].as_str().unwrap();
    assert_eq!(lock["owner"], "me");
    assert_eq!(json(&server.did(&["ls", "--json"]).ok())["locks"][0]["holder"]["fencing_token"], lock["fencing_token"]);
    assert_eq!(json(&server.did(&["show", "k", "--json"]).ok())["holders"][0]["owner"], "me");
    assert_eq!(json(&server.did(&["heartbeat", "k", token, "--json"]).ok())["refresh_count"], 1);
    assert_eq!(json(&server.did(&["stats", "--json"]).ok())["active"], 1);
    assert_eq!(json(&server.did(&["release", "k", token, "--json"]).ok())["outcome"], "released");
    server.did(&["acquire", "k"]).ok();
    assert_eq!(json(&server.did(&["force-release", "k", "--yes", "--json"]).ok())["outcome"], "released");
}

#[test]
fn lists_are_limited_by_prefix_and_number_and_keys_may_hold_anything() {
    let server = Server::start(&[]);
    for key in ["a/b?c=d&e", "a%2Fé", "b"] {
        server.did(&["acquire", key]).ok();
        assert!(server.did(&["show", key]).ok().starts_with("holder\t"), "{key}");
    }
    let keys = |words: &[&str]| -> Vec<String> {
        let out = server.did(&[&["ls"], words].concat()).ok();
        out.lines().map(|line| columns(line)[0].to_owned()).collect()
    };
    assert_eq!(keys(&["a"]), ["a%2Fé", "a/b?c=d&e"]);
    assert_eq!(keys(&["a/"]), ["a/b?c=d&e"]);
    assert_eq!(keys(&["--limit", "1"]), ["a%2Fé"]);
    assert_eq!(keys(&["--limit", "5000"]).len(), 3, "more than a page");
    server.did(&["ls", "--limit", "0"]).fails(64, "limit");
}

#[test]
fn what_cannot_be_seen_in_a_key_or_a_name_is_written_out() {
    let server = Server::start(&[]);
    server.did(&["acquire", "pay:1\u{200b}", "--owner", "\u{202e}me "]).ok();
    for words in [&["ls"][..], &["show", "pay:1\u{200b}"]] {
        let shown = server.did(words).ok();
        assert!(shown.contains(r"\u{202e}me\u{20}") && !shown.contains(['\u{200b}', '\u{202e}']), "{shown}");
    }
    assert!(server.did(&["ls"]).ok().starts_with("pay:1\\u{200b}\t"));
}

#[test]
fn over_a_store_all_that_others_hold_is_listed_if_asked_for_and_what_is_unknown_is_empty() {
    let redis = kit::Server::start(&[]);
    let [server, other] = [(); 2].map(|()| Server::start(&["--store", &redis.url()]));
    server.did(&["acquire", "ours"]).ok();
    for n in 0..7 {
        other.did(&["acquire", &format!("lock:theirs:{n}"), "--ttl", "10m"]).ok();
    }
    let keys = |words: &[&str]| -> Vec<String> {
        let out = server.did(&[&["ls"], words].concat()).ok();
        let mut keys: Vec<String> = out.lines().map(|line| columns(line)[0].to_owned()).collect();
        keys.sort();
        keys
    };
    assert_eq!(keys(&[]), ["ours"]);
    let all = keys(&["--all"]);
    assert_eq!((all.len(), &*all[0], &*all[7]), (8, "ours", "theirs:6"));
    assert_eq!(keys(&["--all", "thei"]).len(), 7);
    let shown = server.did(&["show", "theirs:3"]).ok();
    let shown = columns(shown.lines().next().unwrap());
    assert_eq!((shown[1], shown[2], shown[4], shown[5]), ("", "", "", ""), "{shown:?}");
    assert!(shown[3].parse::<u64>().unwrap() > 500_000, "{shown:?}");
    // Of what several share, through whichever server, all are shown.
    for (one, permits) in [(&server, "3"), (&other, "2"), (&other, "1")] {
        one.did(&["acquire", "pool", "--limit", "9", "--permits", permits, "--owner", "me", "--ttl", "10m"]).ok();
    }
    other.did(&["acquire", "pool", "--limit", "8", "--nonblock"]).fails(64, "semaphore of 9");
    let listed = server.did(&["ls", "--all", "pool"]).ok();
    assert_eq!((columns(&listed)[1], columns(&listed)[5]), ("permit", "3"), "{listed}");
    let shown = server.did(&["show", "pool"]).ok();
    let rows: Vec<_> = shown.lines().map(columns).collect();
    let holders: Vec<_> = rows.iter().map(|row| (row[1], row[7])).collect();
    assert_eq!(holders, [("me", "permit 3/9"), ("", "permit 2/9"), ("", "permit 1/9")], "{shown}");
    let fences: Vec<u64> = rows.iter().map(|row| row[6].parse().unwrap()).collect();
    assert!(fences.is_sorted() && rows.iter().all(|row| row[3].parse::<u64>().unwrap() > 500_000), "{shown}");
}

#[test]
fn a_list_is_as_long_as_is_wanted_and_in_the_order_that_is_wanted() {
    let server = Server::start(&[]);
    let mut socket = server.process.connect();
    for number in 0..1_003 {
        let body = format!(r#"{{"key":"k{number:04}","ttl_ms":3600000}}"#);
        let head = "POST /acquire HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n";
        write!(socket, "{head}content-length: {}\r\n\r\n{body}", body.len()).unwrap();
        let mut answer = String::new();
        while !answer.ends_with('}') {
            let mut piece = [0; 4096];
            let read = match socket.read(&mut piece) {
                // A signal for another test of this process.
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                read => read.unwrap(),
            };
            assert!(read > 0, "{answer}");
            answer.push_str(std::str::from_utf8(&piece[..read]).unwrap());
        }
    }
    let list = |words: &[&str]| server.did(&[&["ls"], words].concat()).ok();
    // A list may be as old as a second.
    until("all of them", || list(&["--limit", "5000"]).lines().count() == 1_003);
    assert_eq!(list(&["--limit", "1002"]).lines().count(), 1_002);
    assert!(list(&["--limit", "5000"]).lines().is_sorted(), "no page twice");
    assert!(list(&["--sort", "-key", "--limit", "1"]).starts_with("k1002\t"));
    server.did(&["ls", "--sort", "size"]).fails(64, "--sort");
}

#[test]
fn show_tells_who_waits_and_stats_what_is_contended() {
    let server = Server::start(&[]);
    let _held = server.holds("k", &[]);
    let _waits = ["w1", "w2"].map(|owner| {
        let before = server.total("waiting");
        let waits = server.starts(&["acquire", "k", "--wait", "60s", "--owner", owner]);
        until("the waiter", || server.total("waiting") == before + 1);
        waits
    });
    let shown = server.did(&["show", "k"]).ok();
    let rows: Vec<_> = shown.lines().map(columns).collect();
    assert_eq!(
        (rows.len(), &rows[1][..4], &rows[2][..4]),
        (3, &["waiter", "1", "w1", "exclusive"][..], &["waiter", "2", "w2", "exclusive"][..])
    );
    assert!(server.did(&["stats"]).ok().ends_with("hot_key\t2\tk\n"));
    assert!(server.did(&["stats", "k"]).ok().contains("queued\t2\n"));
    server.did(&["stats", "free"]).fails(1, "nobody holds");
}

#[test]
fn force_release_must_be_said_to_be_meant() {
    let server = Server::start(&[]);
    let token = columns(&server.did(&["acquire", "k"]).ok())[0].to_owned();
    server.did(&["force-release", "k"]).fails(64, "--yes");
    assert_eq!(server.did(&["force-release", "k", "--yes"]).ok(), "released\n");
    server.did(&["force-release", "k", "--yes"]).fails(1, "nobody holds");
    server.did(&["heartbeat", "k", &token]).fails(75, "force");
}

#[test]
fn watch_tells_each_event_in_a_line() {
    let server = Server::start(&[]);
    for json_wanted in [false, true] {
        let words: &[&str] = if json_wanted { &["watch", "k", "--json"] } else { &["watch", "k"] };
        let mut watch = server.starts(words);
        let mut lines = BufReader::new(watch.0.stdout.take().unwrap()).lines();
        // What happens before it listens is not told: so it is made to happen until it is.
        let heard = std::thread::scope(|scope| {
            let heard = scope.spawn(|| [lines.next().unwrap().unwrap(), lines.next().unwrap().unwrap()]);
            while !heard.is_finished() {
                for key in ["other", "k1"] {
                    let token = columns(&server.did(&["acquire", key, "--owner", "me"]).ok())[0].to_owned();
                    server.did(&["release", key, &token]).ok();
                }
            }
            heard.join().unwrap()
        });
        for line in heard {
            let (kind, key) = if json_wanted {
                let event = json(&line);
                (event["kind"].as_str().unwrap().to_owned(), event["key"].as_str().unwrap().to_owned())
            } else {
                let cells = columns(&line);
                assert_eq!((cells.len(), cells[2]), (5, "me"), "{line}");
                (cells[0].to_owned(), cells[1].to_owned())
            };
            assert!(["granted", "released"].contains(&kind.as_str()) && key == "k1", "{line}");
        }
        if json_wanted {
            server.process.signal("TERM");
            watch.end().fails(69, "stream");
            return;
        }
    }
}

#[test]
fn a_reader_that_goes_away_ends_it_quietly() {
    let server = Server::start(&[]);
    server.did(&["acquire", "k"]).ok();
    let mut watch = server.starts(&["ls", "--watch", "--every", "5ms"]);
    let mut first = String::new();
    BufReader::new(watch.0.stdout.take().unwrap()).read_line(&mut first).unwrap();
    assert!(first.starts_with("k\texclusive\t"));
    let did = watch.end();
    assert_eq!((did.code, did.stderr.as_str()), (0, ""));
}

#[test]
fn bench_tells_rates_and_latencies_and_leaves_nothing_locked() {
    let server = Server::start(&[]);
    let out = server.did(&["bench", "--for", "200ms", "--clients", "3", "--keys", "1"]).ok();
    let rows: Vec<_> = out.lines().map(columns).collect();
    assert_eq!((rows.len(), rows[0][0], rows[1][0]), (2, "acquire", "release"));
    let number = |cell: &str| cell.parse::<u64>().unwrap();
    let latencies: Vec<u64> = rows[0][3..].iter().map(|cell| number(cell)).collect();
    assert!(latencies.is_sorted() && latencies.len() == 5 && latencies[0] > 0, "{out}");
    assert_eq!(number(rows[0][1]), server.total("total"), "every grant is counted");
    let figures = json(&server.did(&["bench", "--for", "100ms", "--json"]).ok());
    assert!(figures["release"]["p99_9_us"].as_u64().unwrap() > 0, "{figures}");
    assert_eq!(server.total("active"), 0);
}

#[test]
fn bench_asks_a_store_without_a_server_too() {
    let redis = kit::Server::start(&[]);
    for store in ["memory", &redis.url()] {
        let words = ["bench", "--store", store, "--for", "200ms", "--clients", "3", "--keys", "2", "--json"];
        let figures = json(&Did::of(command(BINARY, &words)).ok());
        let calls = |call: &str| figures[call]["calls"].as_u64().unwrap();
        assert!(calls("acquire") > 0 && calls("acquire") == calls("release"), "{store}: {figures}");
    }
    assert_eq!(redis.ask::<u32>("EXISTS lock:bench:0 lock:bench:1"), 0, "nothing is left locked");
    let words = ["bench", "--store", "redis://127.0.0.1:1", "--for", "200ms"];
    Did::of(command(BINARY, &words)).fails(69, "");
}

#[test]
fn a_server_that_cannot_be_reached_ends_every_verb_with_69() {
    let token = "0f8fad5b-d9cb-469f-a165-70867728950e";
    let rows: [&[&str]; 10] = [
        &["acquire", "k"],
        &["release", "k", token],
        &["heartbeat", "k", token],
        &["ls"],
        &["ls", "--watch"],
        &["show", "k"],
        &["stats"],
        &["force-release", "k", "--yes"],
        &["watch"],
        &["bench", "--for", "1s"],
    ];
    for words in rows {
        let words = [words, &["--server", "http://user:hunter2@127.0.0.1:1"]].concat();
        let did = Did::of(command(BINARY, &words)).fails(69, "127.0.0.1:1");
        assert!(!did.stderr.contains("hunter2") && did.stdout.is_empty(), "{did:?}");
    }
    let redis = kit::Server::start(&[]);
    let other = format!("http://{}", redis.address());
    Did::of(command(BINARY, &["ls", "--server", &other])).fails(69, "");
}

#[test]
fn bearer_tokens_come_from_a_file_or_the_environment() {
    let mut guarded = command(BINARY, &["serve", "--listen", "127.0.0.1:0", "--grace", "0s"]);
    guarded.env(
        "LEASEHOLD_TOKENS",
        r#"[{"name":"ci","token":"a-long-enough-secret-of-ci","rights":["acquire","read"],"namespaces":[""]}]"#,
    );
    let server = Server::launch(guarded);
    server.did(&["run", "--key", "k", "--", "echo"]).fails(64, "Bearer");
    let with = |token: &str, words: &[&str]| {
        let mut command = server.command(words);
        command.env("LEASEHOLD_TOKEN", token);
        Did::of(command)
    };
    let wrong = with("a-wrong-secret", &["ls"]).fails(64, "unknown");
    assert!(!wrong.stderr.contains("a-wrong-secret"));
    with("two\nlines", &["ls"]).fails(64, "LEASEHOLD_TOKEN");
    assert_eq!(with("a-long-enough-secret-of-ci", &["run", "--key", "k", "--", "echo", "ran"]).ok(), "ran\n");
    with("a-long-enough-secret-of-ci", &["force-release", "k", "--yes"]).fails(64, "");
    let path = server.path("token");
    std::fs::write(&path, "a-long-enough-secret-of-ci\n").unwrap();
    server.did(&["ls", "--token-file", path.to_str().unwrap()]).ok();
    server.did(&["ls", "--token-file", "/no/such"]).fails(64, "/no/such");
}

#[test]
fn https_is_spoken_with_those_whom_a_certificate_vouches_for() {
    let dir = kit::Dir::make();
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let file = |name: &str, text: String| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (cert, key) = (file("cert.pem", made.cert.pem()), file("key.pem", made.signing_key.serialize_pem()));
    let server = Server::start(&["--tls-cert", &cert, "--tls-key", &key]);
    assert!(server.url.starts_with("https://"));
    assert_eq!(server.did(&["run", "--key", "k", "--ca", &cert, "--", "echo", "ran"]).ok(), "ran\n");
    server.did(&["run", "--key", "k", "--", "echo", "ran"]).fails(69, "certificate");
    server.did(&["ls", "--ca", "/no/such"]).fails(64, "/no/such");
    server.did(&["ls", "--ca", &key]).fails(64, "no certificate");
}

#[test]
fn the_usual_self_signed_certificate_is_trusted_if_it_is_named_and_for_its_own_name_and_time_only() {
    let dir = kit::Dir::make();
    let make = |file: &str, name: &str, until: i32| {
        let mut parameters = rcgen::CertificateParams::new([name.to_owned()]).unwrap();
        // What `openssl req -x509` makes.
        parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        parameters.not_after = rcgen::date_time_ymd(until, 1, 1);
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = parameters.self_signed(&key).unwrap();
        let write = |ending: &str, text: String| {
            let path = dir.path().join(format!("{file}.{ending}"));
            std::fs::write(&path, text).unwrap();
            path.to_str().unwrap().to_owned()
        };
        (write("cert", certificate.pem()), write("key", key.serialize_pem()))
    };
    let good = make("good", "127.0.0.1", 4000);
    let other = make("other", "127.0.0.1", 4000);
    let foreign = make("foreign", "example.com", 4000);
    let over = make("over", "127.0.0.1", 2001);
    for (shown, named, code, why) in [
        (&good, &good, 0, ""),
        (&good, &other, 69, "certificate"),
        (&foreign, &foreign, 69, "certificate"),
        (&over, &over, 69, "certificate"),
    ] {
        let server = Server::start(&["--tls-cert", &shown.0, "--tls-key", &shown.1]);
        server.did(&["ls", "--ca", &named.0]).fails(code, why);
    }
    let server = Server::start(&["--tls-cert", &good.0, "--tls-key", &good.1]);
    server.did(&["ls"]).fails(69, "--ca");
}

#[test]
fn a_variable_that_is_empty_is_one_that_is_not_set() {
    let server = Server::start(&[]);
    for (name, verb) in [
        ("LEASEHOLD_TOKEN", &["ls"][..]),
        ("LEASEHOLD_TOKEN_FILE", &["ls"]),
        ("LEASEHOLD_CA", &["ls"]),
        ("LEASEHOLD_REDLOCK_MAX_TTL", &["run", "--key", "k", "--", "true"]),
        ("LEASEHOLD_CONFIG", &["config", "print"]),
        ("LEASEHOLD_TTL", &["config", "print"]),
        ("LEASEHOLD_MAX_WAIT", &["config", "print"]),
    ] {
        let mut command = server.command(verb);
        command.env(name, "");
        let said = Did::of(command).ok();
        assert!(!said.contains(name), "{name}: {said}");
    }
    let mut command = server.command(&["ls", "--server", &server.url]);
    command.env("LEASEHOLD_SERVER", "");
    Did::of(command).ok();
    let mut command = server.command(&["release", "k"]);
    command.env("LEASEHOLD_LOCK_TOKEN", "");
    Did::of(command).fails(64, "TOKEN");
}

#[test]
fn settings_come_from_flags_over_the_environment_over_a_file_over_defaults() {
    let dir = kit::Dir::make();
    let path = dir.path().join("leasehold.toml");
    std::fs::write(&path, "ttl = \"7s\"\nwait = \"3s\"\nmax-keys = 99\nopen-stats = true\ngrace = \"0s\"\n").unwrap();
    let path = path.to_str().unwrap();
    let print = |words: &[&str]| {
        let mut command = command(BINARY, &[&["config", "print"], words].concat());
        command.env("LEASEHOLD_WAIT", "2s");
        Did::of(command).ok()
    };
    let out = print(&["--config", path, "--ttl", "8s"]);
    for line in [
        "ttl = \"8s\"  # --ttl",
        "wait = \"2s\"  # LEASEHOLD_WAIT",
        "max-keys = 99  # file",
        "open-stats = true  # file",
        "max-ttl = \"24h\"  # default",
        "insecure = false  # default",
        "# rate-limit =  # not set",
    ] {
        assert!(out.lines().any(|printed| printed == line), "{line}: {out}");
    }
    let printed = dir.path().join("printed.toml");
    std::fs::write(&printed, &out).unwrap();
    let again = print(&["--config", printed.to_str().unwrap()]);
    let settings =
        |text: &str| text.lines().map(|line| line.split("  # ").next().unwrap().to_owned()).collect::<Vec<_>>();
    assert_eq!(settings(&again), settings(&out), "what it prints is a file that says the same");

    let server = Server::start(&["--config", path]);
    let lock = json(&server.did(&["acquire", "k", "--json"]).ok());
    assert_eq!(lock["ttl_ms"], 30_000, "the verb names its own");
    let token = columns(&server.did(&["acquire", "l", "--ttl", "5s"]).ok())[0].to_owned();
    server.did(&["release", "l", &token]).ok();
    let short = Server::start(&["--config", path, "--max-ttl", "10s"]);
    short.did(&["acquire", "k"]).fails(64, "ttl");
    let long = dir.path().join("long.toml");
    std::fs::write(&long, "max-ttl = \"1h\"\ngrace = \"0s\"\n").unwrap();
    let mut serve = command(BINARY, &["serve", "--listen", "127.0.0.1:0", "--config", long.to_str().unwrap()]);
    serve.env("LEASEHOLD_MAX_TTL", "40s");
    let server = Server::launch(serve);
    server.did(&["acquire", "k", "--ttl", "30s"]).ok();
    server.did(&["acquire", "l", "--ttl", "50s"]).fails(64, "ttl");
}

#[test]
fn a_file_with_a_mistake_is_refused_and_not_quoted() {
    let dir = kit::Dir::make();
    let rows = [
        ("tll = \"7s\"", "tll"),
        ("ttl = 7.5", "ttl"),
        ("ttl = \"soon\"", "ttl"),
        ("insecure = \"yes\"", "insecure"),
        ("config = \"other\"", "config"),
        ("store = \"redis://user:hunter2@x", "leasehold.toml"),
        ("store = \"hunter2\"", "--store"),
    ];
    for (text, why) in rows {
        let path = dir.path().join("leasehold.toml");
        std::fs::write(&path, text).unwrap();
        let did = Did::of(command(BINARY, &["serve", "--listen", "127.0.0.1:0", "--config", path.to_str().unwrap()]));
        assert!(!did.stderr.contains("hunter2"), "{did:?}");
        did.fails(64, why);
    }
    Did::of(command(BINARY, &["--config", "/no/such"])).fails(64, "/no/such");
    let out = Did::of(command(BINARY, &["config", "print", "--store", "redis://user:hunter2@x"])).ok();
    assert!(!out.contains("hunter2") && out.contains("# store"), "{out}");
}

#[test]
fn every_verb_has_help_and_a_manual_page_and_the_shells_complete_it() {
    for verb in VERBS {
        let did = |words: &[&str]| Did::of(command(BINARY, words)).ok();
        let help = did(&[verb, "--help"]);
        assert!(help.contains("Usage: leasehold"), "{verb}: {help}");
        let examples =
            ["serve", "config", "redlock", "postgres", "token"].contains(&verb) || help.contains("Examples:\n  ");
        assert!(examples, "{verb}: {help}");
        let page = did(&["man", verb]);
        assert!(page.contains(&format!(".TH leasehold-{verb} 1")) && page.contains(".SH SYNOPSIS"), "{verb}: {page}");
        for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
            assert!(did(&["completions", shell]).contains(verb), "{shell}");
        }
    }
    assert!(Did::of(command(BINARY, &["man"])).ok().contains("force\\-release"));
    Did::of(command(BINARY, &["man", "woman"])).fails(64, "woman");
    Did::of(command(BINARY, &["completions", "dos"])).fails(64, "dos");
}

#[test]
fn the_completion_of_bash_completes() {
    let script = "eval \"$(\"$0\" completions bash)\"; COMP_WORDS=(leasehold for); COMP_CWORD=1; _leasehold leasehold for leasehold; \
                  echo ${COMPREPLY[*]}";
    let bash: Command = command("bash", &["-c", script, BINARY]);
    assert_eq!(Did::of(bash).ok(), "force-release\n");
}
