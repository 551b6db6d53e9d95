//! What becomes of places, tickets and offers, step by step.

use super::*;
use crate::clock::ManualClock;
use crate::key::Key;
use crate::store::redis::keys::SIDE_KEYS;
use crate::store::{Denial, KeyTemplate};

fn tickets() -> (ManualClock, Tickets, KeyNames) {
    let clock = ManualClock::new();
    let tickets = Tickets::new(clock.clock());
    (clock, tickets, KeyNames::new(&KeyTemplate::default(), SIDE_KEYS, &Key::new("k").unwrap()).unwrap())
}

fn begin<'a>(tickets: &'a Tickets, names: &'a KeyNames) -> TicketedTry<'a> {
    of_kind(tickets, names, HoldKind::Exclusive)
}

fn of_kind<'a>(tickets: &'a Tickets, names: &'a KeyNames, kind: HoldKind) -> TicketedTry<'a> {
    match tickets.begin_try(names, OnHeld::Queue, kind, None) {
        Begun::Try(one, None) => one,
        _ => panic!("nothing was handed over"),
    }
}

/// A try that would take the key under the token if it were handed over.
fn try_offering<'a>(tickets: &'a Tickets, names: &'a KeyNames, token: Token) -> Begun<'a> {
    tickets.begin_try(names, OnHeld::QueueForHandOver, HoldKind::Exclusive, Some((token, tickets.now())))
}

const HELD: Acquired = Acquired::Denied { retry_in: None, why: Denial::Held };

#[test]
fn a_place_for_which_nobody_asks_or_listens_any_more_is_given_up() {
    let (clock, tickets, names) = tickets();
    begin(&tickets, &names).settle(&HELD);
    clock.advance(ABANDONED / 2);
    assert_eq!(tickets.round(Vec::new()).renewals.len(), 1, "it may be listened for soon");
    begin(&tickets, &names).settle(&HELD);
    clock.advance(ABANDONED / 2);
    assert_eq!(tickets.round(Vec::new()).renewals.len(), 1, "it was asked for in between");
    clock.advance(ABANDONED / 2);
    let round = tickets.round(Vec::new());
    assert!(round.renewals.is_empty() && round.abandoned.len() == 1);
    assert!(tickets.state.lock().places.is_empty() && tickets.state.lock().resting);
}

#[test]
fn a_dropped_try_leaves_no_place_that_is_renewed() {
    let (clock, tickets, names) = tickets();
    drop(begin(&tickets, &names));
    assert!(tickets.round(Vec::new()).renewals.is_empty());
    clock.advance(TICKET);
    assert!(tickets.round(Vec::new()).abandoned.is_empty(), "the ticket that it may have taken runs out");
    assert!(tickets.state.lock().places.is_empty());
    // One that had a ticket keeps it.
    begin(&tickets, &names).settle(&HELD);
    let number = tickets.state.lock().places[&names].number;
    drop(begin(&tickets, &names));
    assert_eq!(tickets.round(Vec::new()).renewals[0].number, Some(number));
}

#[test]
fn a_granted_try_uses_its_ticket_up_and_tries_that_do_not_wait_have_none() {
    let (_clock, tickets, names) = tickets();
    begin(&tickets, &names).settle(&HELD);
    let first = begin(&tickets, &names);
    let number = first.number();
    first.settle(&Acquired::Granted { fence: None, valid_for: TICKET, clock: None });
    assert!(tickets.state.lock().places.is_empty());
    assert_ne!(begin(&tickets, &names).number(), number, "a call of the old one is not for the new one");
    drop(tickets.begin_try(&names, OnHeld::Fail, HoldKind::Exclusive, None));
    assert!(tickets.state.lock().places.len() == 1);
}

/// A try that waits, and offers to take the key under the token.
fn offering<'a>(tickets: &'a Tickets, names: &'a KeyNames, token: Token) -> (TicketedTry<'a>, Option<Token>) {
    match try_offering(tickets, names, token) {
        Begun::Try(one, refused) => (one, refused),
        Begun::Granted(answer) => panic!("nothing was handed over: {answer:?}"),
    }
}

/// The key is handed over to the offer of a try. Answers whether it is refused.
fn hand_over(tickets: &Tickets, [ticket, offer]: [u64; 2], token: Token) -> bool {
    let mut is_refused = false;
    tickets.handed_over("lock:k", &HandOver::of([ticket, offer, 9], 1_000, token), || is_refused = true);
    is_refused
}

fn numbers(one: &TicketedTry<'_>) -> [u64; 2] {
    [one.number(), one.offer()]
}

#[test]
fn a_key_that_was_handed_over_is_granted_to_the_next_try_with_its_token_and_used_up() {
    let (clock, tickets, names) = tickets();
    let token = Token::random();
    let (one, _) = offering(&tickets, &names, token);
    let place = numbers(&one);
    one.settle(&HELD);
    clock.advance(TICKET / 4);
    assert!(!hand_over(&tickets, place, token));
    match try_offering(&tickets, &names, token) {
        Begun::Granted(Acquired::Granted { fence: Some(9), valid_for, .. }) => assert!(valid_for < TICKET / 4 * 3),
        _ => panic!("it is granted"),
    }
    assert!(tickets.state.lock().places.is_empty(), "its ticket was used up");
}

#[test]
fn one_that_knows_of_little_time_left_asks_the_server_how_much_there_is() {
    let (clock, tickets, names) = tickets();
    let token = Token::random();
    let (one, _) = offering(&tickets, &names, token);
    let place = numbers(&one);
    one.settle(&HELD);
    // Not renewed all that time.
    clock.advance(TICKET / 4 * 3);
    assert!(!hand_over(&tickets, place, token));
    assert!(matches!(try_offering(&tickets, &names, token), Begun::Try(_, None)), "it is not refused either");
}

#[test]
fn a_message_that_comes_before_the_answer_counts_and_the_ticket_is_used_up() {
    let (_clock, tickets, names) = tickets();
    let token = Token::random();
    let (one, _) = offering(&tickets, &names, token);
    assert!(!hand_over(&tickets, numbers(&one), token));
    one.settle(&HELD);
    assert!(tickets.round(Vec::new()).renewals.is_empty(), "there is no ticket to renew");
    assert!(matches!(try_offering(&tickets, &names, token), Begun::Granted(_)));
}

#[test]
fn what_is_handed_over_to_a_request_that_has_gone_is_refused() {
    let (_clock, tickets, names) = tickets();
    let [gone, next] = [Token::random(), Token::random()];
    let (one, _) = offering(&tickets, &names, gone);
    let place = numbers(&one);
    one.settle(&HELD);
    // It arrives before another request of this process tries, or after that.
    assert!(!hand_over(&tickets, place, gone));
    let (one, refused) = offering(&tickets, &names, next);
    assert_eq!(refused, Some(gone));
    one.settle(&HELD);
    let (one, _) = offering(&tickets, &names, gone);
    let place = numbers(&one);
    one.settle(&HELD);
    let (one, refused) = offering(&tickets, &names, next);
    assert_eq!(refused, None);
    assert!(hand_over(&tickets, place, gone));
    // Whoever leaves says under which token the key may have been handed over.
    one.settle(&HELD);
    assert_eq!(tickets.leave(&names).expect("it had a ticket").token, Some(next));
}

/// Random walks found this: the message comes after the answer to a try that was granted what was handed over.
#[test]
fn a_message_that_comes_after_the_answer_does_not_take_a_lock_that_is_held() {
    let (_clock, tickets, names) = tickets();
    let [token, next] = [Token::random(), Token::random()];
    let (one, _) = offering(&tickets, &names, token);
    let place = numbers(&one);
    one.settle(&HELD);
    let (again, _) = offering(&tickets, &names, token);
    again.settle(&Acquired::Granted { fence: Some(9), valid_for: TICKET, clock: None });
    assert!(!hand_over(&tickets, place, token), "nobody waits any more");
    let (_other, _) = offering(&tickets, &names, next);
    assert!(!hand_over(&tickets, place, token), "another request of the process waits");
    // Both may be tried at once.
    let third = Token::random();
    let (one, _) = offering(&tickets, &names, third);
    let (place, (_again, _)) = (numbers(&one), offering(&tickets, &names, next));
    one.settle(&Acquired::Granted { fence: Some(10), valid_for: TICKET, clock: None });
    assert!(!hand_over(&tickets, place, third), "it was granted after the other had begun");
}

#[test]
fn what_a_try_that_was_not_answered_has_offered_is_not_granted() {
    let (_clock, tickets, names) = tickets();
    let token = Token::random();
    let (one, _) = offering(&tickets, &names, token);
    let place = numbers(&one);
    assert!(!hand_over(&tickets, place, token));
    // It is taken back, and with it what was handed over to it.
    drop(one);
    assert!(matches!(try_offering(&tickets, &names, token), Begun::Try(_, None)));
    assert!(!hand_over(&tickets, place, token), "that the clean-up lets go, or its time does");
}

#[test]
fn while_the_same_token_tries_again_what_its_last_try_offered_means_nothing() {
    let (_clock, tickets, names) = tickets();
    let token = Token::random();
    let (one, _) = offering(&tickets, &names, token);
    let place = numbers(&one);
    one.settle(&HELD);
    let (again, refused) = offering(&tickets, &names, token);
    assert_eq!(refused, None);
    assert!(!hand_over(&tickets, place, token), "the try will be granted: it must not be taken back");
    again.settle(&HELD);
    assert!(matches!(try_offering(&tickets, &names, token), Begun::Try(_, None)));
}

#[test]
fn after_a_reconnect_nothing_that_was_said_before_counts() {
    let (_clock, tickets, names) = tickets();
    let token = Token::random();
    let (one, _) = offering(&tickets, &names, token);
    assert!(!hand_over(&tickets, numbers(&one), token));
    one.settle(&HELD);
    tickets.hint_all(Hint::Resumed);
    assert!(matches!(try_offering(&tickets, &names, token), Begun::Try(_, None)));
}

#[test]
fn who_wants_the_other_kind_of_hold_takes_a_new_ticket_and_the_server_forgets_the_old_one() {
    let (_clock, tickets, names) = tickets();
    let first = of_kind(&tickets, &names, HoldKind::Share);
    let old = first.number();
    assert_eq!(kind_of(old), HoldKind::Share);
    first.settle(&HELD);
    let second = of_kind(&tickets, &names, HoldKind::Exclusive);
    let new = second.number();
    assert_eq!(kind_of(new), HoldKind::Exclusive);
    // One that was under way all the time has a ticket of the kind that is not wanted any more.
    let third = of_kind(&tickets, &names, HoldKind::Share);
    second.settle(&HELD);
    third.settle(&HELD);
    let round = tickets.round(Vec::new());
    let abandoned: Vec<u64> = round.abandoned.into_iter().map(|(_, left)| left.ticket).collect();
    assert_eq!(abandoned, [old, new]);
    assert_eq!(
        round.renewals.iter().map(|renewal| renewal.number.map(kind_of)).collect::<Vec<_>>(),
        [Some(HoldKind::Share)]
    );
}
