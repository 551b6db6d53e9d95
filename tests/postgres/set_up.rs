//! Fear: the table, the rights, the proxy or the certificates are not what the documentation says that they may be.
#![cfg(feature = "test-util")]

use std::sync::{Arc, mpsc};
use std::time::Duration;

use leasehold::conformance::store::wait;
use leasehold::store::postgres::PostgresStore;
use leasehold::store::{Acquired, Denial, KeyState, Released, Store, StoreError, Warning};
use leasehold::{Token, conformance};

use crate::kit::{Dir, until};
use crate::pg::{PgBouncer, Postgres};
use crate::stores::{LONG, ask, denied, is_granted, key, stores, stores_at, take};

const RIGHTS: &str = "GRANT USAGE ON SCHEMA public TO app;
    GRANT SELECT, INSERT, UPDATE, DELETE ON public.leasehold_locks TO app;";

#[test]
fn the_rights_that_are_documented_are_enough() {
    let module = include_str!("../../src/store/postgres/mod.rs");
    for right in RIGHTS.lines() {
        assert!(module.contains(&format!("//! {}\n", right.trim())), "{right}");
    }
    let server = Postgres::start();
    server.init();
    let url = server.user("app", "sesame");
    server.ask(RIGHTS);
    // To prove a password takes its time where nothing is optimised.
    let builder = || PostgresStore::builder(&url).operation_timeout(Duration::from_secs(10));
    conformance::store::check(|| Arc::new(builder().build().unwrap()) as Arc<dyn Store>);
}

#[test]
fn what_a_user_may_not_do_is_said_and_warned_of() {
    let server = Postgres::start();
    server.init();
    let url = server.user("app", "sesame");
    let patient = |url: &str| PostgresStore::builder(url).operation_timeout(Duration::from_secs(3));
    let stores = self::stores(|| patient(&url));
    let answer = ask(&*stores.one, "k", Token::random(), LONG);
    assert!(matches!(answer, Acquired::Unknown(StoreError::Denied(_))), "{answer:?}");
    assert!(matches!(wait(stores.one.health()).answer, Err(StoreError::Denied(_))));
    // Once it may, nothing has to be started anew.
    server.ask(RIGHTS);
    until("the rights", || is_granted(&ask(&*stores.one, "k", Token::random(), LONG)));
    let (heard, warnings) = mpsc::channel();
    let wrong = self::stores(|| {
        let heard = heard.clone();
        // The test may be over by then.
        let builder = patient(&url.replace("sesame", "hunter2"));
        builder.on_warning(move |warning| drop(heard.send(warning.clone())))
    });
    let warning = warnings.recv().unwrap();
    assert!(matches!(warning, Warning::Refused { why: StoreError::Unauthenticated(_), .. }), "{warning:?}");
    let answer = ask(&*wrong.one, "k", Token::random(), LONG);
    assert!(matches!(answer, Acquired::Unknown(StoreError::Unauthenticated(_))), "{answer:?}");
    let said = format!("{answer:?} {:?} {:?} {warning}", wrong.one, wait(wrong.one.health()));
    assert!(!said.contains("hunter2"), "{said}");
}

#[test]
fn a_missing_table_is_said_and_made_by_whoever_comes_first() {
    let server = Postgres::start();
    let builder = || PostgresStore::builder(&server.url()).schema("My \"own\"").table("Locks; --");
    let stores = stores(builder);
    let answer = ask(&*stores.one, "k", Token::random(), LONG);
    let Acquired::Unknown(StoreError::Config(why)) = &answer else { panic!("{answer:?}") };
    assert!(why.contains("leasehold postgres init"), "{why}");
    let init = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(builder().build().unwrap().init())
    };
    std::thread::scope(|scope| {
        let at_once = [(); 4].map(|()| scope.spawn(init));
        at_once.into_iter().for_each(|one| assert_eq!(one.join().unwrap(), Ok(())));
    });
    let token = Token::random();
    until("the table", || is_granted(&ask(&*stores.one, "k", token, LONG)));
    assert_eq!(init(), Ok(()), "it is there");
    assert_eq!(wait(stores.other.release(&key("k"), token)), Released::Released, "and so is what was in it");
    assert_eq!(server.ask("SELECT count(*) FROM \"My \"\"own\"\"\".\"Locks; --\""), "1");
    // A table of another name is another one.
    server.init();
    let others = stores_at(&server.url());
    take(&*others.one, "k", Token::random());
    assert_eq!(wait(stores.one.look(&key("k"), None)), Ok(KeyState::Free));
    // Who may create nothing can ask for what is there.
    let store = PostgresStore::new(&server.user("app", "sesame")).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    assert_eq!(runtime.block_on(store.init()), Ok(()));
}

#[test]
fn a_server_that_forgets_is_warned_of() {
    let server = Postgres::with(&["synchronous_commit=off"]);
    server.init();
    let stores = stores_at(&server.url());
    take(&*stores.one, "k", Token::random());
    let health = wait(stores.one.health());
    assert!(health.answer.is_ok());
    assert_eq!(health.warnings, [Warning::Volatile { setting: "synchronous_commit = off".into() }]);
    assert_eq!(health.warnings[0].name(), "volatile");
}

#[test]
fn a_proxy_that_passes_no_messages_on_is_warned_of_and_locks_go_on() {
    let server = Postgres::start();
    server.init();
    let proxy = PgBouncer::before(&server);
    let (heard, warnings) = mpsc::channel();
    let stores = stores(|| {
        let heard = heard.clone();
        // The test may be over by then.
        PostgresStore::builder(&proxy.url()).on_warning(move |warning| drop(heard.send(warning.clone())))
    });
    until("the warning", || warnings.try_iter().any(|warning| matches!(warning, Warning::Unheard { .. })));
    let token = Token::random();
    take(&*stores.one, "k", token);
    assert_eq!(wait(stores.other.release(&key("k"), token)), Released::Released);
}

#[test]
fn rows_are_forgotten_when_they_are_idle_and_fences_rise_all_the_same() {
    let server = Postgres::start();
    server.init();
    let stores = stores_at(&server.url());
    let [held, idle] = [(); 2].map(|()| Token::random());
    take(&*stores.one, "held", held);
    let fence = take(&*stores.one, "idle", idle);
    take(&*stores.one, "recent", idle);
    for name in ["idle", "recent"] {
        assert_eq!(wait(stores.one.release(&key(name), idle)), Released::Released);
    }
    let age = |name: &str| {
        server.ask(&format!("UPDATE leasehold_locks SET fence = fence - 7200000000 WHERE key = '{name}'"));
    };
    age("idle");
    age("held");
    let sweep = |rows| server.ask(&format!("SELECT leasehold_locks_v1_sweep('', 3600000000, {rows})"));
    assert_eq!(sweep(1), "held", "a page of one row, and where to go on");
    assert_eq!(sweep(100), "", "all of it");
    assert_eq!(server.ask("SELECT string_agg(key, ' ' ORDER BY key) FROM leasehold_locks"), "held recent");
    assert!(take(&*stores.other, "idle", Token::random()) > fence);
    assert_eq!(denied(&ask(&*stores.other, "held", Token::random(), LONG)), Denial::Held);
}

#[test]
fn certificates_are_looked_at_as_sslmode_says() {
    let names = |name: &str| vec![name.to_owned()];
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority = params.self_signed(&authority_key).unwrap();
    let issuer = rcgen::Issuer::from_params(&params, &authority_key);
    let server_key = rcgen::KeyPair::generate().unwrap();
    let certificate =
        rcgen::CertificateParams::new(names("localhost")).unwrap().signed_by(&server_key, &issuer).unwrap();
    let dir = Dir::make();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let (cert, key_file) = (file("cert.pem", &certificate.pem()), file("key.pem", &server_key.serialize_pem()));
    let server = Postgres::with_tls(&cert, &key_file);
    server.init();
    let root = authority.pem();
    let stranger = rcgen::generate_simple_self_signed(names("localhost")).unwrap().cert.pem();
    let works = |host: &str, mode: &str, root: Option<&str>| {
        let url = format!("{}?sslmode={mode}", server.url().replace("127.0.0.1", host));
        let stores = stores(|| {
            let builder = PostgresStore::builder(&url).operation_timeout(Duration::from_secs(2));
            match root {
                Some(pem) => builder.root_certificate(pem),
                None => builder,
            }
        });
        let token = Token::random();
        let granted = is_granted(&ask(&*stores.one, "k", token, LONG));
        if granted {
            assert_eq!(wait(stores.one.release(&key("k"), token)), Released::Released);
            let encrypted = server.ask(
                "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
                    WHERE application_name = 'leasehold'",
            );
            assert_eq!(encrypted, if mode == "disable" { "f" } else { "t" }, "{mode}");
        }
        granted
    };
    for (host, mode, root, good) in [
        ("localhost", "verify-full", Some(&*root), true),
        ("127.0.0.1", "verify-full", Some(&*root), false),
        ("localhost", "verify-full", Some(&*stranger), false),
        ("127.0.0.1", "verify-ca", Some(&*root), true),
        ("127.0.0.1", "verify-ca", Some(&*stranger), false),
        ("127.0.0.1", "require", Some(&*stranger), false),
        ("127.0.0.1", "require", None, true),
        ("127.0.0.1", "prefer", None, true),
        ("127.0.0.1", "disable", None, true),
    ] {
        assert_eq!(works(host, mode, root), good, "{host} {mode} with a root: {}", root.is_some());
    }
}
