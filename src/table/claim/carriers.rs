//! Shares of a key that others of this process ride on: [`Carriers`] (K7).
//!
//! Where claims may be reused, a share that the store has granted is a *carrier*: further requests of this process for a
//! share hold the key under its token. They cost the store nothing, and show the carrier's fence: it is above that of every
//! writer before them, and below that of every later one.
//!
//! | a carrier is | until | who asks for a share meanwhile |
//! |---|---|---|
//! | fresh | a second has passed since the store granted it ([`FRESH`]) | rides on it |
//! | ageing | another second has passed ([`OPEN`]) | one takes a share of its own from the store, the next carrier; all others ride |
//! | closed | its last rider has ended | takes a share of its own from the store |
//!
//! It is closed before its time when another process is known to wait for the key alone, or the store may have forgotten
//! what it keeps (K6). So a message that is lost costs such a process two seconds, and no more.
//!
//! The request that a carrier was taken for rides on it like the others: whoever ends last has it released. Riders end
//! each by itself, when they are released or run out; those of a carrier that the store does not keep any more end
//! together. A refresh of one extends the carrier, unless another's has done so.
//!
//! A lock under a claim of its process that becomes a share rides on that claim alone: it is closed from the beginning, since
//! its fence was shown by a writer.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use super::reuse::EXTEND_AFTER;
use crate::clock::Moment;
use crate::key::{FencingToken, Token};

/// After so long one request asks the store, to see who else waits.
const FRESH: Duration = Duration::from_secs(1);
/// After so long nobody rides any more who did not before.
const OPEN: Duration = Duration::from_secs(2);
/// A carrier's extension that was not answered for so long is asked for again.
const ASKED: Duration = EXTEND_AFTER;

/// Which of a key's carriers, over time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(in crate::table) struct CarrierNumber(NonZeroU32);

/// The carriers of one key that have riders. The last one is the only one that may be open.
#[derive(Debug, Default)]
pub(in crate::table) struct Carriers {
    by_number: BTreeMap<CarrierNumber, Carrier>,
    last: u32,
}

#[derive(Debug)]
pub(in crate::table) struct Carrier {
    /// What the store keeps it under. Nobody else knows it.
    pub(super) token: Token,
    pub(super) fence: Option<FencingToken>,
    /// Until when the store keeps it, as far as is known.
    pub(super) deadline: Moment,
    granted_at: Moment,
    /// The table's `claims_epoch` when the store was asked for it (K6).
    epoch: u32,
    is_closed: bool,
    riders: u32,
    /// When the store was asked to extend it, without an answer so far.
    asked: Option<Moment>,
}

/// Whether a carrier takes riders.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Age {
    Fresh,
    Ageing,
}

impl Carrier {
    /// A share that the store has granted, with the rider that it was taken for.
    pub(super) fn new(
        (token, epoch): (Token, u32),
        fence: Option<FencingToken>,
        deadline: Moment,
        granted_at: Moment,
    ) -> Self {
        Self { token, fence, deadline, granted_at, epoch, is_closed: false, riders: 1, asked: None }
    }

    /// It takes no riders.
    pub(super) fn close(&mut self) {
        self.is_closed = true;
    }

    /// It lasts until then, by the store's answer.
    pub(super) fn extended(&mut self, deadline: Moment) {
        self.deadline = self.deadline.max(deadline);
        self.asked = None;
    }

    /// Whether the store is to be asked to extend it now; not, if it was a moment ago, and has not answered.
    pub(super) fn ask(&mut self, now: Moment) -> bool {
        let is_asked = self.asked.is_some_and(|asked| now.saturating_since(asked) < ASKED);
        if !is_asked {
            self.asked = Some(now);
        }
        !is_asked
    }
}

impl Carriers {
    /// The store has granted one more.
    pub(super) fn add(&mut self, carrier: Carrier) -> CarrierNumber {
        self.last = self.last.saturating_add(1);
        let number = CarrierNumber(NonZeroU32::new(self.last).unwrap_or(NonZeroU32::MIN));
        self.by_number.insert(number, carrier);
        number
    }

    /// The one that takes riders, if there is one.
    pub(super) fn open(&self, now: Moment, epoch: u32) -> Option<(CarrierNumber, Age, &Carrier)> {
        let (number, carrier) = self.by_number.last_key_value()?;
        let age = match now.saturating_since(carrier.granted_at) {
            age if age < FRESH => Age::Fresh,
            age if age < OPEN => Age::Ageing,
            _ => return None,
        };
        (!carrier.is_closed && carrier.epoch == epoch).then_some((*number, age, carrier))
    }

    /// One more rides on it.
    pub(super) fn board(&mut self, number: CarrierNumber) {
        if let Some(carrier) = self.by_number.get_mut(&number) {
            carrier.riders += 1;
        }
    }

    /// One does not any more. The carrier, if that was the last.
    pub(super) fn alight(&mut self, number: CarrierNumber) -> Option<Carrier> {
        let carrier = self.by_number.get_mut(&number)?;
        carrier.riders -= 1;
        if carrier.riders == 0 { self.by_number.remove(&number) } else { None }
    }

    /// None takes riders any more, also when later ones have ended. Answers whether one did.
    pub(super) fn close(&mut self) -> bool {
        let mut was_open = false;
        for carrier in self.by_number.values_mut() {
            was_open = !std::mem::replace(&mut carrier.is_closed, true);
        }
        was_open
    }

    pub(super) fn get(&self, number: CarrierNumber) -> Option<&Carrier> {
        self.by_number.get(&number)
    }

    pub(super) fn get_mut(&mut self, number: CarrierNumber) -> Option<&mut Carrier> {
        self.by_number.get_mut(&number)
    }

    /// The carriers with their numbers of riders.
    #[cfg(test)]
    pub(in crate::table) fn riders(&self) -> BTreeMap<CarrierNumber, u32> {
        self.by_number.iter().map(|(number, carrier)| (*number, carrier.riders)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment::from_nanos(1 << 40).saturating_add(Duration::from_millis(500 * seconds))
    }

    fn granted(carriers: &mut Carriers, at: Moment) -> CarrierNumber {
        carriers.add(Carrier::new((Token::random(), 7), None, at.saturating_add(OPEN * 10), at))
    }

    fn age(carriers: &Carriers, now: Moment, epoch: u32) -> Option<Age> {
        carriers.open(now, epoch).map(|(_, age, _)| age)
    }

    #[test]
    fn a_carrier_ages_and_closes_by_itself() {
        let mut carriers = Carriers::default();
        granted(&mut carriers, at(0));
        let ages: Vec<_> = (0..6).map(|halves| age(&carriers, at(halves), 7)).collect();
        assert_eq!(ages, [Some(Age::Fresh), Some(Age::Fresh), Some(Age::Ageing), Some(Age::Ageing), None, None]);
        assert_eq!(age(&carriers, at(0), 8), None, "the store may have forgotten it");
    }

    #[test]
    fn the_last_one_alone_takes_riders_and_each_is_released_by_its_own_last_rider() {
        let mut carriers = Carriers::default();
        let old = granted(&mut carriers, at(0));
        let new = granted(&mut carriers, at(1));
        assert_eq!(carriers.open(at(1), 7).map(|(number, ..)| number), Some(new));
        carriers.board(new);
        assert!(carriers.close() && !carriers.close(), "it was told once");
        assert_eq!(age(&carriers, at(1), 7), None);
        assert!(carriers.alight(new).is_none() && carriers.alight(new).is_some() && carriers.alight(new).is_none());
        assert!(carriers.get(old).is_some(), "it has its rider still");
    }

    #[test]
    fn an_extension_is_asked_for_once_until_it_is_answered_or_late() {
        let mut carrier = Carrier::new((Token::random(), 7), None, at(2), at(0));
        assert!(carrier.ask(at(0)) && !carrier.ask(at(0)));
        carrier.extended(at(1));
        assert_eq!(carrier.deadline, at(2), "never earlier");
        assert!(carrier.ask(at(0)) && carrier.ask(at(1)), "the answer did not come");
    }
}
