//! The rules for "full" of a member's outbox, one test each.

use std::sync::Arc;

use bytes::Bytes;

use super::{Config, Outbox, Pushed, Taken};
use crate::protocol::close::ErrorCode;
use crate::protocol::position::Position;
use crate::room::broadcast::Broadcast;
use crate::room::member::{Closing, Out};

fn config() -> Config {
    Config {
        update_bytes_max: 100,
        updates_max: 10,
        presence_bytes_max: 30,
        reply_bytes_max: 200,
    }
}

fn update(number: u64, len: usize) -> Arc<Broadcast> {
    Arc::new(Broadcast::update(
        number,
        Position::new(),
        Bytes::from(vec![0; len]),
    ))
}

fn presence(len: usize) -> Arc<Broadcast> {
    Arc::new(Broadcast::presence_hint(1, Bytes::from(vec![0; len])))
}

fn take(outbox: &mut Outbox) -> (Vec<Out>, Taken) {
    let mut batch = Vec::new();
    let taken = outbox.take(&mut batch);
    (batch, taken)
}

fn numbers(batch: &[Out]) -> Vec<u64> {
    batch
        .iter()
        .filter_map(|out| match out {
            Out::Update(update) => Some(update.number()),
            _ => None,
        })
        .collect()
}

#[test]
fn a_healthy_reader_gets_everything_in_order() {
    let mut outbox = Outbox::new(config());
    assert!(!outbox.is_ready());
    for number in 1..=5 {
        assert_eq!(outbox.push_update(update(number, 20)), Pushed::Queued);
    }
    let (batch, taken) = take(&mut outbox);
    assert_eq!(numbers(&batch), [1, 2, 3, 4, 5]);
    assert_eq!(taken, Taken::default());
    assert!(!outbox.is_ready());
}

#[test]
fn a_slow_reader_loses_its_queue_and_gets_one_diff_from_where_it_fell_behind() {
    let mut outbox = Outbox::new(config());
    outbox.push_update(update(6, 60));
    outbox.push_update(update(7, 40));
    assert_eq!(outbox.push_update(update(8, 1)), Pushed::FellBehind);
    // The bound holds however much more comes.
    for number in 9..1_000 {
        assert_eq!(outbox.push_update(update(number, 50)), Pushed::Behind);
    }
    let (batch, taken) = take(&mut outbox);
    assert_eq!(numbers(&batch), Vec::<u64>::new());
    assert_eq!(taken.catch_up_from, Some(5), "it has what came before 6");
    assert!(!outbox.is_ready(), "it asks once");

    // The diff may be larger than the bound, and live updates follow it.
    assert_eq!(outbox.push_catch_up(update(999, 5_000)), Pushed::Queued);
    let (batch, _) = take(&mut outbox);
    assert_eq!(numbers(&batch), [999]);
    assert_eq!(outbox.push_update(update(1_000, 10)), Pushed::Queued);
}

/// Found by the interop suite: the diff that a slow member asked for covers what it missed before, so when it is dropped
/// in its turn the member has only what it had before the diff.
#[test]
fn a_dropped_diff_is_asked_for_again_from_where_it_began() {
    let mut outbox = Outbox::new(config());
    outbox.push_update(update(6, 100));
    assert_eq!(outbox.push_update(update(7, 1)), Pushed::FellBehind);
    assert_eq!(take(&mut outbox).1.catch_up_from, Some(5));
    let diff = Broadcast::catch_up(5, 20, Position::new(), Bytes::from(vec![0; 5_000]));
    outbox.push_catch_up(Arc::new(diff));
    assert_eq!(outbox.push_update(update(21, 1)), Pushed::FellBehind);
    assert_eq!(take(&mut outbox).1.catch_up_from, Some(5));
}

#[test]
fn many_small_updates_are_bounded_by_their_number() {
    let mut outbox = Outbox::new(config());
    for number in 1..=10 {
        assert_eq!(outbox.push_update(update(number, 1)), Pushed::Queued);
    }
    assert_eq!(outbox.push_update(update(11, 1)), Pushed::FellBehind);
    assert_eq!(take(&mut outbox).1.catch_up_from, Some(0));
}

#[test]
fn acknowledgements_are_the_newest_of_their_kind_seen_first() {
    let mut outbox = Outbox::new(config());
    for sequence in 1..1_000 {
        outbox.push_reply(Out::Seen(sequence));
        outbox.push_reply(Out::Durable(sequence));
    }
    let (batch, _) = take(&mut outbox);
    assert!(matches!(batch[..], [Out::Seen(999), Out::Durable(999)]));
}

#[test]
fn presence_drops_the_oldest_and_keeps_the_newest() {
    let mut outbox = Outbox::new(config());
    assert_eq!(outbox.push_presence(presence(20)), Pushed::Queued);
    assert_eq!(outbox.push_presence(presence(20)), Pushed::Dropped);
    assert_eq!(outbox.push_presence(presence(90)), Pushed::Dropped);
    let (batch, _) = take(&mut outbox);
    assert!(matches!(&batch[..], [Out::Presence(only)] if only.len() == 90));
}

#[test]
fn application_messages_over_the_bound_are_refused() {
    let mut outbox = Outbox::new(config());
    let message = Arc::new(Broadcast::message(Bytes::from(vec![0; 150])));
    assert_eq!(outbox.push_message(message.clone()), Pushed::Queued);
    assert_eq!(outbox.push_message(message), Pushed::Dropped);
    assert_eq!(take(&mut outbox).0.len(), 1);
}

#[test]
fn a_reader_that_provokes_more_answers_than_it_reads_is_closed() {
    let mut outbox = Outbox::new(config());
    let rejected = |sequence| Out::Rejected {
        sequence,
        code: ErrorCode::InvalidUpdate,
        text: "x".repeat(30),
        terminal: true,
    };
    assert_eq!(outbox.push_reply(rejected(1)), Pushed::Queued);
    assert_eq!(outbox.push_reply(rejected(2)), Pushed::Queued);
    assert_eq!(outbox.push_reply(rejected(3)), Pushed::Dropped);
    let (batch, taken) = take(&mut outbox);
    assert_eq!(batch.len(), 2);
    assert_eq!(taken.closing.unwrap().code, ErrorCode::Overloaded);
    assert!(outbox.is_closed());
}

#[test]
fn the_last_word_comes_after_what_waits_and_nothing_comes_after_it() {
    let mut outbox = Outbox::new(config());
    outbox.push_update(update(1, 1));
    outbox.push_reply(Out::Closed(Closing::new(ErrorCode::Normal, "bye")));
    assert_eq!(outbox.push_update(update(2, 1)), Pushed::Closed);
    assert_eq!(outbox.push_presence(presence(1)), Pushed::Closed);
    let (batch, taken) = take(&mut outbox);
    assert_eq!(numbers(&batch), [1]);
    assert_eq!(taken.closing.unwrap().text, "bye");
    assert!(!outbox.is_ready());
}
