//! The work itself: the only place where a document becomes a yrs `Doc`, in a process of its own.
//!
//! yrs never collects here (`skip_gc`): its collection frees too early even in ordinary use, while behind scan and causal
//! order its integration has shown no memory error. It is asked what is deleted and what is visible; the collecting is
//! done on bytes (`collect`), and then judged by loading the result anew.

use bytes::Bytes;
use yrs::updates::decoder::Decode as _;
use yrs::updates::encoder::Encode as _;
use yrs::{Doc, OffsetKind, Options, ReadTxn as _, Transact as _, Update};

use super::slices::{Holes, for_each_slice};
use super::visible::{self, VisibleHash};
use super::wire::{Answer, Refusal, Request, Task};
use crate::doc::collect::{CollectError, check, check_ranges, collect};
use crate::doc::scan::{ScanLimits, Scanned, scan};

impl From<Holes> for Refusal {
    fn from(_: Holes) -> Self {
        Self::Holes
    }
}

impl From<CollectError> for Refusal {
    fn from(error: CollectError) -> Self {
        match error {
            CollectError::Holes => Self::Holes,
            CollectError::Unsupported => Self::Unsupported,
            CollectError::WrongRanges => Self::NotIntegrated,
            CollectError::Inconsistent(_) => Self::Malformed,
        }
    }
}

/// Does what is asked. Panics, aborts and loops are the caller's process's to have.
pub(super) fn answer(request: &Request) -> Answer {
    let id = request.id;
    let done = match request.task {
        Task::Collect => {
            deletes_of(&request.update).map(|deletes| Answer::Collected { id, deletes })
        }
        Task::Visible => visible_hash(&request.update).map(|hash| Answer::Visible { id, hash }),
    };
    done.unwrap_or_else(|why| Answer::Refused { id, why })
}

fn checked(update: &Bytes) -> Result<Scanned, Refusal> {
    let raw = scan(update, &ScanLimits::stored()).map_err(|_| Refusal::Malformed)?;
    check(&raw)?;
    Ok(raw)
}

fn visible_hash(update: &Bytes) -> Result<VisibleHash, Refusal> {
    visible::hash(&integrate(&checked(update)?)?)
}

/// Everything deleted in a document, after it was made sure that the document without it reads the same.
fn deletes_of(update: &Bytes) -> Result<Bytes, Refusal> {
    let raw = checked(update)?;
    let doc = integrate(&raw)?;
    let state = doc.transact().state_vector();
    let deletes = delete_only_update(&doc);
    let shown = visible::hash(&doc)?;
    drop(doc);

    let found = scan(&deletes, &ScanLimits::stored()).map_err(|_| Refusal::NotIntegrated)?;
    let (mut ranges, _) = check_ranges(&raw, &found)?;
    let collected = collect(&raw, &mut ranges)?;
    drop(raw);
    let collected = checked(&collected)?;
    let doc = integrate(&collected)?;
    let same = doc.transact().state_vector() == state
        && scan(&delete_only_update(&doc), &ScanLimits::stored()).is_ok_and(|again| {
            check_ranges(&collected, &again).is_ok_and(|(_, news)| news.is_empty())
        })
        && visible::hash(&doc)? == shown;
    if same {
        Ok(deletes)
    } else {
        Err(Refusal::Mismatch)
    }
}

fn delete_only_update(doc: &Doc) -> Bytes {
    let deletes = doc.transact().snapshot().delete_set.encode_v1();
    [&[0], &deletes[..]].concat().into()
}

/// A yrs document of a whole document, piece by piece.
fn integrate(document: &Scanned) -> Result<Doc, Refusal> {
    let doc = Doc::with_options(Options {
        offset_kind: OffsetKind::Utf16,
        skip_gc: true,
        cleanup_formatting: false,
        ..Options::default()
    });
    for_each_slice(document, |piece| {
        let piece = Update::decode_v1(piece).map_err(|_| Refusal::NotIntegrated)?;
        let mut transaction = doc.transact_mut();
        transaction
            .apply_update(piece)
            .map_err(|_| Refusal::NotIntegrated)
    })?;
    if doc.transact().has_missing_updates() {
        return Err(Refusal::NotIntegrated);
    }
    Ok(doc)
}

#[cfg(test)]
#[path = "integrate_tests.rs"]
mod tests;
