//! D8, D9: what cannot be opened is left as it is, and the error says what to do.

use std::fs;
use std::sync::Arc;

use super::super::builder::Durability;
use super::*;
use crate::store::StoreError;

/// A directory in which some locks are held.
fn used() -> (Dir, Token) {
    let (dir, token) = (Dir::new(), Token::random());
    let store = started(dir.builder());
    for n in 0..40 {
        take(&store, &format!("k{n}"), token);
    }
    block_on(store.stop());
    (dir, token)
}

#[track_caller]
fn refused(builder: FileBuilder) -> Arc<str> {
    match block_on(builder.build().unwrap().start()) {
        Err(StoreError::Config(why)) => why,
        answer => panic!("{answer:?}"),
    }
}

#[test]
fn a_directory_is_open_once_at_a_time() {
    let (dir, _) = used();
    let first = started(dir.builder());
    let why = refused(dir.builder());
    assert!(why.contains(&*dir.0.to_string_lossy()) && why.contains("in use"), "{why}");
    block_on(first.stop());
    block_on(started(dir.builder()).stop());
}

#[test]
fn a_file_that_is_torn_or_changed_is_refused_and_left_as_it_is_or_read_as_it_was() {
    let (dir, token) = used();
    let whole = fs::read(dir.file()).unwrap();
    let mut random = fastrand::Rng::new();
    let mut refusals = 0;
    for round in 0..60 {
        let mut bytes = whole.clone();
        match round % 3 {
            0 => bytes.truncate(random.usize(..whole.len())),
            1 => (0..random.usize(1..200)).for_each(|_| bytes[random.usize(..whole.len())] ^= 1 << random.u8(..8)),
            _ => {
                let from = random.usize(..whole.len());
                let to = whole.len().min(from + random.usize(1..16_384));
                bytes[from..to].fill(0);
            }
        }
        fs::write(dir.file(), &bytes).unwrap();
        let store = dir.builder().build().unwrap();
        match block_on(store.start()) {
            // What was hit is of no use any more, or stands there twice.
            Ok(()) => {
                assert!((0..40).all(|n| left(&store, &format!("k{n}"), token).is_some()), "a lock was forgotten");
                block_on(store.stop());
            }
            Err(StoreError::Config(why)) => {
                refusals += 1;
                assert!(why.contains(&*dir.file().to_string_lossy()) && why.contains("move it away"), "{why}");
                assert!(fs::read(dir.file()).unwrap() == bytes, "it was written to");
            }
            Err(why) => panic!("{why:?}"),
        }
    }
    assert!(refusals > 5, "{refusals} refusals show nothing");
    fs::write(dir.file(), &whole).unwrap();
    let store = started(dir.builder());
    assert!(left(&store, "k7", token).is_some(), "a copy is as good");
    block_on(store.stop());
}

#[test]
fn an_empty_file_is_no_new_one() {
    let (dir, _) = used();
    fs::write(dir.file(), []).unwrap();
    let why = refused(dir.builder());
    assert!(why.contains("it is empty"), "{why}");
    // Nor is another program's.
    fs::write(dir.file(), [b'x'; 8192]).unwrap();
    refused(dir.builder());
    fs::remove_file(dir.file()).unwrap();
    redb::Database::create(dir.file()).unwrap();
    let why = refused(dir.builder());
    assert!(why.contains("not of this program"), "{why}");
}

#[test]
fn what_stands_where_the_directory_should_be_is_named() {
    let dir = Dir::new();
    fs::write(&dir.0, b"a file").unwrap();
    let why = refused(dir.builder());
    assert!(why.contains("cannot make the directory") && why.contains(&*dir.0.to_string_lossy()), "{why}");
    fs::remove_file(&dir.0).unwrap();
}

#[cfg(unix)]
#[test]
fn nobody_else_reads_what_it_makes() {
    use std::os::unix::fs::PermissionsExt;
    let (dir, _) = used();
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&dir.0), mode(&dir.file())), (0o700, 0o600));
}

#[test]
fn settings_out_of_their_bounds_are_refused() {
    let (dir, ms) = (Dir::new(), Duration::from_millis);
    let relaxed = |every| dir.builder().durability(Durability::Relaxed { every });
    let hour = Duration::from_hours(1);
    for wrong in
        [dir.builder().operation_timeout(ms(9)), relaxed(Duration::ZERO), relaxed(hour), FileStore::builder("")]
    {
        assert!(matches!(wrong.build(), Err(StoreError::Config(_))));
    }
    assert!(!dir.0.exists());
}
