//! Between a room and its members: messages, frames, and one edit to many.

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt;
use syncline::auth::Access;
use syncline::doc::{Document, DocumentLimits, ScanLimits, scan};
use syncline::ids::Epoch;
use syncline::protocol::frame::{Caps, Decoder, encode_frame};
use syncline::protocol::message::{ClientDocument, ServerDocument};
use syncline::protocol::position::Position;
use syncline::room::{Config, Effect, Event, Form, Join, Kind, Mailbox, MemberId, Out, State};

use crate::document::ORIGIN;
use crate::report::{Case, Report};
use crate::trace::{TRACE, Trace};

/// How many updates go round before the mailboxes are emptied and the rows committed, off the clock.
const BATCH: usize = 64;

pub(crate) fn all(report: &mut Report) {
    let trace = &*TRACE;
    codec(report, trace);
    fan_out(report, trace);
}

fn codec(report: &mut Report, trace: &Trace) {
    const N: usize = 1_000;
    let sent: Vec<ClientDocument> = (1..)
        .zip(&trace.typing[..N])
        .map(|(sequence, update)| ClientDocument::Update {
            sequence,
            update: update.clone(),
        })
        .collect();
    let relayed: Vec<ServerDocument> = (1..)
        .zip(&trace.typing[..N])
        .map(|(sequence, update)| ServerDocument::Update {
            position: Position::of(ORIGIN, sequence),
            update: update.clone(),
        })
        .collect();
    let messages: Vec<Bytes> = sent.iter().map(ClientDocument::encode).collect();
    let stream: Bytes = messages
        .iter()
        .flat_map(|message| encode_frame(message))
        .collect();
    report.each(Case::new("decode-update", N, "message"), || {
        for message in &messages {
            black_box(ClientDocument::decode(message)).expect("we wrote it");
        }
    });
    report.each(Case::new("encode-update", N, "message"), || {
        for message in &relayed {
            black_box(message.encode());
        }
    });
    report.each(Case::new("decode-frames", N, "frame"), || {
        // In pieces, as a socket gives them.
        let mut decoder = Decoder::new(Caps::TO_SERVER);
        let mut stream = stream.clone();
        let mut n = 0;
        while !stream.is_empty() {
            let mut piece = stream.split_to(stream.len().min(4096));
            while let Some(frame) = decoder.decode(&mut piece).expect("we wrote it") {
                black_box(frame);
                n += 1;
            }
        }
        assert_eq!(n, N);
    });
}

/// A room with its members' mailboxes, and no sockets behind them. Carries out effects as a room's task does.
struct Room {
    state: State,
    mailboxes: HashMap<MemberId, Arc<Mailbox>>,
    now: Instant,
    sequence: u64,
    logged: u64,
}

impl Room {
    fn new(n_readers: u64) -> Self {
        let now = Instant::now();
        let document = Document::new(DocumentLimits::default());
        let epoch = Epoch::from_bytes([7; 16]);
        let mut room = Self {
            state: State::new(Config::default(), document, epoch, ORIGIN, now),
            mailboxes: HashMap::new(),
            now,
            sequence: 0,
            logged: 0,
        };
        for member in (0..=n_readers).map(MemberId) {
            let mailbox = Arc::new(Mailbox::new(Config::default().outbox));
            room.mailboxes.insert(member, mailbox);
            let join = Join {
                member,
                user: "somebody".into(),
                access: Access::Write,
                known_epoch: None,
                client_id: None,
                state_vector: None,
                position: None,
            };
            room.state.handle(Event::Join(join), now);
        }
        room.carry_out();
        room.drain();
        room
    }

    /// The author's edit, from its bytes to everybody's mailbox.
    fn edit(&mut self, update: &Bytes) {
        self.sequence += 1;
        let event = Event::Update {
            member: MemberId(0),
            sequence: self.sequence,
            kind: Kind::Live,
            update: Ok(scan(update, &ScanLimits::default()).expect("the trace is well-formed")),
        };
        self.state.handle(event, self.now);
        self.carry_out();
    }

    fn carry_out(&mut self) {
        self.state.finish();
        while let Some(effect) = self.state.poll_effect() {
            match effect {
                Effect::Relay { update, except } => {
                    for (id, mailbox) in &self.mailboxes {
                        if Some(*id) != except {
                            mailbox.put(|outbox| outbox.push_update(update.clone()));
                        }
                    }
                }
                Effect::Reply(id, out) => {
                    self.mailboxes[&id].reply(out);
                }
                Effect::Log {
                    sequence, update, ..
                } => {
                    self.logged = sequence;
                    black_box(update);
                }
                other => drop(black_box(other)),
            }
        }
    }

    /// The store has committed what was logged.
    fn commit(&mut self) {
        self.state.handle(Event::Durable(self.logged), self.now);
        self.carry_out();
    }

    /// What the members' writers do up to the socket: take all, one shared encoding.
    fn drain(&self) -> usize {
        let mut n = 0;
        let mut batch = Vec::new();
        for mailbox in self.mailboxes.values() {
            let taken = mailbox.take(&mut batch).now_or_never();
            for out in batch.drain(..) {
                if let Out::Update(update) = out {
                    black_box(update.frame(Form::Native, |update| {
                        ServerDocument::Update {
                            position: update.position().clone(),
                            update: update.body().clone(),
                        }
                        .encode()
                    }));
                    n += 1;
                }
            }
            black_box(taken);
        }
        n
    }
}

fn fan_out(report: &mut Report, trace: &Trace) {
    const SIZES: [(u64, &str, &str); 3] = [
        (1, "fan-out-1", "write-out-1"),
        (10, "fan-out-10", "write-out-10"),
        (1_000, "fan-out-1000", "write-out-1000"),
    ];
    for (n_readers, putting, writing) in SIZES {
        let run = |n: u64, is_writing: bool| {
            let mut taken = Duration::ZERO;
            let mut left = n as usize;
            while left > 0 {
                // The document comes in as an edit, and then each letter of the typist is news.
                let mut room = Room::new(n_readers);
                room.edit(&trace.document);
                room.drain();
                room.commit();
                for batch in trace.typing.chunks(BATCH) {
                    let batch = &batch[..batch.len().min(left)];
                    let start = Instant::now();
                    batch.iter().for_each(|update| room.edit(update));
                    let put = start.elapsed();
                    let start = Instant::now();
                    assert_eq!(room.drain(), batch.len() * n_readers as usize);
                    taken += if is_writing { start.elapsed() } else { put };
                    room.commit();
                    left -= batch.len();
                    if left == 0 {
                        break;
                    }
                }
            }
            taken
        };
        report.time(Case::new(putting, 1, "edit to all mailboxes"), |n| {
            run(n, false)
        });
        report.time(Case::new(writing, n_readers as usize, "frame taken"), |n| {
            run(n, true)
        });
    }
}
