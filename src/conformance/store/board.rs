//! The board (S18), for stores that have one.

use std::time::Duration;

use super::{LONG, Stores, until, wait};
use crate::key::Token;
use crate::store::{Board, Post, Store};

/// Runs every check.
pub(super) fn check(stores: &Stores) {
    for check in [a_post_is_read_by_all_until_it_is_replaced_or_taken_down, a_post_comes_to_its_end] {
        check(stores);
    }
}

/// A process that no other check speaks for.
fn process() -> u64 {
    Token::random().as_uuid().as_u64_pair().1
}

#[track_caller]
fn put_up(store: &dyn Store, process: u64, text: &str, life: Duration) -> Board {
    wait(store.put_up(Post { process, text, life })).expect("S18: a store that answers has its board")
}

fn post(board: &Board, process: u64) -> Option<&str> {
    let mut posts = board.posts.iter().filter(|(of, _)| *of == process);
    let post = posts.next().map(|(_, text)| &**text);
    assert!(posts.next().is_none(), "S18: a process has one post");
    post
}

/// S18: what one process puts up, all read, itself too; the next takes its place, and nothing takes it down. Numbers rise.
pub fn a_post_is_read_by_all_until_it_is_replaced_or_taken_down(stores: &Stores) {
    let (me, you) = (process(), process());
    let long = "of two lines\nand a ü ".repeat(800);
    let first = put_up(&*stores.one, me, "first", LONG);
    assert_eq!(post(&first, me), Some("first"), "S18: its own is on it");
    let second = put_up(&*stores.other, you, "yours", LONG);
    assert_eq!((post(&second, me), post(&second, you)), (Some("first"), Some("yours")), "S18");
    let third = put_up(&*stores.one, me, &long, LONG);
    assert_eq!((post(&third, me), post(&third, you)), (Some(&*long), Some("yours")), "S18: the last post counts");
    let fourth = put_up(&*stores.other, you, "", LONG);
    assert_eq!((post(&fourth, me), post(&fourth, you)), (Some(&*long), None), "S18: it was taken down");
    let last = put_up(&*stores.one, me, "", LONG);
    assert_eq!((post(&last, me), post(&last, you)), (None, None));
    let numbers = [&first, &second, &third, &fourth, &last].map(|board| board.number);
    assert!(numbers.is_sorted_by(|one, next| one < next), "S18: {numbers:?} do not rise");
}

/// S18: a post whose life is over is read by nobody.
pub fn a_post_comes_to_its_end(stores: &Stores) {
    let (me, you) = (process(), process());
    put_up(&*stores.one, me, "short", Duration::from_millis(300));
    until("S18: the end of a post", || post(&put_up(&*stores.other, you, "", LONG), me).is_none());
    put_up(&*stores.one, me, "long", LONG);
    assert_eq!(post(&put_up(&*stores.other, you, "", LONG), me), Some("long"));
    put_up(&*stores.one, me, "", LONG);
}
